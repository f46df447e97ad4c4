//! Changes of tags as the command line writes them. Pure.

use serde_json::{Map, Value};

/// One change: `NAME=TEXT`, `NAME:=JSON`, or `NAME-` for removal. Dots lead into objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct TagChange {
    path: Vec<String>,
    /// `Null` removes.
    value: Value,
}

impl TagChange {
    pub(super) fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Self>, lexopt::Error> {
        texts
            .iter()
            .map(|text| Self::parse(text.as_ref()))
            .collect()
    }

    fn parse(text: &str) -> Result<Self, lexopt::Error> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => match name.strip_suffix(':') {
                Some(name) => {
                    let value: Value = serde_json::from_str(value)
                        .map_err(|error| format!("tag {name:?} has no valid JSON: {error}"))?;
                    (name, value)
                }
                None => (name, Value::from(value)),
            },
            None => match text.strip_suffix('-') {
                Some(name) => (name, Value::Null),
                None => {
                    let forms = "NAME=TEXT, NAME:=JSON or, to remove it, NAME-";
                    return Err(format!("tag {text:?} is not of the form {forms}").into());
                }
            },
        };
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        let wrong = |part: &String| part.is_empty() || part.starts_with('$') || part.contains(' ');
        if path.iter().any(wrong) {
            return Err(format!("{name:?} is no name of a tag").into());
        }
        Ok(Self { path, value })
    }

    /// The merge patch of all changes.
    ///
    /// # Errors
    /// The name of a tag that would be both a value and an object.
    pub(super) fn patch(changes: &[Self]) -> Result<Value, String> {
        let mut patch = Map::new();
        for change in changes {
            let clash = || format!("the tag {} stands there twice", change.path.join("."));
            let (last, parents) = change.path.split_last().ok_or_else(clash)?;
            let mut object = &mut patch;
            for parent in parents {
                let below = object
                    .entry(parent.clone())
                    .or_insert_with(|| Map::new().into());
                object = below.as_object_mut().ok_or_else(clash)?;
            }
            if object.insert(last.clone(), change.value.clone()).is_some() {
                return Err(clash());
            }
        }
        Ok(Value::Object(patch))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(texts: &[&str]) -> Result<Value, String> {
        let changes = TagChange::parse_all(texts).map_err(|error| error.to_string())?;
        TagChange::patch(&changes)
    }

    #[test]
    fn tags_are_text_unless_json_is_asked_for() {
        let texts = [
            "type=nano",
            "site.floor:=3",
            "site.room=3",
            "old-",
            "a=b=c",
            "e=",
        ];
        let expected = json!({"type": "nano", "site": {"floor": 3, "room": "3"}, "old": null,
            "a": "b=c", "e": ""});
        assert_eq!(patch(&texts), Ok(expected));
    }

    #[test]
    fn mistakes_are_refused_with_the_tag() {
        for (texts, named) in [
            (&["type"][..], "type"),
            (&["=x"], "\"\""),
            (&["a..b=x"], "a..b"),
            (&["$version=1"], "$version"),
            (&["floor:=three"], "floor"),
            (&["a=1", "a=2"], "a "),
            (&["a=1", "a.b=2"], "a.b"),
        ] {
            let error = patch(texts).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
