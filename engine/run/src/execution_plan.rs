//! A Program prepared for execution: whole segments where they fit the memory budget, bands of
//! units where not.

use std::collections::BTreeSet;
use std::ops::Range;

use cryptodl_core::backend::{CiphertextShape, LinearMap, Shape, SlotwiseOp, slotwise_shape};
use cryptodl_core::ckks::Params;

use super::RunError;
use super::bands::{Action, Inner, InputDemand, Operand, Schedule, UnitDemand, hull, schedule};
use super::ops::{JoinTerm, Op};
use cryptodl_program::Program;

/// Smallest slice of lanes that a slot-wise segment is cut into.
const MIN_LANES: usize = 256;

/// The steps of a Program, and in which order their parts are computed. Tensor 0 is the input, and
/// tensor `i + 1` the result of op `i`.
pub(super) struct ExecutionPlan {
    pub(super) ops: Vec<Op>,
    /// By op.
    names: Vec<String>,
    pub(super) segments: Vec<Segment>,
    pub(super) units: Vec<Unit>,
    pub(super) schedule: Schedule,
    /// By tensor.
    pub(super) shapes: Vec<Shape>,
    /// By op, the tensors that it takes.
    pub(super) operands: Vec<Vec<usize>>,
    /// Positions of each channel of the input.
    input_positions: usize,
    special_primes: u64,
    memory_budget: u64,
}

/// What the report shows as one: fused slot-wise steps, or one other step.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) multiply_adds: u64,
    pub(super) ops: Range<usize>,
}

/// What is computed for one band of positions at once: ops of which each takes the result of the one before. The first may be a sum.
#[derive(Clone)]
pub(super) struct Unit {
    pub(super) ops: Range<usize>,
    /// Tensors that the first op takes, each once.
    pub(super) inputs: Vec<usize>,
    /// Positions of its result.
    pub(super) positions: usize,
}

impl ExecutionPlan {
    /// Prepares the steps and finds an order within `memory_budget`, in bytes. Bands that halve what is taken come first if it
    /// is above `large`.
    pub fn new(program: &Program, params: &Params, memory_budget: u64, large: u64) -> Result<Self, RunError> {
        let content = &program.content;
        let ops: Vec<Op> = content.steps.iter().map(|step| Op::new(step, params.basis())).collect();
        let operands: Vec<Vec<usize>> = content.steps.iter().map(|step| step.operands()).collect();
        let mut values = vec![program.inputs()];
        for (op, operands) in ops.iter().zip(&operands) {
            values.push(op.outputs(values[operands[0]]));
        }
        let shape = |(values, ciphertext): (usize, CiphertextShape)| Shape {
            limbs: params.chain(ciphertext.level),
            values,
            components: ciphertext.components,
            lanes: params.n(),
        };
        let shapes = values.into_iter().zip(program.ciphertext_shapes()).map(shape).collect();
        let segments = program.segments().into_iter().map(|range| Segment {
            name: program.names[range.clone()].join(" > "),
            multiply_adds: ops[range.clone()].iter().map(Op::multiply_adds).sum(),
            ops: range,
        });
        let [_, height, width] = content.input.shape;
        let mut plan = ExecutionPlan {
            segments: segments.collect(),
            ops,
            names: program.names.clone(),
            units: Vec::new(),
            schedule: Schedule::default(),
            shapes,
            operands,
            input_positions: height * width,
            special_primes: params.special().len() as u64,
            memory_budget,
        };
        // What is packed compactly is unpacked all at once.
        plan.arrange(large, content.input.packing.log_leaves() == 0)?;
        Ok(plan)
    }

