//! One ciphertext set on its way through the layers.

use std::ops::Range;
use std::time::Instant;

use cryptodl_core::backend::{
    self, Backend, BackendError, KeySwitch, LinearMap, Positions, ProductPlan, Shape, SlotwiseOp, slotwise_shape,
};

use super::bands::Action;
use super::layers::{Layers, Segment, Unit};
use super::ops::{Join, JoinTerm, Op};
use super::{ComputeReport, LayerTime, RunError};
use cryptodl_core::watch::Watch;
use cryptodl_program::{ActivationStep, PreparedPolynomial};

impl Layers {
    /// All layers on one set. Tells how many steps are done.
    pub fn run<B: Backend>(
        &self,
        backend: &B,
        x: B::Tensor,
        key: Option<&KeySwitch<'_, B::Tensor>>,
        report: &mut ComputeReport,
        watch: WatchOfSet<'_>,
    ) -> Result<B::Tensor, RunError> {
        let input = Window { positions: Positions::of(0..self.planes(&self.units, 0)), x };
        let mut run =
            Run { layers: self, backend, key, report, watch: watch.watch, windows: Vec::new(), last: Instant::now() };
        run.windows.resize_with(self.shapes.len(), || None);
        run.windows[0] = Some(input);
        for (done, action) in self.schedule.actions.iter().enumerate() {
            run.follow(action)?;
            watch.watch.tell(watch.before + done + 1, watch.total);
        }
        let result = run.windows.pop().flatten();
        Ok(result.expect("the schedule ends with the result").x)
    }
}

/// The watch of a computation, for one of its sets.
pub(super) struct WatchOfSet<'a> {
    pub(super) watch: Watch<'a>,
    /// Steps of the sets before.
    pub(super) before: usize,
    /// Steps of all sets.
    pub(super) total: usize,
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
    watch: Watch<'a>,
    /// By value.
    windows: Vec<Option<Window<B::Tensor>>>,
    /// When the time that is in the report ended.
    last: Instant,
}

