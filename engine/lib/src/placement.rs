//! Where to compute.

use std::time::Duration;

use cryptodl_cpu::Kernels;

/// Where and how to compute, as plain data. Nothing of it can change a bit of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// CPU or GPU.
    pub backend: BackendChoice,
    /// Kernels of the CPU.
    pub kernels: CpuKernels,
    /// Bytes of ciphertexts that a computation may hold. Without it, two thirds of the free memory; three quarters of a card's.
    ///
    /// A bound, not a wish: on the CPU large networks take less, because that is faster.
    pub memory_budget: Option<u64>,
    /// Threads of the host. Without it, those of rayon's global pool: one per core, unless the process has set it up.
    pub threads: Option<usize>,
    /// How long a graphics driver may take to compile one kernel.
    pub compile_limit: Duration,
}

impl Default for Placement {
    fn default() -> Self {
        Placement {
            backend: BackendChoice::Auto,
            kernels: CpuKernels::Auto,
            memory_budget: None,
            threads: None,
            compile_limit: Duration::from_secs(120),
        }
    }
}

/// CPU or GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum BackendChoice {
    /// A hardware GPU if there is one that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: the adapter with this index or a part of this name, else a hardware GPU. Naming it is the only way to a software
    /// adapter.
    Gpu(Option<String>),
}

/// Kernels of the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CpuKernels {
    /// The fastest that this machine has.
    #[default]
    Auto,
    /// Slow and obvious; what the others are compared with.
    Reference,
    /// One family by its name, such as `avx2`.
    Named(&'static str),
}

/// Why a [`Placement`] cannot be had here.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// Kernels of the CPU were named for a GPU.
    #[error("the {0} kernels are the CPU's, and a GPU was asked for")]
    CpuKernels(&'static str),
    /// This machine does not have the instructions.
    #[error("this machine cannot run the {name} kernels; it can run {available}")]
    Kernels {
        /// What was asked for.
        name: String,
        /// What there is.
        available: String,
    },
    /// The program was built without it.
    #[error("this build has no GPU backend: compute on the CPU, or build with the feature `gpu`")]
    NoGpu,
    /// The GPU cannot be used.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] cryptodl_gpu::GpuError),
    /// The system gives no threads.
    #[error("{threads} threads cannot be started: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

/// The named kernels of the CPU.
///
/// # Errors
/// This machine cannot run them.
pub fn cpu_kernels(name: &str) -> Result<Kernels, PlacementError> {
    let names = || Kernels::available().iter().map(|kernels| kernels.name()).collect::<Vec<_>>().join(", ");
    Kernels::named(name).ok_or_else(|| PlacementError::Kernels { name: name.into(), available: names() })
}
