//! The whole document: finds the desired properties of `$edgeAgent` in it and reads them.

use std::collections::BTreeMap;

use kobune_runtime::ContainerId;
use serde_json::{Map, Value};

use super::fields::{Fault, Fields, Findings, Node};
use super::{
    Deployment, InvalidDeployment, ModuleSpec, Problem, ProblemKind, RegistryCredentials,
    Strictness, SystemModule, chunks, module, registry,
};

pub(super) fn parse(text: &str, strictness: Strictness) -> Result<Deployment, InvalidDeployment> {
    let document: Value = serde_json::from_str(text).map_err(|error| {
        let message = format!("the deployment is no valid JSON: {error}");
        InvalidDeployment::document(ProblemKind::ConfigFormat, message)
    })?;
    let desired = locate(&Node::new("", &document)).map_err(|fault| InvalidDeployment {
        kind: ProblemKind::ConfigFormat,
        problems: vec![Problem::new(None, fault)],
    })?;
    if is_empty(desired.value()) {
        let message = "the deployment is empty: it has no properties for $edgeAgent";
        return Err(InvalidDeployment::document(ProblemKind::Empty, message));
    }
    let fields = desired.object().map_err(|fault| InvalidDeployment {
        kind: ProblemKind::ConfigFormat,
        problems: vec![Problem::new(None, fault)],
    })?;
    Reader::new(strictness).deployment(fields)
}

/// The desired properties inside of whatever stands around them.
fn locate<'a>(node: &Node<'a>) -> Result<Node<'a>, Fault> {
    const WRAPPERS: [&str; 7] = [
        "content",
        "modulescontent",
        "modulecontent",
        "$edgeagent",
        "properties.desired",
        "properties",
        "desired",
    ];
    let Value::Object(members) = node.value() else {
        return node.object().map(|_| node.clone());
    };
    let is_layer = |name: &&String| name.to_ascii_lowercase().starts_with("properties.desired.");
    if let Some(name) = members.keys().find(is_layer) {
        return Err(node.fault(format!(
            "has {name:?}, which is a layer: only a whole deployment can be applied"
        )));
    }
    let mut fields = node.object()?;
    for wrapper in WRAPPERS {
        if let Some(inner) = fields.take_present(wrapper) {
            return locate(&inner);
        }
    }
    let only_modules = members.keys().all(|name| name == "$edgeHub");
    if only_modules && !members.is_empty() {
        return Err(node.fault("has no $edgeAgent"));
    }
    Ok(node.clone())
}

/// Whether nothing but what hubs add (`$version`, `$metadata`) is there.
fn is_empty(desired: &Value) -> bool {
    let members = desired.as_object();
    members.is_some_and(|members| {
        members
            .iter()
            .all(|(name, value)| name.starts_with('$') || value.is_null())
    })
}

/// Reads desired properties to their end.
struct Reader {
    strictness: Strictness,
    findings: Findings,
    /// Problems of modules.
    problems: Vec<Problem>,
    /// The schema version, where it is one that is not supported.
    schema: Option<Fault>,
}

impl Reader {
    fn new(strictness: Strictness) -> Self {
        Self {
            strictness,
            findings: Findings::default(),
            problems: Vec::new(),
            schema: None,
        }
    }

    fn deployment(mut self, mut fields: Fields<'_>) -> Result<Deployment, InvalidDeployment> {
        let schema_version = self.schema_version(&mut fields);
        let registries = self.runtime(&mut fields);
        let system_modules = self.system_modules(&mut fields);
        let modules = self.modules(&mut fields);
        // A block of signed manifests, which is not checked.
        self.findings.warn_leftovers(fields);
        let warnings = module::warnings(&mut self.findings);
        self.verdict()?;
        Ok(Deployment {
            schema_version,
            registries,
            system_modules,
            modules,
            warnings,
        })
    }

    /// Everything that is wrong, the schema version first.
    fn verdict(self) -> Result<(), InvalidDeployment> {
        let faults = self.findings.faults.into_iter();
        let format: Vec<Problem> = faults
            .map(|fault| Problem::new(None, fault))
            .chain(self.problems)
            .collect();
        let schema = self.schema.map(|fault| Problem::new(None, fault));
        let kind = match (format.is_empty(), &schema) {
            (true, None) => return Ok(()),
            (true, Some(_)) => ProblemKind::Schema,
            (false, _) => ProblemKind::ConfigFormat,
        };
        let problems = schema.into_iter().chain(format).collect();
        Err(InvalidDeployment { kind, problems })
    }

