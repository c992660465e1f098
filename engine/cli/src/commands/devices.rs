//! `cryptodl devices`.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::gpu::{self, Choice, Device};
use crate::json::Json;

/// List the GPU adapters, and whether and how they would compute
///
/// Shows every adapter that Vulkan, Metal or DX12 offers with the limits and features that matter here and the kernels that
/// it would use: of several equivalent ones the fastest, which is measured. A software adapter computes on the CPU; it
/// serves tests and is used only when --adapter names it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl devices
  cryptodl devices --json -")]
pub struct Devices {
    #[command(flatten)]
    json: Json,
}

/// What `devices --json` writes.
#[derive(Serialize)]
struct Report {
    /// Index of the adapter that `--backend auto` takes; nothing if it takes the CPU.
    auto: Option<usize>,
    adapters: Vec<Device>,
}

impl Devices {
    pub fn run(self) -> Result<()> {
        let json = self.json.create()?;
        let adapters = gpu::devices()?;
        let usable = |index: &usize| adapters.get(*index).is_some_and(Device::is_usable);
        let auto = Choice::automatic().and_then(Result::ok).map(|choice| choice.index()).filter(usable);
        let report = Report { auto, adapters };
        json.show(&report, || text(&report))
    }
}

fn text(report: &Report) -> String {
    let adapters: String = report.adapters.iter().map(|device| format!("{device}\n")).collect();
    adapters
        + &match (report.auto, report.adapters.is_empty()) {
            (Some(index), _) => format!("--backend auto takes adapter {index}\n"),
            (None, false) => "no usable hardware GPU: --backend auto takes the CPU\n".into(),
            (None, true) => "no GPU adapter was found: --backend auto takes the CPU\n".into(),
        }
}
