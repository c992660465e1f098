//! In which order the parts of the units are computed, so that what is alive at a time fits a
//! memory budget.
//!
//! A unit's result has channels times positions (pixels). A convolution needs only some rows of the
//! result before it, so a network can be computed band by band: of each unit's result there is a
//! window of positions that moves along as the next one asks for more. A window is a circular
//! buffer, so that nothing is copied when it moves; and no unit's result is computed twice. What
//! several maps of one unit leave between them is: bands overlap there, the more the smaller they are.
//! The input is wholly there at the start, or where memory is short, is loaded position by position as well.

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

/// What the schedule must know of the input.
#[derive(Clone, Copy, Debug)]
pub struct InputDemand {
    /// Size.
    pub bytes: u64,
    /// Positions.
    pub positions: usize,
    /// Whether it can be loaded on the way.
    pub can_wait: bool,
}

impl InputDemand {
    /// Bytes of some of the positions.
    fn bytes_of(self, positions: usize) -> u64 {
        self.bytes / self.positions as u64 * positions as u64
    }
}

/// What a map of a unit leaves for the next map of the unit, which no window keeps.
#[derive(Clone, Debug)]
pub struct Inner {
    /// For every position of the next map's result, the range of positions that it needs; never empty.
    pub needs: Vec<Range<usize>>,
    /// Positions.
    pub positions: usize,
    /// Multiply-adds of one position.
    pub work: u64,
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
    /// Between the maps of the unit, from behind.
    pub inner: Vec<Inner>,
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

    /// Positions of each of [`Self::inner`] that a band takes.
    pub fn taken<'a>(&'a self, positions: &Range<usize>) -> impl Iterator<Item = (&'a Inner, Range<usize>)> {
        self.inner.iter().scan(positions.clone(), |taken, inner| {
            *taken = hull(&inner.needs[taken.clone()]);
            Some((inner, taken.clone()))
        })
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

/// What the executor does next. Units count from 0; the input is wholly there at the start, unless [`Schedule::input_room`] says
/// otherwise.
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
    /// Loads `positions` of the input into its window.
    Load {
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
    /// For how many positions the input's window has room, where it is loaded on the way.
    pub input_room: Option<usize>,
    /// The most bytes that are alive at a time.
    pub peak: u64,
    /// Multiply-adds per image of what is computed more than once.
    pub twice: u64,
}

/// The smallest range that holds all of `ranges`, which are some.
pub(super) fn hull(ranges: &[Range<usize>]) -> Range<usize> {
    let start = ranges.iter().map(|range| range.start).min();
    let end = ranges.iter().map(|range| range.end).max();
    start.zip(end).map(|(start, end)| start..end).expect("at least one range")
}

/// A schedule of the whole network within `budget` bytes, or the bytes that the thriftiest one takes.
///
/// All bands take about as many bytes, as many as the budget allows. Where that computes anything twice, bands that overlap
/// get longer as far as the budget goes, also at the cost of the others, and the input is
/// loaded on the way if that is possible.
pub fn schedule(units: &[UnitDemand], input: InputDemand, budget: u64) -> Result<Schedule, u64> {
    let on_the_way = || search(Demand { units, input, loads: true }, budget);
    match search(Demand { units, input, loads: false }, budget) {
        Ok(found) if found.twice > 0 && input.can_wait => {
            Ok(on_the_way().ok().filter(|other| other.twice < found.twice).unwrap_or(found))
        }
        Err(least) if input.can_wait => on_the_way().map_err(|other| least.min(other)),
        found => found,
    }
}

/// What is scheduled.
#[derive(Clone, Copy)]
struct Demand<'a> {
    units: &'a [UnitDemand],
    input: InputDemand,
    /// Whether the input is loaded on the way.
    loads: bool,
}

