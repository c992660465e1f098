//! The backend: what each operation of the contract becomes on the device.

use std::ops::Range;
use std::sync::Arc;

use cryptodl_core::backend::{
    Backend, BackendError, BackendRemedy, Channels, KeySwitch, LinearMap, Maintenance, Result, Shape, SlotwiseOp,
    Transfers, Window, slotwise_shape,
};
use cryptodl_core::ring::{Automorphism, PrimeDigit, RnsBasis, UniformSource};
use cryptodl_shaders as shaders;

use super::device::Device;
use super::launch::{Direction, Lanes, Table};
use super::maps::Maps;
use super::pipelines::{CompileWatch, Pipelines};
use super::pool::{MemoryUse, Pool, Pooled};
use super::recorder::{Recorder, Slice};
use super::tensor::GpuTensor;
use super::timing::KernelTime;
use super::variants::{self, Dot, Multiply, Trial, Variants};
use super::{Adapter, AdapterInfo, GpuError};

/// Most limbs that one conversion reads.
const MAX_SOURCES: usize = shaders::constants::convert_basis::MAX_SOURCES as usize;

/// Smallest ring: seeds expand in pieces of this many residues.
const MIN_DIMENSION: usize = shaders::constants::expand::LANES as usize;

/// How a device is used. No choice changes a bit of any result.
#[derive(Clone)]
pub struct GpuOptions {
    /// Kernels for products.
    pub multiply: Multiply,
    /// Kernels for sums.
    pub dot: Dot,
    /// Bytes of device memory to allocate at most, apart from staging. A software adapter takes them from main memory, of which
    /// the system may promise more than there is.
    pub memory_budget: u64,
    /// Measures every kernel, which keeps kernels from overlapping.
    pub timings: bool,
    /// Pages smaller than the adapter allows.
    pub page_bytes: Option<u64>,
    /// How long kernels may take to compile.
    pub watch: CompileWatch,
}

impl GpuOptions {
    /// Everything chosen by the program, within a budget in bytes.
    pub fn new(memory_budget: u64) -> Self {
        let (multiply, dot) = (Multiply::Auto, Dot::Auto);
        GpuOptions { multiply, dot, memory_budget, timings: false, page_bytes: None, watch: CompileWatch::default() }
    }
}

/// A [`Backend`] on one adapter for one ring.
pub struct Gpu {
    pub(super) device: Arc<Device>,
    pub(super) basis: Arc<RnsBasis>,
    pub(super) pool: Arc<Pool>,
    pub(super) recorder: Recorder,
    pub(super) pipelines: Pipelines,
    pub(super) variants: Variants,
    trials: Vec<Trial>,
    pub(super) watch: CompileWatch,
    pub(super) maps: Maps,
    pub(super) forward_twiddles: Pooled,
    pub(super) inverse_twiddles: Pooled,
    pub(super) page_bytes: u64,
}

impl Gpu {
    /// Opens `adapter` for `basis`, compiles the kernels and uploads the transforms' tables.
    ///
    /// # Errors
    /// A ring that is too small, a feature that is missing, or what the driver refused.
    pub fn new(adapter: &Adapter, basis: Arc<RnsBasis>, options: GpuOptions) -> std::result::Result<Self, GpuError> {
        if basis.n() < MIN_DIMENSION {
            return Err(GpuError::Dimension { n: basis.n(), least: MIN_DIMENSION });
        }
        let device = Arc::new(Device::open(adapter)?);
        let (variants, trials) = variants::choose(&device, &options)?;
        Ok(Gpu { trials, ..Self::prepare(device, basis, &options, variants, &shaders::KERNELS)? })
    }

