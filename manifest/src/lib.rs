//! Deployment templates of IoT Edge's development tools, turned into deployment manifests.
//!
//! [`build`] is for whoever writes a manifest down: it fills in images and variables, and
//! leaves the credentials of registries as variables. [`fill_credentials`] is for whoever
//! sends it: it fills in those. Both are pure and name every problem at once; [`Variables`]
//! reads the environment and its files.
//!
//! What a manifest means is not known here.

mod build;
mod create_options;
mod credentials;
mod env_file;
mod module_file;
mod placeholder;
mod problem;
mod variables;

pub use build::{Inputs, ModuleDir, build};
pub use credentials::fill as fill_credentials;
pub use env_file::{EnvFileError, parse as parse_env_file};
pub use problem::{Problem, Problems};
pub use variables::{Variables, VariablesError};
