//! Placeholders in texts: `$NAME` and `${...}`.

/// What stands between the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placeholder<'t> {
    /// What stands behind `$`, without braces.
    pub(crate) name: &'t str,
    pub(crate) braced: bool,
    /// As it stands there.
    pub(crate) text: &'t str,
}

impl<'t> Placeholder<'t> {
    /// The placeholder that is the whole of `text`.
    pub(crate) fn whole(text: &'t str) -> Option<Self> {
        let (before, found, after) = first(text).ok()??;
        let named = found
            .name
            .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        (before.is_empty() && after.is_empty() && named).then_some(found)
    }

    /// Whether it has to be replaced: hubs have words of their own, such as `$upstream`, and
    /// those start with a small letter.
    pub(crate) fn is_meant(&self) -> bool {
        self.braced || !self.name.starts_with(|c: char| c.is_ascii_lowercase())
    }
}

/// `text` with what `resolve` makes of its placeholders; what that is is not looked at again.
/// A `$` before anything but a name is text.
///
/// # Errors
/// What `resolve` says, and what follows a `${` that is not closed.
pub(crate) fn expand(
    text: &str,
    mut resolve: impl FnMut(&Placeholder<'_>) -> Result<String, String>,
) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, found, after)) = first(rest)? {
        expanded += before;
        expanded += &resolve(&found)?;
        rest = after;
    }
    Ok(expanded + rest)
}

type Cut<'t> = (&'t str, Placeholder<'t>, &'t str);

/// The first placeholder with what stands before and behind it.
fn first(text: &str) -> Result<Option<Cut<'_>>, String> {
    let mut from = 0;
    while let Some(at) = text[from..].find('$').map(|at| from + at) {
        let behind = &text[at + 1..];
        let (name, braced, end) = match behind.strip_prefix('{') {
            Some(inner) => {
                let Some(length) = inner.find('}') else {
                    return Err(format!("has a {:?} that is not closed", &text[at..]));
                };
                (&inner[..length], true, at + length + 3)
            }
            None => {
                let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = behind.find(|c| !name(c)).unwrap_or(behind.len());
                (&behind[..length], false, at + 1 + length)
            }
        };
        if braced || name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let placeholder = Placeholder {
                name,
                braced,
                text: &text[at..end],
            };
            return Ok(Some((&text[..at], placeholder, &text[end..])));
        }
        from = at + 1;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_in_both_forms() {
        let shown = |text: &str| expand(text, |found| Ok(format!("<{}>", found.name)));
        for (text, expected) in [
            ("", ""),
            ("no", "no"),
            ("$A", "<A>"),
            ("a$A_1-b", "a<A_1>-b"),
            ("${A}${B.c}x", "<A><B.c>x"),
            ("${MODULEDIR<../led>.debug}", "<MODULEDIR<../led>.debug>"),
            ("100$ or $5, $$A", "100$ or $5, $<A>"),
            ("größe $Ä${B}", "größe $Ä<B>"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(shown("a ${B").unwrap_err().contains("${B"));
    }

    #[test]
    fn what_was_put_in_is_not_expanded_again() {
        let twice = expand("$A$A", |_| Ok("$A".to_owned()));
        assert_eq!(twice.as_deref(), Ok("$A$A"));
    }

    #[test]
    fn a_whole_placeholder_is_nothing_else() {
        for (text, name) in [
            ("$A", Some("A")),
            ("${a_b}", Some("a_b")),
            ("$A ", None),
            ("x$A", None),
            ("$", None),
            ("${}", None),
        ] {
            assert_eq!(
                Placeholder::whole(text).map(|found| found.name),
                name,
                "{text}"
            );
        }
    }
}
