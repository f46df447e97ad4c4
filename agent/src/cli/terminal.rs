//! The terminal that this command was called from.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::api::wire::Window;

/// A terminal that passes every key on; dropping this makes it as it was.
pub(super) struct Raw(Option<Termios>);

impl Raw {
    /// Standard input's, if that is a terminal.
    pub(super) fn enter() -> io::Result<Self> {
        if !isatty(io::stdin()) {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Whether keys come from a terminal.
pub(super) fn is_input() -> bool {
    isatty(io::stdin())
}

/// Size of the terminal at standard output, else of that at standard input.
pub(super) fn size() -> Window {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    size.map_or_else(
        |_| Window::default(),
        |size| Window {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}
