//! Why an encrypted computation stopped.

use cryptodl_core::backend::BackendError;
use cryptodl_core::ckks::ParamsError;
use cryptodl_core::watch::Cancelled;

use super::CheckpointError;

/// Executor errors.
#[derive(Debug, thiserror::Error)]
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
    /// More sets than the Program's circuit privacy hides.
    #[error("encrypted input: the number of sets is {actual}, and the Program's circuit privacy is planned for {most}")]
    TooManySets {
        /// Ciphertext sets of the input.
        actual: usize,
        /// Sets that the Program was planned for.
        most: u32,
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
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No secure randomness for the encryptions of zero that re-randomise the result.
    #[error("re-randomisation of the result: {0}")]
    Randomness(String),
}
