//! `cryptodl bench`.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use clap::Args;
use cryptodl_core::backend::{BackendError, Ceilings, Effort, Measured};
use cryptodl_core::ckks::{Params, params_for_tests};
use cryptodl_core::ring::RnsBasis;
use cryptodl_cpu::Cpu;
use cryptodl_data::dataset_dir;
use cryptodl_network::Network;
use cryptodl_plan::{DEFAULT_BATCH, PlanError, PlanOptions, ScheduleKind, plan};
use cryptodl_run::RunError;
use cryptodl_zoo as zoo;
use serde_json::Value;

use crate::advice::explain;
use crate::bench::{
    Alternatives, Bench, Calibration, EndToEnd, Limits, Peer, Report, Shipped, client, draw, end_to_end, programs,
    transforms,
};
use crate::files::{self, Access, Output, Written};
use crate::flags::{Backend, CPU_KERNELS_ONLY, Execution, SCHEDULE, one_of};
use crate::gpu::Choice;
use crate::json::Json;
use crate::memory;
use crate::prepared::Prepared;
use crate::progress::Bar;
use crate::samples::Samples;
use cryptodl::{CpuKernels, Machine};

/// Measure kernels and whole models against what the machine allows: the standard report
///
/// Kernels: times transforms, the linear maps of the shipped models, key switching, rescaling, unpacking, seed expansion, encryption
/// and decryption, and compares them (on a GPU all but the client's two) with the bandwidth of a copy and with loops of
/// multiply-adds that are measured in the same run. Every result is checked, on the server's side against the reference.
///
/// Models: classifies test images under encryption in both schedules, with the accuracy, and compares every part of the
/// computation with the time that the ceilings allow. Where there is a Python with PyTorch, the same network in plaintext takes
/// turns with the encrypted one on the same images and threads (run from the root of the repository). What papers report stands
/// beside it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl bench
  cryptodl bench --only models --model mnist-1 --schedule auto --json bench.json --plots plots
  cryptodl bench --only kernels --backend cpu --threads 1 --model mnist-1
  cryptodl bench --kernels avx2 --model mnist-1
  cryptodl bench --calibrate
  cryptodl bench --alternatives --model mnist-1 --model mnist-1-square
  cryptodl bench --adapter llvmpipe --quick --markdown bench.md")]
pub struct BenchCommand {
    /// Measure this model, a shipped one or a .toml file; may be given more than once [default: the kernels of all shipped models,
    /// and mnist-1 as a whole]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Measure nothing else
    #[arg(long, value_parser = one_of(PARTS))]
    only: Option<Part>,
    /// Measure this schedule alone [default: both]
    #[arg(long, value_parser = one_of(SCHEDULE))]
    schedule: Option<ScheduleKind>,
    /// Measure nothing, and draw again what an earlier report says, as --json wrote it
    #[arg(long, value_name = "FILE", requires = "plots", conflicts_with_all = [
        "models", "only", "schedule", "images", "repeat", "python", "calibrate", "alternatives", "quick", "markdown", "to"
    ])]
    draw: Option<PathBuf>,
    /// Classify the first K test images [default: 8192]
    #[arg(long, value_name = "K")]
    images: Option<usize>,
    /// Compute every model K times; the median counts [default: 9]
    #[arg(long, value_name = "K")]
    repeat: Option<NonZeroUsize>,
    /// The Python with PyTorch [default: python3]
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Measure instead what the planner's cost table would be on this machine, on one core
    #[arg(long, conflicts_with_all = ["models", "only", "images", "repeat", "python", "plots", "adapter", "memory_budget"])]
    calibrate: bool,
    /// Measure instead the schedules that the planner found to fit beside the one that it chose
    #[arg(long, conflicts_with_all = ["calibrate", "only", "python", "plots"])]
    alternatives: bool,
    /// Small operands, few repetitions and images: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Write the tables to a file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw a roofline of the kernels and the parts of every model, as SVG files in this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    execution: Execution,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Kernels,
    Models,
}

const PARTS: [(&str, Part); 2] = [("kernels", Part::Kernels), ("models", Part::Models)];

