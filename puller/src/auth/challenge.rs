//! The `WWW-Authenticate` header (RFC 9110, 11.6.1), as a pure parser.

/// One way in that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme in small letters.
    pub(crate) scheme: String,
    /// Parameters, their names in small letters.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value. What cannot be read ends the list: a server's mistake in a
/// second challenge does not spoil the first.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else {
            return challenges;
        };
        let after_space = after.trim_start_matches([' ', '\t']);
        let Some(value) = after_space.strip_prefix('=') else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            rest = after;
            continue;
        };
        // Credentials in one piece, like `Negotiate abcd==`, are no parameter.
        let unpadded = value.trim_start_matches('=');
        let value = value.trim_start_matches([' ', '\t']);
        if unpadded.len() < value.len() || value.is_empty() || value.starts_with(',') {
            rest = unpadded;
            continue;
        }
        let Some((text, after)) = quoted(value).or_else(|| bare(value)) else {
            return challenges;
        };
        let Some(challenge) = challenges.last_mut() else {
            return challenges;
        };
        challenge.parameters.push((word.to_ascii_lowercase(), text));
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let special = |c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c));
    let end = text.find(special).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A value without quotes; some servers write addresses this way, so it ends only at a comma or
/// white space.
fn bare(text: &str) -> Option<(String, &str)> {
    let end = text.find([',', ' ', '\t', '"']).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    (end > 0).then(|| (value.to_owned(), rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Challenge {
            scheme: scheme.into(),
            parameters: parameters.iter().map(own).collect(),
        }
    }

    #[test]
    fn headers_of_registries_are_read() {
        let cases = [
            (
                r#"Bearer realm="https://r.azurecr.io/oauth2/token",service="r.azurecr.io",scope="repository:m:pull""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://r.azurecr.io/oauth2/token"),
                        ("service", "r.azurecr.io"),
                        ("scope", "repository:m:pull"),
                    ],
                )],
            ),
            (
                r#"BASIC Realm = "Registry \"A\", west""#,
                vec![challenge("basic", &[("realm", "Registry \"A\", west")])],
            ),
            (
                r#"Basic realm="a", Bearer realm="b" , service=c,error="x,y""#,
                vec![
                    challenge("basic", &[("realm", "a")]),
                    challenge(
                        "bearer",
                        &[("realm", "b"), ("service", "c"), ("error", "x,y")],
                    ),
                ],
            ),
            (
                r#"Negotiate, Negotiate YWJj==, Basic realm=http://h/t"#,
                vec![
                    challenge("negotiate", &[]),
                    challenge("negotiate", &[]),
                    challenge("basic", &[("realm", "http://h/t")]),
                ],
            ),
            ("Basic", vec![challenge("basic", &[])]),
            (r#"Bearer realm=""#, vec![challenge("bearer", &[])]),
            (r#"Bearer realm="open"#, vec![challenge("bearer", &[])]),
            (r#"realm="x""#, vec![]),
            ("", vec![]),
            (", ,", vec![]),
        ];
        for (header, expected) in cases {
            let found = parse(header);
            let named = |all: &[Challenge]| -> Vec<Challenge> {
                // What of a token68 remains as a word is no scheme anybody asks for.
                all.iter().filter(|c| c.scheme != "ywjj").cloned().collect()
            };
            assert_eq!(named(&found), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in "\\PC{0,80}") {
            parse(&header);
        }

        #[test]
        fn quoting_keeps_any_value(value in "[ -~]{0,30}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Basic a=b, Bearer x=\"{escaped}\" , y=z");
            let found = parse(&header);
            prop_assert_eq!(found.len(), 2);
            prop_assert_eq!(found[1].parameter("x"), Some(value.as_str()));
            prop_assert_eq!(found[1].parameter("y"), Some("z"));
        }
    }
}
