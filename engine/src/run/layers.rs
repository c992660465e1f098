//! The layers of a Program on a backend: whole segments where they fit the memory budget, bands of layers where not.

use std::ops::Range;
use std::time::Instant;

use cryptodl_core::backend::{
    self, Backend, BackendError, Horner, KeySwitch, LinearMap, Positions, ProductPlan, Shape, SlotwiseOp,
    slotwise_shape,
};
use cryptodl_core::ckks::Params;

use super::bands::{Action, Layer, Schedule, schedule};
use super::{ComputeReport, LayerTime, RunError};
use crate::plan::{ActivationStep, PreparedPolynomial, Program, Step};

/// Smallest slice of lanes that a slot-wise run is cut into.
const MIN_LANES: usize = 256;

/// The steps of a Program, and in which order their parts are computed.
pub(super) struct Layers {
    ops: Vec<Op>,
    segments: Vec<Segment>,
    units: Vec<Unit>,
    schedule: Schedule,
    /// Before every op, and after the last.
    shapes: Vec<Shape>,
    special_primes: u64,
    memory_budget: u64,
}

/// One step, prepared for a backend.
enum Op {
    Linear(LinearMap),
    /// An activation that acts on each lane by itself.
    Lazy(Horner),
    /// One that relinearises or rescales.
    Switched(PreparedPolynomial, ActivationStep),
    /// A relinearisation, a rescale, or both, of their own.
    Reduction(ProductPlan),
}

/// What the report shows as one: a run of fused slot-wise steps, or an activation that switches keys or rescales.
struct Segment {
    name: String,
    multiply_adds: u64,
    ops: Range<usize>,
}

/// What is computed for one band of positions at once.
#[derive(Clone)]
struct Unit {
    ops: Range<usize>,
    /// Positions of its result.
    positions: usize,
}

impl Layers {
    /// Prepares the steps and finds an order within `memory_budget`, in bytes. Bands that halve what is taken come first if it
    /// is above `large`.
    pub fn new(program: &Program, params: &Params, memory_budget: u64, large: u64) -> Result<Self, RunError> {
        let content = &program.content;
        let basis = params.basis();
        let ops: Vec<Op> = content
            .steps
            .iter()
            .map(|step| match step {
                // The planner has prepared every map once to see that it is within bounds.
                Step::Linear { map, .. } => Op::Linear(map.prepare(basis).expect("the planner checked the map")),
                Step::Activation(step) => match step.prepare(basis) {
                    PreparedPolynomial::Horner(polynomial) if step.is_lazy() => Op::Lazy(polynomial),
                    polynomial => Op::Switched(polynomial, step.clone()),
                },
                Step::Reduction { plan, .. } => Op::Reduction(*plan),
            })
            .collect();
        let mut shape = Shape {
            limbs: params.chain(content.input.level),
            values: program.inputs(),
            components: 2,
            lanes: params.n(),
        };
        let mut shapes = vec![shape.clone()];
        for op in &ops {
            shape = match op {
                Op::Switched(_, step) => {
                    let (_, (level, components)) = step.trace(shape.limbs.len(), shape.components);
                    Shape { limbs: params.chain(level), components, ..shape }
                }
                Op::Reduction(plan) => {
                    let (level, components) = plan.result(shape.limbs.len(), shape.components);
                    Shape { limbs: params.chain(level), components, ..shape }
                }
                op => slotwise_shape(&[op.slotwise()], &shape),
            };
            shapes.push(shape.clone());
        }
        let segments = program.segments().into_iter().map(|range| Segment {
            name: program.names[range.clone()].join(" > "),
            multiply_adds: ops[range.clone()].iter().map(Op::multiply_adds).sum(),
            ops: range,
        });
        let mut layers = Layers {
            segments: segments.collect(),
            ops,
            units: Vec::new(),
            schedule: Schedule::default(),
            shapes,
            special_primes: params.special().len() as u64,
            memory_budget,
        };
        layers.arrange(large)?;
        Ok(layers)
    }