const FULL: Effort = Effort { repetitions: 9, seconds: 0.02, bytes: 128 << 20 };
const QUICK: Effort = Effort { repetitions: 3, seconds: 0.002, bytes: 4 << 20 };

/// Images with `--quick`.
const QUICK_IMAGES: usize = 64;

/// How often images are classified.
const FULL_REPEAT: NonZeroUsize = NonZeroUsize::new(9).expect("not zero");
const QUICK_REPEAT: NonZeroUsize = NonZeroUsize::new(1).expect("not zero");

/// What is measured as a whole where no model is named.
const DEFAULT_MODEL: &str = "mnist-1";

const DEFAULT_PYTHON: &str = "python3";

const SCHEDULES: [(ScheduleKind, &str); 2] = [(ScheduleKind::Auto, "auto"), (ScheduleKind::Layered, "layered")];

const CORE_ONLY: &str =
    "--calibrate measures one core of the CPU, which is what the planner's table is of: leave out --backend gpu";

const WHOLE_MODELS_ONLY: &str = "--images, --repeat, --python and --memory-budget are for whole models, which --only kernels leaves out: drop one or the other";

/// Dimensions of the transforms.
const DIMENSIONS: std::ops::RangeInclusive<u32> = 12..=16;

impl BenchCommand {
    pub fn run(self) -> Result<()> {
        if let (Some(report), Some(folder)) = (&self.draw, &self.plots) {
            let report: Value = files::read(report, serde_json::from_reader)?;
            return files::print(&files::listed(&plots(folder, &report)?));
        }
        let of_whole_models = [
            self.images.is_some(),
            self.repeat.is_some(),
            self.python.is_some(),
            self.execution.memory_budget.is_some(),
        ];
        ensure!(self.only != Some(Part::Kernels) || !of_whole_models.contains(&true), WHOLE_MODELS_ONLY);
        let outputs: Vec<&Path> = self.markdown.iter().map(PathBuf::as_path).chain(self.json.path()).collect();
        files::distinct(&outputs, &[])?;
        let choice = match (self.execution.place.backend()?, self.execution.kernels) {
            (_, CpuKernels::Reference) => {
                bail!("--kernels reference: the reference is what results are compared with; name other kernels")
            }
            (Backend::Gpu, CpuKernels::Named(_)) => bail!("{CPU_KERNELS_ONLY}"),
            (Backend::Gpu, _) if self.calibrate => bail!("{CORE_ONLY}"),
            _ if self.calibrate || self.alternatives => None,
            (Backend::Cpu, _) | (Backend::Auto, CpuKernels::Named(_)) => None,
            (Backend::Gpu, CpuKernels::Auto) => Some(Choice::new(&self.execution.place)?),
            (Backend::Auto, CpuKernels::Auto) => {
                Choice::automatic(self.execution.place.compile_timeout.limit()).transpose()?
            }
        };
        let kernels = match self.execution.kernels {
            CpuKernels::Named(name) => cryptodl::cpu_kernels(name)?,
            CpuKernels::Auto | CpuKernels::Reference => cryptodl_cpu::Kernels::best(),
        };
        let markdown = self.markdown.as_ref().map(|path| Output::create(path, Access::Everybody)).transpose()?;
        let json = self.json.create()?;
        let write = |text: String| markdown.map_or(Ok(()), |file| file.write(|file| file.write_all(text.as_bytes())));
        if self.calibrate {
            let open = |basis: &Arc<RnsBasis>| Cpu::with_kernels(basis.clone(), kernels);
            let calibration = Calibration::measure(open, self.effort())?;
            write(calibration.text())?;
            return json.show(&calibration, || calibration.text());
        }
        if self.alternatives {
            let models = self.whole_models();
            let alternatives = Alternatives::measure(&models, self.image_count(), self.repetitions(), &self.execution)?;
            write(alternatives.text())?;
            return json.show(&alternatives, || alternatives.text());
        }
        if let Some(folder) = &self.plots {
            files::make_folder(folder, Access::Everybody)?;
        }
        let report = match &choice {
            Some(choice) => self.measure(|params| choice.timed(params))?,
            None => self.measure(|params| Ok(Cpu::with_kernels(params.basis().clone(), kernels)))?,
        };
        write(report.text())?;
        let mut files = Vec::new();
        if let Some(folder) = &self.plots {
            files = plots(folder, &serde_json::to_value(&report)?)?;
        }
        files.extend(self.markdown.iter().map(|path| Written::at(path, "")));
        json.show(&report, || report.text() + "\n" + &files::listed(&files))
    }

