//! The contract between the executor and the machines that compute. See `contract.md` beside this file.
//!
//! A [`Backend`] owns buffers and kernels and knows nothing of CKKS: it sees batches of residue polynomials. Every result is
//! exact and canonical, so all backends return the same bits ([`conformance`] checks it).

pub mod conformance;
mod linear;
mod measured;
mod polynomial;
mod positions;
mod remedy;
mod steps;
mod tensor;

pub use linear::{LinearMap, LinearMapError, MAX_TAPS, MAX_WEIGHT, PADDING};
pub use measured::{Ceiling, Ceilings, Effort, Measured, Timing, time};
pub use polynomial::{Horner, PatersonStockmeyer};
pub use positions::{Positions, Span};
pub use remedy::BackendRemedy;
pub use steps::{
    CiphertextShape, KeySwitch, Maintenance, RelinLayout, Rotation, SlotwiseOp, paterson_stockmeyer,
    relinearise_rescale, slotwise_shape,
};
pub use tensor::{Channels, Shape, Window};

use std::ops::Range;
use std::sync::Arc;

#[cfg(doc)]
use crate::ring::PrimeDigit;
use crate::ring::{Automorphism, RnsBasis, UniformSource};

/// Why a backend could not do what it was asked. The process stays usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Not enough memory on the device.
    #[error("the {device} has no room for {bytes} more bytes{}", BackendRemedy::all(self.remedies()))]
    OutOfMemory {
        /// What ran out.
        device: String,
        /// Bytes of the failed request.
        bytes: u64,
    },
    /// The device disappeared.
    #[error("the {device} was lost during the computation: {reason}{}", BackendRemedy::all(self.remedies()))]
    DeviceLost {
        /// Which device.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// The device lacks something.
    #[error("the {device} cannot do this: {reason}{}", BackendRemedy::all(remedies))]
    Unsupported {
        /// Which device.
        device: String,
        /// What is missing.
        reason: String,
        /// What may help.
        remedies: &'static [BackendRemedy],
    },
}

impl BackendError {
    /// What may help, the most promising first.
    pub fn remedies(&self) -> &'static [BackendRemedy] {
        use BackendRemedy::{AnotherBackend, Cpu, FewerImages, SmallerMemoryBudget, StartAgain};
        match self {
            BackendError::OutOfMemory { .. } => &[SmallerMemoryBudget, FewerImages, AnotherBackend],
            BackendError::DeviceLost { .. } => &[StartAgain, Cpu],
            BackendError::Unsupported { remedies, .. } => remedies,
        }
    }
}

/// Result of a backend operation.
pub type Result<T> = std::result::Result<T, BackendError>;

/// What has crossed between host and device.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Transfers {
    /// Bytes from the host to the device.
    pub uploaded_bytes: u64,
    /// Seconds in which the host handed them over. A device that fetches them by itself does so beside the host.
    pub upload_seconds: f64,
    /// Bytes from the device to the host.
    pub downloaded_bytes: u64,
    /// Seconds from the end of what computed them to their arrival.
    pub download_seconds: f64,
}

impl Transfers {
    /// What has crossed since `before`.
    pub fn since(&self, before: &Transfers) -> Transfers {
        Transfers {
            uploaded_bytes: self.uploaded_bytes - before.uploaded_bytes,
            upload_seconds: self.upload_seconds - before.upload_seconds,
            downloaded_bytes: self.downloaded_bytes - before.downloaded_bytes,
            download_seconds: self.download_seconds - before.download_seconds,
        }
    }
}

/// Batched exact arithmetic on tensors of residues, `[limb][value][component][lane]`, bound to one [`RnsBasis`].
///
/// First tier, required: one call is one batched launch over all limbs, values, components and lanes. Second tier, provided:
/// steps composed from the first, which a backend may replace by fused kernels that return the same bits. Shapes that do not
/// fit each other are bugs of the caller and panic; everything that depends on the machine is a [`BackendError`].
pub trait Backend: Send + Sync {
    /// A batch of polynomials in the backend's memory.
    type Tensor: Send + Sync;

    /// Short name: `cpu` or `gpu`.
    fn name(&self) -> &'static str;

    /// Which kernels run, for reports.
    fn kernels(&self) -> &'static str;

    /// The machine's own name, for reports.
    fn device(&self) -> String;

    /// The ring and primes that tensors' limbs refer to.
    fn basis(&self) -> &Arc<RnsBasis>;