    /// Whole segments if they fit and are not large, else bands: of fused runs of maps while little is computed twice, else of
    /// every map by itself.
    fn arrange(&mut self, large: u64) -> Result<(), RunError> {
        let input_bytes = self.shapes[0].bytes();
        let whole: Vec<Unit> =
            self.segments.iter().map(|segment| Unit { ops: segment.ops.clone(), positions: 1 }).collect();
        let has_map = |segment: &&Segment| !self.maps(&segment.ops).is_empty();
        let runs = self.segments.iter().filter(has_map).map(|segment| segment.ops.start);
        let fused = self.banded_units(runs.collect());
        let single = self.banded_units((0..self.ops.len()).filter(|&op| self.ops[op].map().is_some()).collect());
        let little = self.segments.iter().map(|segment| segment.multiply_adds).sum::<u64>() / 8;
        let budget = self.memory_budget;
        let most = schedule(&self.describe(&whole), input_bytes, u64::MAX).map_or(u64::MAX, |found| found.peak);
        let thrifty = (most > large).then(|| (&fused, budget.min(most / 2), little));
        let arrangements =
            [(&whole, budget, 0), (&fused, budget, little), (&single, budget, 0), (&fused, budget, u64::MAX)];
        let mut needed = u64::MAX;
        for (units, budget, most_twice) in thrifty.into_iter().chain(arrangements) {
            match schedule(&self.describe(units), input_bytes, budget) {
                Ok(found) if self.multiply_adds_twice(units, &found) <= most_twice => {
                    (self.units, self.schedule) = (units.clone(), found);
                    return Ok(());
                }
                Ok(_) => (),
                Err(least) => needed = needed.min(least),
            }
        }
        Err(RunError::Budget { budget, needed })
    }

    /// A unit from every one of `starts` to the next. What lies between acts on each position by itself.
    fn banded_units(&self, mut starts: Vec<usize>) -> Vec<Unit> {
        if starts.first() != Some(&0) {
            starts.insert(0, 0);
        }
        let ends = starts.iter().copied().skip(1).chain([self.ops.len()]);
        let unit = |(start, end)| {
            let ops = start..end;
            // Only the input comes before the first map.
            let positions = self.maps(&ops).last().map_or(self.shapes[0].values, |map| map.positions());
            Unit { ops, positions }
        };
        starts.iter().copied().zip(ends).map(unit).collect()
    }

    /// The linear maps among some ops.
    fn maps(&self, ops: &Range<usize>) -> Vec<&LinearMap> {
        self.ops[ops.clone()].iter().filter_map(Op::map).collect()
    }

    /// What the scheduler must know.
    fn describe(&self, units: &[Unit]) -> Vec<Layer> {
        let describe = |(i, unit): (usize, &Unit)| {
            let planes = self.planes(units, i);
            let needs = match unit.positions {
                1 => std::iter::once(0..planes).collect(),
                positions => self
                    .maps(&unit.ops)
                    .iter()
                    .fold(None, |before: Option<Vec<Range<usize>>>, map| {
                        Some(match before {
                            None => map.needed_positions(planes),
                            Some(before) => {
                                let inner = map.needed_positions(before.len()).into_iter();
                                inner.map(|needed| hull(&before[needed])).collect()
                            }
                        })
                    })
                    .unwrap_or_else(|| (0..positions).map(|p| p..p + 1).collect()),
            };
            let bytes = |op: usize| self.shapes[op + 1].bytes() / unit.positions as u64;
            let parts: Vec<u64> = self.parts(&unit.ops).iter().map(|part| bytes(part.end - 1)).collect();
            let pairs = parts.windows(2).map(|pair| pair[0] + pair[1]);
            // Without a map to gather a band's operand, it is copied.
            let copied = self.maps(&unit.ops).is_empty() && unit.positions > 1;
            let operand = if copied { self.shapes[unit.ops.start].bytes() / unit.positions as u64 } else { 0 };
            Layer {
                needs,
                result_bytes: bytes(unit.ops.end - 1),
                working_bytes: pairs.chain([operand + parts[0]]).max().unwrap_or(0),
            }
        };
        units.iter().enumerate().map(describe).collect()
    }

