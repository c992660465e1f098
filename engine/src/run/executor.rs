//! Encrypted execution of a Program on a backend.

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use cryptodl_core::backend::{Backend, Horner, KeySwitch, LinearMap, ProductPlan, Shape, SlotwiseOp, slotwise_shape};
use cryptodl_core::ckks::{
    Ciphertexts, EncryptionKind, Params, PublicKey, Randomness, RelinKey, UniformPurpose, UniformSource, rerandomise,
};

use super::{ComputeReport, LayerTime, Progress, RunError};
use crate::plan::{Program, Step};

/// Smallest slice of lanes that a slot-wise segment is cut into.
const MIN_LANES: usize = 256;

/// A Program prepared for one backend. Reusable for any number of requests.
pub struct Executor<B: Backend> {
    backend: B,
    params: Params,
    segments: Vec<Segment>,
    input: Shape,
    output: Shape,
    /// Whether the next set is loaded while one is computed: where a device computes, and has room for it.
    loads_ahead: bool,
    seeded: bool,
    relin: Option<cryptodl_core::ckks::RelinLayout>,
    memory_budget: u64,
}

/// A run of fused slot-wise steps, or an activation with key switching or rescaling.
enum Segment {
    Slotwise { name: String, ops: Vec<Slotwise>, multiply_adds: u64 },
    Activation { name: String, polynomial: Horner, products: Vec<ProductPlan> },
}

enum Slotwise {
    Linear(LinearMap),
    Polynomial(Horner),
}

impl Slotwise {
    fn op(&self) -> SlotwiseOp<'_> {
        match self {
            Slotwise::Linear(map) => SlotwiseOp::Linear(map),
            Slotwise::Polynomial(polynomial) => SlotwiseOp::Polynomial(polynomial),
        }
    }
}

/// A set on the backend, and the seconds that it took.
struct Loaded<T> {
    x: T,
    unpack: f64,
    expand: f64,
}

/// How a result is masked, so that it does not give away exact equations in the weights (see SECURITY.md for what remains).
pub enum Masks<'a> {
    /// Fresh encryptions of zero under the client's public key.
    Fresh(&'a PublicKey, &'a mut Randomness),
    /// None, for tests that compare results bit for bit. The client then also learns exact equations in the weights.
    Deterministic,
}

