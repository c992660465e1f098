//! Why no GPU backend could be had.

use cryptodl_core::backend::{BackendError, BackendRemedy};

/// Errors before the first computation; afterwards they are [`BackendError`]s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// wgpu found nothing at all.
    #[error("no GPU adapter was found{}", BackendRemedy::all(self.remedies()))]
    NoAdapter,
    /// Only software adapters, and none was named.
    #[error(
        "no hardware GPU was found, and a software adapter is used only where it is named; there are: {}{}",
        list(software),
        BackendRemedy::all(self.remedies())
    )]
    NoHardware {
        /// Software adapters, with their indices.
        software: Vec<String>,
    },
    /// No adapter has this index or name.
    #[error("no adapter {request}; there are: {}", list(adapters))]
    UnknownAdapter {
        /// What was asked for.
        request: String,
        /// All adapters, with their indices.
        adapters: Vec<String>,
    },
    /// Several adapters have this name.
    #[error("several adapters match {request}, give an index: {}", list(matches))]
    AmbiguousAdapter {
        /// What was asked for.
        request: String,
        /// The adapters that match, with their indices.
        matches: Vec<String>,
    },
    /// The adapter lacks something that no kernel can do without.
    #[error("{adapter} cannot run the kernels: {reason}{}", BackendRemedy::all(self.remedies()))]
    Unusable {
        /// Which adapter.
        adapter: String,
        /// What is missing.
        reason: String,
    },
    /// The adapter lacks a feature that was asked for.
    #[error("{adapter} has no {feature}, which {option} needs: leave the choice to the program (auto)")]
    MissingFeature {
        /// Which adapter.
        adapter: String,
        /// The feature.
        feature: &'static str,
        /// The option that needs it.
        option: &'static str,
    },
    /// The ring is smaller than the kernels' tiles.
    #[error(
        "the GPU kernels need a ring of dimension {least} or more, not {n}{}",
        BackendRemedy::all(self.remedies())
    )]
    Dimension {
        /// The ring's dimension.
        n: usize,
        /// The least.
        least: usize,
    },
    /// The driver refused to open the device.
    #[error("{adapter} could not be opened: {reason}{}", BackendRemedy::all(self.remedies()))]
    Open {
        /// Which adapter.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device failed while it was prepared.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl GpuError {
    /// What may help, the most promising first; nothing where the error itself says what is allowed.
    pub fn remedies(&self) -> &'static [BackendRemedy] {
        use BackendRemedy::{AnotherAdapter, Cpu, InstallDriver, SoftwareAdapter, StartAgain, UpdateDriver};
        match self {
            GpuError::NoAdapter => &[InstallDriver, Cpu],
            GpuError::NoHardware { .. } => &[Cpu, SoftwareAdapter],
            GpuError::UnknownAdapter { .. } | GpuError::AmbiguousAdapter { .. } | GpuError::MissingFeature { .. } => {
                &[]
            }
            GpuError::Unusable { .. } => &[UpdateDriver, AnotherAdapter, Cpu],
            GpuError::Dimension { .. } => &[Cpu],
            GpuError::Open { .. } => &[StartAgain, AnotherAdapter, Cpu],
            GpuError::Backend(error) => error.remedies(),
        }
    }
}

fn list(adapters: &[String]) -> String {
    if adapters.is_empty() { "none".into() } else { adapters.join("; ") }
}
