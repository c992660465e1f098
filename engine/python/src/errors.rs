//! Exceptions, by what went wrong.

use std::fmt::Display;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;

create_exception!(cryptodl, CryptoDLError, PyException, "What this package could not do.");
create_exception!(cryptodl, InputError, CryptoDLError, "An array of another type, shape or range.");
create_exception!(cryptodl, ModelError, CryptoDLError, "A network that cannot be computed under encryption.");
create_exception!(cryptodl, PlanError, CryptoDLError, "A network that no parameters fit as it was asked for.");
create_exception!(cryptodl, FormatError, CryptoDLError, "Bytes of another kind, Program or key, or damaged.");
create_exception!(cryptodl, ServerError, CryptoDLError, "A server that cannot compute what was asked for.");

/// An error with all of its causes, in one line.
pub fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

pub fn input(message: impl Display) -> PyErr {
    InputError::new_err(message.to_string())
}

pub fn model(error: &dyn std::error::Error) -> PyErr {
    ModelError::new_err(in_words(error))
}

/// An error of the library as the exception of its kind.
pub fn of(error: cryptodl::Error) -> PyErr {
    use cryptodl::{ClientError, Error};
    let text = in_words(&error);
    match error {
        Error::Client(error) => match error {
            ClientError::Pixel { .. }
            | ClientError::ImageSize { .. }
            | ClientError::NoImages
            | ClientError::TooManyImages { .. } => InputError::new_err(text),
            ClientError::OutOfMemory { .. } => PyMemoryError::new_err(text),
            ClientError::Random(_) => CryptoDLError::new_err(text),
            _ => FormatError::new_err(text),
        },
        Error::Spec(_) | Error::Wire(_) | Error::Program(_) => FormatError::new_err(text),
        Error::Load(_) | Error::Model(_) => ModelError::new_err(text),
        Error::Plan(_) => PlanError::new_err(text),
        Error::Run(_) | Error::Placement(_) | Error::Busy => ServerError::new_err(text),
        _ => CryptoDLError::new_err(text),
    }
}