    /// A backend that has compiled only `kernels`.
    pub(super) fn prepare(
        device: Arc<Device>,
        basis: Arc<RnsBasis>,
        options: &GpuOptions,
        variants: Variants,
        kernels: &[&'static shaders::Kernel],
    ) -> Result<Self> {
        let pipelines = Pipelines::compile(&device, variants.units(kernels, basis.n()), &options.watch)?;
        let pool = Pool::new(Arc::clone(&device), options.memory_budget);
        let recorder = Recorder::new(Arc::clone(&device), options.timings && device.info.features.timestamps)?;
        let table = |twiddles: Vec<[u32; 2]>| {
            let bytes: &[u8] = bytemuck::must_cast_slice(&twiddles);
            let buffer = pool.take(bytes.len() as u64)?;
            recorder.write(&Slice::whole(&buffer.buffer), &[bytes])?;
            Ok(buffer)
        };
        Ok(Gpu {
            forward_twiddles: table(shaders::forward_twiddles(&basis))?,
            inverse_twiddles: table(shaders::inverse_twiddles(&basis))?,
            maps: Maps::new(options.memory_budget / 8),
            page_bytes: options.page_bytes.unwrap_or(u64::MAX).min(device.info.limits.page_bytes),
            device,
            basis,
            pool,
            recorder,
            pipelines,
            variants,
            trials: Vec::new(),
            watch: options.watch.clone(),
        })
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.device.info
    }

    /// What was measured to choose the kernels; nothing where the options or the adapter left no choice.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Device memory in use.
    pub fn memory(&self) -> MemoryUse {
        self.pool.usage()
    }

    /// Time per kernel of all that was waited for, if [`GpuOptions::timings`] asked for it and the adapter can tell.
    pub fn timings(&self) -> Vec<KernelTime> {
        self.recorder.timings()
    }

    /// Whether [`Self::timings`] grows.
    pub(super) fn is_timed(&self) -> bool {
        self.recorder.is_timed()
    }

    /// Loses the device, as a driver that resets it does.
    #[doc(hidden)]
    pub fn lose_device_for_tests(&self) {
        self.device.device.destroy();
    }

    /// Room for a tensor, with any contents.
    pub(super) fn room(&self, shape: Shape) -> Result<GpuTensor> {
        GpuTensor::new(&self.pool, self.page_bytes, shape)
    }

    /// A copy of a window.
    fn cut(&self, x: &GpuTensor, from: &Window) -> Result<GpuTensor> {
        let limbs = x.shape.limbs[from.limbs.clone()].to_vec();
        let [_, values, components, lanes] = from.extents();
        let out = self.room(Shape { limbs, values, components, lanes })?;
        self.copy_window(x, from, &out, &out.shape.window())?;
        Ok(out)
    }

    fn copy_window(&self, x: &GpuTensor, from: &Window, out: &GpuTensor, to: &Window) -> Result<()> {
        self.elementwise(&shaders::COPY, (out, to), Some((x, from)), |limb| self.limb(out, limb))
    }

    /// Lanes for which a limb of every intermediate result fits a page.
    fn lanes_per_page(&self, ops: &[SlotwiseOp<'_>], x: &GpuTensor) -> usize {
        let rows = ops.iter().scan(x.shape.clone(), |shape, op| {
            *shape = op.result(shape);
            Some(shape.values * shape.components)
        });
        let widest = rows.max().unwrap_or(0).max(1);
        ((self.page_bytes / 4) as usize / widest).max(1)
    }

    /// Slot-wise operations on `lanes` of `x`, from operation to operation without copies.
    fn slotwise_lanes(
        &self,
        ops: &[SlotwiseOp<'_>],
        x: &GpuTensor,
        lanes: Range<usize>,
        out: &GpuTensor,
    ) -> Result<()> {
        let mut part: Option<GpuTensor> = None;
        for (i, op) in ops.iter().enumerate() {
            let from = part.as_ref().map_or(Lanes { tensor: x, first: lanes.start }, Lanes::of);
            let shape = op.result(&from.tensor.shape);
            let last = i + 1 == ops.len();
            let next = if last { None } else { Some(self.room(Shape { lanes: lanes.len(), ..shape })?) };
            let to = next.as_ref().map_or(Lanes { tensor: out, first: lanes.start }, Lanes::of);
            match op {
                SlotwiseOp::Linear(map) => self.linear_lanes(map, from, to, lanes.len())?,
                SlotwiseOp::Polynomial(polynomial)
                    if from.tensor.shape.components == 2 && (2..=4).contains(&polynomial.degree()) =>
                {
                    self.horner_lanes(polynomial, from, to, lanes.len())?;
                }
                SlotwiseOp::Polynomial(polynomial) => {
                    let window =
                        |lanes: Lanes<'_>, len| lanes.tensor.shape.window().with_lanes(lanes.first..lanes.first + len);
                    let z = self.cut(from.tensor, &window(from, lanes.len()))?;
                    let lazy = vec![Maintenance::default(); polynomial.degree() - 1];
                    let result = self.activation(polynomial, &lazy, None, &z)?;
                    self.copy_window(&result, &result.shape.window(), to.tensor, &window(to, lanes.len()))?;
                }
            }
            part = next;
        }
        Ok(())
    }

    /// Centred conversion of the limbs at positions `sources` of `x`, in whatever pages.
    fn convert(&self, x: &GpuTensor, sources: Range<usize>, limbs: &[usize]) -> Result<GpuTensor> {
        if sources.len() > MAX_SOURCES {
            return Err(BackendError::Unsupported {
                device: self.device.info.name.clone(),
                reason: format!("{} limbs are to be converted at a time, at most {MAX_SOURCES} can be", sources.len()),
                remedies: &[BackendRemedy::Cpu],
            });
        }
        let out = self.room(Shape { limbs: limbs.to_vec(), ..x.shape.clone() })?;
        if sources.end <= x.page_end(sources.start) {
            self.convert_page(x, sources, &out, 0)?;
            return Ok(out);
        }
        let Shape { values, components, lanes, .. } = x.shape;
        let value_bytes = 4 * (sources.len() * components * lanes) as u64;
        let step = ((self.page_bytes / value_bytes.max(1)) as usize).max(1);
        for first in (0..values).step_by(step) {
            let window = x.shape.window().with_limbs(sources.clone()).with_values(first..(first + step).min(values));
            let part = self.cut(x, &window)?;
            assert!(part.pages().count() == 1, "all limbs of {components} x {lanes} residues in one binding");
            self.convert_page(&part, 0..sources.len(), &out, first)?;
        }
        Ok(out)
    }
}

impl Backend for Gpu {
    type Tensor = GpuTensor;

    fn name(&self) -> &'static str {
        "gpu"
    }

    fn kernels(&self) -> &'static str {
        self.variants.name()
    }

    fn device(&self) -> String {
        let AdapterInfo { name, backend, driver, .. } = &self.device.info;
        format!("{name} ({backend}, {driver})")
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        &self.basis
    }

    fn is_host(&self) -> bool {
        false
    }

    fn transfers(&self) -> Option<Transfers> {
        Some(self.recorder.transfers())
    }

    fn shape<'a>(&self, x: &'a GpuTensor) -> &'a Shape {
        &x.shape
    }

    fn zeros(&self, shape: Shape) -> Result<GpuTensor> {
        let out = self.room(shape)?;
        for (_, page) in out.pages().filter(|(_, page)| page.size > 0) {
            self.recorder.clear(page)?;
        }
        Ok(out)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<GpuTensor> {
        assert_eq!(residues.len(), shape.len(), "residues of a tensor of shape {shape:?}");
        let out = self.room(shape)?;
        self.write_residues(&out, residues)?;
        Ok(out)
    }

    fn download(&self, x: &GpuTensor) -> Result<Vec<u32>> {
        self.read_residues(x)
    }

    fn copy(&self, x: &GpuTensor, from: &Window, out: &mut GpuTensor, to: &Window) -> Result<()> {
        assert_eq!(from.extents(), to.extents(), "windows of a copy");
        assert!(contains(&x.shape, from) && contains(&out.shape, to), "window {from:?} or {to:?} leaves its tensor");
        self.copy_window(x, from, out, to)
    }

    fn unpack(&self, packed: &[u8], out: &mut GpuTensor, component: usize) -> Result<bool> {
        self.unpack_component(packed, out, component)
    }

    fn pack(&self, x: &GpuTensor, component: usize) -> Result<Vec<u8>> {
        self.pack_component(x, component)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut GpuTensor, component: usize) -> Result<()> {
        self.expand_component(source, first_object, out, component)
    }

    fn linear(&self, map: &LinearMap, x: &GpuTensor) -> Result<GpuTensor> {
        assert_eq!(x.shape.values, map.inputs(), "values of a linear map's operand");
        let out = self.room(Shape { values: map.outputs(), ..x.shape.clone() })?;
        self.linear_lanes(map, Lanes::of(x), Lanes::of(&out), x.shape.lanes)?;
        Ok(out)
    }

    fn multiply(&self, a: &GpuTensor, b: &GpuTensor) -> Result<GpuTensor> {
        assert_eq!(a.shape, Shape { components: a.shape.components, ..b.shape.clone() }, "factors");
        let out = self.room(Shape { components: a.shape.components + b.shape.components - 1, ..a.shape.clone() })?;
        self.multiply_into(a, b, &out)?;
        Ok(out)
    }

    fn add_constant(&self, x: &mut GpuTensor, constants: &[u32]) -> Result<()> {
        let channels = Channels::of(constants, &x.shape);
        let constant = |limb, channel| [constants[limb * channels.count() + channel]];
        let table = Table::new(x.shape.limbs.len(), channels, constant);
        self.per_channel(&shaders::ADD_CONSTANT, (x, &x.shape.window().with_components(0..1)), &table)
    }

    fn scale(&self, x: &mut GpuTensor, factors: &[u32]) -> Result<()> {
        let table = self.factors(x, factors, Channels::of(factors, &x.shape));
        self.per_channel(&shaders::SCALE, (x, &x.shape.window()), &table)
    }

    fn accumulate(&self, acc: &mut GpuTensor, x: &GpuTensor, factors: &[u32]) -> Result<()> {
        let (to, from) = (&acc.shape, &x.shape);
        assert_eq!((to.values, to.lanes), (from.values, from.lanes), "values and lanes");
        assert!(from.components <= to.components, "{} components to {}", from.components, to.components);
        let table = self.factors(acc, factors, Channels::of(factors, to));
        self.accumulate_into(acc, x, &table)
    }

    fn add(&self, x: &mut GpuTensor, y: &GpuTensor) -> Result<()> {
        assert_eq!(x.shape, y.shape, "summands");
        let window = x.shape.window();
        self.elementwise(&shaders::ADD, (x, &window), Some((y, &window)), |limb| self.limb(x, limb))
    }

    fn subtract_scale(&self, x: &mut GpuTensor, y: &GpuTensor, factors: &[u32]) -> Result<()> {
        assert_eq!(x.shape, y.shape, "operands of a difference");
        assert_eq!(factors.len(), x.shape.limbs.len(), "one factor per limb");
        let window = x.shape.window();
        // The kernel subtracts the other way round.
        let negated = |limb: usize| self.basis.modulus(x.shape.limbs[limb]).neg(factors[limb]);
        let limb = |limb| self.limb(x, limb).with_factor(negated(limb));
        self.elementwise(&shaders::SUBTRACT_SCALE, (x, &window), Some((y, &window)), limb)
    }

    fn accumulate_key(&self, acc: &mut GpuTensor, digit: &GpuTensor, key: &GpuTensor, row: usize) -> Result<()> {
        let expected = Shape { components: 1, ..acc.shape.clone() };
        assert_eq!((&digit.shape, acc.shape.components, key.shape.components), (&expected, 2, 2), "key switch");
        self.accumulate_row(acc, digit, key, row)
    }

    fn forward_ntt(&self, x: &mut GpuTensor) -> Result<()> {
        assert_eq!(x.shape.lanes, self.basis.n(), "whole polynomials");
        self.transform(x, Direction::Forward)
    }

    fn inverse_ntt(&self, x: &mut GpuTensor) -> Result<()> {
        assert_eq!(x.shape.lanes, self.basis.n(), "whole polynomials");
        self.transform(x, Direction::Inverse)
    }

    fn convert_basis(&self, x: &GpuTensor, limbs: &[usize]) -> Result<GpuTensor> {
        self.convert(x, 0..x.shape.limbs.len(), limbs)
    }

    fn synchronise(&self) -> Result<()> {
        self.recorder.wait()
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &GpuTensor, lanes: Range<usize>, out: &mut GpuTensor) -> Result<()> {
        assert_eq!(out.shape, slotwise_shape(ops, &x.shape), "result of slot-wise operations");
        if ops.is_empty() {
            let window = x.shape.window().with_lanes(lanes);
            return self.copy_window(x, &window, out, &window);
        }
        let step = self.lanes_per_page(ops, x);
        let mut slices = lanes.clone().step_by(step).map(|first| first..(first + step).min(lanes.end));
        slices.try_for_each(|slice| self.slotwise_lanes(ops, x, slice, out))
    }

    fn mod_down(&self, x: &GpuTensor, dropped: &[usize]) -> Result<GpuTensor> {
        let (limbs, kept) = (x.shape.limbs.len(), x.shape.limbs.len() - dropped.len());
        assert_eq!(&x.shape.limbs[kept..], dropped, "the dropped limbs are the last ones");
        if dropped.len() > MAX_SOURCES {
            let (later, now) = dropped.split_at(dropped.len() - MAX_SOURCES);
            // Dividing by one product after the other is dividing by both, see `CentredConverter`.
            return self.mod_down(&self.mod_down(x, now)?, later);
        }
        let mut low = self.cut(x, &x.shape.window().with_limbs(kept..limbs))?;
        self.inverse_ntt(&mut low)?;
        let mut out = self.convert_basis(&low, &x.shape.limbs[..kept])?;
        drop(low);
        self.forward_ntt(&mut out)?;
        // What is subtracted from the kept limbs becomes the result.
        let limb = |limb: usize| {
            let modulus = self.basis.modulus(out.shape.limbs[limb]);
            let divisor = self.basis.product_mod(dropped, out.shape.limbs[limb]);
            self.limb(&out, limb).with_factor(modulus.inv(divisor))
        };
        let window = out.shape.window();
        self.elementwise(&shaders::SUBTRACT_SCALE, (&out, &window), Some((x, &window)), limb)?;
        Ok(out)
    }

    fn prime_digit(&self, x: &GpuTensor, part: usize, parts: usize, limbs: &[usize]) -> Result<GpuTensor> {
        let &[own] = &x.shape.limbs[..] else { panic!("digits of one prime") };
        let digit = PrimeDigit::new(self.basis.modulus(own), part, parts);
        let out = self.room(Shape { limbs: limbs.to_vec(), ..x.shape.clone() })?;
        self.prime_digit_into(x, digit, &out)?;
        Ok(out)
    }

    fn automorphism(&self, automorphism: Automorphism, x: &GpuTensor) -> Result<GpuTensor> {
        assert_eq!(x.shape.lanes, automorphism.n(), "whole polynomials");
        let out = self.room(x.shape.clone())?;
        self.automorphism_into(automorphism, x, &out)?;
        Ok(out)
    }

    fn relinearise(&self, x: &GpuTensor, key: &KeySwitch<'_, GpuTensor>, drop: usize) -> Result<GpuTensor> {
        let level = x.shape.limbs.len();
        assert_eq!(x.shape.components, 3, "relinearisation takes three components");
        assert!(level <= key.layout.level && drop < level, "level {level}, key for {}, drop {drop}", key.layout.level);
        assert!(x.shape.limbs.iter().copied().eq(0..level), "a ciphertext of the chain");
        let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();

        // P times components 0 and 1, on the chain's limbs; zero on the special limbs.
        let mut acc = self.room(Shape { limbs: limbs.clone(), components: 2, ..x.shape.clone() })?;
        let chain = acc.shape.window().with_limbs(0..level);
        self.copy_window(x, &x.shape.window().with_components(0..2), &acc, &chain)?;
        let p: Vec<u32> = (0..level).map(|limb| self.basis.product_mod(key.special, limb)).collect();
        let p = self.factors(&acc, &p, Channels::new(1, acc.shape.values));
        self.per_channel(&shaders::SCALE, (&acc, &chain), &p)?;
        (level..limbs.len()).try_for_each(|limb| self.recorder.clear(acc.limb(limb)))?;

        let mut top = self.cut(x, &x.shape.window().with_components(2..3))?;
        self.inverse_ntt(&mut top)?;
        for g in 0..key.layout.digits(level) {
            let own = key.layout.digit_limbs(g, level);
            let mut digit = match key.layout.prime_parts {
                1 => self.convert(&top, own, &limbs)?,
                parts => {
                    let residues = self.cut(&top, &top.shape.window().with_limbs(own))?;
                    self.prime_digit(&residues, key.layout.part(g), parts, &limbs)?
                }
            };
            self.forward_ntt(&mut digit)?;
            self.accumulate_key(&mut acc, &digit, key.rows, g)?;
        }
        self.mod_down(&acc, &limbs[level - drop..])
    }
}

fn contains(shape: &Shape, window: &Window) -> bool {
    window.limbs.end <= shape.limbs.len()
        && window.values.end <= shape.values
        && window.components.end <= shape.components
        && window.lanes.end <= shape.lanes
}
