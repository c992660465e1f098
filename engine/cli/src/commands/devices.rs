//! `cryptodl devices`.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::flags::CompileTimeout;
use crate::gpu::{self, Choice, Device};
use crate::json::{Json, Timed};

/// List the GPU adapters, and whether and how they would compute
///
/// Shows every adapter that Vulkan, Metal or DX12 offers with the limits and features that matter here and the kernels that
/// it would use: of several equivalent ones the fastest, which is measured. A software adapter computes on the CPU; it
/// serves tests and is used only when --adapter names it.
///
/// With --compile, also compiles every variant of every kernel by itself and says how long that took and how much memory was held:
/// some drivers need far more of both than others.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl devices
  cryptodl devices --json -
  cryptodl devices --compile 8192 --compile-timeout 600")]
pub struct Devices {
    /// Measure the compilation of every kernel, for rings of this dimension, a power of two
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "4096", value_parser = dimension)]
    compile: Option<usize>,
    #[command(flatten)]
    compile_timeout: CompileTimeout,
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
        let (json, start) = (self.json.create()?, Instant::now());
        let limit = self.compile_timeout.limit();
        let adapters = gpu::devices(limit, self.compile)?;
        let usable = |index: &usize| adapters.get(*index).is_some_and(Device::is_usable);
        let auto = Choice::automatic(limit).and_then(Result::ok).map(|choice| choice.index()).filter(usable);
        let report = Report { auto, adapters };
        json.show(&Timed::since(start, "compute", &report), || text(&report))
    }
}

/// A dimension that the kernels take.
fn dimension(text: &str) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n: &usize| n.is_power_of_two() && (1024..=65536).contains(n));
    n.ok_or_else(|| "a power of two from 1024 to 65536 is needed, such as 4096".into())
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
