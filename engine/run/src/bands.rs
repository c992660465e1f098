//! In which order the parts of the units are computed, so that what is alive at a time fits a
//! memory budget.
//!
//! A unit's result has channels times positions (pixels). A convolution needs only some rows of the
//! result before it, so a network can be computed band by band: of each unit's result there is a
//! window of positions that moves along as the next one asks for more. A window is a circular
//! buffer, so that nothing is copied when it moves; and no unit's result is computed twice.

use std::cmp::Reverse;
use std::ops::Range;

/// A tensor that a unit takes.
#[derive(Clone, Debug)]
pub struct Operand {
    /// 0 is the input, `i + 1` the result of unit `i`.
    pub tensor: usize,
    /// For every position of the unit's result, the range of the tensor's positions that it needs;
    /// never empty.
    pub needs: Vec<Range<usize>>,
}

/// What the schedule must know of a unit.
#[derive(Clone, Debug)]
pub struct UnitDemand {
    /// At least one, each another tensor.
    pub operands: Vec<Operand>,
    /// Bytes of one position of the result, all channels.
    pub result_bytes: u64,
    /// Bytes of one position while it is computed, its result included, on top of what is kept.
    pub working_bytes: u64,
}

impl Operand {
    /// The positions needed for `positions` and still for those after them: what lies before may be forgotten.
    fn needs(&self, positions: &Range<usize>) -> Range<usize> {
        // Not only of the band itself: with padding, a later row may reach further back.
        let end = self.needs[positions.clone()].iter().map(|range| range.end).max();
        end.map(|end| self.first(positions.start)..end).expect("bands are not empty")
    }

    /// The first position needed for `position` or one after it.
    fn first(&self, position: usize) -> usize {
        self.needs[position..].iter().map(|range| range.start).min().unwrap_or(usize::MAX)
    }
}

impl UnitDemand {
    /// Positions of the result.
    fn positions(&self) -> usize {
        self.operands[0].needs.len()
    }

    /// Where a band from `start` on ends, of at most `most` positions and at `last` at the latest: where the next one shares least
    /// of its needs, which is the end of a row, unless the band became much shorter.
    fn cut(&self, start: usize, most: usize, last: usize) -> usize {
        if last - start <= most {
            return last;
        }
        let needs = &self.operands[0].needs;
        let starts = needs[start + 1..].iter().rev().scan(usize::MAX, |least, range| {
            *least = range.start.min(*least);
            Some(*least)
        });
        // By position, the first that it or a later one needs.
        let mut starts: Vec<usize> = starts.collect();
        starts.reverse();
        let mut reached = 0;
        let cuts = (start + 1..=start + most).zip(starts).map(|(end, first)| {
            reached = needs[end - 1].end.max(reached);
            (reached.saturating_sub(first), end)
        });
        let cuts = cuts.filter(|&(_, end)| 2 * (end - start) > most);
        cuts.min_by_key(|&(shared, end)| (shared, Reverse(end))).expect("a band has positions").1
    }
}

/// What the executor does next. Units count from 0; the input is wholly there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forgets what is kept of `unit` and computes `positions`, which become its window, from the
    /// windows of its operands.
    Replace {
        /// Unit.
        unit: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Computes `positions` of `unit` into its window, from the windows of its operands. What is
    /// kept for longest makes room.
    Compute {
        /// Unit.
        unit: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Forgets a tensor that nobody takes any more.
    Release {
        /// 0 is the input, `i + 1` the result of unit `i`.
        tensor: usize,
    },
}

/// Actions in order, and what they take.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// What the executor does.
    pub actions: Vec<Action>,
    /// For each unit, how many positions its window has room for from the first [`Action::Compute`]
    /// on.
    pub rooms: Vec<usize>,
    /// The most bytes that are alive at a time.
    pub peak: u64,
}

/// A schedule of the whole network within `budget` bytes, or the bytes that the thriftiest one takes. `input_bytes` is the size
/// of the input.
pub fn schedule(units: &[UnitDemand], input_bytes: u64, budget: u64) -> Result<Schedule, u64> {
    let mut least = u64::MAX;
    // The same sizes whatever the budget, so that what is named as the least suffices.
    for target in (0..u64::BITS).rev().map(|bit| 1 << bit) {
        let found = Scheduler::new(units, target).schedule(input_bytes);
        if found.peak <= budget {
            return Ok(found);
        }
        least = least.min(found.peak);
        if units.iter().all(|unit| band(unit, target) == 1) {
            break;
        }
    }
    Err(least)
}

