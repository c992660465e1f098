//! What a caller may ask of the planner.

use std::ops::RangeInclusive;

use cryptodl_core::ckks::{EncryptionKind, SecurityLevel};
use cryptodl_core::ring::{MAX_DIMENSION, MAX_MODULUS_BITS};
use cryptodl_network::Network;

use super::cost::CostTable;
use super::quantise::WEIGHT_BITS;
use super::{PlanChoice, PlanError};
use cryptodl_program::{MAX_PRIVACY_BITS, MAX_PRIVACY_SETS, PrivacyGoal, Tolerance};

/// How much the planner may rearrange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Whatever is predicted to be cheapest.
    #[default]
    Auto,
    /// Layer by layer: batch-norm and pooling folded, no other merging, every product relinearised and rescaled.
    Layered,
}

/// How images of small batches may be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackingKind {
    /// Compactly where the batch is one of at most [`SMALL_BATCH`] images, leaves half of the slots empty, and costs less so.
    #[default]
    Auto,
    /// One ciphertext for every pixel.
    Spread,
    /// Compactly where the batch leaves half of the slots empty.
    Compact,
}

/// Options of the planner. Equal options and an equal model file give an equal Program on every machine.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// How much may be rearranged.
    pub schedule: ScheduleKind,
    /// Security level to enforce.
    pub security: SecurityLevel,
    /// Who encrypts.
    pub encryption: EncryptionKind,
    /// Images that the schedule is optimised for.
    pub batch: usize,
    /// How few images may be packed.
    pub packing: PackingKind,
    /// Labels that may change; without it the model's own tolerance, else the default.
    pub tolerance: Option<Tolerance>,
    /// Pinned ring dimension.
    pub n: Option<usize>,
    /// Pinned number of chain primes.
    pub limbs: Option<usize>,
    /// Pinned size of the primes in bits.
    pub prime_bits: Option<u32>,
    /// Pinned size of all weights in bits with sign, a multiple of half a bit.
    pub weight_bits: Option<f64>,
    /// Pinned `log2` of the input scale, a multiple of one half.
    pub input_log_scale: Option<f64>,
    /// Whether and how the computation's noise is hidden from the client.
    pub circuit_privacy: Option<PrivacyGoal>,
}

/// Largest batch that waits for its bytes, and that may be packed compactly unless told otherwise.
pub const SMALL_BATCH: usize = 4096;

/// Batch that schedules are optimised for unless told otherwise.
pub const DEFAULT_BATCH: usize = 8192;

/// Prime sizes that the search considers.
pub const PRIME_BITS: RangeInclusive<u32> = 20..=MAX_MODULUS_BITS;

/// Chain lengths that the search considers.
pub const LIMBS: RangeInclusive<usize> = 1..=40;

/// `log2` of the input scales that the search considers where no noise is hidden, in steps of half
/// a bit.
pub const INPUT_LOG_SCALES: RangeInclusive<f64> = 8.0..=30.0;
/// The same where noise is hidden, from the scale at which that of the input alone can be.
pub const PRIVATE_INPUT_LOG_SCALES: RangeInclusive<f64> = 8.0..=200.0;

/// The multiples of one half in `range`, which begins and ends with one, ascending.
pub fn half_bit_steps(range: &RangeInclusive<f64>) -> impl Iterator<Item = f64> + use<> {
    let halves = |bits: &f64| (2.0 * bits) as u32;
    (halves(range.start())..=halves(range.end())).map(|halves| f64::from(halves) / 2.0)
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            schedule: ScheduleKind::Auto,
            security: SecurityLevel::Bits128,
            encryption: EncryptionKind::Secret,
            batch: DEFAULT_BATCH,
            packing: PackingKind::Auto,
            tolerance: None,
            n: None,
            limbs: None,
            prime_bits: None,
            weight_bits: None,
            input_log_scale: None,
            circuit_privacy: None,
        }
    }
}

impl PlanOptions {
    /// The tolerance for `network`: the one asked for, else the model file's, else the default.
    ///
    /// # Errors
    /// A model file's tolerance out of range.
    pub fn tolerance_of(&self, network: &Network) -> Result<Tolerance, PlanError> {
        match (self.tolerance, network.tolerance) {
            (Some(tolerance), _) => Ok(tolerance),
            (None, Some(share)) => Ok(Tolerance::new(share)?),
            (None, None) => Ok(Tolerance::default()),
        }
    }