    /// The schedules of whole models.
    fn schedules(&self) -> impl Iterator<Item = (ScheduleKind, &'static str)> {
        let only = self.schedule;
        SCHEDULES.into_iter().filter(move |(kind, _)| only.is_none_or(|only| only == *kind))
    }

    fn measure<B: Measured>(&self, open: impl Fn(&Params) -> Result<B>) -> Result<Report> {
        let bar = Bar::new("bench");
        let first = open(&params_for_tests(1 << DIMENSIONS.start())?)?;
        let mut bench = Bench::new(&first, self.effort(), &bar)?;
        let (mut models, mut skipped) = (Vec::new(), Vec::new());
        // Models come first: kernels leave memory behind, which would count as theirs.
        if self.only != Some(Part::Kernels) {
            let names = self.whole_models();
            for (done, name) in names.iter().enumerate() {
                bar.show(done as u64, names.len() as u64);
                bar.say(format!("{name}, end to end"));
                for model in self.end_to_end(name, &first, bench.ceilings(), &mut skipped)? {
                    let (seconds, images) = (model.run.seconds.stages.compute, model.run.images);
                    bar.leave(&format!("{name}, {}: {seconds:.3} s for {images} images", model.schedule));
                    models.push(model);
                }
            }
        }
        if self.only != Some(Part::Models) {
            self.kernels(&mut bench, open, &bar, &mut skipped)?;
        }
        let clock = if first.kernel_seconds().is_some() { "device" } else { "host" };
        let ceilings = bench.ceilings().clone();
        Ok(Report::new(Machine::of(&first), clock, ceilings, bench.rows, models, skipped))
    }

    fn effort(&self) -> Effort {
        if self.quick { QUICK } else { FULL }
    }

    /// The models that are measured as a whole.
    fn whole_models(&self) -> Vec<String> {
        if self.models.is_empty() { vec![DEFAULT_MODEL.to_owned()] } else { self.models.clone() }
    }

    fn image_count(&self) -> usize {
        self.images.unwrap_or(if self.quick { QUICK_IMAGES } else { DEFAULT_BATCH })
    }

    /// Computations of every model.
    fn repetitions(&self) -> NonZeroUsize {
        self.repeat.unwrap_or(if self.quick { QUICK_REPEAT } else { FULL_REPEAT })
    }

    fn kernels<B: Measured>(
        &self,
        bench: &mut Bench<'_>,
        open: impl Fn(&Params) -> Result<B>,
        bar: &Bar,
        skipped: &mut Vec<String>,
    ) -> Result<()> {
        let shipped = self.shipped(skipped)?;
        let total = (DIMENSIONS.count() + shipped.len() + 1) as u64;
        for (done, log_n) in (1..).zip(DIMENSIONS) {
            bar.show(done, total);
            let params = params_for_tests(1 << log_n)?;
            transforms(bench, &open(&params)?, &params)?;
        }
        let mut seen = HashSet::new();
        for (done, shipped) in (1 + DIMENSIONS.count() as u64..).zip(&shipped) {
            bar.show(done, total);
            let backend = open(&shipped.params)?;
            programs(bench, &backend, shipped, &mut seen)?;
            client(bench, &backend, shipped, &mut seen)?;
        }
        Ok(())
    }