    fn schema_version(&mut self, fields: &mut Fields<'_>) -> String {
        let Some(node) = self.findings.accept(fields.require("schemaVersion")) else {
            return String::new();
        };
        let Some(text) = self.findings.accept(node.text()) else {
            return String::new();
        };
        if !is_supported_schema(&text) {
            let message = format!("is {text:?}: supported are 1.0 and 1.1");
            self.schema = Some(node.fault(message));
        }
        text
    }

    /// Reads `runtime`: of its settings only the registries mean something here.
    fn runtime(&mut self, fields: &mut Fields<'_>) -> BTreeMap<String, RegistryCredentials> {
        let mut registries = BTreeMap::new();
        let node = self.section(fields, "runtime");
        let Some(mut runtime) = self.findings.read(node, Node::object) else {
            return registries;
        };
        let kind = self.section(&mut runtime, "type");
        self.findings.read(kind, module::docker_type);
        let settings = runtime.take("settings");
        self.findings.warn_leftovers(runtime);
        let Some(mut settings) = self.findings.read(settings, Node::object) else {
            return registries;
        };
        settings.take("mindockerversion");
        settings.take("loggingoptions");
        let entries = settings.take("registrycredentials");
        self.findings.warn_leftovers(settings);
        let entries = self.findings.read(entries, Node::entries);
        for (id, node) in entries.into_iter().flatten() {
            if !node.value().is_null()
                && let Some(credentials) = registry::parse(&node, &mut self.findings)
            {
                registries.insert(id.to_owned(), credentials);
            }
        }
        registries
    }

    /// Reads `systemModules`, which are kept as data: only what a twin must have is checked.
    fn system_modules(&mut self, fields: &mut Fields<'_>) -> BTreeMap<String, SystemModule> {
        let node = self.section(fields, "systemModules");
        let entries = self.findings.read(node, Node::entries);
        let mut modules = BTreeMap::new();
        for (name, node) in entries.into_iter().flatten() {
            if !node.value().is_null()
                && let Some(module) = self.findings.accept(system_module(&node))
            {
                modules.insert(name.to_owned(), module);
            }
        }
        modules
    }

    fn modules(&mut self, fields: &mut Fields<'_>) -> BTreeMap<ContainerId, ModuleSpec> {
        let entries = self.findings.read(fields.take("modules"), Node::entries);
        let mut modules = BTreeMap::new();
        for (name, node) in entries.into_iter().flatten() {
            // null is what is left of a module that a patch removed.
            if node.value().is_null() {
                continue;
            }
            let mut findings = Findings::default();
            let id = findings.accept(module_name(name));
            let inner = Node::new("", node.value());
            let spec = module::parse(&inner, self.strictness, &mut findings);
            if findings.faults.is_empty()
                && let (Some(id), Some(spec)) = (id, spec)
            {
                modules.insert(id, spec);
            }
            let problem = |fault| Problem::new(Some(name), fault);
            self.problems
                .extend(findings.faults.into_iter().map(problem));
        }
        modules
    }

    /// A member that a twin must have.
    fn section<'a>(&mut self, fields: &mut Fields<'a>, name: &str) -> Option<Node<'a>> {
        match self.strictness {
            Strictness::Twin => self.findings.accept(fields.require(name)),
            Strictness::Local => fields.take(&name.to_ascii_lowercase()),
        }
    }
}

fn system_module(node: &Node<'_>) -> Result<SystemModule, Fault> {
    let mut fields = node.object()?;
    let mut module = SystemModule {
        image: String::new(),
        create_options: Value::Object(Map::new()),
    };
    if let Some(settings) = fields.take("settings") {
        let mut settings = settings.object()?;
        if let Some(image) = settings.take("image") {
            module.image = image.text()?.trim().to_owned();
        }
        if let Ok(joined) = chunks::take(&mut settings) {
            module.create_options = joined.value;
        }
    }
    Ok(module)
}

/// The rule of IoT Edge (no dots: a name is a key of a twin) and that of container names.
fn module_name(name: &str) -> Result<ContainerId, Fault> {
    let id = ContainerId::try_from(name).ok();
    id.filter(|_| !name.contains('.')).ok_or_else(|| Fault {
        path: String::new(),
        message: "is no name of a module: 1 to 64 of letters, digits, '_' and '-', \
                  and a letter or digit first"
            .to_owned(),
    })
}

/// 1.0 and 1.1, also written with more numbers.
fn is_supported_schema(text: &str) -> bool {
    let numbers: Option<Vec<u32>> = text.trim().split('.').map(|n| n.parse().ok()).collect();
    matches!(
        numbers.as_deref(),
        Some([1, 0 | 1] | [1, 0, _] | [1, 0, _, _] | [1, 1, 0])
    )
}
