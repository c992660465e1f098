//! One ciphertext set on its way through the steps.

use std::ops::Range;
use std::time::Instant;

use cryptodl_core::backend::{
    self, Backend, BackendError, KeySwitch, LinearMap, Maintenance, Positions, Shape, SlotwiseOp, Span, slotwise_shape,
};

use super::bands::Action;
use super::checkpoint::{Alive, Resumable, State};
use super::execution_plan::{ExecutionPlan, Segment, Unit};
use super::ops::{Join, JoinTerm, Op};
use super::{ComputeReport, RunError, SegmentTime};
use cryptodl_core::watch::Watch;
use cryptodl_program::{ActivationStep, PreparedPolynomial};

impl ExecutionPlan {
    /// All steps on one set. Tells how many actions are done. A set that is resumable goes on where
    /// it was left, and when it is ended early leaves a state if that is worth it.
    pub fn execute<B: Backend>(
        &self,
        backend: &B,
        input: Input<'_, B::Tensor>,
        key: Option<&KeySwitch<'_, B::Tensor>>,
        report: &mut ComputeReport,
        watch: WatchOfSet<'_>,
        mut resumable: Option<Resumable<'_>>,
    ) -> Result<B::Tensor, RunError> {
        let mut windows: Vec<Option<Window<B::Tensor>>> = (0..self.shapes.len()).map(|_| None).collect();
        let load = match input {
            Input::Whole(x) => {
                windows[0] = Some(Window { positions: Positions::of(0..self.planes(&self.units, 0)), x });
                None
            }
            Input::Waiting(load) => Some(load),
        };
        let mut execution =
            Execution { plan: self, backend, key, load, report, watch: watch.watch, windows, last: Instant::now() };
        let (start, mut first) = (Instant::now(), 0);
        if let Some(resumable) = &resumable
            && let Some(state) = resumable.state(backend, |tensor| self.shapes.get(tensor).cloned())?
        {
            first = state.action;
            execution.take_up(state);
            execution.report.steps_kept += first;
        }
        let actions = &self.schedule.actions;
        // What is left, as far as is known after some actions.
        let rest =
            |done: usize| start.elapsed().mul_f64((watch.total - watch.before - done) as f64 / (done - first) as f64);
        for (done, action) in actions.iter().enumerate().skip(first) {
            let followed = execution.follow(action);
            if let (Err(RunError::Cancelled(_)), Some(resumable)) = (&followed, &mut resumable)
                && done > first
                && resumable.is_worth(done, rest(done))
            {
                // What an action that was ended early has taken is still there.
                resumable.keep(backend, done, &execution.alive())?;
            }
            followed?;
            let done = done + 1;
            watch.watch.tell(watch.before + done, watch.total);
            if let Some(resumable) = &mut resumable {
                let alive = execution.alive();
                let bytes = alive.iter().map(|alive| backend.shape(alive.x).bytes()).sum();
                if done < actions.len() && resumable.is_due(bytes, rest(done)) {
                    let keeping = Instant::now();
                    resumable.keep(backend, done, &alive)?;
                    execution.report.parts.checkpoint += keeping.elapsed().as_secs_f64();
                    execution.last = Instant::now();
                }
            }
        }
        let result = execution.windows.pop().flatten();
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

/// The input of a set.
pub(super) enum Input<'a, T> {
    /// All of it.
    Whole(T),
    /// What loads some of its values.
    Waiting(Load<'a, T>),
}

/// Loads some values of the input.
type Load<'a, T> = &'a dyn Fn(Range<usize>) -> Result<T, RunError>;

/// What is kept of a tensor that a unit takes.
struct Operand<T> {
    tensor: usize,
    window: Window<T>,
}

/// A result, and the multiply-adds of a weight with a residue that it took.
struct Mapped<T> {
    y: T,
    residue_multiply_adds: u64,
}

impl<T> Mapped<T> {
    /// Of what has no weights.
    fn none(y: T) -> Self {
        Mapped { y, residue_multiply_adds: 0 }
    }
}

/// One set on its way through the steps.
struct Execution<'a, B: Backend> {
    plan: &'a ExecutionPlan,
    backend: &'a B,
    key: Option<&'a KeySwitch<'a, B::Tensor>>,
    /// Where the input is loaded on the way.
    load: Option<Load<'a, B::Tensor>>,
    report: &'a mut ComputeReport,
    watch: Watch<'a>,
    /// By tensor.
    windows: Vec<Option<Window<B::Tensor>>>,
    /// When the time that is in the report ended.
    last: Instant,
}

impl<B: Backend> Execution<'_, B> {
    /// What is kept of tensors.
    fn alive(&self) -> Vec<Alive<&B::Tensor>> {
        let windows = self.windows.iter().enumerate();
        let alive = windows.filter_map(|(tensor, window)| {
            let Window { positions, x } = window.as_ref()?;
            Some(Alive { tensor, positions: positions.clone(), x })
        });
        alive.collect()
    }

