//! Reads JSON the way Go and .NET do, and remembers where every value stands.
//!
//! Names match in any case, `null`, `[]`, `{}` and missing are the same, and numbers and
//! booleans may be written as text: portals, templates and Docker's own decoder let all of
//! that through, so deployed manifests contain it. Messages name types and places but
//! never repeat a value, which may be a secret.

use std::collections::BTreeMap;

use serde_json::Value;

/// A value together with its path from the root of the document.
#[derive(Clone)]
pub(super) struct Node<'a> {
    path: String,
    value: &'a Value,
}

/// The members of an object that nobody has taken yet.
#[derive(Default)]
pub(super) struct Fields<'a> {
    path: String,
    /// By name in lower case.
    members: BTreeMap<String, Node<'a>>,
}

/// What is wrong with the value at `path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) path: String,
    pub(super) message: String,
}

/// Collects faults and warnings so that a document is read to its end.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// What the module asks for and cannot have, which must not be ignored either.
    pub(super) refusals: Vec<Fault>,
}

impl<'a> Node<'a> {
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        let path = path.into();
        Self { path, value }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            path: self.path.clone(),
            message: message.into(),
        }
    }

    fn must_be(&self, what: &str) -> Fault {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.fault(format!("must be {what}, not {found}"))
    }

    /// Text as it stands; a number or boolean as it is written.
    pub(super) fn text(&self) -> Result<String, Fault> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(bool) => Ok(bool.to_string()),
            _ => Err(self.must_be("text")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        match self.value {
            Value::Bool(bool) => Ok(*bool),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.must_be("true or false")),
        }
    }

    /// A whole number; `7.0` is one too, because twins return floats.
    pub(super) fn integer(&self) -> Result<i64, Fault> {
        let whole = match self.value {
            Value::Number(number) => number
                .as_i64()
                .or_else(|| number.as_f64().and_then(whole_number)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        whole.ok_or_else(|| match self.value {
            Value::Number(_) => self.fault("must be a whole number of 64 bits"),
            _ => self.must_be("a whole number"),
        })
    }

    /// The items of a list, `null` ones left out.
    pub(super) fn list(&self) -> Result<Vec<Self>, Fault> {
        let Value::Array(items) = self.value else {
            return Err(self.must_be("a list"));
        };
        let at = |(index, value)| Self::new(format!("{}[{index}]", self.path), value);
        let present = items.iter().enumerate().filter(|(_, v)| !v.is_null());
        Ok(present.map(at).collect())
    }

    /// The members of an object whose names are data (modules, labels, ports): in the case
    /// that they have, `null` ones included.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, Fault> {
        let Value::Object(members) = self.value else {
            return Err(self.must_be("an object"));
        };
        let at = |(name, value): (&'a String, &'a Value)| {
            let path = join(&self.path, name);
            (name.as_str(), Self { path, value })
        };
        Ok(members.iter().map(at).collect())
    }

    /// The members of an object whose names are fields, to be taken in any case.
    pub(super) fn object(&self) -> Result<Fields<'a>, Fault> {
        let mut members = BTreeMap::new();
        for (name, node) in self.entries()? {
            if let Some(other) = members.insert(name.to_ascii_lowercase(), node) {
                return Err(other.fault(format!("is given twice, also as {name:?}")));
            }
        }
        let path = self.path.clone();
        Ok(Fields { path, members })
    }

    /// Whether it is `null`, `[]` or `{}`.
    fn is_absent(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        }
    }

    /// Whether it says what leaving it out says: absent, `false`, `0`, `""`, or an object of
    /// nulls.
    fn is_zero(&self) -> bool {
        match self.value {
            Value::Bool(bool) => !bool,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Object(members) => members.values().all(Value::is_null),
            _ => self.is_absent(),
        }
    }
}

impl<'a> Fields<'a> {
    /// Takes the member `name` (in lower case), unless it is absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        self.members.remove(name).filter(|node| !node.is_absent())
    }

    /// Gives back a member that was taken.
    pub(super) fn put_back(&mut self, name: &str, node: Node<'a>) {
        self.members.insert(name.to_owned(), node);
    }

    /// Takes the member `name`, spelled as in the standard; a missing one is a fault.
    pub(super) fn require(&mut self, name: &str) -> Result<Node<'a>, Fault> {
        // A required list or object may be empty; only null and missing are refused here.
        self.take_present(&name.to_ascii_lowercase())
            .ok_or_else(|| Fault {
                path: join(&self.path, name),
                message: "is missing".to_owned(),
            })
    }

    /// As [`Self::take`], also where it is empty.
    pub(super) fn take_present(&mut self, name: &str) -> Option<Node<'a>> {
        self.members
            .remove(name)
            .filter(|node| !node.value.is_null())
    }

    /// Takes the members whose name is `prefix` and digits after it, in the order of those.
    pub(super) fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, Node<'a>)> {
        let suffix_of = |name: &str| -> Option<String> {
            let suffix = name.strip_prefix(prefix)?;
            let digits = suffix.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| suffix.to_owned())
        };
        let names: Vec<String> = self.members.keys().cloned().collect();
        let taken = names.iter().filter_map(|name| {
            let suffix = suffix_of(name)?;
            Some((suffix, self.members.remove(name)?))
        });
        let mut taken: Vec<_> = taken.collect();
        taken.sort_by_key(|(suffix, _)| suffix.parse::<u64>().unwrap_or_default());
        taken
    }

    /// Where a member would stand.
    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The members that nobody took, by name in lower case; those that say nothing, and
    /// those that a hub adds (`$version`), are left out.
    pub(super) fn leftovers(self) -> impl Iterator<Item = (String, Node<'a>)> {
        self.members
            .into_iter()
            .filter(|(name, node)| !name.starts_with('$') && !node.is_zero())
    }
}

impl Findings {
    /// The value, or `None` with the fault noted.
    pub(super) fn accept<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.faults.push(fault)).ok()
    }

    /// Reads an optional value: `None` where it is absent or wrong, the latter noted.
    pub(super) fn read<'a, T>(
        &mut self,
        node: Option<Node<'a>>,
        parse: impl FnOnce(&Node<'a>) -> Result<T, Fault>,
    ) -> Option<T> {
        self.accept(parse(&node?))
    }

    /// Reads every item of an optional list and keeps the good ones.
    pub(super) fn read_list<'a, T>(
        &mut self,
        node: Option<Node<'a>>,
        parse: impl Fn(&Node<'a>) -> Result<T, Fault>,
    ) -> Vec<T> {
        let items = self.read(node, Node::list).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| self.accept(parse(item)))
            .collect()
    }

    pub(super) fn warn(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.warnings.push(node.fault(message));
    }

    /// The module is valid and is not run.
    pub(super) fn refuse(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.refusals.push(node.fault(message));
    }

    /// Warns of every member that nobody took.
    pub(super) fn warn_leftovers(&mut self, fields: Fields<'_>) {
        for (_, node) in fields.leftovers() {
            self.warn(&node, "is not supported and has no effect");
        }
    }
}

/// `parent.name`, and `name` alone at the root.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// Whole and exactly representable.
fn whole_number(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() != 0.0 || number.abs() > EXACT {
        return None;
    }
    // `{:.0}` of a whole number in this range has no fraction and fits.
    format!("{number:.0}").parse().ok()
}
