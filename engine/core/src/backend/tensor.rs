//! Shapes of tensors and windows into them.

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