/// Positions computed at a time when a band may take `target` bytes.
fn band(unit: &UnitDemand, target: u64) -> usize {
    (target / unit.working_bytes.max(1)).clamp(1, unit.positions() as u64) as usize
}

/// A unit that takes a tensor.
struct Reader {
    unit: usize,
    /// Which of its operands the tensor is.
    operand: usize,
}

struct Scheduler<'a> {
    units: &'a [UnitDemand],
    target: u64,
    /// By tensor, the units that take it.
    readers: Vec<Vec<Reader>>,
    windows: Vec<Range<usize>>,
    /// The longest of each unit's windows.
    rooms: Vec<usize>,
    /// Whether each of a unit's windows was computed at once and shares nothing with the one
    /// before.
    replaced: Vec<bool>,
    /// Whether nobody asks for a unit any more.
    done: Vec<bool>,
    actions: Vec<Action>,
}

impl<'a> Scheduler<'a> {
    fn new(units: &'a [UnitDemand], target: u64) -> Self {
        let count = units.len();
        let mut readers: Vec<Vec<Reader>> = (0..=count).map(|_| Vec::new()).collect();
        for (i, unit) in units.iter().enumerate() {
            unit.operands
                .iter()
                .enumerate()
                .for_each(|(k, operand)| readers[operand.tensor].push(Reader { unit: i, operand: k }));
        }
        Scheduler {
            units,
            target,
            readers,
            windows: vec![0..0; count],
            rooms: vec![0; count],
            replaced: vec![true; count],
            done: vec![false; count],
            actions: Vec::new(),
        }
    }

    fn schedule(mut self, input_bytes: u64) -> Schedule {
        if let Some(last) = self.units.len().checked_sub(1) {
            self.ask(last, 0..self.units[last].positions());
        }
        let Scheduler { units, rooms, replaced, mut actions, .. } = self;
        for action in &mut actions {
            if let Action::Compute { unit, positions } = action
                && replaced[*unit]
            {
                *action = Action::Replace { unit: *unit, positions: positions.clone() };
            }
        }
        let peak = peak(units, input_bytes, &actions, &rooms);
        Schedule { actions, rooms, peak }
    }

    /// Has `wanted` of a unit in its window.
    fn ask(&mut self, unit: usize, wanted: Range<usize>) {
        let have = self.windows[unit].clone();
        if have.start <= wanted.start && wanted.end <= have.end {
            return;
        }
        debug_assert!(have.is_empty() || have.start <= wanted.start, "windows only move forward");
        // What other readers still need stays.
        let first = |reader: &Reader| match self.done[reader.unit] {
            true => usize::MAX,
            false => self.units[reader.unit].operands[reader.operand].first(self.windows[reader.unit].end),
        };
        let start = self.readers[unit + 1].iter().map(first).fold(wanted.start, usize::min).max(have.start);
        let wanted = start..wanted.end;
        let kept = wanted.start..have.end.max(wanted.start);
        self.windows[unit] = kept.clone();
        self.rooms[unit] = self.rooms[unit].max(wanted.len());
        let positions = self.units[unit].positions();
        let step = band(&self.units[unit], self.target);
        self.replaced[unit] &= kept.is_empty() && wanted.len() <= step;
        let mut start = kept.end;
        while start < wanted.end {
            let band = start..self.units[unit].cut(start, step, wanted.end);
            for operand in &self.units[unit].operands {
                if let Some(before) = operand.tensor.checked_sub(1) {
                    self.ask(before, operand.needs(&band));
                }
            }
            start = band.end;
            self.windows[unit].end = start;
            self.actions.push(Action::Compute { unit, positions: band });
        }
        if wanted.end == positions {
            self.finish(unit);
        }
    }

