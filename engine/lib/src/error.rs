//! Why something could not be done.

use cryptodl_client::ClientError;
use cryptodl_core::ckks::SpecError;
use cryptodl_core::watch::Cancelled;
use cryptodl_core::wire::WireError;

/// What went wrong, as a typed cause. None of them holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A client spec is refused.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file is refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Keys could not be made, or images not encrypted, or a result not decrypted.
    #[error(transparent)]
    Client(ClientError),
    /// A stream could not be written.
    #[error("cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// Whoever watches has ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// This thread holds a computation of the same server, which must end first.
    #[cfg(feature = "server")]
    #[error("this thread already computes on this server: finish or drop that computation first")]
    Busy,
    /// A network cannot be read.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Load(#[from] cryptodl_zoo::LoadError),
    /// A network is refused.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Model(#[from] cryptodl_network::ModelError),
    /// A network cannot be planned.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Plan(cryptodl_plan::PlanError),
    /// A saved Program is refused.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Program(#[from] cryptodl_program::ProgramError),
    /// The computation could not be prepared, or was given up.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Run(cryptodl_run::RunError),
    /// What was asked for cannot be had on this machine.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Placement(#[from] crate::PlacementError),
}

// Whoever cancels finds one variant, whatever was going on.

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Client(error),
        }
    }
}

#[cfg(feature = "server")]
impl From<cryptodl_plan::PlanError> for Error {
    fn from(error: cryptodl_plan::PlanError) -> Self {
        match error {
            cryptodl_plan::PlanError::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Plan(error),
        }
    }
}

#[cfg(feature = "server")]
impl From<cryptodl_run::RunError> for Error {
    fn from(error: cryptodl_run::RunError) -> Self {
        match error {
            cryptodl_run::RunError::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Run(error),
        }
    }
}