    /// Whether few images are sent, who wait for every byte.
    pub(crate) fn is_small(&self) -> bool {
        self.batch <= SMALL_BATCH
    }

    /// Price of a byte that is sent or received, in nanoseconds.
    pub(crate) fn byte_price(&self) -> f64 {
        let CostTable { byte, small_byte, .. } = CostTable::SHIPPED;
        if self.is_small() { small_byte } else { byte }
    }

    /// Packings to choose from in dimension `n` for images with so many values, as `log2` of the pixels of an image in a
    /// ciphertext: as many as leave room for the batch, or one.
    pub(crate) fn packings(&self, n: usize, values: usize) -> Vec<u32> {
        let room = (n / self.batch).checked_ilog2().filter(|&room| room > 0);
        let compact = room.map(|room| room.min(values.next_power_of_two().ilog2().max(1)));
        match self.packing {
            PackingKind::Auto if self.is_small() => std::iter::once(0).chain(compact).collect(),
            PackingKind::Auto | PackingKind::Spread => vec![0],
            PackingKind::Compact => vec![compact.unwrap_or(0)],
        }
    }

    /// Checks the pins.
    ///
    /// # Errors
    /// [`PlanError::OutOfRange`] names the first that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let pin = |choice, value: Option<usize>, range: RangeInclusive<usize>| match value {
            Some(value) if !range.contains(&value) => {
                let allowed = format!("{} to {}", range.start(), range.end());
                Err(PlanError::OutOfRange { choice, value: value.to_string(), allowed })
            }
            _ => Ok(()),
        };
        let range = |r: &RangeInclusive<u32>| RangeInclusive::new(*r.start() as usize, *r.end() as usize);
        pin(PlanChoice::Batch, Some(self.batch), 1..=1 << 24)?;
        pin(PlanChoice::RingDimension, self.n, 2048..=MAX_DIMENSION)?;
        if let Some(n) = self.n.filter(|n| !n.is_power_of_two()) {
            let (choice, allowed) = (PlanChoice::RingDimension, "a power of two, 2048 to 65536".into());
            return Err(PlanError::OutOfRange { choice, value: n.to_string(), allowed });
        }
        pin(PlanChoice::Limbs, self.limbs, LIMBS)?;
        pin(PlanChoice::PrimeBits, self.prime_bits.map(|b| b as usize), range(&PRIME_BITS))?;
        let bits = |choice, pin: Option<f64>, range: RangeInclusive<f64>| match pin
            .filter(|bits| !range.contains(bits) || (2.0 * bits).fract() != 0.0)
        {
            Some(bits) => {
                let allowed = format!("{} to {} in steps of 0.5", range.start(), range.end());
                Err(PlanError::OutOfRange { choice, value: bits.to_string(), allowed })
            }
            None => Ok(()),
        };
        bits(PlanChoice::WeightBits, self.weight_bits, WEIGHT_BITS)?;
        let scales = if self.circuit_privacy.is_some() { PRIVATE_INPUT_LOG_SCALES } else { INPUT_LOG_SCALES };
        bits(PlanChoice::InputScaleBits, self.input_log_scale, scales)?;
        let goal = self.circuit_privacy;
        pin(PlanChoice::PrivacySets, goal.map(|goal| goal.sets as usize), 1..=MAX_PRIVACY_SETS as usize)?;
        pin(PlanChoice::PrivacyBits, goal.map(|goal| goal.bits as usize), 1..=MAX_PRIVACY_BITS as usize)
    }

    /// The choices that are pinned.
    pub(super) fn pinned(&self) -> Vec<PlanChoice> {
        let pins = [
            (PlanChoice::RingDimension, self.n.is_some()),
            (PlanChoice::Limbs, self.limbs.is_some()),
            (PlanChoice::PrimeBits, self.prime_bits.is_some()),
            (PlanChoice::WeightBits, self.weight_bits.is_some()),
            (PlanChoice::InputScaleBits, self.input_log_scale.is_some()),
        ];
        pins.into_iter().filter_map(|(choice, pinned)| pinned.then_some(choice)).collect()
    }
}
