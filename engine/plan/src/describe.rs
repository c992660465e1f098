//! Schedules and reports in words.

use std::fmt::{self, Display, Formatter, Write as _};

use cryptodl_core::backend::Maintenance;

use super::PlanReport;
use super::lowered::Lowered;
use super::report::SegmentReport;
use super::ring::RingShape;
use super::schedule::Structure;
use super::search::Found;

/// What follows a product, in a word: it stays as it is, primes are divided off, or it is brought
/// back to two components.
pub(super) fn maintenance_name(maintenance: &Maintenance) -> &'static str {
    match (maintenance.relinearise, maintenance.drop) {
        (false, 0) => "stay",
        (false, _) => "rescale",
        (true, 0) => "relinearise",
        (true, _) => "relinearise+rescale",
    }
}

impl Found {
    /// The schedule in one line.
    pub(super) fn describe(&self, lowered: &Lowered) -> String {
        describe(lowered, &self.structure, self.ring.shape)
    }
}

/// A schedule in one line: ring, how every branch is factored, what follows the products.
pub(super) fn describe(lowered: &Lowered, structure: &Structure, ring: RingShape) -> String {
    let RingShape { n, prime_bits, limbs, log_leaves, log_scores, .. } = ring;
    let mut schedule = format!("N = {n}, {limbs} x {prime_bits} bits{}", ring.switching());
    if log_leaves > 0 {
        let _ = write!(schedule, ", up to {} pixels in a ciphertext", 1u32 << log_leaves);
    }
    if log_scores > 0 {
        let _ = write!(schedule, ", up to {} scores", 1u32 << log_scores);
    }
    let mut activations = structure.maintenance.iter();
    let mut deferred = structure.deferred.iter();
    let mut factors = structure.factors.iter();
    for stage in &lowered.stages {
        let branches: Vec<String> = factors.by_ref().take(stage.branches.len()).map(|counts| merged(counts)).collect();
        let _ = write!(schedule, "; merge {}", branches.join(" and "));
        if stage.activation.is_some() {
            let maintenance = activations.next().map_or(&[][..], Vec::as_slice);
            let names: Vec<&str> = maintenance.iter().map(maintenance_name).collect();
            let _ = write!(schedule, "; {}", names.join(", "));
            if deferred.next() == Some(&true) {
                schedule.push_str(" later");
            }
        }
    }
    schedule
}

/// How many layers become one map, map by map.
fn merged(counts: &[usize]) -> String {
    counts.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
}

/// Columns of a report.
const WIDTH: usize = 100;
/// Columns of a step's name.
const NAME: usize = 30;

/// `text` in at most [`NAME`] characters.
fn cut(text: &str) -> String {
    match text.char_indices().nth(NAME) {
        None => text.into(),
        Some(_) => text.chars().take(NAME - 3).chain("...".chars()).collect(),
    }
}

/// `parts` with `separator` in lines of at most [`WIDTH`] columns, after `indent` columns.
fn filled(parts: &[String], separator: &str, indent: usize) -> String {
    let (mut text, mut column) = (String::new(), indent);
    for (i, part) in parts.iter().enumerate() {
        let end = if i + 1 < parts.len() { separator } else { "" };
        if column > indent && column + part.chars().count() + end.trim_end().len() > WIDTH {
            text = format!("{}\n{:indent$}", text.trim_end(), "");
            column = indent;
        }
        text += part;
        text += end;
        column += part.chars().count() + end.len();
    }
    text
}

/// A size of a file.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The words of a report's tables.
const WORDS: &str = "\
bits         of the integer weights, sign included
limbs        primes of the modulus that are left; parts: polynomials that make up a ciphertext
scale        a number x is encrypted as the integer scale * x
largest      value of the step on the calibration images; spare: bits of the modulus above it
noise        of the encryption in units of the values (rms); worst: at the slot where it is largest
adds         (multiply-adds) for one image; published: before layers were merged
transforms   number-theoretic transforms of a set, which cost most where there are any
";