    /// For each map of a unit, the positions of its result that `positions` of the unit's take.
    fn taken(&self, unit: &Unit, positions: &Range<usize>) -> Vec<Range<usize>> {
        let maps = self.maps(&unit.ops);
        let mut taken = vec![positions.clone(); maps.len()];
        for i in (1..maps.len()).rev() {
            taken[i - 1] = hull(&maps[i].needed_positions(maps[i - 1].positions())[taken[i].clone()]);
        }
        taken
    }

    /// Multiply-adds per image that a schedule takes on top of those of the network: bands of several maps overlap inside.
    fn multiply_adds_twice(&self, units: &[Unit], schedule: &Schedule) -> u64 {
        let mut executed = 0;
        for action in &schedule.actions {
            if let Action::Replace { layer, positions } | Action::Compute { layer, positions } = action
                && units[*layer].positions > 1
            {
                let maps = self.maps(&units[*layer].ops).into_iter();
                let parts = maps.zip(self.taken(&units[*layer], positions));
                executed += parts
                    .map(|(map, taken)| map.multiply_adds() / map.positions() as u64 * taken.len() as u64)
                    .sum::<u64>();
            }
        }
        let banded = units.iter().filter(|unit| unit.positions > 1).flat_map(|unit| self.maps(&unit.ops));
        executed.saturating_sub(banded.map(LinearMap::multiply_adds).sum())
    }

    /// The parts of a run of ops that belong to different segments.
    fn parts(&self, ops: &Range<usize>) -> Vec<Range<usize>> {
        let overlap = |segment: &Segment| segment.ops.start.max(ops.start)..segment.ops.end.min(ops.end);
        self.segments.iter().map(overlap).filter(|part| !part.is_empty()).collect()
    }

    /// Shape of the input.
    pub fn input(&self) -> &Shape {
        &self.shapes[0]
    }

    /// Shape of the result.
    pub fn output(&self) -> &Shape {
        self.shapes.last().expect("the input's shape at least")
    }

    /// The most bytes of operands and results that are alive at a time.
    pub fn peak(&self) -> u64 {
        self.schedule.peak
    }

    /// Steps that [`Self::run`] tells of.
    pub fn steps(&self) -> usize {
        self.schedule.actions.len()
    }

    /// All layers on one set. Tells how many steps are done.
    pub fn run<B: Backend>(
        &self,
        backend: &B,
        x: B::Tensor,
        key: Option<&KeySwitch<'_, B::Tensor>>,
        report: &mut ComputeReport,
        progress: &dyn Fn(usize),
    ) -> Result<B::Tensor, RunError> {
        let input = Window { positions: Positions::of(0..self.planes(&self.units, 0)), x };
        let mut run = Run { layers: self, backend, key, report, windows: vec![Some(input)], last: Instant::now() };
        run.windows.resize_with(self.units.len() + 1, || None);
        for (done, action) in self.schedule.actions.iter().enumerate() {
            run.follow(action)?;
            progress(done + 1);
        }
        let result = run.windows.pop().flatten();
        Ok(result.expect("the schedule ends with the result").x)
    }

    /// Positions of the operand of a unit. The input's values are as many positions of one channel, or all at one.
    fn planes(&self, units: &[Unit], unit: usize) -> usize {
        match unit.checked_sub(1) {
            Some(before) => units[before].positions,
            None if units[0].positions == 1 => 1,
            None => self.shapes[0].values,
        }
    }

