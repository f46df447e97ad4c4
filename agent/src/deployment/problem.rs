//! Why a deployment is refused.

use std::fmt;

use super::fields::Fault;

/// A deployment with at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDeployment {
    /// What sort of refusal this is, for a hub.
    pub kind: ProblemKind,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// Sorts of refusal, as IoT Edge reports them in `lastDesiredStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// Some value is wrong or missing (code 400).
    ConfigFormat,
    /// The schema version is not supported, and nothing else is wrong (code 412).
    Schema,
    /// There is nothing in it (code 417).
    Empty,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The module it is in.
    pub module: Option<String>,
    /// Path of the field, below the module where there is one; empty for the document.
    pub field: String,
    /// What is wrong with it, without its value where that may be a secret.
    pub message: String,
}

impl ProblemKind {
    /// The code that IoT Edge reports.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::ConfigFormat => 400,
            Self::Schema => 412,
            Self::Empty => 417,
        }
    }
}

impl InvalidDeployment {
    pub(super) fn document(kind: ProblemKind, message: impl Into<String>) -> Self {
        let problem = Problem {
            module: None,
            field: String::new(),
            message: message.into(),
        };
        Self {
            kind,
            problems: vec![problem],
        }
    }
}

impl Problem {
    pub(super) fn new(module: Option<&str>, fault: Fault) -> Self {
        Self {
            module: module.map(str::to_owned),
            field: fault.path,
            message: fault.message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "module {module}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{} ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for InvalidDeployment {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidDeployment {}