    /// Forgets all tensors and keeps those of a state.
    fn take_up(&mut self, state: State<B::Tensor>) {
        self.windows.iter_mut().for_each(|window| *window = None);
        for Alive { tensor, positions, x } in state.alive {
            self.windows[tensor] = Some(Window { positions, x });
        }
    }

    /// Follows an action. One that fails leaves all tensors that it would be begun anew with.
    fn follow(&mut self, action: &Action) -> Result<(), RunError> {
        match action {
            Action::Replace { unit, positions } => {
                let tensor = self.plan.units[*unit].ops.end;
                self.windows[tensor] = None;
                let x = self.compute(*unit, positions)?;
                self.windows[tensor] = Some(Window { positions: Positions::of(positions.clone()), x });
            }
            Action::Compute { unit, positions } => {
                let tensor = self.plan.units[*unit].ops.end;
                let result = self.compute(*unit, positions)?;
                let mut window = match self.windows[tensor].take() {
                    Some(window) => window,
                    None => {
                        let channels = self.plan.shapes[tensor].values / self.plan.units[*unit].positions;
                        self.window(tensor, channels, self.plan.schedule.rooms[*unit])?
                    }
                };
                window.positions.push(positions);
                self.put(&result, 0, positions, &mut window)?;
                self.windows[tensor] = Some(window);
                self.account_time(tensor - 1);
            }
            Action::Load { positions } => {
                let mut window = match self.windows[0].take() {
                    Some(window) => window,
                    None => {
                        let room = self.plan.schedule.input_room.expect("an input that is loaded on the way");
                        self.window(0, self.plan.channels(), room)?
                    }
                };
                let started = Instant::now();
                self.load(positions, &mut window)?;
                self.windows[0] = Some(window);
                self.report.parts.unpack += started.elapsed().as_secs_f64();
                self.last = Instant::now();
            }
            Action::Release { tensor } => {
                let tensor = tensor.checked_sub(1).map_or(0, |unit| self.plan.units[unit].ops.end);
                self.windows[tensor] = None;
            }
        }
        Ok(())
    }

    /// An empty window for `channels` values of each position of a tensor.
    fn window(&self, tensor: usize, channels: usize, room: usize) -> Result<Window<B::Tensor>, BackendError> {
        let shape = Shape { values: channels * room, ..self.plan.shapes[tensor].clone() };
        Ok(Window { positions: Positions::with_room(room), x: self.backend.uninitialised(shape)? })
    }

    /// Loads positions of the input to its window.
    fn load(&mut self, positions: &Range<usize>, window: &mut Window<B::Tensor>) -> Result<(), RunError> {
        let load = self.load.expect("an input that is loaded on the way");
        let planes = self.plan.planes(&self.plan.units, 0);
        window.positions.push(positions);
        for channel in 0..self.plan.channels() {
            let part = load(channel * planes + positions.start..channel * planes + positions.end)?;
            self.put(&part, channel, positions, window)?;
        }
        Ok(())
    }

    /// Copies `positions` of channels from `first` on, which are all of `part`, to their places in a window.
    fn put(
        &self,
        part: &B::Tensor,
        first: usize,
        positions: &Range<usize>,
        window: &mut Window<B::Tensor>,
    ) -> Result<(), BackendError> {
        let (source, target) = (self.backend.shape(part).window(), self.backend.shape(&window.x).window());
        let room = window.positions.room();
        for channel in 0..source.values.len() / positions.len() {
            for Span { positions: span, place } in window.positions.spans(positions.clone()) {
                let values = |first: usize| first..first + span.len();
                let from = source.clone().with_values(values(channel * positions.len() + span.start - positions.start));
                let to = target.clone().with_values(values((first + channel) * room + place));
                self.backend.copy(part, &from, &mut window.x, &to)?;
            }
        }
        Ok(())
    }

