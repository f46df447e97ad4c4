//! Terminal and standard input of the main process.

use serde::{Deserialize, Serialize};

use crate::exec::WindowSize;

/// What the main process has beside a log; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Console {
    /// Its standard streams are a terminal.
    pub terminal: bool,
    /// Size of the terminal at first; 0 by 0 where absent, as the kernel makes it.
    pub size: Option<WindowSize>,
    /// Its standard input stays open for who attaches.
    pub stdin: bool,
    /// Its standard input ends with the first client that wrote to it.
    pub stdin_once: bool,
}

impl Console {
    /// Whether it has neither.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.terminal && !self.stdin
    }
}
