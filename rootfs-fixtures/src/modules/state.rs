//! The state of a button or an LED, as it stands in a path.

/// Reads a boolean in any of its usual spellings.
pub(crate) fn parse(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "off" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// The spelling that the tutorial's button sends.
pub(crate) fn spell(state: bool) -> &'static str {
    if state { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_have_many_spellings() {
        for text in ["True", "true", "TRUE", "on", "On", "yes", "y", "t", "1"] {
            assert_eq!(parse(text), Some(true), "{text}");
        }
        for text in ["False", "false", "off", "OFF", "no", "n", "f", "0"] {
            assert_eq!(parse(text), Some(false), "{text}");
        }
        for text in ["", "2", "maybe", "tru", "true ", "on/off", "%31"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(
            [true, false].map(|state| parse(spell(state))),
            [Some(true), Some(false)]
        );
    }
}
