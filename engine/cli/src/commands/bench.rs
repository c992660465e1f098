//! `cryptodl bench`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use cryptodl_core::backend::conformance::params_for_tests;
use cryptodl_core::backend::{Effort, Measured};
use cryptodl_core::ckks::Params;
use cryptodl_cpu::{Cpu, Kernels};
use cryptodl_engine::plan::{PlanError, PlanOptions, ScheduleKind, plan};
use cryptodl_models::zoo;

use crate::bench::{Bench, Report, Shipped, programs, transforms};
use crate::files::{self, Access, Output};
use crate::flags::{Backend, Place, one_of};
use crate::gpu::Choice;
use crate::json::Json;
use crate::progress::Bar;
use crate::server::{CPU_KERNELS_ONLY, Machine, cpu_kernels};

/// Measure the kernels against what the machine allows
///
/// Times transforms, the linear maps of the shipped models, key switching, rescaling, unpacking and seed expansion, and
/// compares them with the bandwidth of a copy and with loops of multiply-adds that are measured in the same run. Every
/// kernel's result is checked against the reference. For whole models see `run`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl bench
  cryptodl bench --backend cpu --threads 1 --model mnist-1
  cryptodl bench --kernels avx2 --model mnist-1
  cryptodl bench --adapter llvmpipe --quick --json bench.json --markdown bench.md")]
pub struct BenchCommand {
    #[command(flatten)]
    place: Place,
    /// Which CPU kernels to measure [default: the fastest that the machine has]
    #[arg(long, value_parser = one_of(Kernels::NAMES.map(|name| (name, name))))]
    kernels: Option<&'static str>,
    /// The linear maps and rings of this model only, a shipped one or a .toml file; may be given more than once [default: all
    /// shipped models]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Small operands and few repetitions: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Write the table to a file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

const FULL: Effort = Effort { repetitions: 9, seconds: 0.02, bytes: 128 << 20 };
const QUICK: Effort = Effort { repetitions: 3, seconds: 0.002, bytes: 4 << 20 };

/// Dimensions of the transforms.
const DIMENSIONS: std::ops::RangeInclusive<u32> = 12..=16;

impl BenchCommand {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = self.markdown.iter().map(PathBuf::as_path).chain(self.json.path()).collect();
        files::distinct(&outputs, &[])?;
        let choice = match (self.place.backend()?, self.kernels) {
            (Backend::Gpu, Some(_)) => bail!("{CPU_KERNELS_ONLY}"),
            (Backend::Cpu, _) | (Backend::Auto, Some(_)) => None,
            (Backend::Gpu, None) => Some(Choice::new(self.place.adapter.as_deref())?),
            (Backend::Auto, None) => Choice::automatic().transpose()?,
        };
        let kernels = self.kernels.map_or_else(|| Ok(Kernels::best()), cpu_kernels)?;
        let markdown = self.markdown.as_ref().map(|path| Output::create(path, Access::Everybody)).transpose()?;
        let json = self.json.create()?;
        let report = match &choice {
            Some(choice) => self.measure(|params| choice.timed(params))?,
            None => self.measure(|params| Ok(Cpu::with_kernels(params.basis().clone(), kernels)))?,
        };
        if let Some(file) = markdown {
            file.write(|file| file.write_all(report.text().as_bytes()))?;
        }
        json.show(&report, || report.text())
    }

    fn measure<B: Measured>(&self, open: impl Fn(&Params) -> Result<B>) -> Result<Report> {
        let effort = if self.quick { QUICK } else { FULL };
        let (shipped, skipped) = self.shipped()?;
        let bar = Bar::new("bench");
        let total = (DIMENSIONS.count() + shipped.len() + 1) as u64;
        let first = open(&params_for_tests(1 << DIMENSIONS.start())?)?;
        let mut bench = Bench::new(&first, effort, &bar)?;
        for (done, log_n) in (1..).zip(DIMENSIONS) {
            bar.show(done, total);
            let params = params_for_tests(1 << log_n)?;
            transforms(&mut bench, &open(&params)?, &params)?;
        }
        let mut seen = HashSet::new();
        for (done, shipped) in (1 + DIMENSIONS.count() as u64..).zip(&shipped) {
            bar.show(done, total);
            programs(&mut bench, &open(&shipped.params)?, shipped, &mut seen)?;
        }
        let clock = if first.kernel_seconds().is_some() { "device" } else { "host" };
        let ceilings = bench.ceilings().clone();
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::of(&first),
            clock,
            ceilings,
            rows: bench.rows,
            skipped,
        })
    }

    /// The models in both schedules, and those that the planner refuses.
    fn shipped(&self) -> Result<(Vec<Shipped>, Vec<String>)> {
        let names = if self.models.is_empty() {
            zoo::names().to_vec()
        } else {
            self.models.iter().map(String::as_str).collect()
        };
        let (mut shipped, mut skipped) = (Vec::new(), Vec::new());
        for name in names {
            let network = zoo::load(name)?;
            for (schedule, label) in [(ScheduleKind::Auto, "auto"), (ScheduleKind::Layered, "layered")] {
                let name = format!("{name} {label}");
                match plan(&network, &PlanOptions { schedule, ..PlanOptions::default() }) {
                    Ok(plan) => shipped.push(Shipped { params: plan.program.params()?, program: plan.program, name }),
                    Err(refused @ PlanError::DoesNotFit { .. }) => skipped.push(format!("{name}: {refused}")),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((shipped, skipped))
    }
}
