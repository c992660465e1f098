//! In which order the parts of the layers are computed, so that what is alive at a time fits a memory budget.
//!
//! A layer's values are channels times positions (pixels). A convolution needs only some rows of the layer before it, so a
//! network can run band by band: each layer keeps a window of positions that moves along as the next one asks for more. A window is
//! a circular buffer, so that nothing is copied when it moves; and no layer's result is computed twice.

use std::cmp::Reverse;
use std::ops::Range;

/// A value that a layer takes: 0 is the input, `i + 1` the result of layer `i`.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Which value.
    pub value: usize,
    /// For every position of the layer, the range of the value's positions that it needs; never empty.
    pub needs: Vec<Range<usize>>,
}

/// What the schedule must know of a layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// At least one, each another value.
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

impl Layer {
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

/// What the executor does next. Layers count from 0; the input is wholly there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forgets what is kept of `layer` and computes `positions`, which become its window, from the windows of its operands.
    Replace {
        /// Layer.
        layer: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Computes `positions` of `layer` into its window, from the windows of its operands. What is kept for longest makes room.
    Compute {
        /// Layer.
        layer: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Forgets a value that nobody takes any more.
    Release {
        /// 0 is the input, `i + 1` the result of layer `i`.
        value: usize,
    },
}

/// Actions in order, and what they take.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// What the executor does.
    pub actions: Vec<Action>,
    /// For each layer, how many positions its window has room for from the first [`Action::Compute`] on.
    pub rooms: Vec<usize>,
    /// The most bytes that are alive at a time.
    pub peak: u64,
}

/// A schedule of the whole network within `budget` bytes, or the bytes that the thriftiest one takes. `input_bytes` is the size
/// of the input.
pub fn schedule(layers: &[Layer], input_bytes: u64, budget: u64) -> Result<Schedule, u64> {
    let mut least = u64::MAX;
    // The same sizes whatever the budget, so that what is named as the least suffices.
    for target in (0..u64::BITS).rev().map(|bit| 1 << bit) {
        let found = Scheduler::new(layers, target).run(input_bytes);
        if found.peak <= budget {
            return Ok(found);
        }
        least = least.min(found.peak);
        if layers.iter().all(|layer| band(layer, target) == 1) {
            break;
        }
    }
    Err(least)
}

/// Positions computed at a time when a band may take `target` bytes.
fn band(layer: &Layer, target: u64) -> usize {
    (target / layer.working_bytes.max(1)).clamp(1, layer.positions() as u64) as usize
}

struct Scheduler<'a> {
    layers: &'a [Layer],
    target: u64,
    /// By value, the layers that take it, each with the place of the operand.
    readers: Vec<Vec<(usize, usize)>>,
    windows: Vec<Range<usize>>,
    /// The longest of each layer's windows.
    rooms: Vec<usize>,
    /// Whether each of a layer's windows was computed at once and shares nothing with the one before.
    replaced: Vec<bool>,
    /// Whether nobody asks for a layer any more.
    done: Vec<bool>,
    actions: Vec<Action>,
}

impl<'a> Scheduler<'a> {
    fn new(layers: &'a [Layer], target: u64) -> Self {
        let count = layers.len();
        let mut readers = vec![Vec::new(); count + 1];
        for (i, layer) in layers.iter().enumerate() {
            layer.operands.iter().enumerate().for_each(|(k, operand)| readers[operand.value].push((i, k)));
        }
        Scheduler {
            layers,
            target,
            readers,
            windows: vec![0..0; count],
            rooms: vec![0; count],
            replaced: vec![true; count],
            done: vec![false; count],
            actions: Vec::new(),
        }
    }

    fn run(mut self, input_bytes: u64) -> Schedule {
        if let Some(last) = self.layers.len().checked_sub(1) {
            self.ask(last, 0..self.layers[last].positions());
        }
        let Scheduler { layers, rooms, replaced, mut actions, .. } = self;
        for action in &mut actions {
            if let Action::Compute { layer, positions } = action
                && replaced[*layer]
            {
                *action = Action::Replace { layer: *layer, positions: positions.clone() };
            }
        }
        let peak = peak(layers, input_bytes, &actions, &rooms);
        Schedule { actions, rooms, peak }
    }

