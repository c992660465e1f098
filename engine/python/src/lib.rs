//! The Python package's half in Rust: what `python/cryptodl` is made of. Every long call releases
//! the interpreter, and Ctrl-C ends it.

mod errors;
mod images;
mod model;
mod remote;
mod roles;
mod waiting;

use pyo3::prelude::*;

/// Neural networks on encrypted images: see the package `cryptodl`, which wraps this.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::errors::{
        AuthenticationError, CryptoDLError, FormatError, InputError, JobError, ModelError, PlanError, RefusedError,
        RemoteError, ServerError, SpecChangedError, UnreachableError,
    };
    #[pymodule_export]
    use super::model::{Model, Program};
    #[pymodule_export]
    use super::remote::Remote;
    #[pymodule_export]
    use super::roles::{Client, Server};
}