    /// `positions` of a unit's result, from the windows of what it takes.
    fn compute(&mut self, unit: usize, positions: &Range<usize>) -> Result<B::Tensor, RunError> {
        let plan = self.plan;
        let unit = &plan.units[unit];
        let take = |&tensor: &usize| {
            let window = self.windows[tensor].take().expect("the schedule has what a unit needs");
            Operand { tensor, window }
        };
        let inputs: Vec<Operand<B::Tensor>> = unit.inputs.iter().map(take).collect();
        let result = self.compute_from(unit, positions, &inputs);
        inputs.into_iter().for_each(|Operand { tensor, window }| self.windows[tensor] = Some(window));
        result
    }

    fn compute_from(
        &mut self,
        unit: &Unit,
        positions: &Range<usize>,
        inputs: &[Operand<B::Tensor>],
    ) -> Result<B::Tensor, RunError> {
        let plan = self.plan;
        let Operand { tensor, window: Window { positions: held, x } } = &inputs[0];
        let joins = matches!(plan.ops[unit.ops.start], Op::Join(_));
        let planes = plan.planes(&plan.units, *tensor);
        let whole = *positions == (0..unit.positions) && *held == Positions::of(0..planes);
        let maps = plan.maps(&unit.ops);
        let mut restricted = Vec::new();
        if !whole && !joins {
            let (mut planes, mut held) = (planes, held.clone());
            for (map, taken) in maps.iter().zip(plan.taken(unit, positions)) {
                restricted.push(map.restrict(taken.clone(), planes, &held));
                (planes, held) = (map.positions(), Positions::of(taken));
            }
        }
        let gathers = maps.is_empty() && !joins && !whole;
        let mut result = if gathers { Some(self.gather(x, held, positions)?) } else { None };
        for part in plan.parts(&unit.ops) {
            let operand = result.as_ref().unwrap_or(x);
            let Mapped { y, residue_multiply_adds } = match &plan.ops[part.start] {
                Op::Join(join) => self.join(part.start, join, unit, positions, inputs)?,
                Op::Switched(polynomial, step) => Mapped::none(self.activation(polynomial, step, operand)?),
                Op::Maintenance(maintenance) => Mapped::none(self.maintain(*maintenance, operand)?),
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
            for Span { positions: span, place } in held.spans(positions.clone()) {
                let values = |first: usize| first..first + span.len();
                let from = source.clone().with_values(values(channel * held.room() + place));
                let to = target.clone().with_values(values(channel * positions.len() + span.start - positions.start));
                self.backend.copy(x, &from, &mut out, &to)?;
            }
        }
        Ok(out)
    }

    /// `positions` of a sum of maps of several tensors.
    fn join(
        &self,
        op: usize,
        join: &Join,
        unit: &Unit,
        positions: &Range<usize>,
        inputs: &[Operand<B::Tensor>],
    ) -> Result<Mapped<B::Tensor>, RunError> {
        let plan = self.plan;
        let whole = &plan.shapes[op + 1];
        let banded = unit.positions > 1;
        let values = if banded { whole.values / unit.positions * positions.len() } else { whole.values };
        let shape = Shape { values, ..whole.clone() };
        let mut residue_multiply_adds = 0;
        let mut sum: Option<B::Tensor> = None;
        for (term, tensor) in join.terms.iter().zip(&plan.operands[op]) {
            let input = inputs.iter().find(|input| input.tensor == *tensor).expect("a unit takes what its terms take");
            let Window { positions: held, x } = &input.window;
            let planes = plan.planes(&plan.units, *tensor);
            match term {
                JoinTerm::Dense(map, factor) => {
                    let complete = !banded || (*positions == (0..unit.positions) && *held == Positions::of(0..planes));
                    let restricted = (!complete).then(|| map.restrict(positions.clone(), planes, held));
                    let map = restricted.as_ref().unwrap_or(map);
                    // A branch with more limbs drops the last ones.
                    let lower = (self.backend.shape(x).limbs.len() > shape.limbs.len())
                        .then(|| self.lower(x, &shape.limbs))
                        .transpose()?;
                    let mapped = self.slotwise_ops(&[SlotwiseOp::Linear(map)], lower.as_ref().unwrap_or(x))?;
                    residue_multiply_adds += mapped.residue_multiply_adds;
                    let y = mapped.y;
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
        Ok(Mapped { y: sum, residue_multiply_adds })
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

    /// Slot-wise ops of one segment, their maps replaced by `restricted` where given.
    fn slotwise(
        &self,
        part: &Range<usize>,
        restricted: &[LinearMap],
        x: &B::Tensor,
    ) -> Result<Mapped<B::Tensor>, RunError> {
        let mut ops: Vec<SlotwiseOp<'_>> = self.plan.ops[part.clone()].iter().map(Op::slotwise).collect();
        let maps = ops.iter_mut().filter(|op| matches!(op, SlotwiseOp::Linear(_)));
        maps.zip(restricted).for_each(|(op, map)| *op = SlotwiseOp::Linear(map));
        self.slotwise_ops(&ops, x)
    }

    fn slotwise_ops(&self, ops: &[SlotwiseOp<'_>], x: &B::Tensor) -> Result<Mapped<B::Tensor>, RunError> {
        let plan = self.plan;
        let shape = self.backend.shape(x).clone();
        let mut out = self.backend.uninitialised(slotwise_shape(ops, &shape))?;
        let working_set = self.backend.working_set();
        let residue_multiply_adds = residue_multiply_adds(ops, &shape);
        let lanes = match self.backend.is_fused() {
            true => lanes_per_call(residue_multiply_adds, shape.lanes),
            false => plan.lanes_per_slice(ops, &shape, working_set),
        };
        for first in (0..shape.lanes).step_by(lanes) {
            self.watch.check()?;
            self.backend.slotwise(ops, x, first..(first + lanes).min(shape.lanes), &mut out)?;
        }
        Ok(Mapped { y: out, residue_multiply_adds })
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
                None => self.backend.activation(p, &step.maintenance, self.key, z),
                Some(values) => self.backend.activation(&p.of_values(values, total), &step.maintenance, self.key, z),
            }),
            PreparedPolynomial::PatersonStockmeyer(p) => self.by_values(x, false, |z, values| {
                let part = values.map(|values| p.of_values(values, total));
                let p = part.as_ref().unwrap_or(p);
                backend::paterson_stockmeyer(self.backend, p, &step.maintenance, self.key, z)
            }),
        }
    }

    fn maintain(&self, maintenance: Maintenance, x: &B::Tensor) -> Result<B::Tensor, RunError> {
        self.by_values(x, self.backend.is_fused(), |x, _| {
            backend::relinearise_rescale(self.backend, x, maintenance, self.key)
        })
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
        let count = self.plan.values_per_call(&shape, self.backend.working_set(), threads);
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
        let segments = &self.plan.segments;
        if self.report.segments.is_empty() {
            let entry = |segment: &Segment| SegmentTime {
                name: segment.name.clone(),
                seconds: 0.0,
                limbs: after.limbs.len(),
                components: after.components,
                multiply_adds: segment.multiply_adds,
                residue_multiply_adds: 0,
            };
            self.report.segments = segments.iter().map(entry).collect();
        }
        let segment = self.account_time(part.start);
        (segment.limbs, segment.components) = (after.limbs.len(), after.components);
        segment.residue_multiply_adds += residue_multiply_adds;
    }

    /// Adds the time since the last account to the report's entry of an op's segment.
    fn account_time(&mut self, op: usize) -> &mut SegmentTime {
        let now = Instant::now();
        let seconds = now.duration_since(std::mem::replace(&mut self.last, now)).as_secs_f64();
        let segment = self.plan.segments.iter().position(|segment| segment.ops.contains(&op));
        let segment = &mut self.report.segments[segment.expect("every op is part of a segment")];
        self.report.parts.segments += seconds;
        segment.seconds += seconds;
        segment
    }
}

/// Multiply-adds of a weight with a residue that slot-wise ops take on an operand of this shape.
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

/// Most residues of the operand of one call that switches keys, where a computation can be cancelled: a gigabyte, which two cores
/// switch in a fifth of a second. A part of an operand is a copy, so that parts cost memory and time. Bands are rarely larger.
const SWITCHED: usize = 1 << 28;

/// Values per call of an operation that a fused backend could do on all of them.
fn values_per_call(shape: &Shape) -> usize {
    (SWITCHED / (shape.limbs.len() * shape.components * shape.lanes)).max(1)
}

/// Lanes per call of a fused segment that takes so many multiply-adds on all `lanes`, a power of
/// two.
fn lanes_per_call(residue_multiply_adds: u64, lanes: usize) -> usize {
    let calls = residue_multiply_adds.div_ceil(CALL).max(1).next_power_of_two() as usize;
    (lanes / calls).max(LEAST_LANES.min(lanes))
}
