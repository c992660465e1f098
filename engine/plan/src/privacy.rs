//! Circuit privacy: the flood that hides the computation's noise, and what is left of a result after it (SECURITY.md, "Circuit
//! privacy").

use cryptodl_core::ckks::flood::{flood_doublings, flood_slot_std};
use cryptodl_core::ckks::noise::{self, Noise};
use cryptodl_program::{CircuitPrivacy, PrivacyGoal};

use super::ring::Ring;
use super::schedule::{Ciphertext, headroom};
use super::worst::MARGIN;

/// Below so many bits a flood slows an attacker down and hides nothing in the sense of cryptography.
pub const CRYPTOGRAPHIC_BITS: u32 = 40;

/// What the division after the flood may add, as a share of the flood: it costs labels and hides nothing.
const DIVISION_SHARE: f64 = 0.125;

/// A flood as planned.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What the executor does.
    pub privacy: CircuitPrivacy,
    /// Bound on the root mean square, over scores and slots, of the noise that is hidden, in units of a score.
    pub bound: f64,
    /// Deviation of the flood in every slot, in units of a score.
    pub width: f64,
    /// Flood and division, in units of a score.
    pub noise: Noise,
    /// The result after the division.
    pub result: Ciphertext,
    /// Bits to spare in the result.
    pub headroom: f64,
}

impl Flood {
    /// The narrowest flood that hides noise whose root mean square over slots is at most `noise`, in units of a score and
    /// without [`MARGIN`], in the ciphertexts `output` of `scores` scores of magnitude `bound`; then as many primes are
    /// divided off as the values and the flood bear. `None` where no flood is wide enough.
    pub fn plan(
        goal: PrivacyGoal,
        ring: &Ring,
        output: Ciphertext,
        scores: usize,
        bound: f64,
        noise: f64,
    ) -> Option<Self> {
        let hidden = MARGIN * noise;
        let scale = output.scale.value();
        let doublings = flood_doublings(ring.shape.n, libm::exp2(goal.rho(ring.shape.n, scores)) * hidden * scale)?;
        let width = flood_slot_std(ring.shape.n, doublings) / scale;
        let division = noise::divide(ring.shape.n, output.components);
        let mut result = output;
        let mut added = Noise::even(0.0);
        while result.level > 1 {
            let level = result.level - 1;
            let smaller = Ciphertext { level, scale: result.scale.over(ring.primes[level]), ..result };
            let rounding = division.times(1.0 / smaller.scale.value());
            if rounding.worst > DIVISION_SHARE * width || headroom(ring, level, smaller.scale, bound) < 0.0 {
                break;
            }
            (result, added) = (smaller, rounding);
        }
        let privacy = CircuitPrivacy { goal, doublings, drop: output.level - result.level };
        let headroom = headroom(ring, result.level, result.scale, bound);
        let noise = Noise::even(width).plus(added);
        Some(Flood { privacy, bound: hidden, width, noise, result, headroom })
    }
}

#[cfg(test)]
mod tests {
    use cryptodl_zoo as zoo;

    use super::super::{Plan, PlanError, PlanNote, PlanOptions, PlanRemedy, plan};
    use super::*;

    fn planned(model: &str, sets: u32, bits: u32) -> Result<Plan, PlanError> {
        let circuit_privacy = Some(PrivacyGoal { sets, bits });
        plan(&zoo::load(model).unwrap(), &PlanOptions { circuit_privacy, ..PlanOptions::default() })
    }

    /// One and two activations: the flood is as much wider than the bound as the rule says, the labels keep, and what was
    /// asked for is in the Program and in the report.
    #[test]
    fn floods_follow_the_rule() {
        for (model, sets, bits) in
            [("mnist-1", 1, 8), ("mnist-1", 64, 40), ("mnist-1-square", 1, 1), ("cryptonets", 16, 30)]
        {
            let Plan { program, report } = planned(model, sets, bits).unwrap();
            let privacy = report.circuit_privacy.unwrap();
            let n = report.params.n as f64;
            let rho = 0.5 * (10.0 * n * f64::from(sets)).log2() + f64::from(bits);
            assert!((privacy.rho - rho).abs() < 1e-9);
            assert_eq!(privacy.log_distance, -f64::from(bits) - 1.0);
            // The width goes in whole bits.
            let excess = privacy.flood_bits - privacy.noise_bits - rho;
            assert!((0.0..1.01).contains(&excess), "{model}: the flood is {excess} bits too wide");
            // The whole noise is the flood and little else, and the bound is above what was predicted on average.
            assert!((report.noise.bits - privacy.flood_bits).abs() < 0.05, "{model}");
            let last = report.segments.last().unwrap();
            assert!(privacy.noise_bits > last.noise_bits_worst, "{model}");
            assert!(report.noise.changed <= 0.0015, "{model}");
            let warned = report.notes.contains(&PlanNote::WeakPrivacy { bits });
            assert_eq!(warned, bits < 40, "{model}: {:?}", report.notes);
            let content = &program.content;
            let CircuitPrivacy { goal, drop, .. } = content.circuit_privacy.unwrap();
            assert_eq!(goal, PrivacyGoal { sets, bits });
            assert_eq!((content.output.level, content.output.level + drop), (privacy.limbs, last.limbs));
            program.client_spec().check().unwrap();
        }
    }

    #[test]
    fn goals_out_of_range_and_out_of_reach_are_refused() {
        let cases =
            [(0, 40, "sets", "0"), (1, 0, "bits", "0"), (1, 65, "bits", "65"), (1 << 21, 40, "sets", "2097152")];
        for (sets, bits, what, value) in cases {
            let message = planned("mnist-1", sets, bits).unwrap_err().to_string();
            let expected = format!("the number of {what} of circuit privacy is {value}, but must be 1 to ");
            assert!(message.contains(&expected), "{message}");
        }
        let goal = PrivacyGoal { sets: 1, bits: 64 };
        let pinned = PlanOptions { circuit_privacy: Some(goal), n: Some(2048), ..PlanOptions::default() };
        let error = plan(&zoo::load("mnist-1").unwrap(), &pinned).unwrap_err();
        assert!(error.remedies().contains(&PlanRemedy::LessPrivacy), "{error}");
        assert!(error.to_string().contains("fewer sets or bits of circuit privacy"), "{error}");
    }
}
