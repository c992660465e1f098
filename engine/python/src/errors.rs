//! Exceptions, by what went wrong.

use std::fmt::Display;

use cryptodl::KeyFolderError;
use cryptodl_service::{QueryError, RemoteError as RemoteFailure};
use pyo3::create_exception;
use pyo3::exceptions::{
    PyException, PyFileExistsError, PyFileNotFoundError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyValueError,
};
use pyo3::prelude::*;

create_exception!(cryptodl, CryptoDLError, PyException, "What this package could not do.");
create_exception!(cryptodl, InputError, CryptoDLError, "An array of another type, shape or range.");
create_exception!(cryptodl, ModelError, CryptoDLError, "A network that cannot be computed under encryption.");
create_exception!(cryptodl, PlanError, CryptoDLError, "A network that no parameters fit as it was asked for.");
create_exception!(cryptodl, FormatError, CryptoDLError, "Bytes of another kind, Program or key, or damaged.");
create_exception!(cryptodl, ServerError, CryptoDLError, "A server that cannot compute what was asked for.");
create_exception!(cryptodl, RemoteError, CryptoDLError, "A service, or what it sends, that is not as agreed.");
create_exception!(cryptodl, UnreachableError, RemoteError, "A service that did not answer, or was full, for too long.");
create_exception!(
    cryptodl,
    AuthenticationError,
    RemoteError,
    "A token that is refused, or a service not to be trusted."
);
create_exception!(cryptodl, RefusedError, RemoteError, "A request that the service refuses.");
create_exception!(cryptodl, SpecChangedError, RemoteError, "A service that sends another client spec than before.");
create_exception!(cryptodl, JobError, RemoteError, "A job that failed or was cancelled.");

/// What to do about keys of another Program.
const OTHER_KEYS: &str = "the keys may be of another Program; name another folder for new ones";

/// Errors of calls that take long.
pub trait Raised {
    /// The exception of its kind.
    fn raised(self) -> PyErr;
}

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

impl Raised for cryptodl::Error {
    fn raised(self) -> PyErr {
        match self {
            cryptodl::Error::Cancelled(_) => PyKeyboardInterrupt::new_err(()),
            error => of(error),
        }
    }
}

/// Keys in files.
pub fn keys(error: KeyFolderError) -> PyErr {
    let text = in_words(&error);
    match error {
        KeyFolderError::Missing(_) => PyFileNotFoundError::new_err(text),
        KeyFolderError::Exists(_) => PyFileExistsError::new_err(text),
        KeyFolderError::Refused { .. } | KeyFolderError::Lacks { .. } => {
            FormatError::new_err(format!("{text}: {OTHER_KEYS}"))
        }
        _ => PyOSError::new_err(text),
    }
}

impl Raised for QueryError {
    fn raised(self) -> PyErr {
        let text = in_words(&self);
        match self {
            QueryError::Remote(error) => error.raised(),
            QueryError::SpecChanged(_) => SpecChangedError::new_err(format!(
                "{text}. If you still trust the service, say accept_new_spec=True, or name another key_dir for new keys"
            )),
            QueryError::LargeKeys { .. } | QueryError::LargeRequest { .. } => {
                PyValueError::new_err(format!("{text} (max_size)"))
            }
            QueryError::Keys(error) => keys(error),
            QueryError::OtherKeys(_) => FormatError::new_err(text),
            QueryError::Encrypt(error) => error.raised(),
            QueryError::Room(_) => PyOSError::new_err(text),
            _ => RemoteError::new_err(text),
        }
    }
}

impl Raised for RemoteFailure {
    fn raised(self) -> PyErr {
        let text = in_words(&self);
        match self {
            RemoteFailure::Url(_) => PyValueError::new_err(text),
            RemoteFailure::Credentials(_) | RemoteFailure::Refused { status: 401 | 403, .. } => {
                AuthenticationError::new_err(text)
            }
            RemoteFailure::Unreachable { .. } => UnreachableError::new_err(text),
            RemoteFailure::Refused { .. } => RefusedError::new_err(text),
            RemoteFailure::Job { .. } => JobError::new_err(text),
            RemoteFailure::File(_) => PyOSError::new_err(text),
            RemoteFailure::Cancelled(_) => PyKeyboardInterrupt::new_err(()),
            RemoteFailure::Protocol(_) => RemoteError::new_err(text),
        }
    }
}
