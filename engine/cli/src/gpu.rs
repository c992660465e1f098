//! The GPU for commands. `no_gpu.rs` stands in where it is not built.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cryptodl_core::ckks::{Params, params_for_tests};
use cryptodl_gpu::{
    Adapter, AdapterFeatures, AdapterInfo, AdapterKind, AdapterLimits, AdapterRequest, Compilation, CompileTrial,
    CompileWatch, Compiling, Dot, Gpu, GpuError, GpuOptions, Multiply, Trial, adapters, choose,
};
use serde::Serialize;

use crate::advice::explain;
use crate::flags::Place;
use crate::memory::{self, show_size};
use crate::progress::Bar;
use crate::terminal::wrapped;

/// Memory for the tensors of a conformance check.
const CHECK_BUDGET: u64 = 1 << 30;

/// Memory for the operands of a benchmark, ten times the largest.
const BENCH_BUDGET: u64 = 3 << 30;

/// Keeps a layer of Mesa's Vulkan driver from complaining of a desktop session that is not there.
///
/// Mesa installs a Vulkan layer that asks a Wayland desktop which GPU it uses. Without XDG_RUNTIME_DIR, as on a server, the
/// Wayland library prints an error on stderr each time adapters are listed, and all goes on. Only a variable of the
/// environment switches the layer off. Nothing here needs its order of GPUs, so the process begins anew with that variable:
/// a variable cannot be set safely in a process that has threads, nor without unsafe code.
pub fn quiet_driver() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        use std::{env, path::Path, process::Command};

        const OFF: &str = "NODEVICE_SELECT";
        let desktop = env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| Path::new(&folder).is_absolute());
        if desktop || env::var_os(OFF).is_some() {
            return;
        }
        let mut arguments = env::args_os();
        if let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) {
            // It returns only if it fails; then the driver complains.
            let _ = Command::new(program).arg0(name).args(arguments).env(OFF, "1").exec();
        }
    }
}

/// An adapter that can run the kernels, and how long its driver may take to compile one.
pub struct Choice {
    adapter: Adapter,
    limit: Duration,
}

impl Choice {
    /// The adapter that `--adapter` names, else a hardware GPU.
    pub fn new(place: &Place) -> Result<Self> {
        Ok(Choice { adapter: Adapter::named(place.adapter.as_deref())?, limit: place.compile_timeout.limit() })
    }

    /// A hardware GPU, if there is one; an error if it cannot be used.
    pub fn automatic(limit: Duration) -> Option<Result<Self>> {
        match choose(&AdapterRequest::HardwareOnly) {
            Err(GpuError::NoAdapter | GpuError::NoHardware { .. }) => None,
            found => Some(found.map(|adapter| Choice { adapter, limit }).map_err(Into::into)),
        }
    }

    /// Its place in the list.
    pub fn index(&self) -> usize {
        self.adapter.info().index
    }

    /// Opens the adapter for the conformance suite, with the kernels that `variant` names.
    pub fn checked(&self, params: &Params, variant: Variant) -> Result<Gpu> {
        let options = GpuOptions { multiply: variant.multiply, dot: variant.dot, ..self.options(CHECK_BUDGET) };
        Ok(Gpu::new(&self.adapter, params.basis().clone(), options)?)
    }

    /// Opens the adapter with a clock on every kernel.
    pub fn timed(&self, params: &Params) -> Result<Gpu> {
        let options = GpuOptions { timings: true, ..self.options(BENCH_BUDGET) };
        Ok(Gpu::new(&self.adapter, params.basis().clone(), options)?)
    }

    fn options(&self, budget: u64) -> GpuOptions {
        GpuOptions { watch: watch(self.limit), ..GpuOptions::new(budget) }
    }

    /// The variants that this adapter can run.
    pub fn variants(&self) -> impl Iterator<Item = (&'static str, Variant)> {
        let int64 = self.adapter.info().features.int64;
        VARIANTS.into_iter().filter(move |(_, variant)| int64 || variant.multiply != Multiply::U64)
    }
}

/// Shows what is being compiled.
fn watch(limit: Duration) -> CompileWatch {
    let bar = Bar::new("compile");
    let progress = move |&Compiling { kernel, done, total }: &Compiling| {
        bar.show(done as u64, total as u64);
        bar.say(kernel.unwrap_or_default().into());
    };
    CompileWatch { limit, progress: Arc::new(progress) }
}

/// Which of the equivalent kernels.
#[derive(Clone, Copy)]
pub struct Variant {
    multiply: Multiply,
    dot: Dot,
}

/// All of them, as `--kernels` names them.
pub const VARIANTS: [(&str, Variant); 4] = [
    ("u64-packed", Variant { multiply: Multiply::U64, dot: Dot::Packed }),
    ("u64-integer", Variant { multiply: Multiply::U64, dot: Dot::Integer }),
    ("16bit-packed", Variant { multiply: Multiply::Portable, dot: Dot::Packed }),
    ("16bit-integer", Variant { multiply: Multiply::Portable, dot: Dot::Integer }),
];

/// An adapter, for people and machines.
#[derive(Serialize)]
pub struct Device {
    index: usize,
    name: String,
    kind: AdapterKind,
    backend: &'static str,
    driver: String,
    /// Where it is on the PCI bus, if the driver says so.
    pci_bus: Option<String>,
    limits: AdapterLimits,
    features: AdapterFeatures,
    usable: bool,
    /// Why it is not usable.
    reason: Option<String>,
    /// The kernels that it would use, the fastest of several.
    kernels: Option<&'static str>,
    /// What was measured to choose them.
    trials: Vec<Trial>,
    /// What it costs to compile each of them, where that was asked for.
    compiled: Vec<Compiled>,
}

