//! The Python package's half in Rust: what `python/cryptodl` is made of. Every long call releases
//! the interpreter, and Ctrl-C ends it.

mod errors;
mod images;
mod model;
mod roles;
mod waiting;

use pyo3::prelude::*;

/// Neural networks on encrypted images: see the package `cryptodl`, which wraps this.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::errors::{CryptoDLError, FormatError, InputError, ModelError, PlanError, ServerError};
    #[pymodule_export]
    use super::model::{Model, Program};
    #[pymodule_export]
    use super::roles::{Client, Server};
}