    /// Whole segments if they fit and are not large, else bands: of fused segments while little is
    /// computed twice, else of every map by itself. The input is loaded on the way only if it `can_wait`.
    fn arrange(&mut self, large: u64, can_wait: bool) -> Result<(), RunError> {
        let whole: Vec<Unit> = self.segments.iter().map(|segment| self.unit(segment.ops.clone(), 1)).collect();
        let has_map = |segment: &&Segment| segment.ops.clone().any(|op| self.ops[op].positions().is_some());
        let starts = self.segments.iter().filter(has_map).map(|segment| segment.ops.start);
        let fused = self.banded_units(starts.collect());
        let single = self.banded_units((0..self.ops.len()).filter(|&op| self.ops[op].positions().is_some()).collect());
        let little = self.segments.iter().map(|segment| segment.multiply_adds).sum::<u64>() / 8;
        let budget = self.memory_budget;
        let input = |units: &[Unit]| InputDemand {
            bytes: self.shapes[0].bytes(),
            positions: self.planes(units, 0),
            can_wait: can_wait && self.planes(units, 0) == self.input_positions,
        };
        let most = schedule(&self.demands(&whole), input(&whole), u64::MAX).map_or(u64::MAX, |found| found.peak);
        let thrifty = (most > large).then(|| (&fused, budget.min(most / 2), little));
        let arrangements = [(&whole, budget, 0), (&fused, budget, little), (&single, budget, 0)];
        let (mut needed, mut overlapping) = (u64::MAX, None);
        for (units, budget, most_twice) in thrifty.into_iter().chain(arrangements) {
            match schedule(&self.demands(units), input(units), budget) {
                Ok(found) if found.twice <= most_twice => {
                    (self.units, self.schedule) = (units.clone(), found);
                    return Ok(());
                }
                Ok(found) => overlapping = Some((units, found)),
                Err(least) => needed = needed.min(least),
            }
        }
        let (units, found) = overlapping.ok_or(RunError::Budget { budget, needed })?;
        (self.units, self.schedule) = (units.clone(), found);
        Ok(())
    }

    fn unit(&self, ops: Range<usize>, positions: usize) -> Unit {
        let inputs: BTreeSet<usize> = self.operands[ops.start].iter().copied().collect();
        Unit { ops, inputs: inputs.into_iter().collect(), positions }
    }

    /// A unit from every one of `starts` to the next, and from every op that does not only take what the op before leaves. What lies
    /// between acts on each position by itself.
    fn banded_units(&self, starts: BTreeSet<usize>) -> Vec<Unit> {
        let mut readers = vec![0; self.shapes.len()];
        self.operands.iter().flatten().for_each(|&tensor| readers[tensor] += 1);
        let begins = |op: &usize| starts.contains(op) || self.operands[*op] != [*op] || readers[*op] > 1;
        let mut starts: Vec<usize> = (0..self.ops.len()).filter(begins).collect();
        if starts.first() != Some(&0) {
            starts.insert(0, 0);
        }
        let ends: Vec<usize> = starts.iter().copied().skip(1).chain([self.ops.len()]).collect();
        starts.into_iter().zip(ends).map(|(start, end)| self.unit(start..end, self.positions(end))).collect()
    }

    /// Positions of each channel of a tensor.
    fn positions(&self, tensor: usize) -> usize {
        match tensor.checked_sub(1) {
            None => self.input_positions,
            Some(op) => self.ops[op].positions().unwrap_or_else(|| self.positions(self.operands[op][0])),
        }
    }

    /// The linear maps of one operand among some ops.
    pub(super) fn maps(&self, ops: &Range<usize>) -> Vec<&LinearMap> {
        self.ops[ops.clone()].iter().filter_map(Op::map).collect()
    }