impl<B: Backend> Executor<B> {
    /// Prepares `program`. `backend` is bound to the basis of the Program's parameters. `memory_budget` bounds the
    /// operands and results of a segment on the backend, in bytes, and sizes its slices and bands (at most half as much
    /// again); keys and masks come on top. It cannot change a bit of the result.
    ///
    /// # Errors
    /// Parameters or maps refused, or a budget below what one set needs.
    pub fn new(program: &Program, params: &Params, backend: B, memory_budget: u64) -> Result<Self, RunError> {
        let basis = params.basis();
        let content = &program.content;
        let segment = |range: std::ops::Range<usize>| {
            let name = program.names[range.clone()].join(" > ");
            match &content.steps[range.clone()] {
                [Step::Activation(step)] if !step.is_lazy() => {
                    Segment::Activation { name, polynomial: step.prepare(basis), products: step.products.clone() }
                }
                steps => {
                    let ops: Vec<Slotwise> = steps
                        .iter()
                        .map(|step| match step {
                            // The planner has prepared every map once to see that it is within bounds.
                            Step::Linear { map, .. } => {
                                Slotwise::Linear(map.prepare(basis).expect("the planner checked the map"))
                            }
                            Step::Activation(step) => Slotwise::Polynomial(step.prepare(basis)),
                        })
                        .collect();
                    let linear = ops.iter().filter_map(|op| match op {
                        Slotwise::Linear(map) => Some(map.multiply_adds()),
                        Slotwise::Polynomial(_) => None,
                    });
                    Segment::Slotwise { name, multiply_adds: linear.sum(), ops }
                }
            }
        };
        let input = Shape {
            limbs: params.chain(content.input.level),
            values: program.inputs(),
            components: 2,
            lanes: params.n(),
        };
        let executor = Executor {
            segments: program.segments().into_iter().map(segment).collect(),
            output: input.clone(),
            input,
            loads_ahead: false,
            seeded: content.encryption == EncryptionKind::Secret,
            relin: content.relin,
            params: params.clone(),
            backend,
            memory_budget,
        };
        executor.follow()
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Classifies the images in `input`. The result's bytes are the same on every backend, with every budget and number of
    /// threads, up to the masks.
    ///
    /// # Errors
    /// Input of another layout, residues that are none, a missing key, or what the backend could not do. Nothing is kept.
    pub fn compute(
        &self,
        input: &Ciphertexts,
        eval_key: Option<&RelinKey>,
        mut masks: Masks<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(Ciphertexts, ComputeReport), RunError> {
        let start = Instant::now();
        self.check_input(input)?;
        let mut report = ComputeReport::default();
        let crossed = self.backend.transfers();
        let key_rows = self.upload_key(eval_key)?;
        let special = self.params.special();
        let key = key_rows.as_ref().zip(self.relin).map(|(rows, layout)| KeySwitch { rows, layout, special: &special });
        report.parts.key = start.elapsed().as_secs_f64();
        let total = input.sets.len() * self.segments.len();
        let mut sets = Vec::with_capacity(input.sets.len());
        let mut loaded = None;
        for set in 0..input.sets.len() {
            let Loaded { x, unpack, expand } = match loaded.take() {
                Some(x) => x,
                None => self.load(input, set),
            }?;
            report.parts.unpack += unpack;
            report.parts.expand += expand;
            let following = (self.loads_ahead && set + 1 < input.sets.len()).then_some(set + 1);
            let beside = |masks: &mut Masks<'_>| (self.mask(masks), following.map(|set| self.load(input, set)));
            let computed = |progress_of_set: &dyn Fn(usize)| self.layers(x, key.as_ref(), &mut report, progress_of_set);
            let progress_of_set = |segment| progress(Progress { done: set * self.segments.len() + segment, total });
            let (x, (mask, next)) = if crossed.is_some() {
                // The device computes; the host's threads are free.
                thread::scope(|scope| {
                    let beside = scope.spawn(|| beside(&mut masks));
                    let x = computed(&progress_of_set)?;
                    Ok::<_, RunError>((x, beside.join().unwrap_or_else(|panic| resume_unwind(panic))))
                })?
            } else {
                (computed(&progress_of_set)?, beside(&mut masks))
            };
            loaded = next;
            sets.push(self.finish(x, mask, &mut report)?);
        }
        let shape = &self.output;
        let result = Ciphertexts {
            level: shape.limbs.len(),
            values: shape.values,
            components: shape.components,
            seed: None,
            images: input.images,
            sets,
        };
        report.parts.transfers = self.backend.transfers().zip(crossed).map(|(now, before)| now.since(&before));
        report.seconds = start.elapsed().as_secs_f64();
        Ok((result, report))
    }

    /// The segments, one after the other, on one set. Tells how many are done.
    fn layers(
        &self,
        mut x: B::Tensor,
        key: Option<&KeySwitch<'_, B::Tensor>>,
        report: &mut ComputeReport,
        progress: &dyn Fn(usize),
    ) -> Result<B::Tensor, RunError> {
        for (i, segment) in self.segments.iter().enumerate() {
            let started = Instant::now();
            let before = self.backend.shape(&x).clone();
            x = self.execute(segment, x, key)?;
            self.backend.synchronise()?;
            let seconds = started.elapsed().as_secs_f64();
            report.parts.layers += seconds;
            self.account(&mut report.layers, i, segment, &before, self.backend.shape(&x), seconds);
            progress(i + 1);
        }
        Ok(x)
    }

    /// Residues to add to a result, none without masks, and the seconds that it took to draw them.
    fn mask(&self, masks: &mut Masks<'_>) -> (Option<Vec<u32>>, f64) {
        let started = Instant::now();
        let zeros = match masks {
            Masks::Deterministic => None,
            Masks::Fresh(key, rng) => {
                let Shape { values, components, ref limbs, .. } = self.output;
                let mut zeros = vec![0; self.output.len()];
                rerandomise(&self.params, key, &mut zeros, values, components, limbs.len(), rng);
                Some(zeros)
            }
        };
        (zeros, started.elapsed().as_secs_f64())
    }

    /// Masks and packs a result.
    fn finish(
        &self,
        mut x: B::Tensor,
        (mask, drawing): (Option<Vec<u32>>, f64),
        report: &mut ComputeReport,
    ) -> Result<Vec<u8>, RunError> {
        let started = Instant::now();
        if let Some(mask) = mask {
            let mask = self.backend.upload(self.output.clone(), &mask)?;
            self.backend.add(&mut x, &mask)?;
            self.backend.synchronise()?;
        }
        report.parts.masks += drawing + started.elapsed().as_secs_f64();
        let started = Instant::now();
        let packed: Result<Vec<_>, _> = (0..self.output.components).map(|c| self.backend.pack(&x, c)).collect();
        report.parts.pack += started.elapsed().as_secs_f64();
        Ok(packed?.concat())
    }

    fn check_input(&self, input: &Ciphertexts) -> Result<(), RunError> {
        let bytes = input.set_bytes(&self.params);
        let sets = input.images.div_ceil(self.params.n());
        if sets == 0 {
            return Err(RunError::Input {
                field: "the number of images",
                actual: "0".into(),
                expected: "1 or more".into(),
            });
        }
        // Objects of one seed are numbered in 32 bits.
        let most = u32::MAX as usize / self.input.values;
        if sets > most {
            let (actual, expected) = (sets.to_string(), format!("at most {most}"));
            return Err(RunError::Input { field: "the number of sets", actual, expected });
        }
        let checks = [
            ("the number of chain limbs", input.level, self.input.limbs.len()),
            ("the number of values", input.values, self.input.values),
            ("the number of components", input.components, 2),
            ("the number of stored components", input.stored_components(), if self.seeded { 1 } else { 2 }),
            ("the number of sets", input.sets.len(), sets),
            ("the length of a set", input.sets.iter().map(Vec::len).find(|&len| len != bytes).unwrap_or(bytes), bytes),
        ];
        match checks.into_iter().find(|(_, actual, expected)| actual != expected) {
            Some((field, actual, expected)) => {
                Err(RunError::Input { field, actual: actual.to_string(), expected: expected.to_string() })
            }
            None => Ok(()),
        }
    }

    fn upload_key(&self, key: Option<&RelinKey>) -> Result<Option<B::Tensor>, RunError> {
        let Some(layout) = self.relin else {
            return Ok(None);
        };
        let describe = |layout: cryptodl_core::ckks::RelinLayout| {
            format!("a relinearisation key for level {} with digits of {} primes", layout.level, layout.digit_primes)
        };
        let key = key.filter(|key| key.layout == layout).ok_or_else(|| RunError::EvalKey {
            expected: describe(layout),
            actual: key.map_or("the evaluation key is empty".into(), |key| format!("got {}", describe(key.layout))),
        })?;
        let (n, limbs) = (self.params.n(), key.limbs(&self.params));
        let digits = layout.digits(layout.level);
        let parts = [&key.b, &key.expand_a(&self.params)];
        // Host rows are [digit][limb][N] for b and a apart; tensors are [limb][digit][component][N].
        let mut rows = Vec::with_capacity(2 * key.b.len());
        for limb in 0..limbs.len() {
            for digit in 0..digits {
                parts.iter().for_each(|part| rows.extend_from_slice(&part[(digit * limbs.len() + limb) * n..][..n]));
            }
        }
        let shape = Shape { limbs, values: digits, components: 2, lanes: n };
        Ok(Some(self.backend.upload(shape, &rows)?))
    }

    fn load(&self, input: &Ciphertexts, set: usize) -> Result<Loaded<B::Tensor>, RunError> {
        let started = Instant::now();
        let mut x = self.backend.zeros(self.input.clone())?;
        let packed = input.sets[set].chunks_exact(input.component_bytes(&self.params));
        for (component, packed) in packed.enumerate() {
            if !self.backend.unpack(packed, &mut x, component)? {
                return Err(RunError::Residue { set });
            }
        }
        let unpack = started.elapsed().as_secs_f64();
        let started = Instant::now();
        if let Some(seed) = &input.seed {
            let source = UniformSource::new(UniformPurpose::Ciphertext, &self.params, seed);
            self.backend.expand(&source, (set * self.input.values) as u32, &mut x, 1)?;
            self.backend.synchronise()?;
        }
        Ok(Loaded { x, unpack, expand: started.elapsed().as_secs_f64() })
    }

    fn execute(
        &self,
        segment: &Segment,
        x: B::Tensor,
        key: Option<&KeySwitch<'_, B::Tensor>>,
    ) -> Result<B::Tensor, RunError> {
        let shape = self.backend.shape(&x).clone();
        match segment {
            Segment::Slotwise { ops, .. } => {
                let ops: Vec<SlotwiseOp<'_>> = ops.iter().map(Slotwise::op).collect();
                let mut out = self.backend.zeros(slotwise_shape(&ops, &shape))?;
                let lanes = self.lanes_per_slice(&ops, &shape);
                for first in (0..shape.lanes).step_by(lanes) {
                    self.backend.slotwise(&ops, &x, first..(first + lanes).min(shape.lanes), &mut out)?;
                }
                Ok(out)
            }
            Segment::Activation { polynomial, products, .. } => {
                let drop: usize = products.iter().map(|plan| plan.drop).sum();
                let step = self.values_per_band(&shape);
                let mut out: Option<B::Tensor> = None;
                for first in (0..shape.values).step_by(step) {
                    let values = first..(first + step).min(shape.values);
                    let mut z = self.backend.zeros(Shape { values: values.len(), ..shape.clone() })?;
                    let whole = self.backend.shape(&z).window();
                    self.backend.copy(&x, &shape.window().with_values(values.clone()), &mut z, &whole)?;
                    let y = self.backend.activation(polynomial, products, key, &z)?;
                    let band = self.backend.shape(&y).clone();
                    let out = match &mut out {
                        Some(out) => out,
                        none => none.insert(self.backend.zeros(Shape { values: shape.values, ..band.clone() })?),
                    };
                    let to = Shape { values: shape.values, ..band.clone() }.window().with_values(values);
                    self.backend.copy(&y, &band.window(), out, &to)?;
                }
                let out = out.expect("a ciphertext set has values");
                debug_assert_eq!(self.backend.shape(&out).limbs.len() + drop, shape.limbs.len());
                Ok(out)
            }
        }
    }

    fn account(
        &self,
        layers: &mut Vec<LayerTime>,
        index: usize,
        segment: &Segment,
        before: &Shape,
        after: &Shape,
        seconds: f64,
    ) {
        let (name, multiply_adds, residue_multiply_adds) = match segment {
            Segment::Activation { name, .. } => (name, 0, 0),
            Segment::Slotwise { name, ops, multiply_adds } => {
                let mut shape = before.clone();
                let mut sum = 0;
                for op in ops {
                    if let Slotwise::Linear(map) = op {
                        sum += map.multiply_adds() * (shape.components * shape.limbs.len() * shape.lanes) as u64;
                    }
                    shape = slotwise_shape(&[op.op()], &shape);
                }
                (name, *multiply_adds, sum)
            }
        };
        if layers.len() == index {
            layers.push(LayerTime {
                name: name.clone(),
                seconds: 0.0,
                limbs: after.limbs.len(),
                components: after.components,
                multiply_adds,
                residue_multiply_adds: 0,
            });
        }
        layers[index].seconds += seconds;
        layers[index].residue_multiply_adds += residue_multiply_adds;
    }

    /// Lanes per call, so that the intermediates of an unfused backend stay within half the budget.
    fn lanes_per_slice(&self, ops: &[SlotwiseOp<'_>], shape: &Shape) -> usize {
        let mut current = shape.clone();
        let mut widest = current.bytes();
        for op in ops {
            let next = slotwise_shape(&[*op], &current);
            widest = widest.max(current.bytes() + next.bytes());
            current = next;
        }
        let per_lane = 2 * widest / shape.lanes as u64;
        let lanes = (self.memory_budget / 2 / per_lane.max(1)) as usize;
        1 << lanes.clamp(MIN_LANES.min(shape.lanes), shape.lanes).ilog2()
    }

    /// Values per band of an activation: its intermediates (products, digits, accumulators) take about ten times the operand.
    fn values_per_band(&self, shape: &Shape) -> usize {
        let limbs = (shape.limbs.len() + self.params.special().len()) as u64;
        let per_value = 40 * limbs * shape.components as u64 * shape.lanes as u64;
        ((self.memory_budget / 4 / per_value.max(1)) as usize).clamp(1, shape.values)
    }

    /// Shape of a segment's result.
    fn result(&self, segment: &Segment, shape: &Shape) -> Shape {
        match segment {
            Segment::Slotwise { ops, .. } => {
                let ops: Vec<SlotwiseOp<'_>> = ops.iter().map(Slotwise::op).collect();
                slotwise_shape(&ops, shape)
            }
            Segment::Activation { products, .. } => {
                let mut components = shape.components;
                let mut level = shape.limbs.len();
                for plan in products {
                    components = if plan.relinearize { 2 } else { components + shape.components - 1 };
                    level -= plan.drop;
                }
                Shape { limbs: self.params.chain(level), components, ..shape.clone() }
            }
        }
    }

    /// Follows the shapes through the segments: the input and the output of each must fit side by side, and if they leave
    /// room for another set's input, that is loaded ahead.
    fn follow(mut self) -> Result<Self, RunError> {
        let mut needed = self.input.bytes();
        for segment in &self.segments {
            let next = self.result(segment, &self.output);
            needed = needed.max(self.output.bytes() + next.bytes());
            self.output = next;
        }
        if needed > self.memory_budget {
            return Err(RunError::Budget { budget: self.memory_budget, needed });
        }
        self.loads_ahead = self.backend.transfers().is_some() && needed + self.input.bytes() <= self.memory_budget;
        Ok(self)
    }
}