/// A schedule within `budget` bytes, or the bytes that the thriftiest one takes.
fn search(demand: Demand<'_>, budget: u64) -> Result<Schedule, u64> {
    let units = demand.units;
    let mut least = u64::MAX;
    let mut best: Option<Schedule> = None;
    let mut refined = 0;
    // The same sizes whatever the budget, so that what is named as the least suffices.
    for target in (0..u64::BITS).rev().map(|bit| 1 << bit) {
        let bands: Vec<usize> = units.iter().map(|unit| band(unit, target)).collect();
        let is_least = bands.iter().all(|&band| band == 1);
        let found = Scheduler::new(demand, &bands).schedule();
        if found.peak <= budget {
            let found = if found.twice > 0 { refine(demand, budget, bands, found) } else { found };
            refined += 1;
            if best.as_ref().is_none_or(|best| found.twice < best.twice) {
                best = Some(found);
            }
        } else {
            least = least.min(found.peak);
        }
        if is_least || refined == REFINED || best.as_ref().is_some_and(|best| best.twice == 0) {
            break;
        }
    }
    best.ok_or(least)
}

/// Sizes of bands from which [`refine`] starts.
const REFINED: usize = 6;

/// Makes bands longer where that saves most, as far as the budget goes.
fn refine(demand: Demand<'_>, budget: u64, mut bands: Vec<usize>, mut best: Schedule) -> Schedule {
    loop {
        let mut better = None;
        for (unit, of_unit) in demand.units.iter().enumerate().filter(|(_, unit)| !unit.inner.is_empty()) {
            let sizes = (1..usize::BITS).map(|bit| (bands[unit] << bit).min(of_unit.positions()));
            let sizes = sizes.take_while(|&size| size < of_unit.positions()).chain([of_unit.positions()]);
            for size in sizes.filter(|&size| size > bands[unit]) {
                let mut longer = bands.clone();
                longer[unit] = size;
                let found = Scheduler::new(demand, &longer).schedule();
                if found.peak > budget {
                    break;
                }
                if found.twice < better.as_ref().map_or(best.twice, |(_, found): &(_, Schedule)| found.twice) {
                    better = Some((longer, found));
                }
            }
        }
        let Some(found) = better else { return best };
        (bands, best) = found;
    }
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
    demand: Demand<'a>,
    /// By unit, the positions that are computed at a time.
    bands: &'a [usize],
    /// By tensor, the units that take it.
    readers: Vec<Vec<Reader>>,
    windows: Vec<Range<usize>>,
    /// What is kept of the input.
    input: Range<usize>,
    /// The longest of its windows.
    input_room: usize,
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
    fn new(demand: Demand<'a>, bands: &'a [usize]) -> Self {
        let units = demand.units;
        let count = units.len();
        let mut readers: Vec<Vec<Reader>> = (0..=count).map(|_| Vec::new()).collect();
        for (i, unit) in units.iter().enumerate() {
            unit.operands
                .iter()
                .enumerate()
                .for_each(|(k, operand)| readers[operand.tensor].push(Reader { unit: i, operand: k }));
        }
        Scheduler {
            demand,
            bands,
            readers,
            windows: vec![0..0; count],
            input: 0..if demand.loads { 0 } else { demand.input.positions },
            input_room: 0,
            rooms: vec![0; count],
            replaced: vec![true; count],
            done: vec![false; count],
            actions: Vec::new(),
        }
    }

    fn schedule(mut self) -> Schedule {
        if let Some(last) = self.demand.units.len().checked_sub(1) {
            self.ask(last, 0..self.demand.units[last].positions());
        }
        let Scheduler { demand, rooms, input_room, replaced, mut actions, .. } = self;
        let input_room = demand.loads.then_some(input_room);
        for action in &mut actions {
            if let Action::Compute { unit, positions } = action
                && replaced[*unit]
            {
                *action = Action::Replace { unit: *unit, positions: positions.clone() };
            }
        }
        let peak = peak(demand, &actions, &rooms, input_room);
        let twice = twice(demand.units, &actions);
        Schedule { actions, rooms, input_room, peak, twice }
    }

    /// Has `wanted` of a unit in its window.
    fn ask(&mut self, unit: usize, wanted: Range<usize>) {
        let have = self.windows[unit].clone();
        if have.start <= wanted.start && wanted.end <= have.end {
            return;
        }
        debug_assert!(have.is_empty() || have.start <= wanted.start, "windows only move forward");
        // What other readers still need stays.
        let start = self.first_needed(unit + 1).min(wanted.start).max(have.start);
        let wanted = start..wanted.end;
        let kept = wanted.start..have.end.max(wanted.start);
        self.windows[unit] = kept.clone();
        self.rooms[unit] = self.rooms[unit].max(wanted.len());
        let positions = self.demand.units[unit].positions();
        let step = self.bands[unit];
        self.replaced[unit] &= kept.is_empty() && wanted.len() <= step;
        let mut start = kept.end;
        while start < wanted.end {
            let band = start..self.demand.units[unit].cut(start, step, wanted.end);
            for operand in &self.demand.units[unit].operands {
                match operand.tensor.checked_sub(1) {
                    Some(before) => self.ask(before, operand.needs(&band)),
                    None => self.load(operand.needs(&band)),
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

    /// Has `wanted` of the input in its window.
    fn load(&mut self, wanted: Range<usize>) {
        let have = self.input.clone();
        if have.start <= wanted.start && wanted.end <= have.end {
            return;
        }
        let start = self.first_needed(0).min(wanted.start).max(have.start);
        self.input = start..wanted.end;
        self.input_room = self.input_room.max(self.input.len());
        self.actions.push(Action::Load { positions: start.max(have.end)..wanted.end });
    }

    /// The first position of a tensor that its readers still need.
    fn first_needed(&self, tensor: usize) -> usize {
        let first = |reader: &Reader| match self.done[reader.unit] {
            true => usize::MAX,
            false => self.demand.units[reader.unit].operands[reader.operand].first(self.windows[reader.unit].end),
        };
        self.readers[tensor].iter().map(first).min().unwrap_or(usize::MAX)
    }

    /// Nobody asks for more of a unit: what only it takes is forgotten.
    fn finish(&mut self, unit: usize) {
        if std::mem::replace(&mut self.done[unit], true) {
            return;
        }
        for operand in &self.demand.units[unit].operands {
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

/// Multiply-adds per image of what is computed more than once.
fn twice(units: &[UnitDemand], actions: &[Action]) -> u64 {
    let mut executed = 0;
    for action in actions {
        if let Action::Replace { unit, positions } | Action::Compute { unit, positions } = action {
            let taken = units[*unit].taken(positions);
            executed += taken.map(|(inner, taken)| inner.work * taken.len() as u64).sum::<u64>();
        }
    }
    let inner = units.iter().flat_map(|unit| &unit.inner);
    executed.saturating_sub(inner.map(|inner| inner.work * inner.positions as u64).sum())
}

/// The most bytes that are alive at a time.
fn peak(demand: Demand<'_>, actions: &[Action], rooms: &[usize], input_room: Option<usize>) -> u64 {
    let Demand { units, input: of_input, .. } = demand;
    let mut input = of_input.bytes_of(input_room.unwrap_or(of_input.positions));
    let mut windows = vec![0u64; units.len()];
    let mut peak = input;
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
            // What is loaded is copied to the window.
            Action::Load { positions } => {
                peak = peak.max(input + of_input.bytes_of(positions.len()) + windows.iter().sum::<u64>());
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
        (UnitDemand { operands, result_bytes: bytes, working_bytes: 2 * bytes, inner: Vec::new() }, out)
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
        units.push(UnitDemand { operands, result_bytes: 10, working_bytes: 20, inner: Vec::new() });
        units
    }

    /// As far as it is needed.
    fn input(units: &[UnitDemand]) -> InputDemand {
        let operands = units.iter().flat_map(|unit| &unit.operands).filter(|operand| operand.tensor == 0);
        let positions = operands.flat_map(|operand| &operand.needs).map(|range| range.end).max().expect("it is needed");
        InputDemand { bytes: 8 * positions as u64, positions, can_wait: true }
    }

    /// Bytes that the whole takes at once.
    fn whole(units: &[UnitDemand]) -> u64 {
        schedule(units, input(units), u64::MAX).expect("no bound").peak
    }

    /// Follows the actions and checks that everything needed is there.
    fn follow(units: &[UnitDemand], Schedule { actions, rooms, input_room, .. }: &Schedule) -> Vec<Vec<usize>> {
        let mut windows: Vec<Option<Positions>> = vec![None; units.len()];
        // The position whose value is at each place.
        let mut contents: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
        let mut computed: Vec<Vec<usize>> = units.iter().map(|unit| vec![0; unit.positions()]).collect();
        let mut input_window = input_room.map(Positions::with_room);
        let mut input_contents = vec![usize::MAX; input_room.unwrap_or(0)];
        for action in actions {
            match action {
                Action::Compute { unit, positions } | Action::Replace { unit, positions } => {
                    for p in positions.clone() {
                        for operand in &units[*unit].operands {
                            let Some(before) = operand.tensor.checked_sub(1) else {
                                if let Some(window) = &input_window {
                                    assert!(operand.needs[p].clone().all(|q| input_contents[window.place(q)] == q));
                                }
                                continue;
                            };
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
                Action::Load { positions } => {
                    let window = input_window.as_mut().expect("an input that is loaded");
                    window.push(positions);
                    positions.clone().for_each(|p| input_contents[window.place(p)] = p);
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
            let whole = whole(&units);
            if let Ok(found) = schedule(&units, input(&units), (share * whole as f64) as u64) {
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
            let whole = whole(&units);
            let budget = (share * whole as f64) as u64;
            match schedule(&units, input(&units), budget) {
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
        let Schedule { actions, .. } = schedule(&units, input(&units), 1 << 40).unwrap();
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::Replace { .. })).count(), 3);
        assert!(!actions.iter().any(|action| matches!(action, Action::Compute { .. })));
    }

    #[test]
    fn the_input_is_loaded_on_the_way_where_memory_is_short() {
        let units = network(&[(3, 1, 0), (3, 1, 0), (3, 1, 0)], 28);
        let least = |loads| search(Demand { units: &units, input: input(&units), loads }, 0).unwrap_err();
        assert!(least(true) < least(false), "{} and {}", least(true), least(false));
        assert_eq!(schedule(&units, input(&units), 0).unwrap_err(), least(true));
        let loads = |budget| {
            let found = schedule(&units, input(&units), budget).unwrap();
            follow(&units, &found);
            found.actions.iter().any(|action| matches!(action, Action::Load { .. }))
        };
        assert!(loads(least(true)) && !loads(least(false)) && !loads(whole(&units)));
        let waits = InputDemand { can_wait: false, ..input(&units) };
        assert_eq!(schedule(&units, waits, 0).unwrap_err(), least(false));
    }

    /// Two 3x3 convolutions without a window between them, before a third one.
    #[test]
    fn bands_that_overlap_get_longer_first() {
        let mut units = network(&[(5, 1, 0), (3, 1, 0)], 20);
        let (second, side) = unit(18, 3, 1, 0, 1);
        assert_eq!(side, 16);
        let inner = Inner { needs: second.operands.into_iter().next().unwrap().needs, positions: 18 * 18, work: 1 };
        units[0].inner.push(inner);
        let input = InputDemand { bytes: 100, can_wait: false, ..input(&units) };
        let uniform = |target| {
            let bands: Vec<usize> = units.iter().map(|unit| band(unit, target)).collect();
            Scheduler::new(Demand { units: &units, input, loads: false }, &bands).schedule()
        };
        let whole = schedule(&units, input, u64::MAX).unwrap().peak;
        for share in [10, 8, 6, 5] {
            let budget = whole * share / 10;
            let fits = (0..20).rev().map(|bit| uniform(1 << bit)).find(|found| found.peak <= budget).unwrap();
            let found = schedule(&units, input, budget).unwrap();
            follow(&units, &found);
            assert!(found.peak <= budget && found.twice <= fits.twice, "{share}: {} and {}", found.twice, fits.twice);
            // What rows of 16 in bands of two take, of the rows of 18 before them: two more each.
            assert!(share == 10 || found.twice > 0);
            assert!(share < 6 || fits.twice == 0 || found.twice < fits.twice, "{share}: {}", fits.twice);
        }
        assert_eq!(schedule(&units, input, whole).unwrap().twice, 0);
    }

    #[test]
    fn bands_take_a_fraction_of_the_whole() {
        let units = network(&[(3, 1, 0), (3, 1, 0), (2, 2, 0), (3, 1, 0)], 28);
        let whole = whole(&units);
        follow(&units, &schedule(&units, input(&units), whole / 4).unwrap());
    }
}
