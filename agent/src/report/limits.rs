//! What a hub takes of reported properties. What is beyond is left out by rank, so that
//! the rest arrives: a report that is too large is refused whole.

use serde_json::{Map, Value};

/// A hub takes 32 KiB; some is left for how it counts.
const MAX_REPORT: usize = 30 << 10;
/// Bytes of one text.
const MAX_TEXT: usize = 4096;
/// Characters of a description: it is read by people, in a table.
const MAX_DESCRIPTION: usize = 512;
/// Characters of a description where space is short.
const SHORT_DESCRIPTION: usize = 80;

/// What people and queries look for when something is wrong with a module.
const STATE: [&str; 4] = ["runtimeStatus", "exitCode", "statusDescription", "type"];

/// Leaves out what is worth least until the report is small enough: variables, then
/// createOptions, then the ends of descriptions, then the registries, and at last everything
/// but the state of each module.
pub(super) fn fit(report: &mut Value) {
    let steps: [fn(&mut Map<String, Value>); 4] = [
        |module| {
            module.remove("env");
        },
        |module| {
            if let Some(settings) = module.get_mut("settings").and_then(Value::as_object_mut) {
                settings.retain(|name, _| !name.starts_with("createOptions"));
            }
        },
        |module| {
            if let Some(Value::String(text)) = module.get_mut("statusDescription") {
                *text = cut(text, SHORT_DESCRIPTION);
            }
        },
        |module| module.retain(|name, _| STATE.contains(&name.as_str())),
    ];
    for (index, step) in steps.into_iter().enumerate() {
        if size(report) <= MAX_REPORT {
            return;
        }
        if index + 1 == steps.len() {
            drop_registries(report);
            if size(report) <= MAX_REPORT {
                return;
            }
        }
        for section in ["modules", "systemModules"] {
            let modules = report.get_mut(section).and_then(Value::as_object_mut);
            for (_, module) in modules.into_iter().flatten() {
                if let Value::Object(module) = module {
                    step(module);
                }
            }
        }
    }
}

fn drop_registries(report: &mut Value) {
    let settings = report.pointer_mut("/runtime/settings");
    if let Some(settings) = settings.and_then(Value::as_object_mut) {
        settings.remove("registryCredentials");
    }
}

/// A description of bearable length.
pub(super) fn text(text: String) -> String {
    if text.len() <= MAX_DESCRIPTION {
        return text;
    }
    cut(&text, MAX_DESCRIPTION)
}

/// Whether a twin takes the text as a value.
pub(super) fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT
}

/// Whether a twin takes the text as a name.
pub(super) fn is_key(name: &str) -> bool {
    let refused = |c: char| c.is_control() || matches!(c, '.' | '$' | '#' | ' ');
    !name.is_empty() && name.len() <= 1024 && !name.contains(refused)
}

fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters - 3).collect();
    kept + "..."
}

/// Bytes as a hub counts them: of names and texts, 8 for a number, 4 for a boolean.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => {
            let sizes = members.iter().map(|(name, value)| name.len() + size(value));
            sizes.sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(modules: usize, options: usize, env: usize) -> Value {
        let module = json!({"statusDescription": "d".repeat(300), "runtimeStatus": "running",
            "env": {"A": {"value": "v".repeat(env)}},
            "settings": {"image": "i", "createOptions": "o".repeat(options)}});
        let modules = (0..modules).map(|index| (format!("m{index}"), module.clone()));
        json!({"modules": modules.collect::<Map<_, _>>(),
            "runtime": {"settings": {"registryCredentials": {"a": {"address": "x"}}}}})
    }

    #[test]
    fn what_is_worth_least_goes_first() {
        let mut small = report(2, 100, 100);
        let before = small.clone();
        fit(&mut small);
        assert_eq!(small, before);

        let mut much_env = report(10, 500, 4000);
        fit(&mut much_env);
        assert!(much_env["modules"]["m0"].get("env").is_none());
        assert!(
            much_env["modules"]["m0"]["settings"]
                .get("createOptions")
                .is_some()
        );

        let mut much = report(50, 4000, 4000);
        fit(&mut much);
        assert!(size(&much) <= MAX_REPORT);
        assert_eq!(much["modules"]["m49"]["settings"], json!({"image": "i"}));
        assert_eq!(much["modules"]["m49"]["runtimeStatus"], "running");
    }

    #[test]
    fn the_state_of_fifty_modules_always_fits() {
        let mut report = report(50, 4000, 4000);
        for module in report["modules"].as_object_mut().unwrap().values_mut() {
            module["settings"]["image"] = json!("i".repeat(1000));
        }
        fit(&mut report);
        assert!(size(&report) <= MAX_REPORT, "{}", size(&report));
        let last = &report["modules"]["m49"];
        assert_eq!(last["runtimeStatus"], "running");
        assert!(last["statusDescription"].is_string());
        assert!(last.get("settings").is_none());
    }

    #[test]
    fn texts_and_names_are_those_that_a_twin_takes() {
        assert_eq!(text("x".repeat(600)).len(), MAX_DESCRIPTION);
        assert_eq!(text("short".to_owned()), "short");
        for name in ["A", "snake_case", "a-b"] {
            assert!(is_key(name), "{name}");
        }
        for name in ["", "a.b", "$a", "a b", "a#", "a\n"] {
            assert!(!is_key(name), "{name}");
        }
    }
}