impl<B: Backend> Run<'_, B> {
    fn follow(&mut self, action: &Action) -> Result<(), RunError> {
        match action {
            Action::Replace { layer, positions } => {
                let value = self.layers.units[*layer].ops.end;
                self.windows[value] = None;
                let x = self.compute(*layer, positions)?;
                self.windows[value] = Some(Window { positions: Positions::of(positions.clone()), x });
            }
            Action::Compute { layer, positions } => {
                let value = self.layers.units[*layer].ops.end;
                let mut window = match self.windows[value].take() {
                    Some(window) => window,
                    None => self.window(*layer)?,
                };
                let result = self.compute(*layer, positions)?;
                self.keep(&result, positions, &mut window)?;
                self.windows[value] = Some(window);
                self.account_time(self.layers.units[*layer].ops.end - 1);
            }
            Action::Release { value } => {
                let value = value.checked_sub(1).map_or(0, |unit| self.layers.units[unit].ops.end);
                self.windows[value] = None;
            }
        }
        Ok(())
    }

    /// An empty window for a unit's result.
    fn window(&self, unit: usize) -> Result<Window<B::Tensor>, BackendError> {
        let room = self.layers.schedule.rooms[unit];
        let unit = &self.layers.units[unit];
        let whole = &self.layers.shapes[unit.ops.end];
        let x = self.backend.uninitialised(Shape { values: whole.values / unit.positions * room, ..whole.clone() })?;
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

    /// `positions` of a unit's result, from the windows of what it takes.
    fn compute(&mut self, unit: usize, positions: &Range<usize>) -> Result<B::Tensor, RunError> {
        let layers = self.layers;
        let unit = &layers.units[unit];
        let take = |&value: &usize| (value, self.windows[value].take().expect("the schedule has what a unit needs"));
        let inputs: Vec<(usize, Window<B::Tensor>)> = unit.inputs.iter().map(take).collect();
        let result = self.compute_from(unit, positions, &inputs);
        inputs.into_iter().for_each(|(value, window)| self.windows[value] = Some(window));
        result
    }

    fn compute_from(
        &mut self,
        unit: &Unit,
        positions: &Range<usize>,
        inputs: &[(usize, Window<B::Tensor>)],
    ) -> Result<B::Tensor, RunError> {
        let layers = self.layers;
        let (value, Window { positions: held, x }) = &inputs[0];
        let joins = matches!(layers.ops[unit.ops.start], Op::Join(_));
        let planes = layers.planes(&layers.units, *value);
        let whole = *positions == (0..unit.positions) && *held == Positions::of(0..planes);
        let maps = layers.maps(&unit.ops);
        let mut restricted = Vec::new();
        if !whole && !joins {
            let mut before = (planes, held.clone());
            for (map, taken) in maps.iter().zip(layers.taken(unit, positions)) {
                restricted.push(map.restrict(taken.clone(), before.0, &before.1));
                before = (map.positions(), Positions::of(taken));
            }
        }
        let gathers = maps.is_empty() && !joins && !whole;
        let mut result = if gathers { Some(self.gather(x, held, positions)?) } else { None };
        for part in layers.parts(&unit.ops) {
            let operand = result.as_ref().unwrap_or(x);
            let (y, residue_multiply_adds) = match &layers.ops[part.start] {
                Op::Join(join) => self.join(part.start, join, unit, positions, inputs)?,
                Op::Switched(polynomial, step) => (self.activation(polynomial, step, operand)?, 0),
                Op::Reduction(plan) => (self.reduction(*plan, operand)?, 0),
                Op::Linear(_) | Op::Lazy(_) => self.slotwise(&part, &restricted, operand)?,
            };
            self.backend.synchronise()?;
            self.account(&part, &self.backend.shape(&y).clone(), residue_multiply_adds);
            result = Some(y);
        }
        Ok(result.expect("a unit has steps"))
    }

    /// `positions` of every channel of a tensor that holds `held`.
    fn gather(&self, x: &B::Tensor, held: &Positions, positions: &Range<usize>) -> Result<B::Tensor, BackendError> {
        let shape = self.backend.shape(x).clone();
        let channels = shape.values / held.room();
        let mut out = self.backend.uninitialised(Shape { values: channels * positions.len(), ..shape.clone() })?;
        let (source, target) = (shape.window(), self.backend.shape(&out).window());
        for channel in 0..channels {
            for (run, place) in held.runs(positions.clone()) {
                let values = |first: usize| first..first + run.len();
                let from = source.clone().with_values(values(channel * held.room() + place));
                let to = target.clone().with_values(values(channel * positions.len() + run.start - positions.start));
                self.backend.copy(x, &from, &mut out, &to)?;
            }
        }
        Ok(out)
    }

    /// `positions` of a sum of maps of several values, with the multiply-adds of residues.
    fn join(
        &self,
        op: usize,
        join: &Join,
        unit: &Unit,
        positions: &Range<usize>,
        inputs: &[(usize, Window<B::Tensor>)],
    ) -> Result<(B::Tensor, u64), RunError> {
        let layers = self.layers;
        let whole = &layers.shapes[op + 1];
        let banded = unit.positions > 1;
        let values = if banded { whole.values / unit.positions * positions.len() } else { whole.values };
        let shape = Shape { values, ..whole.clone() };
        let mut residue_multiply_adds = 0;
        let mut sum: Option<B::Tensor> = None;
        for (term, value) in join.terms.iter().zip(&layers.operands[op]) {
            let (_, Window { positions: held, x }) =
                inputs.iter().find(|(input, _)| input == value).expect("a unit takes what its terms take");
            let planes = layers.planes(&layers.units, *value);
            match term {
                JoinTerm::Dense(map, factor) => {
                    let complete = !banded || (*positions == (0..unit.positions) && *held == Positions::of(0..planes));
                    let restricted = (!complete).then(|| map.restrict(positions.clone(), planes, held));
                    let map = restricted.as_ref().unwrap_or(map);
                    // A branch with more limbs drops the last ones.
                    let lower = (self.backend.shape(x).limbs.len() > shape.limbs.len())
                        .then(|| self.lower(x, &shape.limbs))
                        .transpose()?;
                    let (y, done) = self.slotwise_ops(&[SlotwiseOp::Linear(map)], lower.as_ref().unwrap_or(x))?;
                    residue_multiply_adds += done;
                    let factor = factor.of_limbs(&shape.limbs);
                    match &mut sum {
                        None if *self.backend.shape(&y) == shape && factor.iter().all(|&f| f == 1) => sum = Some(y),
                        _ => self.backend.accumulate(self.sum(&mut sum, &shape)?, &y, &factor)?,
                    }
                }
                JoinTerm::Diagonal(factors, _) => {
                    let band = banded.then(|| self.gather(x, held, positions)).transpose()?;
                    let sum = self.sum(&mut sum, &shape)?;
                    self.backend.accumulate(sum, band.as_ref().unwrap_or(x), &factors.of_limbs(&shape.limbs))?;
                }
            }
        }
        let mut sum = sum.expect("a sum has terms");
        if let Some(constants) = join.constants(&shape.limbs) {
            self.backend.add_constant(&mut sum, &constants)?;
        }
        Ok((sum, residue_multiply_adds))
    }

    /// The sum so far, zero at first.
    fn sum<'s>(&self, sum: &'s mut Option<B::Tensor>, shape: &Shape) -> Result<&'s mut B::Tensor, BackendError> {
        Ok(match sum {
            Some(sum) => sum,
            none => none.insert(self.backend.zeros(shape.clone())?),
        })
    }

    /// The same values without the limbs that are not among `limbs`, which are the first of the tensor's.
    fn lower(&self, x: &B::Tensor, limbs: &[usize]) -> Result<B::Tensor, BackendError> {
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.uninitialised(Shape { limbs: limbs.to_vec(), ..shape.clone() })?;
        let to = self.backend.shape(&out).window();
        self.backend.copy(x, &shape.window().with_limbs(0..limbs.len()), &mut out, &to)?;
        Ok(out)
    }

    /// A run of slot-wise ops, its maps replaced by `restricted` where given; with the multiply-adds of residues.
    fn slotwise(
        &self,
        part: &Range<usize>,
        restricted: &[LinearMap],
        x: &B::Tensor,
    ) -> Result<(B::Tensor, u64), RunError> {
        let mut ops: Vec<SlotwiseOp<'_>> = self.layers.ops[part.clone()].iter().map(Op::slotwise).collect();
        let maps = ops.iter_mut().filter(|op| matches!(op, SlotwiseOp::Linear(_)));
        maps.zip(restricted).for_each(|(op, map)| *op = SlotwiseOp::Linear(map));
        self.slotwise_ops(&ops, x)
    }

    fn slotwise_ops(&self, ops: &[SlotwiseOp<'_>], x: &B::Tensor) -> Result<(B::Tensor, u64), RunError> {
        let layers = self.layers;
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.uninitialised(slotwise_shape(ops, &shape))?;
        let working_set = self.backend.working_set();
        let residue_multiply_adds = residue_multiply_adds(ops, &shape);
        let lanes = match self.backend.is_fused() {
            true => lanes_per_call(residue_multiply_adds, shape.lanes),
            false => layers.lanes_per_slice(ops, &shape, working_set),
        };
        for first in (0..shape.lanes).step_by(lanes) {
            self.watch.check()?;
            self.backend.slotwise(ops, x, first..(first + lanes).min(shape.lanes), &mut out)?;
        }
        Ok((out, residue_multiply_adds))
    }

    fn activation(
        &self,
        polynomial: &PreparedPolynomial,
        step: &ActivationStep,
        x: &B::Tensor,
    ) -> Result<B::Tensor, RunError> {
        let total = self.backend.shape(x).values;
        match polynomial {
            PreparedPolynomial::Horner(p) => self.by_values(x, self.backend.is_fused(), |z, values| match values {
                None => self.backend.activation(p, &step.products, self.key, z),
                Some(values) => self.backend.activation(&p.of_values(values, total), &step.products, self.key, z),
            }),
            PreparedPolynomial::PatersonStockmeyer(p) => self.by_values(x, false, |z, values| {
                let part = values.map(|values| p.of_values(values, total));
                let p = part.as_ref().unwrap_or(p);
                backend::paterson_stockmeyer(self.backend, p, &step.products, self.key, z)
            }),
        }
    }

    fn reduction(&self, plan: ProductPlan, x: &B::Tensor) -> Result<B::Tensor, RunError> {
        self.by_values(x, self.backend.is_fused(), |x, _| backend::relinearise_rescale(self.backend, x, plan, self.key))
    }

    /// An operation on every value by itself, a few values at a time, unless the operation is fused. Of a few values it is told
    /// which.
    fn by_values(
        &self,
        x: &B::Tensor,
        is_fused: bool,
        operation: impl Fn(&B::Tensor, Option<Range<usize>>) -> Result<B::Tensor, BackendError>,
    ) -> Result<B::Tensor, RunError> {
        let shape = self.backend.shape(x).clone();
        // The host's threads share the values only where the host computes.
        let threads = if self.backend.is_host() { rayon::current_num_threads() } else { 1 };
        let count = self.layers.values_per_call(&shape, self.backend.working_set(), threads);
        self.watch.check()?;
        let count = match is_fused {
            true if self.watch.can_cancel() => values_per_call(&shape),
            true => shape.values,
            false => count,
        };
        if count >= shape.values {
            return Ok(operation(x, None)?);
        }
        let mut out: Option<B::Tensor> = None;
        for first in (0..shape.values).step_by(count) {
            self.watch.check()?;
            let values = first..(first + count).min(shape.values);
            let y = operation(&self.values(x, values.clone())?, Some(values.clone()))?;
            let band = self.backend.shape(&y).clone();
            let out = match &mut out {
                Some(out) => out,
                none => none.insert(self.backend.uninitialised(Shape { values: shape.values, ..band.clone() })?),
            };
            let to = Shape { values: shape.values, ..band.clone() }.window().with_values(values);
            self.backend.copy(&y, &band.window(), out, &to)?;
        }
        Ok(out.expect("a ciphertext set has values"))
    }

    /// A copy of some values.
    fn values(&self, x: &B::Tensor, values: Range<usize>) -> Result<B::Tensor, BackendError> {
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.uninitialised(Shape { values: values.len(), ..shape.clone() })?;
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

/// Multiply-adds of a weight with a residue that a run takes on an operand of this shape.
fn residue_multiply_adds(ops: &[SlotwiseOp<'_>], shape: &Shape) -> u64 {
    let mut sum = 0u64;
    let mut at = shape.clone();
    for op in ops {
        if let SlotwiseOp::Linear(map) = op {
            let lanes = (at.components * at.limbs.len() * at.lanes) as u64;
            sum = u64::saturating_add(sum, map.multiply_adds().saturating_mul(lanes));
        }
        at = slotwise_shape(&[*op], &at);
    }
    sum
}

/// Most multiply-adds of residues in one call: between two calls a computation can be cancelled.
const CALL: u64 = 1 << 35;
/// A call has work for all threads of a large host at so many lanes.
const LEAST_LANES: usize = 512;

/// Most residues of the operand of one call that switches keys, where a computation can be cancelled.
const SWITCHED: usize = 1 << 25;

/// Values per call of an operation that a fused backend could do on all of them.
fn values_per_call(shape: &Shape) -> usize {
    (SWITCHED / (shape.limbs.len() * shape.components * shape.lanes)).max(1)
}

/// Lanes per call of a fused run that takes so many multiply-adds on all `lanes`, a power of two.
fn lanes_per_call(residue_multiply_adds: u64, lanes: usize) -> usize {
    let calls = residue_multiply_adds.div_ceil(CALL).max(1).next_power_of_two() as usize;
    (lanes / calls).max(LEAST_LANES.min(lanes))
}