    /// What the scheduler must know.
    fn demands(&self, units: &[Unit]) -> Vec<UnitDemand> {
        let demand = |unit: &Unit| {
            let operand = |&input: &usize| {
                let planes = self.planes(units, input);
                Operand { tensor: self.unit_tensor(units, input), needs: self.needs(unit, input, planes) }
            };
            let bytes = |op: usize| self.shapes[op + 1].bytes() / unit.positions as u64;
            let parts: Vec<u64> = self.parts(&unit.ops).iter().map(|part| bytes(part.end - 1)).collect();
            let pairs = parts.windows(2).map(|pair| pair[0] + pair[1]);
            let of_inputs = || unit.inputs.iter().map(|&input| self.shapes[input].bytes() / unit.positions as u64);
            let beside = match &self.ops[unit.ops.start] {
                // Of every term a copy of its operand or its own result, besides the sum.
                Op::Join(_) => parts[0].max(of_inputs().max().unwrap_or(0)),
                // Without a map to gather a band's operand, it is copied.
                _ if self.maps(&unit.ops).is_empty() && unit.positions > 1 => of_inputs().sum(),
                _ => 0,
            };
            UnitDemand {
                operands: unit.inputs.iter().map(operand).collect(),
                result_bytes: bytes(unit.ops.end - 1),
                working_bytes: pairs.chain([beside + parts[0]]).max().unwrap_or(0),
                inner: if unit.positions > 1 { self.inner(unit) } else { Vec::new() },
            }
        };
        units.iter().map(demand).collect()
    }

    /// The scheduler's number of a tensor that a unit leaves, or of the input.
    fn unit_tensor(&self, units: &[Unit], tensor: usize) -> usize {
        if tensor == 0 {
            return 0;
        }
        1 + units.iter().position(|unit| unit.ops.end == tensor).expect("units leave what others take")
    }

    /// Positions of the operand `input`, of `planes`, that each position of a unit needs.
    fn needs(&self, unit: &Unit, input: usize, planes: usize) -> Vec<Range<usize>> {
        if unit.positions == 1 {
            return std::iter::once(0..planes).collect();
        }
        let same = || (0..unit.positions).map(|p| p..p + 1).collect();
        if let Op::Join(join) = &self.ops[unit.ops.start] {
            let taken = join.terms.iter().zip(&self.operands[unit.ops.start]).filter(|&(_, &tensor)| tensor == input);
            let needs = taken.map(|(term, _)| match term {
                JoinTerm::Dense(map, _) => map.needed_positions(planes),
                JoinTerm::Diagonal(..) => same(),
            });
            let both =
                |a: Vec<Range<usize>>, b: Vec<Range<usize>>| a.into_iter().zip(b).map(|(a, b)| hull(&[a, b])).collect();
            return needs.reduce(both).expect("a term takes the operand");
        }
        let through = self.maps(&unit.ops).iter().fold(None, |before: Option<Vec<Range<usize>>>, map| {
            Some(match before {
                None => map.needed_positions(planes),
                Some(before) => {
                    let inner = map.needed_positions(before.len()).into_iter();
                    inner.map(|needed| hull(&before[needed])).collect()
                }
            })
        });
        through.unwrap_or_else(same)
    }

    /// For each map of a unit, the positions of its result that `positions` of the unit's take.
    pub(super) fn taken(&self, unit: &Unit, positions: &Range<usize>) -> Vec<Range<usize>> {
        let maps = self.maps(&unit.ops);
        let mut taken = vec![positions.clone(); maps.len()];
        for i in (1..maps.len()).rev() {
            taken[i - 1] = hull(&maps[i].needed_positions(maps[i - 1].positions())[taken[i].clone()]);
        }
        taken
    }

    /// What lies between the maps of a unit, from behind.
    fn inner(&self, unit: &Unit) -> Vec<Inner> {
        let maps = self.maps(&unit.ops);
        let between = maps.windows(2).rev().map(|pair| {
            let positions = pair[0].positions();
            let work = pair[0].multiply_adds() / positions as u64;
            Inner { needs: pair[1].needed_positions(positions), positions, work }
        });
        between.collect()
    }

    /// The parts of some ops that belong to different segments.
    pub(super) fn parts(&self, ops: &Range<usize>) -> Vec<Range<usize>> {
        let overlap = |segment: &Segment| segment.ops.start.max(ops.start)..segment.ops.end.min(ops.end);
        self.segments.iter().map(overlap).filter(|part| !part.is_empty()).collect()
    }