    /// Has `wanted` of a layer in its window.
    fn ask(&mut self, layer: usize, wanted: Range<usize>) {
        let have = self.windows[layer].clone();
        if have.start <= wanted.start && wanted.end <= have.end {
            return;
        }
        debug_assert!(have.is_empty() || have.start <= wanted.start, "windows only move forward");
        // What other readers still need stays.
        let first = |&(reader, operand): &(usize, usize)| match self.done[reader] {
            true => usize::MAX,
            false => self.layers[reader].operands[operand].first(self.windows[reader].end),
        };
        let start = self.readers[layer + 1].iter().map(first).fold(wanted.start, usize::min).max(have.start);
        let wanted = start..wanted.end;
        let kept = wanted.start..have.end.max(wanted.start);
        self.windows[layer] = kept.clone();
        self.rooms[layer] = self.rooms[layer].max(wanted.len());
        let positions = self.layers[layer].positions();
        let step = band(&self.layers[layer], self.target);
        self.replaced[layer] &= kept.is_empty() && wanted.len() <= step;
        let mut start = kept.end;
        while start < wanted.end {
            let band = start..self.layers[layer].cut(start, step, wanted.end);
            for operand in &self.layers[layer].operands {
                if let Some(before) = operand.value.checked_sub(1) {
                    self.ask(before, operand.needs(&band));
                }
            }
            start = band.end;
            self.windows[layer].end = start;
            self.actions.push(Action::Compute { layer, positions: band });
        }
        if wanted.end == positions {
            self.finish(layer);
        }
    }

    /// Nobody asks for more of a layer: what only it takes is forgotten.
    fn finish(&mut self, layer: usize) {
        if std::mem::replace(&mut self.done[layer], true) {
            return;
        }
        for operand in &self.layers[layer].operands {
            if self.readers[operand.value].iter().all(|&(reader, _)| self.done[reader]) {
                self.actions.push(Action::Release { value: operand.value });
                if let Some(before) = operand.value.checked_sub(1) {
                    self.windows[before] = 0..0;
                    self.finish(before);
                }
            }
        }
    }
}

