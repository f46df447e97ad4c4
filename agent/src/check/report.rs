//! A report as text, in the manner that operators of IoT Edge know.

use std::fmt::Write as _;

use super::{Answer, Report, Verdict};

/// The report for people: one line an answer, below it what comes of it and what to do.
/// Answers that are as they should be come without further lines.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut section = None;
    for answer in &report.checks {
        if section != Some(answer.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}", answer.section);
            section = Some(answer.section);
        }
        line(&mut text, answer);
    }
    let passed = report
        .checks
        .iter()
        .filter(|answer| matches!(answer.verdict, Verdict::Ok { .. }));
    let _ = writeln!(
        text,
        "\n{} checks succeeded, {} warnings, {} errors",
        passed.count(),
        report.warnings,
        report.errors
    );
    text
}

/// Writing to a string does not fail.
fn line(text: &mut String, answer: &Answer) {
    let Answer { id, title, .. } = answer;
    let _ = match &answer.verdict {
        Verdict::Ok { observed } => writeln!(text, "\u{221a} {title} - OK ({observed})"),
        Verdict::Skipped { reason } => writeln!(text, "- {title} - skipped: {reason}"),
        Verdict::Warning(finding) | Verdict::Error(finding) => {
            let (mark, word) = match answer.verdict {
                Verdict::Error(_) => ("\u{d7}", "Error"),
                _ => ("\u{203c}", "Warning"),
            };
            writeln!(
                text,
                "{mark} {title} - {word} [{id}]\n    {}\n    {}\n    {}",
                finding.observed, finding.consequence, finding.cure
            )
        }
    };
}
