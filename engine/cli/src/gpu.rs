//! The GPU for commands. `no_gpu.rs` stands in where it is not built.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;
use cryptodl_core::backend::conformance::params_for_tests;
use cryptodl_core::ckks::Params;
use cryptodl_engine::gpu::{
    Adapter, AdapterFeatures, AdapterInfo, AdapterKind, AdapterLimits, AdapterRequest, Dot, Gpu, GpuError, GpuOptions,
    Multiply, adapters, choose,
};
use cryptodl_engine::plan::Program;
use cryptodl_engine::run::{Executor, RunError};
use serde::Serialize;

use crate::memory::{self, show_size};
use crate::server::Server;

/// Memory of a GPU that is used where nothing tells how much there is (Metal, DX12): every card that can compete with a CPU has
/// this much. Where it does not, its driver refuses an allocation.
const UNKNOWN_BUDGET: u64 = 3 << 30;

/// Memory for the tensors of a conformance check.
const CHECK_BUDGET: u64 = 1 << 30;

/// Memory for the operands of a benchmark, ten times the largest.
const BENCH_BUDGET: u64 = 3 << 30;

/// An adapter that can run the kernels.
pub struct Choice(Adapter);

impl Choice {
    /// The adapter that `--adapter` names, else a hardware GPU.
    pub fn new(adapter: Option<&str>) -> Result<Self> {
        let Some(text) = adapter else {
            return Ok(Choice(choose(&AdapterRequest::HardwareOnly)?));
        };
        // A number beyond the list may be part of a name, such as 4090.
        let by_index = text.parse().ok().map(|index| choose(&AdapterRequest::Index(index)));
        let chosen = match by_index {
            None | Some(Err(GpuError::UnknownAdapter { .. })) => choose(&AdapterRequest::Name(text.to_owned())),
            Some(chosen) => chosen,
        };
        Ok(Choice(chosen?))
    }

    /// A hardware GPU, if there is one; an error if it cannot be used.
    pub fn automatic() -> Option<Result<Self>> {
        match choose(&AdapterRequest::HardwareOnly) {
            Err(GpuError::NoAdapter | GpuError::NoHardware { .. }) => None,
            choice => Some(choice.map(Choice).map_err(Into::into)),
        }
    }

    /// Prepares `program`.
    pub fn server(&self, program: &Program, params: &Params, budget: Option<u64>) -> Result<Box<dyn Server>> {
        let budget = budget.unwrap_or_else(|| match self.0.info().kind {
            AdapterKind::Hardware => self.0.default_budget().unwrap_or(UNKNOWN_BUDGET),
            AdapterKind::Software => memory::default_budget(),
        });
        let gpu = Gpu::new(&self.0, params.basis().clone(), GpuOptions::new(budget))?;
        // The other half is for linear maps, tables, and memory that is kept for the next tensor.
        let executor = Executor::new(program, params, gpu, budget / 2).map_err(|error| match error {
            RunError::Budget { needed, .. } => RunError::Budget { budget, needed: 2 * needed },
            other => other,
        })?;
        Ok(Box::new(executor))
    }

    /// Its place in the list.
    pub fn index(&self) -> usize {
        self.0.info().index
    }

    /// Opens the adapter for the conformance suite, with the kernels that `variant` names.
    pub fn checked(&self, params: &Params, variant: Variant) -> Result<Gpu> {
        let options = GpuOptions { multiply: variant.multiply, dot: variant.dot, ..GpuOptions::new(CHECK_BUDGET) };
        Ok(Gpu::new(&self.0, params.basis().clone(), options)?)
    }

    /// Opens the adapter with a clock on every kernel.
    pub fn timed(&self, params: &Params) -> Result<Gpu> {
        let options = GpuOptions { timings: true, ..GpuOptions::new(BENCH_BUDGET) };
        Ok(Gpu::new(&self.0, params.basis().clone(), options)?)
    }

    /// The variants that this adapter can run.
    pub fn variants(&self) -> impl Iterator<Item = (&'static str, Variant)> {
        let int64 = self.0.info().features.int64;
        VARIANTS.into_iter().filter(move |(_, variant)| int64 || variant.multiply != Multiply::U64)
    }
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
    limits: AdapterLimits,
    features: AdapterFeatures,
    usable: bool,
    /// Why it is not usable.
    reason: Option<String>,
    /// The kernels that it would use, the fastest of several.
    kernels: Option<&'static str>,
}

/// All adapters. Each is opened and its kernels are compiled and measured, as a computation would.
pub fn devices() -> Result<Vec<Device>> {
    let params = params_for_tests(1024)?;
    let open = |index| -> Result<&'static str, GpuError> {
        use cryptodl_core::backend::Backend;
        let adapter = choose(&AdapterRequest::Index(index))?;
        Ok(Gpu::new(&adapter, params.basis().clone(), GpuOptions::new(CHECK_BUDGET))?.kernels())
    };
    let device = |info: AdapterInfo| {
        let AdapterInfo { index, name, kind, backend, driver, limits, features, usable } = info;
        let kernels = usable.and_then(|()| open(index).map_err(|error| error.to_string()));
        let (kernels, reason) = kernels.map_or_else(|reason| (None, Some(reason)), |kernels| (Some(kernels), None));
        Device { index, name, kind, backend, driver, limits, features, usable: kernels.is_some(), reason, kernels }
    };
    Ok(adapters().into_iter().map(device).collect())
}

impl Device {
    /// Whether it can compute.
    pub fn is_usable(&self) -> bool {
        self.usable
    }
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
            (Some(kernels), _) => writeln!(f, "   kernels   {kernels}"),
            (None, reason) => writeln!(f, "   unusable  {}", reason.as_deref().unwrap_or_default()),
        }
    }
}