    /// Lanes per call, for the intermediates of an unfused backend.
    fn lanes_per_slice(&self, ops: &[SlotwiseOp<'_>], shape: &Shape, working_set: u64) -> usize {
        let mut current = shape.clone();
        let mut widest = current.bytes();
        for op in ops {
            let next = slotwise_shape(&[*op], &current);
            widest = widest.max(current.bytes() + next.bytes());
            current = next;
        }
        let per_lane = 2 * widest / shape.lanes as u64;
        let lanes = ((self.memory_budget / 2).min(working_set) / per_lane.max(1)) as usize;
        1 << lanes.clamp(MIN_LANES.min(shape.lanes), shape.lanes).ilog2()
    }

    /// Values per call of an activation: its intermediates (products, digits, accumulators) take about ten times the operand.
    fn values_per_call(&self, shape: &Shape, working_set: u64, threads: usize) -> usize {
        let limbs = shape.limbs.len() as u64 + self.special_primes;
        let bytes = 40 * limbs * shape.components as u64 * shape.lanes as u64;
        values_at_once(bytes.max(1), shape.values, (self.memory_budget / 4, working_set), threads)
    }
}

/// How many of `values` go together whose intermediates take so many `bytes` each: as many as stay within the working set, but
/// one for every thread at least, as far as the budget goes, and as many for each.
fn values_at_once(bytes: u64, values: usize, (budget, working_set): (u64, u64), threads: usize) -> usize {
    let fit = (budget.min(working_set.max(bytes * threads as u64)) / bytes) as usize;
    let even = if fit > threads { fit - fit % threads } else { fit };
    even.clamp(1, values)
}

/// The smallest range that holds all of `ranges`, which are some.
fn hull(ranges: &[Range<usize>]) -> Range<usize> {
    let start = ranges.iter().map(|range| range.start).min();
    let end = ranges.iter().map(|range| range.end).max();
    start.zip(end).map(|(start, end)| start..end).expect("at least one range")
}

impl Op {
    fn slotwise(&self) -> SlotwiseOp<'_> {
        match self {
            Op::Linear(map) => SlotwiseOp::Linear(map),
            Op::Lazy(polynomial) => SlotwiseOp::Polynomial(polynomial),
            Op::Switched(..) | Op::Reduction(_) => unreachable!("a segment is a slot-wise run or one other op"),
        }
    }

    fn map(&self) -> Option<&LinearMap> {
        if let Op::Linear(map) = self { Some(map) } else { None }
    }

    fn multiply_adds(&self) -> u64 {
        self.map().map_or(0, LinearMap::multiply_adds)
    }
}

/// What is kept of a unit's result: some positions of every channel.
struct Window<T> {
    positions: Positions,
    x: T,
}

/// One set on its way through the layers.
struct Run<'a, B: Backend> {
    layers: &'a Layers,
    backend: &'a B,
    key: Option<&'a KeySwitch<'a, B::Tensor>>,
    report: &'a mut ComputeReport,
    /// The input's, then every unit's.
    windows: Vec<Option<Window<B::Tensor>>>,
    /// When the time that is in the report ended.
    last: Instant,
}