    /// Nobody asks for more of a unit: what only it takes is forgotten.
    fn finish(&mut self, unit: usize) {
        if std::mem::replace(&mut self.done[unit], true) {
            return;
        }
        for operand in &self.units[unit].operands {
            if self.readers[operand.tensor].iter().all(|reader| self.done[reader.unit]) {
                self.actions.push(Action::Release { tensor: operand.tensor });
                if let Some(before) = operand.tensor.checked_sub(1) {
                    self.windows[before] = 0..0;
                    self.finish(before);
                }
            }
        }
    }
}

/// The most bytes that are alive at a time.
fn peak(units: &[UnitDemand], input_bytes: u64, actions: &[Action], rooms: &[usize]) -> u64 {
    let mut input = input_bytes;
    let mut windows = vec![0u64; units.len()];
    let mut peak = input_bytes;
    for action in actions {
        match action {
            Action::Replace { unit, positions } => {
                windows[*unit] = 0;
                let alive = input + windows.iter().sum::<u64>();
                peak = peak.max(alive + positions.len() as u64 * units[*unit].working_bytes);
                windows[*unit] = positions.len() as u64 * units[*unit].result_bytes;
            }
            Action::Compute { unit, positions } => {
                windows[*unit] = rooms[*unit] as u64 * units[*unit].result_bytes;
                let alive = input + windows.iter().sum::<u64>();
                peak = peak.max(alive + positions.len() as u64 * units[*unit].working_bytes);
            }
            Action::Release { tensor } => match tensor.checked_sub(1) {
                None => input = 0,
                Some(unit) => windows[unit] = 0,
            },
        }
    }
    peak
}

#[cfg(test)]
mod tests {
    use cryptodl_core::backend::Positions;
    use proptest::prelude::*;

    use super::*;

    /// A convolution over rows and columns as ranges of positions.
    fn unit(side: usize, kernel: usize, stride: usize, padding: usize, bytes: u64) -> (UnitDemand, usize) {
        let out = (side + 2 * padding - kernel) / stride + 1;
        let inside = |at: usize| at.saturating_sub(padding).min(side - 1);
        let range = |y: usize, x: usize| {
            let first = inside(y * stride) * side + inside(x * stride);
            let last = inside(y * stride + kernel - 1) * side + inside(x * stride + kernel - 1);
            first..last + 1
        };
        let needs = (0..out * out).map(|p| range(p / out, p % out)).collect();
        let operands = vec![Operand { tensor: 0, needs }];
        (UnitDemand { operands, result_bytes: bytes, working_bytes: 2 * bytes }, out)
    }

    fn network(shapes: &[(usize, usize, usize)], side: usize) -> Vec<UnitDemand> {
        let mut side = side;
        let mut units = Vec::new();
        for (i, &(kernel, stride, padding)) in shapes.iter().enumerate() {
            let (mut next, out) = unit(side, kernel.min(side), stride, padding, 10 + i as u64);
            next.operands[0].tensor = i;
            units.push(next);
            side = out;
        }
        let needs = std::iter::once(0..side * side).collect();
        let operands = vec![Operand { tensor: units.len(), needs }];
        units.push(UnitDemand { operands, result_bytes: 10, working_bytes: 20 });
        units
    }

    /// Follows the actions and checks that everything needed is there.
    fn follow(units: &[UnitDemand], Schedule { actions, rooms, .. }: &Schedule) -> Vec<Vec<usize>> {
        let mut windows: Vec<Option<Positions>> = vec![None; units.len()];
        // The position whose value is at each place.
        let mut contents: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
        let mut computed: Vec<Vec<usize>> = units.iter().map(|unit| vec![0; unit.positions()]).collect();
        for action in actions {
            match action {
                Action::Compute { unit, positions } | Action::Replace { unit, positions } => {
                    for p in positions.clone() {
                        for operand in &units[*unit].operands {
                            let Some(before) = operand.tensor.checked_sub(1) else { continue };
                            let window = windows[before].as_ref().expect("an operand has a window");
                            let contents = &contents[before];
                            assert!(operand.needs[p].clone().all(|q| contents[window.place(q)] == q));
                        }
                        computed[*unit][p] += 1;
                    }
                    if matches!(action, Action::Replace { .. }) {
                        windows[*unit] = Some(Positions::of(positions.clone()));
                    } else {
                        windows[*unit].get_or_insert_with(|| Positions::with_room(rooms[*unit])).push(positions);
                    }
                    let window = windows[*unit].as_ref().expect("a window");
                    contents[*unit].resize(window.room(), usize::MAX);
                    positions.clone().for_each(|p| contents[*unit][window.place(p)] = p);
                }
                Action::Release { tensor } => {
                    if let Some(unit) = tensor.checked_sub(1) {
                        windows[unit] = None;
                    }
                }
            }
        }
        let (last, rest) = windows.split_last().expect("units");
        assert!(rest.iter().all(Option::is_none), "only the result is kept");
        let last = last.as_ref().expect("the result");
        assert!(
            (0..units.last().unwrap().positions()).all(|p| last.place(p) == p),
            "the result is complete and in order"
        );
        computed
    }

