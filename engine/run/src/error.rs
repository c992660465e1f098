//! Why an encrypted computation stopped.

use cryptodl_core::backend::BackendError;
use cryptodl_core::ckks::ParamsError;
use cryptodl_core::watch::Cancelled;

/// Executor errors.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The backend could not.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Whoever watches has ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Parameters refused.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The input does not have the Program's layout.
    #[error("encrypted input: {field} is {actual}, this Program needs {expected}")]
    Input {
        /// What differs.
        field: &'static str,
        /// What the input has.
        actual: String,
        /// What the Program needs.
        expected: String,
    },
    /// A residue of the input is not below its prime.
    #[error("encrypted input: set {set} holds a residue that is not below its prime: the file is damaged or hostile")]
    Residue {
        /// Ciphertext set.
        set: usize,
    },
    /// The Program switches keys, and no key of its layout was given.
    #[error("this Program needs {expected}, but {actual}: make keys from its client spec")]
    EvalKey {
        /// The layout needed.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The budget cannot hold one ciphertext set.
    #[error("a memory budget of {budget} bytes is too small: one ciphertext set needs {needed}")]
    Budget {
        /// The budget.
        budget: u64,
        /// What is needed at least.
        needed: u64,
    },
    /// No secure randomness for the masks of the result.
    #[error("result masks: {0}")]
    Randomness(String),
}