/// The most bytes that are alive at a time.
fn peak(layers: &[Layer], input_bytes: u64, actions: &[Action], rooms: &[usize]) -> u64 {
    let mut input = input_bytes;
    let mut windows = vec![0u64; layers.len()];
    let mut peak = input_bytes;
    for action in actions {
        match action {
            Action::Replace { layer, positions } => {
                windows[*layer] = 0;
                let alive = input + windows.iter().sum::<u64>();
                peak = peak.max(alive + positions.len() as u64 * layers[*layer].working_bytes);
                windows[*layer] = positions.len() as u64 * layers[*layer].result_bytes;
            }
            Action::Compute { layer, positions } => {
                windows[*layer] = rooms[*layer] as u64 * layers[*layer].result_bytes;
                let alive = input + windows.iter().sum::<u64>();
                peak = peak.max(alive + positions.len() as u64 * layers[*layer].working_bytes);
            }
            Action::Release { value } => match value.checked_sub(1) {
                None => input = 0,
                Some(layer) => windows[layer] = 0,
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
    fn layer(side: usize, kernel: usize, stride: usize, padding: usize, bytes: u64) -> (Layer, usize) {
        let out = (side + 2 * padding - kernel) / stride + 1;
        let inside = |at: usize| at.saturating_sub(padding).min(side - 1);
        let range = |y: usize, x: usize| {
            let first = inside(y * stride) * side + inside(x * stride);
            let last = inside(y * stride + kernel - 1) * side + inside(x * stride + kernel - 1);
            first..last + 1
        };
        let needs = (0..out * out).map(|p| range(p / out, p % out)).collect();
        let operands = vec![Operand { value: 0, needs }];
        (Layer { operands, result_bytes: bytes, working_bytes: 2 * bytes }, out)
    }

    fn network(shapes: &[(usize, usize, usize)], side: usize) -> Vec<Layer> {
        let mut side = side;
        let mut layers = Vec::new();
        for (i, &(kernel, stride, padding)) in shapes.iter().enumerate() {
            let (mut next, out) = layer(side, kernel.min(side), stride, padding, 10 + i as u64);
            next.operands[0].value = i;
            layers.push(next);
            side = out;
        }
        let needs = std::iter::once(0..side * side).collect();
        let operands = vec![Operand { value: layers.len(), needs }];
        layers.push(Layer { operands, result_bytes: 10, working_bytes: 20 });
        layers
    }

    /// Follows the actions and checks that everything needed is there.
    fn follow(layers: &[Layer], Schedule { actions, rooms, .. }: &Schedule) -> Vec<Vec<usize>> {
        let mut windows: Vec<Option<Positions>> = vec![None; layers.len()];
        // The position whose value is at each place.
        let mut contents: Vec<Vec<usize>> = vec![Vec::new(); layers.len()];
        let mut computed: Vec<Vec<usize>> = layers.iter().map(|layer| vec![0; layer.positions()]).collect();
        for action in actions {
            match action {
                Action::Compute { layer, positions } | Action::Replace { layer, positions } => {
                    for p in positions.clone() {
                        for operand in &layers[*layer].operands {
                            let Some(before) = operand.value.checked_sub(1) else { continue };
                            let window = windows[before].as_ref().expect("an operand has a window");
                            let contents = &contents[before];
                            assert!(operand.needs[p].clone().all(|q| contents[window.place(q)] == q));
                        }
                        computed[*layer][p] += 1;
                    }
                    if matches!(action, Action::Replace { .. }) {
                        windows[*layer] = Some(Positions::of(positions.clone()));
                    } else {
                        windows[*layer].get_or_insert_with(|| Positions::with_room(rooms[*layer])).push(positions);
                    }
                    let window = windows[*layer].as_ref().expect("a window");
                    contents[*layer].resize(window.room(), usize::MAX);
                    positions.clone().for_each(|p| contents[*layer][window.place(p)] = p);
                }
                Action::Release { value } => {
                    if let Some(layer) = value.checked_sub(1) {
                        windows[layer] = None;
                    }
                }
            }
        }
        let (last, rest) = windows.split_last().expect("layers");
        assert!(rest.iter().all(Option::is_none), "only the result is kept");
        let last = last.as_ref().expect("the result");
        assert!(
            (0..layers.last().unwrap().positions()).all(|p| last.place(p) == p),
            "the result is complete and in order"
        );
        computed
    }

    /// Every layer of `layers` but the last also goes to the sum of a later one of the same size, where there is one.
    fn with_skips(mut layers: Vec<Layer>, skips: &[usize]) -> Vec<Layer> {
        for (i, &skip) in skips.iter().enumerate() {
            let later = i + 1 + skip;
            if later < layers.len() && layers[later].positions() == layers[i].positions() {
                let needs = (0..layers[i].positions()).map(|p| p..p + 1).collect();
                layers[later].operands.push(Operand { value: i + 1, needs });
            }
        }
        layers
    }

    proptest! {
        #[test]
        fn skips_of_equal_shapes_are_met_once(
            kernels in prop::collection::vec(prop::sample::select(vec![1usize, 3]), 2..7),
            skips in prop::collection::vec(1usize..5, 1..7), share in 0.0..1.2f64,
        ) {
            let shapes: Vec<_> = kernels.iter().map(|&kernel| (kernel, 1, kernel / 2)).collect();
            let layers = with_skips(network(&shapes, 9), &skips);
            let whole = Scheduler::new(&layers, u64::MAX).run(100).peak;
            if let Ok(found) = schedule(&layers, 100, (share * whole as f64) as u64) {
                for counts in follow(&layers, &found) {
                    prop_assert!(counts.iter().all(|&count| count == 1));
                }
            }
        }

        #[test]
        fn needs_are_met_once_within_the_budget(
            shapes in prop::collection::vec((1usize..4, 1usize..3, 0usize..2), 1..5), side in 6usize..14, share in 0.0..1.2f64,
            skips in prop::collection::vec(1usize..4, 0..5),
        ) {
            let layers = with_skips(network(&shapes, side), &skips);
            let whole = Scheduler::new(&layers, u64::MAX).run(100).peak;
            let budget = (share * whole as f64) as u64;
            match schedule(&layers, 100, budget) {
                Ok(found) => {
                    prop_assert!(found.peak <= budget);
                    for counts in follow(&layers, &found) {
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
        let (layer, side) = layer(28, 5, 1, 0, 1);
        assert_eq!(side, 24);
        assert_eq!([24, 30, 47, 48, 71].map(|most| layer.cut(24, most, 24 * 24)), [48, 48, 48, 72, 72]);
        assert_eq!((layer.cut(0, 5, 24 * 24), layer.cut(560, 50, 24 * 24)), (5, 24 * 24));
    }

    #[test]
    fn a_generous_budget_takes_every_layer_at_once() {
        let layers = network(&[(3, 1, 1), (2, 2, 0)], 8);
        let Schedule { actions, .. } = schedule(&layers, 100, 1 << 40).unwrap();
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::Replace { .. })).count(), 3);
        assert!(!actions.iter().any(|action| matches!(action, Action::Compute { .. })));
    }

    #[test]
    fn bands_take_a_fraction_of_the_whole() {
        let layers = network(&[(3, 1, 0), (3, 1, 0), (2, 2, 0), (3, 1, 0)], 28);
        let whole = Scheduler::new(&layers, u64::MAX).run(100).peak;
        follow(&layers, &schedule(&layers, 100, whole / 4).unwrap());
    }
}