    /// The model `name` in both schedules, of which one that the planner refuses is skipped.
    fn end_to_end<B: Measured>(
        &self,
        name: &str,
        backend: &B,
        ceilings: &Ceilings,
        skipped: &mut Vec<String>,
    ) -> Result<Vec<EndToEnd>> {
        let network = zoo::load(name)?;
        let Some(dataset) = network.dataset else {
            skipped.push(format!("{name}, end to end: it names no data set; see `cryptodl run --data`"));
            return Ok(Vec::new());
        };
        let mut samples = Samples::load(&network, None, None)?;
        samples.truncate(self.image_count())?;
        let repeat = self.repetitions().get();

        // One line is enough, whatever the model.
        let mut lost = |error: anyhow::Error| {
            let line = format!("plaintext PyTorch: {}", explain(&error));
            if !skipped.contains(&line) {
                skipped.push(line);
            }
        };
        let mut peer = Peer::start(
            self.python.as_deref().unwrap_or(DEFAULT_PYTHON),
            name,
            &dataset_dir(dataset, None)?,
            samples.count(),
        )
        .map_err(&mut lost)
        .ok();
        let mut measured = Vec::new();
        let mut refused = Vec::new();
        for (schedule, label) in self.schedules() {
            memory::forget_peak();
            let options = PlanOptions { schedule, ..PlanOptions::default() };
            let mut measure = || {
                let prepared = Prepared::new(name, &options, &self.execution)?;
                let computed_on = prepared.service.machine().backend;
                ensure!(
                    computed_on == backend.name(),
                    "{name} computes on the {computed_on}, but ceilings are those of the {}: name one of them with --backend",
                    backend.name()
                );
                let operations = backend.linear_operations(prepared.params().basis().modulus(0).bits());
                let limits = Limits { ceilings, operations };
                end_to_end(&prepared, &samples, repeat, label, &limits, &mut peer, &mut lost)
            };
            measured.extend(fitting(name, label, measure(), &mut refused)?);
        }
        skipped.extend(refused);
        Ok(measured)
    }

    /// The models in both schedules, but those that the planner refuses.
    fn shipped(&self, skipped: &mut Vec<String>) -> Result<Vec<Shipped>> {
        let names = if self.models.is_empty() {
            zoo::names().to_vec()
        } else {
            self.models.iter().map(String::as_str).collect()
        };
        let mut shipped = Vec::new();
        for name in names {
            let network: Network = zoo::load(name)?;
            for (schedule, label) in self.schedules() {
                let found = plan(&network, &PlanOptions { schedule, ..PlanOptions::default() });
                if let Some(plan) = fitting(name, label, found.map_err(Into::into), skipped)? {
                    let params = plan.program.params()?;
                    shipped.push(Shipped { name: format!("{name} {label}"), program: plan.program, params });
                }
            }
        }
        Ok(shipped)
    }
}

/// Writes the drawings of `report` to `folder`.
fn plots(folder: &Path, report: &Value) -> Result<Vec<Written>> {
    files::make_folder(folder, Access::Everybody)?;
    let drawings = draw(report)?.into_iter().map(|(name, drawing)| {
        let path = folder.join(name);
        Output::create(&path, Access::Everybody)?.write(|file| file.write_all(drawing.as_bytes()))?;
        Ok(Written::at(&path, ""))
    });
    drawings.collect()
}

/// What was `found`, or nothing where the planner refuses or the memory is too small, which `skipped` then says: the rest of a
/// report is worth having.
fn fitting<T>(model: &str, schedule: &str, found: Result<T>, skipped: &mut Vec<String>) -> Result<Option<T>> {
    let error = match found {
        Ok(found) => return Ok(Some(found)),
        Err(error) => error,
    };
    let too_large = |error: &RunError| {
        matches!(error, RunError::Budget { .. } | RunError::Backend(BackendError::OutOfMemory { .. }))
    };
    let skips = match error.downcast_ref() {
        Some(cryptodl::Error::Run(error)) => too_large(error),
        Some(cryptodl::Error::Plan(error)) => matches!(error, PlanError::DoesNotFit { .. }),
        _ => matches!(error.downcast_ref(), Some(PlanError::DoesNotFit { .. })),
    };
    if !skips {
        return Err(error);
    }
    let line = format!("{model} {schedule}: {}", explain(&error));
    if !skipped.contains(&line) {
        skipped.push(line);
    }
    Ok(None)
}
