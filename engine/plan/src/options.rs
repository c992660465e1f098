//! What a caller may ask of the planner.

use std::ops::RangeInclusive;

use cryptodl_core::ckks::{EncryptionKind, SecurityLevel};
use cryptodl_core::ring::{MAX_DIMENSION, MAX_MODULUS_BITS};
use cryptodl_network::Network;

use super::quantise::WEIGHT_HALF_BITS;
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
    /// Labels that may change; without it the model's own tolerance, else the default.
    pub tolerance: Option<Tolerance>,
    /// Pinned ring dimension.
    pub n: Option<usize>,
    /// Pinned number of chain primes.
    pub limbs: Option<usize>,
    /// Pinned size of the primes in bits.
    pub prime_bits: Option<u32>,
    /// Pinned size of all weights in half bits.
    pub weight_half_bits: Option<u32>,
    /// Pinned `2 log2` of the input scale.
    pub input_half_bits: Option<u32>,
    /// Whether and how the computation's noise is hidden from the client.
    pub circuit_privacy: Option<PrivacyGoal>,
}

/// Batch that schedules are optimised for unless told otherwise.
pub const DEFAULT_BATCH: usize = 8192;

/// Prime sizes that the search considers.
pub const PRIME_BITS: RangeInclusive<u32> = 20..=MAX_MODULUS_BITS;

/// Chain lengths that the search considers.
pub const LIMBS: RangeInclusive<usize> = 1..=40;

/// Input scales that the search considers, as `2 log2`, where no noise is hidden.
pub const INPUT_HALF_BITS: RangeInclusive<u32> = 16..=60;
/// The same where noise is hidden, from the scale at which that of the input alone can be.
pub const PRIVATE_INPUT_HALF_BITS: RangeInclusive<u32> = 16..=400;

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            schedule: ScheduleKind::Auto,
            security: SecurityLevel::Bits128,
            encryption: EncryptionKind::Secret,
            batch: DEFAULT_BATCH,
            tolerance: None,
            n: None,
            limbs: None,
            prime_bits: None,
            weight_half_bits: None,
            input_half_bits: None,
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
        let half_bits = |choice, pin: Option<u32>, range: RangeInclusive<u32>| {
            let bits = |half_bits: u32| f64::from(half_bits) / 2.0;
            match pin.filter(|half_bits| !range.contains(half_bits)) {
                Some(half_bits) => {
                    let allowed = format!("{} to {}", bits(*range.start()), bits(*range.end()));
                    Err(PlanError::OutOfRange { choice, value: bits(half_bits).to_string(), allowed })
                }
                None => Ok(()),
            }
        };
        half_bits(PlanChoice::WeightBits, self.weight_half_bits, WEIGHT_HALF_BITS)?;
        let scales = if self.circuit_privacy.is_some() { PRIVATE_INPUT_HALF_BITS } else { INPUT_HALF_BITS };
        half_bits(PlanChoice::InputScaleBits, self.input_half_bits, scales)?;
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
            (PlanChoice::WeightBits, self.weight_half_bits.is_some()),
            (PlanChoice::InputScaleBits, self.input_half_bits.is_some()),
        ];
        pins.into_iter().filter_map(|(choice, pinned)| pinned.then_some(choice)).collect()
    }
}