    /// Channels of the input.
    pub(super) fn channels(&self) -> usize {
        self.shapes[0].values / self.input_positions
    }

    /// Whether the input is loaded on the way.
    pub fn loads_input(&self) -> bool {
        self.schedule.input_room.is_some()
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

    /// Steps that [`Self::execute`] tells of.
    pub fn steps(&self) -> usize {
        self.schedule.actions.len()
    }

    /// By step that [`Self::execute`] tells of, the names of the layers that it computes.
    pub fn layers(&self) -> Vec<String> {
        let name = |unit: &Unit| self.names[unit.ops.clone()].join(" > ");
        let mut layer = self.units.last().map(name).unwrap_or_default();
        let of_action = |action: &Action| {
            if let Action::Replace { unit, .. } | Action::Compute { unit, .. } = action {
                layer = name(&self.units[*unit]);
            }
            layer.clone()
        };
        // What is released is released for what comes next.
        let mut layers: Vec<String> = self.schedule.actions.iter().rev().map(of_action).collect();
        layers.reverse();
        layers
    }

    /// What the numbers of actions and tensors of a state mean, as a digest.
    pub fn digest(&self) -> [u8; 32] {
        let units: Vec<&Range<usize>> = self.units.iter().map(|unit| &unit.ops).collect();
        blake3::hash(format!("{units:?} {:?}", self.schedule).as_bytes()).into()
    }

    /// Positions of a tensor that a unit takes: one where whole segments are computed.
    pub(super) fn planes(&self, units: &[Unit], tensor: usize) -> usize {
        match self.unit_tensor(units, tensor).checked_sub(1) {
            Some(unit) => units[unit].positions,
            // A network may begin with a map that has one position, and band the rest.
            None if units.iter().all(|unit| unit.positions == 1) => 1,
            None => self.input_positions,
        }
    }

    /// Lanes per call, for the intermediates of an unfused backend.
    pub(super) fn lanes_per_slice(&self, ops: &[SlotwiseOp<'_>], shape: &Shape, working_set: u64) -> usize {
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
    pub(super) fn values_per_call(&self, shape: &Shape, working_set: u64, threads: usize) -> usize {
        let limbs = shape.limbs.len() as u64 + self.special_primes;
        let bytes = 40 * limbs * shape.components as u64 * shape.lanes as u64;
        let memory = CallMemory { budget: self.memory_budget / 4, working_set };
        values_at_once(bytes.max(1), shape.values, memory, threads)
    }
}

/// Bytes that the intermediates of one call may take.
struct CallMemory {
    /// At most.
    budget: u64,
    /// As far as the caches go.
    working_set: u64,
}

/// How many of `values` go together whose intermediates take so many `bytes` each: as many as stay within the working set, but
/// one for every thread at least, as far as the budget goes, and as many for each.
fn values_at_once(bytes: u64, values: usize, memory: CallMemory, threads: usize) -> usize {
    let CallMemory { budget, working_set } = memory;
    let fit = (budget.min(working_set.max(bytes * threads as u64)) / bytes) as usize;
    let even = if fit > threads { fit - fit % threads } else { fit };
    even.clamp(1, values)
}

#[cfg(test)]
mod tests {
    use super::{CallMemory, values_at_once};

    #[test]
    fn every_thread_has_a_value_where_the_budget_allows() {
        let at_once = |bytes, values, budget, working_set, threads| {
            values_at_once(bytes, values, CallMemory { budget, working_set }, threads)
        };
        assert_eq!(at_once(10, 100, 1000, 75, 2), 6);
        assert_eq!(at_once(10, 100, 1000, 5, 4), 4);
        assert_eq!(at_once(10, 100, 25, 5, 4), 2);
        assert_eq!(at_once(10, 100, 5, 5, 4), 1);
        assert_eq!(at_once(10, 3, 1000, 1000, 2), 3);
    }
}