    /// Every unit of `units` but the last also goes to the sum of a later one of the same size,
    /// where there is one.
    fn with_skips(mut units: Vec<UnitDemand>, skips: &[usize]) -> Vec<UnitDemand> {
        for (i, &skip) in skips.iter().enumerate() {
            let later = i + 1 + skip;
            if later < units.len() && units[later].positions() == units[i].positions() {
                let needs = (0..units[i].positions()).map(|p| p..p + 1).collect();
                units[later].operands.push(Operand { tensor: i + 1, needs });
            }
        }
        units
    }

    proptest! {
        #[test]
        fn skips_of_equal_shapes_are_met_once(
            kernels in prop::collection::vec(prop::sample::select(vec![1usize, 3]), 2..7),
            skips in prop::collection::vec(1usize..5, 1..7), share in 0.0..1.2f64,
        ) {
            let shapes: Vec<_> = kernels.iter().map(|&kernel| (kernel, 1, kernel / 2)).collect();
            let units = with_skips(network(&shapes, 9), &skips);
            let whole = Scheduler::new(&units, u64::MAX).schedule(100).peak;
            if let Ok(found) = schedule(&units, 100, (share * whole as f64) as u64) {
                for counts in follow(&units, &found) {
                    prop_assert!(counts.iter().all(|&count| count == 1));
                }
            }
        }

        #[test]
        fn needs_are_met_once_within_the_budget(
            shapes in prop::collection::vec((1usize..4, 1usize..3, 0usize..2), 1..5), side in 6usize..14, share in 0.0..1.2f64,
            skips in prop::collection::vec(1usize..4, 0..5),
        ) {
            let units = with_skips(network(&shapes, side), &skips);
            let whole = Scheduler::new(&units, u64::MAX).schedule(100).peak;
            let budget = (share * whole as f64) as u64;
            match schedule(&units, 100, budget) {
                Ok(found) => {
                    prop_assert!(found.peak <= budget);
                    for counts in follow(&units, &found) {
                        // Strides above the kernel skip positions; sliding windows compute none twice.
                        prop_assert!(counts.iter().all(|&count| count <= 1));
                    }
                }
                Err(least) => prop_assert!(least > budget),
            }
        }
    }

    #[test]
    fn bands_end_with_a_row_where_they_can() {
        let (unit, side) = unit(28, 5, 1, 0, 1);
        assert_eq!(side, 24);
        assert_eq!([24, 30, 47, 48, 71].map(|most| unit.cut(24, most, 24 * 24)), [48, 48, 48, 72, 72]);
        assert_eq!((unit.cut(0, 5, 24 * 24), unit.cut(560, 50, 24 * 24)), (5, 24 * 24));
    }

    #[test]
    fn a_generous_budget_takes_every_unit_at_once() {
        let units = network(&[(3, 1, 1), (2, 2, 0)], 8);
        let Schedule { actions, .. } = schedule(&units, 100, 1 << 40).unwrap();
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::Replace { .. })).count(), 3);
        assert!(!actions.iter().any(|action| matches!(action, Action::Compute { .. })));
    }

    #[test]
    fn bands_take_a_fraction_of_the_whole() {
        let units = network(&[(3, 1, 0), (3, 1, 0), (2, 2, 0), (3, 1, 0)], 28);
        let whole = Scheduler::new(&units, u64::MAX).schedule(100).peak;
        follow(&units, &schedule(&units, 100, whole / 4).unwrap());
    }
}
