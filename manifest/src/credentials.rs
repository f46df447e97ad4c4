//! Credentials of registries, which stay variables until a manifest is sent.

use serde_json::Value;

use crate::placeholder::Placeholder;
use crate::problem::{Problem, Problems};

/// A field of a registry's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    User,
    Password,
}

impl Credential {
    /// Which one the field at `place` is; in a layer a name may have dots in it.
    pub(crate) fn at(place: &str) -> Option<Self> {
        let (_, below) = place.split_once(".registryCredentials.")?;
        match below.rsplit_once('.')?.1 {
            "username" => Some(Self::User),
            "password" => Some(Self::Password),
            _ => None,
        }
    }

    /// What is wrong with a value that is written down.
    pub(crate) fn check(self, value: &str) -> Result<(), &'static str> {
        let is_variable = value.is_empty() || Placeholder::whole(value).is_some();
        match self {
            Self::Password if !is_variable => Err(
                "is a password in clear: name a variable instead, as in \"$CONTAINER_REGISTRY_PASSWORD\"",
            ),
            _ => Ok(()),
        }
    }
}

/// Replaces each user name and password of `manifest` that is a variable alone (`$NAME` or
/// `${NAME}`) by its value, and returns how many those were. All else stays as it is.
///
/// # Errors
/// Every variable that is not there, with its place; `manifest` is changed in part then.
pub fn fill(
    manifest: &mut Value,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<usize, Problems> {
    let (mut count, mut problems) = (0, Vec::new());
    each_text(manifest, "", &mut |place, text| {
        if Credential::at(place).is_none() {
            return;
        }
        let Some(found) = Placeholder::whole(text) else {
            return;
        };
        match variable(found.name) {
            Some(value) => {
                *text = value;
                count += 1;
            }
            None => {
                let reason = format!("needs the variable {}, which is not set", found.name);
                problems.push(Problem::new(place, reason));
            }
        }
    });
    Problems::or(problems, count)
}

/// Visits every text in `value` with its place.
pub(crate) fn each_text(value: &mut Value, place: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    let below = |name: &str| match place {
        "" => name.to_owned(),
        place => format!("{place}.{name}"),
    };
    match value {
        Value::String(text) => visit(place, text),
        Value::Array(all) => {
            for (index, one) in all.iter_mut().enumerate() {
                each_text(one, &format!("{place}[{index}]"), visit);
            }
        }
        Value::Object(all) => {
            for (name, one) in all.iter_mut() {
                each_text(one, &below(name), visit);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variable(name: &str) -> Option<String> {
        (name == "PASSWORD_r").then(|| "s3$cret".to_owned())
    }

    #[test]
    fn only_whole_variables_of_credentials_are_filled() {
        let mut manifest = json!({"$edgeAgent": {"properties.desired": {
            "runtime": {"settings": {"registryCredentials": {"r": {
                "address": "$PASSWORD_r", "username": "me", "password": "${PASSWORD_r}"},
                "s": {"username": "a$b", "password": "pa$Word"}}}},
            "modules": {"m": {"env": {"password": {"value": "$PASSWORD_r"}}}}},
            "properties.desired.runtime.settings.registryCredentials.t":
                {"password": "$PASSWORD_r"}}});
        let mut expected = manifest.clone();
        let agent = &mut expected["$edgeAgent"];
        agent["properties.desired"]["runtime"]["settings"]["registryCredentials"]["r"]["password"] =
            json!("s3$cret");
        agent["properties.desired.runtime.settings.registryCredentials.t"]["password"] =
            json!("s3$cret");
        assert_eq!(fill(&mut manifest, &variable), Ok(2));
        assert_eq!(manifest, expected);
    }

    #[test]
    fn every_variable_that_is_not_there_is_named() {
        let credentials = json!({"username": "$USER_r", "password": "$PASS_r"});
        let mut manifest = json!({"a": {"registryCredentials": {"r": credentials}}});
        let Problems(problems) = fill(&mut manifest, &variable).unwrap_err();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "a.registryCredentials.r.password needs the variable PASS_r, which is not set",
            "a.registryCredentials.r.username needs the variable USER_r, which is not set",
        ];
        assert_eq!(texts, expected);
    }
}