    /// Whether it computes in the host's memory with the host's threads: the threads share the work, and nothing is gained
    /// by loading operands while it computes.
    fn is_host(&self) -> bool;

    /// What has crossed between host and device so far, for reports. `None` from a backend for which nothing crosses.
    fn transfers(&self) -> Option<Transfers> {
        None
    }

    /// Whether [`Self::slotwise`], [`Self::activation`], [`Self::relinearise`] and [`Self::mod_down`] take a few ciphertexts per thread
    /// of memory beside operands and result. A caller short of memory then gains nothing by passing a few lanes or values at a time.
    fn is_fused(&self) -> bool {
        false
    }

    /// Bytes of intermediates that an operation made of several calls should have alive at a time: more costs memory and gains
    /// nothing. Where they go through caches, what those hold.
    fn working_set(&self) -> u64 {
        512 << 20
    }

    /// Shape of a tensor.
    fn shape<'a>(&self, x: &'a Self::Tensor) -> &'a Shape;

    // Memory.

    /// A tensor of zeros.
    fn zeros(&self, shape: Shape) -> Result<Self::Tensor>;

    /// A tensor of whatever residues the memory holds, to be written before they are read: where zeroing memory costs time.
    fn uninitialised(&self, shape: Shape) -> Result<Self::Tensor> {
        self.zeros(shape)
    }

    /// Host residues (canonical, `shape.len()` of them, in tensor order) to a tensor.
    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<Self::Tensor>;

    /// A tensor's residues, in tensor order.
    fn download(&self, x: &Self::Tensor) -> Result<Vec<u32>>;

    /// Copies window `from` of `x` over window `to` of `out`. The windows have equal extents.
    fn copy(&self, x: &Self::Tensor, from: &Window, out: &mut Self::Tensor, to: &Window) -> Result<()>;

    // From and to the wire.

    /// Fills component `component` of `out` with bit-packed residues: for each limb, for each value, a row of N residues of
    /// `ceil(log2 q)` bits each, least significant bit first, every row starting at a byte. `packed` has exactly
    /// [`packed_len`] bytes. Returns false, with `out` unspecified, if any residue is not below its prime.
    fn unpack(&self, packed: &[u8], out: &mut Self::Tensor, component: usize) -> Result<bool>;

    /// The inverse of [`Self::unpack`] for one component.
    fn pack(&self, x: &Self::Tensor, component: usize) -> Result<Vec<u8>>;

    /// Fills component `component` of `out` with uniform residues: value `v` is object `first_object + v` of `source`.
    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut Self::Tensor, component: usize)
    -> Result<()>;

    // Slot-wise arithmetic (evaluation domain, or linear in either domain).

    /// `out[row, position] = sum_k w[row][k] x[gather(row, position, k)]`, and the row's constant added to component 0.
    fn linear(&self, map: &LinearMap, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Products of ciphertexts, value by value, evaluation domain: component `t` is `sum_(i+j=t) a_i b_j`. Limbs, values and
    /// lanes agree.
    fn multiply(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Adds a constant to every lane of component 0 of every value: `constants[limb][channel]`,
    /// canonical, for the i-th limb and the value's channel (see [`Channels`]). In evaluation
    /// domain this adds the constant polynomial.
    fn add_constant(&self, x: &mut Self::Tensor, constants: &[u32]) -> Result<()>;

    /// Multiplies by `factors[limb][channel]`, canonical, for the i-th limb and the value's channel
    /// (see [`Channels`]).
    fn scale(&self, x: &mut Self::Tensor, factors: &[u32]) -> Result<()>;

    /// `x += y`, equal shapes.
    fn add(&self, x: &mut Self::Tensor, y: &Self::Tensor) -> Result<()>;

    /// `acc[limb][value][c] += factors[limb][channel] x[limb][value][c]` for the components `c` of
    /// `x`, of which `acc` may have more: a missing component is zero. Values and lanes agree;
    /// limbs of `x` are looked up by prime, it may have more. `factors` are canonical, for the
    /// limbs of `acc` in their order and the values' channels (see [`Channels`]).
    fn accumulate(&self, acc: &mut Self::Tensor, x: &Self::Tensor, factors: &[u32]) -> Result<()>;

    /// `x = (x - y) factors[i]` in the i-th limb, equal shapes.
    fn subtract_scale(&self, x: &mut Self::Tensor, y: &Self::Tensor, factors: &[u32]) -> Result<()>;

    /// `acc[value, c] += digit[value, 0] key[row, c]` for both components `c`: the key-switch inner product, with row `row` of
    /// `key` shared by all values. Limbs and lanes agree; limbs of `key` are looked up by prime, it may have more.
    fn accumulate_key(
        &self,
        acc: &mut Self::Tensor,
        digit: &Self::Tensor,
        key: &Self::Tensor,
        row: usize,
    ) -> Result<()>;

    // Transforms and conversions (whole polynomials: lanes = N).

    /// Coefficient to evaluation domain, every polynomial.
    fn forward_ntt(&self, x: &mut Self::Tensor) -> Result<()>;

    /// Evaluation to coefficient domain, every polynomial.
    fn inverse_ntt(&self, x: &mut Self::Tensor) -> Result<()>;

    /// For every coefficient, the centred representative modulo the product of all of `x`'s primes, reduced modulo each prime
    /// of `limbs`. Coefficient domain in and out.
    fn convert_basis(&self, x: &Self::Tensor, limbs: &[usize]) -> Result<Self::Tensor>;

    /// Digit `part` of `parts` of every coefficient of `x`, which has one limb, reduced modulo each prime of `limbs` (see
    /// [`PrimeDigit`]). Coefficient domain in and out. The primes of `limbs` are larger than
    /// `2^(w-1) + 1`, the bound of a digit.
    fn prime_digit(&self, x: &Self::Tensor, part: usize, parts: usize, limbs: &[usize]) -> Result<Self::Tensor>;

    /// The image of every polynomial under an automorphism. Evaluation domain: lane `t` of the image is lane
    /// [`automorphism.source(t)`](Automorphism::source).
    fn automorphism(&self, automorphism: Automorphism, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Waits until everything asked for so far is done.
    fn synchronise(&self) -> Result<()>;

    // Second tier.

    /// Slot-wise operations, one after the other, on the lanes `lanes` of `x`, written to the same
    /// lanes of `out`. `out` has the shape that [`slotwise_shape`] gives for the whole of `x`.
    fn slotwise(
        &self,
        ops: &[SlotwiseOp<'_>],
        x: &Self::Tensor,
        lanes: Range<usize>,
        out: &mut Self::Tensor,
    ) -> Result<()> {
        steps::slotwise(self, ops, x, lanes, out)
    }

    /// Division of an evaluation-domain ciphertext by the product `D` of the primes in `dropped`, exactly
    /// `(x - cent(x mod D)) / D` on the other limbs: rescale, division by `P`, or both at once.
    fn mod_down(&self, x: &Self::Tensor, dropped: &[usize]) -> Result<Self::Tensor> {
        steps::mod_down(self, x, dropped)
    }

    /// Three components to two with a relinearisation key, then division by `P` and the last `drop` chain primes, merged.
    fn relinearise(&self, x: &Self::Tensor, key: &KeySwitch<'_, Self::Tensor>, drop: usize) -> Result<Self::Tensor> {
        steps::relinearise(self, x, key, drop)
    }

    /// Automorphisms of whole evaluation-domain ciphertexts of two components, each followed by a key switch back to the
    /// secret: rotations of slots. Every rotation replaces its values `to` by the images of the first
    /// `to.len()` values of `from`; all take their keys over the same digits, which are cut once for all.
    fn rotate(&self, x: &mut Self::Tensor, from: Range<usize>, rotations: &[Rotation<'_, Self::Tensor>]) -> Result<()> {
        steps::rotate(self, x, from, rotations)
    }

    /// An activation on whole evaluation-domain ciphertexts, with relinearisation and rescaling after each product as planned.
    /// Values are independent, so a caller short of memory may pass a few at a time, with
    /// [`Horner::of_values`].
    fn activation(
        &self,
        polynomial: &Horner,
        products: &[Maintenance],
        key: Option<&KeySwitch<'_, Self::Tensor>>,
        z: &Self::Tensor,
    ) -> Result<Self::Tensor> {
        steps::activation(self, polynomial, products, key, z)
    }
}

/// Bytes of one component of `shape` in packed form.
pub fn packed_len(basis: &RnsBasis, shape: &Shape) -> usize {
    shape.limbs.iter().map(|&limb| shape.values * packed_row(basis, limb)).sum()
}

/// Bytes of one packed row of N residues in `limb`.
pub fn packed_row(basis: &RnsBasis, limb: usize) -> usize {
    (basis.n() * basis.modulus(limb).bits() as usize).div_ceil(8)
}
