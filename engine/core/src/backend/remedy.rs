//! What may help where a backend refuses.

use std::fmt::{self, Display, Formatter};

/// What may help where a backend refuses, or could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendRemedy {
    /// The computation is told to take less memory.
    SmallerMemoryBudget,
    /// Fewer images are computed together.
    FewerImages,
    /// The computation is done on another backend.
    AnotherBackend,
    /// The computation is done on the CPU.
    Cpu,
    /// Another graphics adapter computes.
    AnotherAdapter,
    /// A software adapter is named, which is never taken unasked.
    SoftwareAdapter,
    /// A graphics driver is installed where there is none.
    InstallDriver,
    /// A newer version of the graphics driver is installed.
    UpdateDriver,
    /// The driver may compile a kernel for longer.
    LongerCompileLimit,
    /// The kernels are compared with the reference, to find the one that is wrong.
    CheckKernels,
    /// The same is tried once more.
    StartAgain,
}

impl BackendRemedy {
    /// `remedies` as the last part of an error; nothing where there are none.
    pub fn all(remedies: &[BackendRemedy]) -> String {
        let remedies: Vec<String> = remedies.iter().map(ToString::to_string).collect();
        if remedies.is_empty() { String::new() } else { format!(". What would help: {}", remedies.join("; ")) }
    }
}

impl Display for BackendRemedy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendRemedy::SmallerMemoryBudget => "a smaller memory budget",
            BackendRemedy::FewerImages => "fewer images at a time",
            BackendRemedy::AnotherBackend => "another backend",
            BackendRemedy::Cpu => "computing on the CPU",
            BackendRemedy::AnotherAdapter => "another adapter",
            BackendRemedy::SoftwareAdapter => "naming a software adapter, which is slow",
            BackendRemedy::InstallDriver => "installing the graphics driver (Vulkan, Metal or DX12)",
            BackendRemedy::UpdateDriver => "updating the graphics driver",
            BackendRemedy::LongerCompileLimit => "a longer limit on the time for compiling a kernel",
            BackendRemedy::CheckKernels => "checking the kernels against the reference",
            BackendRemedy::StartAgain => "starting again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::BackendError;

    #[test]
    fn errors_end_with_what_would_help() {
        let device = || "device".to_string();
        let full = BackendError::OutOfMemory { device: device(), bytes: 7 }.to_string();
        assert_eq!(
            full,
            "the device has no room for 7 more bytes. What would help: a smaller memory budget; \
             fewer images at a time; another backend"
        );
        let bare = BackendError::Unsupported { device: device(), reason: "no".into(), remedies: &[] };
        assert_eq!(bare.to_string(), "the device cannot do this: no");
    }
}