impl Display for PlanReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let p = &self.params;
        let percent = |share: f64| format!("{:.3} %", 100.0 * share);
        writeln!(f, "{}, planned as Program {}", self.model, &self.program[..16])?;
        writeln!(f)?;
        writeln!(f, "ring        N = {}: a ciphertext has {} slots, and a set holds {} images", p.n, p.n, self.slots)?;
        let list = |primes: &[u32]| filled(&primes.iter().map(ToString::to_string).collect::<Vec<_>>(), ", ", 12);
        writeln!(f, "chain       {} primes, a modulus of {:.1} bits:\n{:12}{}", p.limbs, p.log_q, "", list(&p.primes))?;
        match &p.special_primes[..] {
            [] => writeln!(f, "            no special primes: no ciphertext is key-switched")?,
            special => writeln!(f, "            {:.1} bits more for key switching: {}", p.log_p, list(special))?,
        }
        writeln!(
            f,
            "security    {}-bit security; the level asked for allows {} bits of modulus, and {:.1} are used",
            p.security_bits, p.log_qp_limit, p.log_qp
        )?;
        writeln!(
            f,
            "input       encrypted with the {} key at scale 2^{:.1}; the schedule is for {} images",
            self.encryption, self.input_log_scale, self.batch
        )?;
        if self.pixels_per_ciphertext > 1 {
            let (pixels, images) = (self.pixels_per_ciphertext, self.slots / self.pixels_per_ciphertext as usize);
            writeln!(f, "            up to {pixels} pixels of an image in a ciphertext, for {images} images or fewer")?;
        }
        self.write_steps(f)?;

        let n = &self.noise;
        writeln!(
            f,
            "noise       {:.3} on a score (rms over images and slots), {:.3} at the worst slot",
            n.bits.exp2(),
            n.bits_worst.exp2()
        )?;
        let median = n.bits_median.map_or(String::new(), |bits| format!("{:.3} for the median image; ", bits.exp2()));
        writeln!(f, "            {median}rounding the weights adds {:.3}", n.rounding_bits.exp2())?;
        writeln!(
            f,
            "labels      predicted to change: {} by encryption, {} with rounding; tolerance {}",
            percent(n.changed_by_encryption),
            percent(n.changed),
            percent(self.tolerance)
        )?;
        if !n.calibrated {
            writeln!(f, "            up to {}: the network has no per-image calibration", percent(n.changed_at_most))?;
        }
        if let Some(p) = &self.circuit_privacy {
            writeln!(
                f,
                "privacy     {} sets stay within 2^{:.0} of the scores alone: a flood of 2^{:.2} on a score,\n{:12}2^{:.1} times \
                 what it hides at most; the result is divided to {} limbs of {} parts",
                p.sets, p.log_distance, p.flood_bits, "", p.rho, p.limbs, p.components
            )?;
        }
        let b = &self.bytes;
        let sets = self.batch.div_ceil(self.slots).max(1) as u64;
        writeln!(
            f,
            "sizes       for {} images: upload {} ({:.0} bytes each), download {}",
            self.batch,
            size(b.upload),
            b.upload_per_image,
            size(b.download)
        )?;
        if self.pixels_per_ciphertext == 1 {
            writeln!(
                f,
                "            a request has whole sets: one image takes {} up and {} down, like {}",
                size(b.upload / sets),
                size(b.download / sets),
                self.slots
            )?;
        }
        writeln!(f, "            evaluation key {}, public key {}", size(b.eval_key), size(b.public_key))?;
        writeln!(
            f,
            "cost        {:.3} s on one core of the planner's machine; a set takes up to {:.0} MiB of memory",
            self.predicted_seconds,
            self.peak_bytes as f64 / f64::from(1 << 20)
        )?;
        for note in &self.notes {
            let words: Vec<String> = note.to_string().split(' ').map(String::from).collect();
            writeln!(f, "note        {}", filled(&words, " ", 12))?;
        }
        writeln!(f, "\n{WORDS}")?;
        writeln!(f, "not chosen (layers that are merged into one map; what follows each product of ciphertexts:")?;
        writeln!(f, "it stays as it is, is rescaled, or is relinearised to two parts; later: after the next map)")?;
        for runner in &self.runners_up {
            let parts: Vec<String> = runner.schedule.split("; ").map(String::from).collect();
            let words: Vec<String> = runner.reason.split(' ').map(String::from).collect();
            writeln!(f, "  {}\n      {}", filled(&parts, "; ", 4).trim_start(), filled(&words, " ", 6))?;
        }
        Ok(())
    }
}

impl PlanReport {
    /// The steps in two tables: what they do to the numbers, and what they cost.
    fn write_steps(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rows = |segment: &'_ SegmentReport| match &segment.steps[..] {
            [] => vec![segment.clone()],
            steps => steps.to_vec(),
        };
        writeln!(
            f,
            "\n{:<NAME$} {:>5} {:>6} {:>6} {:>8} {:>9} {:>7} {:>8} {:>8}",
            "step", "bits", "limbs", "parts", "scale", "largest", "spare", "noise", "worst"
        )?;
        for segment in &self.segments {
            if segment.steps.len() > 1 {
                writeln!(f, "one fused segment of {} steps:", segment.steps.len())?;
            }
            for row in rows(segment) {
                writeln!(
                    f,
                    "{:<NAME$} {:>5} {:>6} {:>6} {:>8} {:>9.3} {:>7.1} {:>8} {:>8}",
                    cut(&row.name),
                    row.bits.map_or(String::new(), |bits| format!("{bits:.1}")),
                    row.limbs,
                    row.components,
                    format!("2^{:.1}", row.log_scale),
                    row.bound,
                    row.headroom_bits,
                    format!("2^{:.1}", row.noise_bits),
                    format!("2^{:.1}", row.noise_bits_worst)
                )?;
            }
        }
        writeln!(
            f,
            "\n{:<NAME$} {:>14} {:>14} {:>11} {:>14}",
            "step", "multiply-adds", "published", "transforms", "MiB of a set"
        )?;
        for row in self.segments.iter().flat_map(rows) {
            writeln!(
                f,
                "{:<NAME$} {:>14} {:>14} {:>11} {:>14.1}",
                cut(&row.name),
                row.multiply_adds,
                row.layer_multiply_adds,
                row.ntts,
                row.bytes as f64 / f64::from(1 << 20)
            )?;
        }
        writeln!(f)
    }
}