impl<B: Backend> Run<'_, B> {
    fn follow(&mut self, action: &Action) -> Result<(), RunError> {
        match action {
            Action::Replace { layer, positions } => {
                self.windows[layer + 1] = None;
                let x = self.compute(*layer, positions)?;
                self.windows[layer + 1] = Some(Window { positions: Positions::of(positions.clone()), x });
            }
            Action::Compute { layer, positions } => {
                let mut window = match self.windows[layer + 1].take() {
                    Some(window) => window,
                    None => self.window(*layer)?,
                };
                let result = self.compute(*layer, positions)?;
                self.keep(&result, positions, &mut window)?;
                self.windows[layer + 1] = Some(window);
                self.account_time(self.layers.units[*layer].ops.end - 1);
            }
            Action::Release { layer } => self.windows[..=*layer].fill_with(|| None),
        }
        Ok(())
    }

    /// An empty window for a unit's result.
    fn window(&self, unit: usize) -> Result<Window<B::Tensor>, BackendError> {
        let room = self.layers.schedule.rooms[unit];
        let unit = &self.layers.units[unit];
        let whole = &self.layers.shapes[unit.ops.end];
        let x = self.backend.any(Shape { values: whole.values / unit.positions * room, ..whole.clone() })?;
        Ok(Window { positions: Positions::with_room(room), x })
    }

    /// Copies `positions` of a unit's result, which are all of `result`, to its window.
    fn keep(
        &mut self,
        result: &B::Tensor,
        positions: &Range<usize>,
        window: &mut Window<B::Tensor>,
    ) -> Result<(), BackendError> {
        window.positions.push(positions);
        let (source, target) = (self.backend.shape(result).window(), self.backend.shape(&window.x).window());
        let room = window.positions.room();
        for channel in 0..source.values.len() / positions.len() {
            for (run, place) in window.positions.runs(positions.clone()) {
                let values = |first: usize| first..first + run.len();
                let from = source.clone().with_values(values(channel * positions.len() + run.start - positions.start));
                let to = target.clone().with_values(values(channel * room + place));
                self.backend.copy(result, &from, &mut window.x, &to)?;
            }
        }
        Ok(())
    }

    /// `positions` of a unit's result, from the window of the unit before.
    fn compute(&mut self, unit: usize, positions: &Range<usize>) -> Result<B::Tensor, RunError> {
        let layers = self.layers;
        let Window { positions: held, x } = self.windows[unit].take().expect("the schedule has what a unit needs");
        let planes = layers.planes(&layers.units, unit);
        let ops = &layers.units[unit].ops;
        let maps = layers.maps(ops);
        let whole = *positions == (0..layers.units[unit].positions) && held == Positions::of(0..planes);
        let mut restricted = Vec::new();
        if !whole {
            let mut before = (planes, held.clone());
            for (map, taken) in maps.iter().zip(layers.taken(&layers.units[unit], positions)) {
                restricted.push(map.restrict(taken.clone(), before.0, &before.1));
                before = (map.positions(), Positions::of(taken));
            }
        }
        // Only the input comes before the first map, one channel of positions.
        let mut result = if maps.is_empty() && !whole { Some(self.values(&x, positions.clone())?) } else { None };
        for part in layers.parts(ops) {
            let operand = result.as_ref().unwrap_or(&x);
            let (y, residue_multiply_adds) = match &layers.ops[part.start] {
                Op::Switched(polynomial, step) => (self.activation(polynomial, step, operand)?, 0),
                Op::Reduction(plan) => (self.reduction(*plan, operand)?, 0),
                _ => self.slotwise(&part, &restricted, operand)?,
            };
            self.backend.synchronise()?;
            self.account(&part, &self.backend.shape(&y).clone(), residue_multiply_adds);
            result = Some(y);
        }
        self.windows[unit] = Some(Window { positions: held, x });
        Ok(result.expect("a unit has steps"))
    }

    /// A run of slot-wise ops, its maps replaced by `restricted` where given; with the multiply-adds of residues.
    fn slotwise(
        &self,
        part: &Range<usize>,
        restricted: &[LinearMap],
        x: &B::Tensor,
    ) -> Result<(B::Tensor, u64), BackendError> {
        let layers = self.layers;
        let mut ops: Vec<SlotwiseOp<'_>> = layers.ops[part.clone()].iter().map(Op::slotwise).collect();
        let maps = ops.iter_mut().filter(|op| matches!(op, SlotwiseOp::Linear(_)));
        maps.zip(restricted).for_each(|(op, map)| *op = SlotwiseOp::Linear(map));
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.any(slotwise_shape(&ops, &shape))?;
        let working_set = self.backend.working_set();
        let lanes =
            if self.backend.is_fused() { shape.lanes } else { layers.lanes_per_slice(&ops, &shape, working_set) };
        for first in (0..shape.lanes).step_by(lanes) {
            self.backend.slotwise(&ops, x, first..(first + lanes).min(shape.lanes), &mut out)?;
        }
        let mut residue_multiply_adds = 0;
        let mut at = shape;
        for op in ops {
            if let SlotwiseOp::Linear(map) = op {
                residue_multiply_adds += map.multiply_adds() * (at.components * at.limbs.len() * at.lanes) as u64;
            }
            at = slotwise_shape(&[op], &at);
        }
        Ok((out, residue_multiply_adds))
    }

    fn activation(
        &self,
        polynomial: &PreparedPolynomial,
        step: &ActivationStep,
        x: &B::Tensor,
    ) -> Result<B::Tensor, BackendError> {
        match polynomial {
            PreparedPolynomial::Horner(p) => {
                self.by_values(x, self.backend.is_fused(), |z| self.backend.activation(p, &step.products, self.key, z))
            }
            PreparedPolynomial::PatersonStockmeyer(p) => {
                self.by_values(x, false, |z| backend::paterson_stockmeyer(self.backend, p, &step.products, self.key, z))
            }
        }
    }

    fn reduction(&self, plan: ProductPlan, x: &B::Tensor) -> Result<B::Tensor, BackendError> {
        self.by_values(x, self.backend.is_fused(), |x| backend::reduce(self.backend, x, plan, self.key))
    }

    /// An operation on every value by itself, a few values at a time, unless the operation is fused.
    fn by_values(
        &self,
        x: &B::Tensor,
        is_fused: bool,
        operation: impl Fn(&B::Tensor) -> Result<B::Tensor, BackendError>,
    ) -> Result<B::Tensor, BackendError> {
        let shape = self.backend.shape(x).clone();
        // The host's threads share the values only where the host computes.
        let threads = if self.backend.transfers().is_none() { rayon::current_num_threads() } else { 1 };
        let count = self.layers.values_per_call(&shape, self.backend.working_set(), threads);
        if is_fused || count == shape.values {
            return operation(x);
        }
        let mut out: Option<B::Tensor> = None;
        for first in (0..shape.values).step_by(count) {
            let values = first..(first + count).min(shape.values);
            let y = operation(&self.values(x, values.clone())?)?;
            let band = self.backend.shape(&y).clone();
            let out = match &mut out {
                Some(out) => out,
                none => none.insert(self.backend.any(Shape { values: shape.values, ..band.clone() })?),
            };
            let to = Shape { values: shape.values, ..band.clone() }.window().with_values(values);
            self.backend.copy(&y, &band.window(), out, &to)?;
        }
        Ok(out.expect("a ciphertext set has values"))
    }

    /// A copy of some values.
    fn values(&self, x: &B::Tensor, values: Range<usize>) -> Result<B::Tensor, BackendError> {
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.any(Shape { values: values.len(), ..shape.clone() })?;
        let whole = self.backend.shape(&out).window();
        self.backend.copy(x, &shape.window().with_values(values), &mut out, &whole)?;
        Ok(out)
    }

    /// Adds what was done for ops `part` since the last account to the report's entry of their segment.
    fn account(&mut self, part: &Range<usize>, after: &Shape, residue_multiply_adds: u64) {
        let segments = &self.layers.segments;
        if self.report.layers.is_empty() {
            let entry = |segment: &Segment| LayerTime {
                name: segment.name.clone(),
                seconds: 0.0,
                limbs: after.limbs.len(),
                components: after.components,
                multiply_adds: segment.multiply_adds,
                residue_multiply_adds: 0,
            };
            self.report.layers = segments.iter().map(entry).collect();
        }
        let layer = self.account_time(part.start);
        (layer.limbs, layer.components) = (after.limbs.len(), after.components);
        layer.residue_multiply_adds += residue_multiply_adds;
    }

    /// Adds the time since the last account to the report's entry of an op's segment.
    fn account_time(&mut self, op: usize) -> &mut LayerTime {
        let now = Instant::now();
        let seconds = now.duration_since(std::mem::replace(&mut self.last, now)).as_secs_f64();
        let segment = self.layers.segments.iter().position(|segment| segment.ops.contains(&op));
        let layer = &mut self.report.layers[segment.expect("every op is part of a segment")];
        self.report.parts.layers += seconds;
        layer.seconds += seconds;
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::values_at_once;

    #[test]
    fn every_thread_has_a_value_where_the_budget_allows() {
        assert_eq!(values_at_once(10, 100, (1000, 75), 2), 6);
        assert_eq!(values_at_once(10, 100, (1000, 5), 4), 4);
        assert_eq!(values_at_once(10, 100, (25, 5), 4), 2);
        assert_eq!(values_at_once(10, 100, (5, 5), 4), 1);
        assert_eq!(values_at_once(10, 3, (1000, 1000), 2), 3);
    }
}
