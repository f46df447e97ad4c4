//! The tutorial's two modules: `button` tells `led` once a second whether it is pressed.
//!
//! The programs in `src/bin` are built statically for images without libraries:
//!
//! ```text
//! cargo build --profile dist --target x86_64-unknown-linux-musl -p kobune-fixtures \
//!     --no-default-features --features modules --bin button --bin led --bin probe
//! ```
//!
//! musl and not a static glibc, whose name lookup wants shared libraries at run time.

pub mod button;
pub mod led;
pub mod log_line;
mod state;
mod stop;

pub use self::stop::Stop;
