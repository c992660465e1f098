//! Schedules and reports in words.

use std::fmt::{self, Display, Formatter, Write as _};

use cryptodl_core::backend::Maintenance;

use super::PlanReport;
use super::lowered::Lowered;
use super::schedule::{RingShape, Structure};
use super::search::Found;

/// What follows a product, in a word.
pub(super) fn maintenance_name(maintenance: &Maintenance) -> &'static str {
    match (maintenance.relinearise, maintenance.drop) {
        (false, 0) => "lazy",
        (false, _) => "rescale",
        (true, 0) => "relinearise",
        (true, _) => "relinearise+rescale",
    }
}

impl Found {
    /// The schedule in one line.
    pub(super) fn describe(&self, lowered: &Lowered) -> String {
        describe(lowered, &self.structure, self.ring.shape())
    }
}

/// A schedule in one line: ring, how every branch is factored, what follows the products.
pub(super) fn describe(lowered: &Lowered, structure: &Structure, ring: RingShape) -> String {
    let RingShape { n, prime_bits, limbs, special, log_leaves } = ring;
    let mut schedule = format!("N = {n}, {limbs} x {prime_bits} bits");
    if special > 0 {
        let _ = write!(schedule, " + {special} special");
    }
    if log_leaves > 0 {
        let _ = write!(schedule, ", up to {} pixels in a ciphertext", 1u32 << log_leaves);
    }
    let mut activations = structure.maintenance.iter();
    let mut deferred = structure.deferred.iter();
    let mut factors = structure.factors.iter();
    for stage in &lowered.stages {
        let branches: Vec<String> =
            factors.by_ref().take(stage.branches.len()).map(|counts| format!("{counts:?}")).collect();
        let _ = write!(schedule, "; {}", branches.join(" + "));
        if stage.activation.is_some() {
            let maintenance = activations.next().map_or(&[][..], Vec::as_slice);
            let names = maintenance.iter().map(maintenance_name);
            let _ = write!(schedule, " {}", names.collect::<Vec<_>>().join(", "));
            if deferred.next() == Some(&true) {
                schedule.push_str(" after");
            }
        }
    }
    schedule
}

impl Display for PlanReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let p = &self.params;
        writeln!(f, "Program {} of {}", &self.program[..16], self.model)?;
        writeln!(
            f,
            "ring        N = {}, {} primes of log2 Q = {:.1} bits, P = {:.1}; log2 QP = {:.1}, at most {} at the level asked for: {}-bit security",
            p.n, p.limbs, p.log_q, p.log_p, p.log_qp, p.log_qp_limit, p.security_bits
        )?;
        writeln!(f, "chain       {:?}, special {:?}", p.primes, p.special_primes)?;
        writeln!(
            f,
            "input       scale 2^{:.1}, {} key encryption, {} images per set, optimised for {}",
            self.input_log_scale, self.encryption, self.slots, self.batch
        )?;
        if self.pixels_per_ciphertext > 1 {
            let (pixels, images) = (self.pixels_per_ciphertext, self.slots / self.pixels_per_ciphertext as usize);
            writeln!(f, "            up to {pixels} pixels of an image in a ciphertext for {images} images or fewer")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:<28} {:>5} {:>5} {:>5} {:>8} {:>9} {:>8} {:>8} {:>8} {:>12} {:>12} {:>9} {:>10}",
            "step",
            "bits",
            "limbs",
            "comps",
            "scale",
            "values",
            "spare",
            "noise",
            "worst",
            "multiply-add",
            "published",
            "NTTs",
            "MiB"
        )?;
        for segment in &self.segments {
            if segment.steps.len() > 1 {
                writeln!(f, "one fused segment of {} steps:", segment.steps.len())?;
            }
            for row in if segment.steps.is_empty() { std::slice::from_ref(segment) } else { &segment.steps } {
                writeln!(
                    f,
                    "{:<28} {:>5} {:>5} {:>5} {:>8} {:>9.3} {:>6.1} b {:>8} {:>8} {:>12} {:>12} {:>9} {:>10.1}",
                    row.name,
                    row.bits.map_or(String::new(), |bits| format!("{bits:.1}")),
                    row.limbs,
                    row.components,
                    format!("2^{:.1}", row.log_scale),
                    row.bound,
                    row.headroom_bits,
                    format!("2^{:.1}", row.noise_bits),
                    format!("2^{:.1}", row.noise_bits_worst),
                    row.multiply_adds,
                    row.layer_multiply_adds,
                    row.ntts,
                    row.bytes as f64 / f64::from(1 << 20)
                )?;
            }
        }
        let n = &self.noise;
        writeln!(f)?;
        writeln!(
            f,
            "noise       2^{:.2} rms on a score{}, 2^{:.2} at the worst slot, weight rounding 2^{:.2}",
            n.bits,
            n.bits_median.map_or(String::new(), |bits| format!(", 2^{bits:.2} for the median image")),
            n.bits_worst,
            n.rounding_bits
        )?;
        writeln!(
            f,
            "labels      predicted to change: {:.3} % by encryption, {:.3} % with weight rounding; tolerance {:.3} %",
            100.0 * n.changed_by_encryption,
            100.0 * n.changed,
            100.0 * self.tolerance
        )?;
        if !n.calibrated {
            writeln!(
                f,
                "            up to {:.3} %: the network has no per-image calibration",
                100.0 * n.changed_at_most
            )?;
        }
        if let Some(p) = &self.circuit_privacy {
            writeln!(
                f,
                "privacy     {} sets within 2^{:.0} of the scores alone: a flood of 2^{:.2} on a score, 2^{:.1} times what it hides at most",
                p.sets, p.log_distance, p.flood_bits, p.rho
            )?;
            writeln!(f, "            the result is divided to {} limbs of {} components", p.limbs, p.components)?;
        }
        let b = &self.bytes;
        writeln!(
            f,
            "sizes       upload {:.1} MB ({:.0} bytes per image), download {:.2} MB, evaluation key {} bytes, public key {} bytes",
            b.upload as f64 / 1e6,
            b.upload_per_image,
            b.download as f64 / 1e6,
            b.eval_key,
            b.public_key
        )?;
        writeln!(
            f,
            "cost        {:.3} s on the cost table's core for {} images; ciphertexts of one set take up to {:.0} MiB untiled",
            self.predicted_seconds,
            self.batch,
            self.peak_bytes as f64 / f64::from(1 << 20)
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note        {note}"))?;
        writeln!(f, "not chosen")?;
        self.runners_up.iter().try_for_each(|runner| writeln!(f, "  {}: {}", runner.schedule, runner.reason))
    }
}
