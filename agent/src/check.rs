//! `kobune check`: what this device lacks, before or while the daemon runs.
//!
//! [`observe`] does all the looking, the checks all the judging: each is a function of what
//! was seen, so that every one has a case that fails in the tests. Nothing on the device is
//! changed; what has to be tried out is tried in namespaces that end with the attempt.

mod judge;
mod observe;
mod report;
mod seen;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use observe::observe;
pub use report::text;
pub use seen::Observations;

/// One question about the device.
#[derive(Debug)]
pub struct Check {
    /// Never changes once released: `--skip` and other programs know it by this.
    pub id: &'static str,
    /// What is asked, for people.
    pub title: &'static str,
    /// What a group of questions is about.
    pub section: Section,
    judge: fn(&Observations) -> Verdict,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Configuration and programs.
    Installation,
    /// What the kernel can do.
    Kernel,
    /// Disks.
    Storage,
    /// The modules' network.
    Network,
    /// Hub and registries.
    Connectivity,
    /// What the stored deployment needs of the device.
    Deployment,
}

/// The answer to a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Verdict {
    /// As it has to be.
    Ok {
        /// What was seen.
        observed: String,
    },
    /// Modules run, but not all of them or not as well.
    Warning(Finding),
    /// The agent cannot do its work.
    Error(Finding),
    /// Not asked.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was seen.
    pub observed: String,
    /// What comes of it.
    pub consequence: String,
    /// What to do about it.
    pub cure: String,
}

/// The answers to all checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of [`checks`].
    pub checks: Vec<Answer>,
    /// How many answers are warnings.
    pub warnings: usize,
    /// How many answers are errors.
    pub errors: usize,
}

/// One question with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Of the check.
    pub id: &'static str,
    /// Of the check.
    pub title: &'static str,
    /// Of the check.
    pub section: Section,
    /// The answer.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// An id that no check has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no check {0:?}; see 'kobune check --list'")]
pub struct UnknownCheck(pub String);

/// All checks, in the order in which they are shown.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    judge::ALL.into_iter().flatten()
}

/// Whether every one of `skip` is the id of a check.
///
/// # Errors
/// [`UnknownCheck`] for the first that is not.
pub fn known(skip: &[String]) -> Result<(), UnknownCheck> {
    let unknown = |id: &&String| checks().all(|check| check.id != **id);
    match skip.iter().find(unknown) {
        Some(id) => Err(UnknownCheck(id.clone())),
        None => Ok(()),
    }
}

/// Answers all checks but those of `skip` from what was seen. Pure.
#[must_use]
pub fn judge(seen: &Observations, skip: &[String]) -> Report {
    let answer = |check: &'static Check| {
        let skipped = skip.iter().any(|id| id == check.id);
        let verdict = if skipped {
            Verdict::skipped("as asked")
        } else {
            (check.judge)(seen)
        };
        Answer {
            id: check.id,
            title: check.title,
            section: check.section,
            verdict,
        }
    };
    let checks: Vec<Answer> = checks().map(answer).collect();
    let count = |wanted: fn(&Verdict) -> bool| {
        let matching = checks.iter().filter(|answer| wanted(&answer.verdict));
        matching.count()
    };
    Report {
        warnings: count(|verdict| matches!(verdict, Verdict::Warning(_))),
        errors: count(|verdict| matches!(verdict, Verdict::Error(_))),
        checks,
    }
}

impl Verdict {
    fn ok(observed: impl Into<String>) -> Self {
        Self::Ok {
            observed: observed.into(),
        }
    }

    fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped {
            reason: reason.into(),
        }
    }

    fn warning(observed: impl Into<String>, consequence: &str, cure: &str) -> Self {
        Self::Warning(Finding::new(observed.into(), consequence, cure))
    }

    fn error(observed: impl Into<String>, consequence: &str, cure: &str) -> Self {
        Self::Error(Finding::new(observed.into(), consequence, cure))
    }
}

impl Finding {
    fn new(observed: String, consequence: &str, cure: &str) -> Self {
        Self {
            observed,
            consequence: consequence.to_owned(),
            cure: cure.to_owned(),
        }
    }
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Installation => "Installation",
            Self::Kernel => "Kernel",
            Self::Storage => "Storage",
            Self::Network => "Network",
            Self::Connectivity => "Connectivity",
            Self::Deployment => "Deployment",
        })
    }
}