/// Cost of compiling a kernel and of running it once on next to nothing.
#[derive(Serialize)]
struct Compiled {
    kernel: &'static str,
    /// Kernel, variant and override in words.
    title: String,
    seconds: f64,
    /// Most memory that this process held meanwhile, where the system tells.
    peak_bytes: Option<u64>,
}

/// All adapters. Each is opened and its kernels are compiled and measured, as a computation would; with `compile_for`, every variant
/// of every kernel is compiled for a ring of this dimension as well, one at a time.
pub fn devices(limit: Duration, compile_for: Option<usize>) -> Result<Vec<Device>> {
    adapters().into_iter().map(|info| Device::examine(info, limit, compile_for)).collect()
}

/// Compiles everything that `adapter` could run for dimension `n`.
fn compile(adapter: &Adapter, n: usize, limit: Duration) -> Result<Vec<Compiled>, GpuError> {
    // One bar for all of them.
    let trial = CompileTrial::open(adapter, n, CompileWatch { limit, ..CompileWatch::default() })?;
    let (bar, all) = (Bar::new("compile"), trial.compilations());
    let total = all.len() as u64;
    let one = |(compilation, done): (Compilation, u64)| {
        bar.show(done, total);
        bar.say(compilation.title());
        memory::forget_peak();
        let seconds = trial.run(compilation)?.as_secs_f64();
        Ok(Compiled {
            kernel: compilation.kernel(),
            title: compilation.title(),
            seconds,
            peak_bytes: memory::peak_rss(),
        })
    };
    all.into_iter().zip(0..).map(one).collect()
}

impl Device {
    fn examine(info: AdapterInfo, limit: Duration, compile_for: Option<usize>) -> Result<Self> {
        use cryptodl_core::backend::Backend;
        let params = params_for_tests(1024)?;
        let AdapterInfo { index, name, kind, backend, driver, pci_bus, limits, features, usable: _ } = info;
        // An adapter that is not usable is refused when it is chosen.
        let examine = || -> Result<_, GpuError> {
            let adapter = choose(&AdapterRequest::Index(index))?;
            let options = GpuOptions { watch: watch(limit), ..GpuOptions::new(CHECK_BUDGET) };
            let gpu = Gpu::new(&adapter, params.basis().clone(), options)?;
            let compiled = compile_for.map(|n| compile(&adapter, n, limit)).transpose()?;
            Ok((gpu.kernels(), gpu.trials().to_vec(), compiled.unwrap_or_default()))
        };
        let (kernels, trials, compiled, reason) = match examine() {
            Ok((kernels, trials, compiled)) => (Some(kernels), trials, compiled, None),
            Err(error) => (None, Vec::new(), Vec::new(), Some(explain(&error.into()))),
        };
        let usable = kernels.is_some();
        Ok(Device {
            index,
            name,
            kind,
            backend,
            driver,
            pci_bus,
            limits,
            features,
            usable,
            reason,
            kernels,
            trials,
            compiled,
        })
    }

    /// Whether it can compute.
    pub fn is_usable(&self) -> bool {
        self.usable
    }
}

/// A fact in lines that fit a terminal.
fn row(f: &mut Formatter<'_>, label: &str, fact: &str) -> fmt::Result {
    writeln!(f, "{}", wrapped(&format!("   {label:9} {fact}"), 100, &" ".repeat(13)))
}

impl Display for Device {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Device { index, name, backend, driver, limits, features, .. } = self;
        writeln!(f, "{index}: {name} ({backend})")?;
        let kind = match self.kind {
            AdapterKind::Hardware => "hardware",
            AdapterKind::Software => "software: used only when --adapter names it",
        };
        writeln!(f, "   kind      {kind}")?;
        writeln!(f, "   driver    {driver}")?;
        if let Some(bus) = &self.pci_bus {
            writeln!(f, "   bus       {bus}")?;
        }
        let AdapterLimits { page_bytes, workgroup_bytes, workgroup_size, groups, storage_buffers, memory_bytes } =
            limits;
        if let Some(bytes) = memory_bytes {
            writeln!(f, "   memory    {}", show_size(*bytes))?;
        }
        writeln!(
            f,
            "   limits    {} per binding, {workgroup_bytes} bytes and {workgroup_size} invocations per workgroup,\n{:13}\
             {groups} workgroups per dimension, {storage_buffers} storage buffers per kernel",
            show_size(*page_bytes),
            ""
        )?;
        let yes = |has| if has { "yes" } else { "no" };
        let AdapterFeatures { int64, timestamps } = *features;
        writeln!(f, "   features  64-bit integers: {}, timestamps: {}", yes(int64), yes(timestamps))?;
        match (self.kernels, &self.reason) {
            (Some(kernels), _) => writeln!(f, "   kernels   {kernels}")?,
            (None, reason) => row(f, "unusable", reason.as_deref().unwrap_or_default())?,
        }
        for (line, work) in self.trials.chunk_by(|a, b| a.work == b.work).enumerate() {
            let label = if line == 0 { "measured" } else { "" };
            let times: Vec<String> =
                work.iter().map(|trial| format!("{} {:.1} us", trial.kernels, 1e6 * trial.seconds)).collect();
            row(f, label, &format!("{}: {}", work[0].work, times.join(", ")))?;
        }
        for (line, Compiled { title, seconds, peak_bytes, .. }) in self.compiled.iter().enumerate() {
            let label = if line == 0 { "compiled" } else { "" };
            let peak = peak_bytes.map_or_else(String::new, |bytes| format!(", {} held at most", show_size(bytes)));
            row(f, label, &format!("{title}: {seconds:.2} s{peak}"))?;
        }
        Ok(())
    }
}
