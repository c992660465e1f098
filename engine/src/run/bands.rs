//! In which order the parts of the layers are computed, so that what is alive at a time fits a memory budget.
//!
//! A layer's values are channels times positions (pixels). A convolution needs only some rows of the layer before it, so a
//! network can run band by band: each layer keeps a window of positions that moves along as the next one asks for more. A window is
//! a circular buffer, so that nothing is copied when it moves; and no layer's result is computed twice.

use std::cmp::Reverse;
use std::ops::Range;

/// What the schedule must know of a layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// For every position, the range of the previous layer's positions that it needs; never empty.
    pub needs: Vec<Range<usize>>,
    /// Bytes of one position of the result, all channels.
    pub result_bytes: u64,
    /// Bytes of one position while it is computed, its result included, on top of what is kept.
    pub working_bytes: u64,
}

impl Layer {
    /// The positions needed for `positions` and still for those after them: what lies before may be forgotten.
    fn needs(&self, positions: &Range<usize>) -> Range<usize> {
        // Not only of the band itself: with padding, a later row may reach further back.
        let start = self.needs[positions.start..].iter().map(|range| range.start).min();
        let end = self.needs[positions.clone()].iter().map(|range| range.end).max();
        start.zip(end).map(|(start, end)| start..end).expect("bands are not empty")
    }

    /// Where a band from `start` on ends, of at most `most` positions and at `last` at the latest: where the next one shares least
    /// of its needs, which is the end of a row, unless the band became much shorter.
    fn cut(&self, start: usize, most: usize, last: usize) -> usize {
        if last - start <= most {
            return last;
        }
        let starts = self.needs[start + 1..].iter().rev().scan(usize::MAX, |least, range| {
            *least = range.start.min(*least);
            Some(*least)
        });
        // By position, the first that it or a later one needs.
        let mut starts: Vec<usize> = starts.collect();
        starts.reverse();
        let mut reached = 0;
        let cuts = (start + 1..=start + most).zip(starts).map(|(end, first)| {
            reached = self.needs[end - 1].end.max(reached);
            (reached.saturating_sub(first), end)
        });
        let cuts = cuts.filter(|&(_, end)| 2 * (end - start) > most);
        cuts.min_by_key(|&(shared, end)| (shared, Reverse(end))).expect("a band has positions").1
    }
}

/// What the executor does next. Layers count from 0; the input is layer 0's predecessor and wholly there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forgets what is kept of `layer` and computes `positions`, which become its window, from the window of the layer before.
    Replace {
        /// Layer.
        layer: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Computes `positions` of `layer` into its window, from the window of the layer before. What is kept for longest makes room.
    Compute {
        /// Layer.
        layer: usize,
        /// Positions.
        positions: Range<usize>,
    },
    /// Forgets everything before `layer`.
    Release {
        /// Layer.
        layer: usize,
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
    (target / layer.working_bytes.max(1)).clamp(1, layer.needs.len() as u64) as usize
}

struct Scheduler<'a> {
    layers: &'a [Layer],
    target: u64,
    windows: Vec<Range<usize>>,
    /// The longest of each layer's windows.
    rooms: Vec<usize>,
    /// Whether each of a layer's windows was computed at once and shares nothing with the one before.
    replaced: Vec<bool>,
    actions: Vec<Action>,
}

impl<'a> Scheduler<'a> {
    fn new(layers: &'a [Layer], target: u64) -> Self {
        let count = layers.len();
        Scheduler {
            layers,
            target,
            windows: vec![0..0; count],
            rooms: vec![0; count],
            replaced: vec![true; count],
            actions: Vec::new(),
        }
    }

    fn run(mut self, input_bytes: u64) -> Schedule {
        if let Some(last) = self.layers.len().checked_sub(1) {
            self.ask(last, 0..self.layers[last].needs.len());
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
        debug_assert!(have.start <= wanted.start, "windows only move forward");
        let kept = wanted.start..have.end.max(wanted.start);
        self.windows[layer] = wanted.clone();
        self.rooms[layer] = self.rooms[layer].max(wanted.len());
        let positions = self.layers[layer].needs.len();
        let step = band(&self.layers[layer], self.target);
        self.replaced[layer] &= kept.is_empty() && wanted.len() <= step;
        let mut start = kept.end;
        while start < wanted.end {
            let band = start..self.layers[layer].cut(start, step, wanted.end);
            if let Some(before) = layer.checked_sub(1) {
                self.ask(before, self.layers[layer].needs(&band));
            }
            start = band.end;
            self.actions.push(Action::Compute { layer, positions: band });
        }
        if wanted.end == positions {
            self.actions.push(Action::Release { layer });
            self.windows[..layer].fill(0..0);
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
            Action::Release { layer } => {
                input = 0;
                windows[..*layer].fill(0);
            }
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
        (Layer { needs, result_bytes: bytes, working_bytes: 2 * bytes }, out)
    }

    fn network(shapes: &[(usize, usize, usize)], side: usize) -> Vec<Layer> {
        let mut side = side;
        let mut layers = Vec::new();
        for (i, &(kernel, stride, padding)) in shapes.iter().enumerate() {
            let (next, out) = layer(side, kernel.min(side), stride, padding, 10 + i as u64);
            layers.push(next);
            side = out;
        }
        layers.push(Layer { needs: std::iter::once(0..side * side).collect(), result_bytes: 10, working_bytes: 20 });
        layers
    }

    /// Follows the actions and checks that everything needed is there.
    fn follow(layers: &[Layer], Schedule { actions, rooms, .. }: &Schedule) -> Vec<Vec<usize>> {
        let mut windows: Vec<Option<Positions>> = vec![None; layers.len()];
        // The position whose value is at each place.
        let mut contents: Vec<Vec<usize>> = vec![Vec::new(); layers.len()];
        let mut computed: Vec<Vec<usize>> = layers.iter().map(|layer| vec![0; layer.needs.len()]).collect();
        let mut released = 0;
        for action in actions {
            match action {
                Action::Compute { layer, positions } | Action::Replace { layer, positions } => {
                    assert!(*layer >= released);
                    for p in positions.clone() {
                        if let Some(before) = layer.checked_sub(1) {
                            let before = windows[before].as_ref().expect("the layer before has a window");
                            let contents = &contents[layer - 1];
                            assert!(layers[*layer].needs[p].clone().all(|q| contents[before.place(q)] == q));
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
                Action::Release { layer } => {
                    released = released.max(*layer);
                    windows[..*layer].fill(None);
                }
            }
        }
        let last = windows.last().unwrap().as_ref().expect("the result");
        assert!(
            (0..layers.last().unwrap().needs.len()).all(|p| last.place(p) == p),
            "the result is complete and in order"
        );
        computed
    }

    proptest! {
        #[test]
        fn needs_are_met_once_within_the_budget(
            shapes in prop::collection::vec((1usize..4, 1usize..3, 0usize..2), 1..5), side in 6usize..14, share in 0.0..1.2f64,
        ) {
            let layers = network(&shapes, side);
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
