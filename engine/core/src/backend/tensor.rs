//! Shapes of tensors, windows into them, and the channels of their values.

use std::ops::Range;

/// Shape of a tensor of residues. Element order: `[limb][value][component][lane]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which primes of the basis the limbs belong to, in order.
    pub limbs: Vec<usize>,
    /// Number of ciphertexts (features, pixels, logits).
    pub values: usize,
    /// Components of each ciphertext.
    pub components: usize,
    /// Residues of each component: N, or fewer for a slice of lanes.
    pub lanes: usize,
}

impl Shape {
    /// Number of residues.
    pub fn len(&self) -> usize {
        self.limbs.len() * self.limb_len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Residues of one limb.
    pub fn limb_len(&self) -> usize {
        self.values * self.components * self.lanes
    }

    /// For every value, its components in each limb, one after another: parts of `residues`, in tensor order.
    pub fn values_mut<'a>(&self, residues: &'a mut [u32]) -> Vec<Vec<&'a mut [u32]>> {
        let mut values: Vec<_> = (0..self.values).map(|_| Vec::with_capacity(self.limbs.len())).collect();
        for block in residues.chunks_exact_mut(self.limb_len().max(1)) {
            let blocks = block.chunks_exact_mut(self.components * self.lanes);
            values.iter_mut().zip(blocks).for_each(|(value, block)| value.push(block));
        }
        values
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        4 * self.len() as u64
    }

    /// The window that covers everything.
    pub fn window(&self) -> Window {
        Window {
            limbs: 0..self.limbs.len(),
            values: 0..self.values,
            components: 0..self.components,
            lanes: 0..self.lanes,
        }
    }
}

/// A rectangular part of a tensor. `limbs` counts positions in [`Shape::limbs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Positions in the list of limbs.
    pub limbs: Range<usize>,
    /// Values.
    pub values: Range<usize>,
    /// Components.
    pub components: Range<usize>,
    /// Lanes.
    pub lanes: Range<usize>,
}

impl Window {
    /// Lengths along the four axes.
    pub fn extents(&self) -> [usize; 4] {
        [self.limbs.len(), self.values.len(), self.components.len(), self.lanes.len()]
    }

    /// The same window on other limbs.
    pub fn with_limbs(self, limbs: Range<usize>) -> Self {
        Window { limbs, ..self }
    }

    /// The same window on other values.
    pub fn with_values(self, values: Range<usize>) -> Self {
        Window { values, ..self }
    }

    /// The same window on other components.
    pub fn with_components(self, components: Range<usize>) -> Self {
        Window { components, ..self }
    }

    /// The same window on other lanes.
    pub fn with_lanes(self, lanes: Range<usize>) -> Self {
        Window { lanes, ..self }
    }
}

/// How the values of an operand are shared out among channels.
///
/// Values are in channel, height, width order, and every channel has as many: value `v` belongs to
/// channel `v / positions`. What a layer does per channel comes as constants `[limb][channel]`. One
/// channel stands for the whole operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    count: usize,
    positions: usize,
}

impl Channels {
    /// `count` channels of an operand of `values` values.
    ///
    /// # Panics
    /// If there are no channels, or `values` is no multiple of their number.
    pub fn new(count: usize, values: usize) -> Self {
        assert!(count > 0 && values.is_multiple_of(count), "{values} values in {count} channels");
        Channels { count, positions: values / count }
    }

    /// The channels that constants `[limb][channel]` for `x` have.
    ///
    /// # Panics
    /// If their number is no multiple of the limbs, or else as [`Self::new`].
    pub fn of(constants: &[u32], x: &Shape) -> Self {
        let limbs = x.limbs.len();
        assert!(constants.len().is_multiple_of(limbs), "{} constants for {limbs} limbs", constants.len());
        Self::new(constants.len().checked_div(limbs).unwrap_or(1), x.values)
    }

    /// Number of channels.
    pub fn count(self) -> usize {
        self.count
    }

    /// Values of a channel.
    pub fn positions(self) -> usize {
        self.positions
    }

    /// The channel of a value.
    pub fn of_value(self, value: usize) -> usize {
        if self.count == 1 { 0 } else { value / self.positions }
    }

    /// The values of a channel.
    pub fn values(self, channel: usize) -> Range<usize> {
        channel * self.positions..(channel + 1) * self.positions
    }

    /// Where constants `[limb][channel]` have the one for a value in a limb.
    pub fn index(self, limb: usize, value: usize) -> usize {
        limb * self.count + self.of_value(value)
    }
}
