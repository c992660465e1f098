//! The report of a run.

use std::fmt::{self, Display, Formatter};

use cryptodl_core::backend::Transfers;
use cryptodl_plan::{BytesReport, ParamsReport, PlanReport, SegmentReport};
use cryptodl_program::Tolerance;
use cryptodl_run::{ComputeParts, ComputeReport};
use serde::Serialize;

use crate::classify::{Outcome, Stages};
use crate::memory::{peak_rss, show_size};
use crate::prepared::Prepared;
use crate::samples::Samples;
use crate::terminal::{counted, wrapped};
use cryptodl::Machine;

/// Columns of a report, and what names of layers stand after.
const WIDTH: usize = 100;
const NAMES: &str = "             ";

/// What `run --json` writes.
#[derive(Serialize)]
pub struct RunReport {
    pub model: String,
    dataset: String,
    #[serde(flatten)]
    pub machine: Machine,
    program: String,
    encryption: String,
    params: ParamsReport,
    pub images: usize,
    batches: usize,
    slots: usize,
    pub encrypted: Score,
    pub plaintext: Score,
    quantised: Score,
    /// Share of labels that are those of `plaintext`.
    pub agreement: f64,
    agreement_quantised: f64,
    labels_changed: LabelsChanged,
    /// By class, where classes have names.
    classes: Vec<ClassReport>,
    /// Images with a score far outside the calibrated range.
    out_of_range: usize,
    pub seconds: Seconds,
    /// `compute` of each repetition; `seconds` and what follows are of the median one.
    pub compute_repetitions: Vec<f64>,
    compute_parts: ComputeParts,
    /// Sets whose results a checkpoint had: `compute` and the rates are without their time.
    batches_kept: usize,
    pub images_per_second: f64,
    images_per_hour: f64,
    layers: Vec<MeasuredSegment>,
    noise: Noise,
    pub bytes: BytesReport,
    /// Of a set's ciphertexts on the server, as predicted.
    predicted_peak_bytes: u64,
    pub peak_rss_bytes: Option<u64>,
}

/// How often a class was found.
#[derive(Serialize)]
struct ClassReport {
    label: usize,
    name: String,
    /// Images with this label, under encryption.
    encrypted: usize,
    /// Images with this label in truth, where it is known.
    truly: Option<usize>,
    /// Images of both kinds.
    correct: Option<usize>,
}

impl ClassReport {
    /// Of every class that has a name.
    fn all(names: &[String], labels: &[u32], truth: Option<&[u32]>) -> Vec<ClassReport> {
        let count = |labels: &mut dyn Iterator<Item = u32>| {
            let mut counts = vec![0; names.len()];
            labels.for_each(|label| counts.get_mut(label as usize).into_iter().for_each(|count| *count += 1));
            counts
        };
        let encrypted = count(&mut labels.iter().copied());
        let known = truth.map(|truth| {
            let both = labels.iter().zip(truth).filter(|(label, truth)| label == truth).map(|(&label, _)| label);
            (count(&mut truth.iter().copied()), count(&mut { both }))
        });
        let class = |(label, name): (usize, &String)| ClassReport {
            label,
            name: name.clone(),
            encrypted: encrypted[label],
            truly: known.as_ref().map(|(truly, _)| truly[label]),
            correct: known.as_ref().map(|(_, correct)| correct[label]),
        };
        names.iter().enumerate().map(class).collect()
    }
}

/// Correct labels; nothing where the true ones are not known.
#[derive(Serialize)]
pub struct Score {
    pub correct: Option<usize>,
    pub accuracy: Option<f64>,
}

#[derive(Serialize)]
pub struct Seconds {
    #[serde(flatten)]
    pub stages: Stages,
    total: f64,
}

/// A segment: as planned, with limbs, components and multiply-adds as executed.
#[derive(Serialize)]
pub struct MeasuredSegment {
    pub seconds: f64,
    #[serde(flatten)]
    pub report: SegmentReport,
}

impl MeasuredSegment {
    /// The segments of a computation over `sets` ciphertext sets.
    pub fn all(plan: &PlanReport, compute: &ComputeReport, sets: usize) -> Vec<MeasuredSegment> {
        let layers = plan.segments.iter().zip(&compute.segments);
        layers
            .map(|(planned, measured)| MeasuredSegment {
                seconds: measured.seconds,
                report: SegmentReport {
                    limbs: measured.limbs,
                    components: measured.components,
                    multiply_adds: measured.multiply_adds,
                    residue_multiply_adds: measured.residue_multiply_adds / sets as u64,
                    ..planned.clone()
                },
            })
            .collect()
    }
}

/// `log2` of the noise of a score: root mean squares over images but for the hundredth where it is largest, of the image in the
/// middle, and of weight rounding alone.
#[derive(Serialize)]
struct Noise {
    predicted_log2: f64,
    measured_log2: f64,
    /// Where the model file has a per-image calibration.
    predicted_median_log2: Option<f64>,
    measured_median_log2: f64,
    predicted_rounding_log2: f64,
    measured_rounding_log2: f64,
}

/// Share of labels that are not those of `plaintext`.
#[derive(Serialize)]
struct LabelsChanged {
    predicted: f64,
    measured: f64,
    /// As `predicted` if predictions are as far off as they can be, without a per-image calibration.
    predicted_at_most: f64,
    /// What was promised.
    tolerance: f64,
}

impl RunReport {
    /// What to say where more labels changed than the promise explains.
    pub fn broken_promise(&self, tolerance: Tolerance) -> Option<String> {
        let changed = (self.labels_changed.measured * self.images as f64).round() as usize;
        (!tolerance.explains(changed, self.images)).then(|| {
            format!(
                "{changed} of {} labels are not those of the network in the clear, where {} were promised: the images differ from \
                 those that the network was calibrated on, or its calibration is too coarse (`cryptodl calibrate` measures it)",
                self.images,
                tolerance.percent()
            )
        })
    }

    pub fn new(prepared: &Prepared, samples: &Samples, outcome: &Outcome) -> Self {
        let (plan, images) = (&prepared.plan.report, samples.count());
        let labels = &outcome.decrypted.labels;
        let equal = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let truth: Option<Vec<u32>> =
            samples.labels.as_ref().map(|truth| truth.iter().copied().map(u32::from).collect());
        let score = |labels: &[u32]| {
            let correct = truth.as_ref().map(|truth| equal(labels, truth));
            Score { correct, accuracy: correct.map(|correct| correct as f64 / images as f64) }
        };
        let images_per_second = images as f64 / outcome.compute.seconds;
        RunReport {
            model: plan.model.clone(),
            dataset: samples.name.clone(),
            machine: prepared.service.machine(),
            program: plan.program.clone(),
            encryption: plan.encryption.clone(),
            params: plan.params.clone(),
            images,
            batches: outcome.sets,
            slots: plan.slots,
            encrypted: score(labels),
            plaintext: score(&outcome.plaintext),
            quantised: score(&outcome.quantised),
            agreement: equal(labels, &outcome.plaintext) as f64 / images as f64,
            agreement_quantised: equal(labels, &outcome.quantised) as f64 / images as f64,
            labels_changed: LabelsChanged {
                predicted: plan.noise.changed,
                predicted_at_most: plan.noise.changed_at_most,
                measured: (images - equal(labels, &outcome.plaintext)) as f64 / images as f64,
                tolerance: plan.tolerance,
            },
            classes: ClassReport::all(&prepared.spec().class_names, labels, truth.as_deref()),
            out_of_range: outcome.decrypted.out_of_range.iter().filter(|&&out| out).count(),
            seconds: Seconds { stages: outcome.stages, total: outcome.stages.total() },
            compute_repetitions: outcome.repetitions.clone(),
            compute_parts: outcome.compute.parts,
            batches_kept: outcome.compute.sets_kept,
            images_per_second,
            images_per_hour: 3600.0 * images_per_second,
            layers: MeasuredSegment::all(plan, &outcome.compute, outcome.sets),
            noise: Noise {
                predicted_log2: plan.noise.bits,
                measured_log2: outcome.noise.typical,
                predicted_median_log2: plan.noise.bits_median,
                measured_median_log2: outcome.noise.median,
                predicted_rounding_log2: plan.noise.rounding_bits,
                measured_rounding_log2: outcome.noise.rounding,
            },
            bytes: outcome.bytes.clone(),
            predicted_peak_bytes: prepared.service.peak(),
            peak_rss_bytes: peak_rss(),
        }
    }
}

impl Display for RunReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (params, stages, parts) = (&self.params, &self.seconds.stages, &self.compute_parts);
        writeln!(
            f,
            "{} on {}: {} in {} of up to {}",
            self.model,
            self.dataset,
            counted(self.images, "image"),
            counted(self.batches, "set"),
            self.slots
        )?;
        writeln!(
            f,
            "security    {} bits (table of Bossuat et al. 2024): N = {}, a modulus of {:.1} bits in {}",
            params.security_bits,
            params.n,
            params.log_qp,
            counted(params.limbs + params.special_primes.len(), "prime")
        )?;
        writeln!(f, "Program     {}; images are encrypted with the {} key", &self.program[..16], self.encryption)?;
        let Machine { backend, kernels, device, threads } = &self.machine;
        writeln!(f, "{backend:<11} {device}, {}; kernels: {kernels}", counted(*threads, "thread"))?;

        writeln!(f, "\nstage       seconds")?;
        let mut stage = |name: &str, seconds: f64, note: &str| writeln!(f, "{name:<10} {seconds:>8.3}  {note}");
        stage("prepare", stages.prepare, "read and plan the model, once")?;
        stage("keygen", stages.keygen, "")?;
        stage("encrypt", stages.encrypt, "")?;
        let rates = format!("{:.0} images per second, {:.0} per hour", self.images_per_second, self.images_per_hour);
        stage("compute", stages.compute, &rates)?;
        stage("decrypt", stages.decrypt, "")?;
        stage("total", self.seconds.total, "")?;

        writeln!(f, "\ncompute     seconds  limbs  components  multiply-adds per image  as published")?;
        for (name, seconds) in
            [("key", parts.key), ("unpack", parts.unpack), ("expand", parts.expand), ("rotate", parts.rotate)]
        {
            writeln!(f, "{name:<10} {seconds:>8.3}")?;
        }
        for MeasuredSegment { seconds, report } in &self.layers {
            writeln!(
                f,
                "{:<10} {seconds:>8.3}  {:>5}  {:>10}  {:>23}  {:>12}",
                "layers", report.limbs, report.components, report.multiply_adds, report.layer_multiply_adds
            )?;
            writeln!(f, "{}", wrapped(&format!("{NAMES}{}", report.name), WIDTH, NAMES))?;
        }
        for (name, seconds) in [("scores", parts.scores), ("masks", parts.rerandomisation), ("pack", parts.pack)] {
            writeln!(f, "{name:<10} {seconds:>8.3}")?;
        }
        if self.batches_kept > 0 {
            let (kept, sets) = (counted(self.batches_kept, "set"), self.batches);
            writeln!(f, "{kept} of {sets} came from the checkpoint: their time is not in these")?;
        }
        if let Some(Transfers { uploaded_bytes, upload_seconds, downloaded_bytes, download_seconds }) = parts.transfers
        {
            let (up, down) = (show_size(uploaded_bytes), show_size(downloaded_bytes));
            writeln!(
                f,
                "of these, {upload_seconds:.3} s handed {up} to the device and {download_seconds:.3} s fetched {down}"
            )?;
        }

        writeln!(f)?;
        if let (Some(encrypted), Some(plaintext), Some(quantised)) =
            (self.encrypted.accuracy, self.plaintext.accuracy, self.quantised.accuracy)
        {
            writeln!(
                f,
                "accuracy    {} encrypted, {} in plaintext, {} quantised",
                percent(encrypted),
                percent(plaintext),
                percent(quantised)
            )?;
        }
        writeln!(
            f,
            "agreement   {} of the labels with plaintext, {} with quantised",
            percent(self.agreement),
            percent(self.agreement_quantised)
        )?;
        let changed = &self.labels_changed;
        let [predicted, measured, tolerance] =
            [changed.predicted, changed.measured, changed.tolerance].map(|share| format!("{:.3} %", 100.0 * share));
        writeln!(f, "labels      {measured} differ from plaintext, {predicted} predicted, {tolerance} tolerated")?;
        write_classes(f, &self.classes)?;
        if self.out_of_range > 0 {
            writeln!(
                f,
                "range       {} have scores far outside the calibrated range",
                counted(self.out_of_range, "image")
            )?;
        }
        writeln!(
            f,
            "noise       {:.3} on a score (rms), {:.3} predicted; of weight rounding {:.3}, {:.3} predicted",
            self.noise.measured_log2.exp2(),
            self.noise.predicted_log2.exp2(),
            self.noise.measured_rounding_log2.exp2(),
            self.noise.predicted_rounding_log2.exp2()
        )?;
        writeln!(
            f,
            "sizes       upload {} ({} per image), download {}",
            show_size(self.bytes.upload),
            show_size(self.bytes.upload_per_image.round() as u64),
            show_size(self.bytes.download)
        )?;
        writeln!(
            f,
            "            evaluation key {}, public key {}; a set has the same size however full it is",
            show_size(self.bytes.eval_key),
            show_size(self.bytes.public_key)
        )?;
        match self.peak_rss_bytes {
            Some(bytes) => writeln!(
                f,
                "memory      {} at most, both sides together; {} of ciphertexts on the server predicted",
                show_size(bytes),
                show_size(self.predicted_peak_bytes)
            ),
            None => Ok(()),
        }
    }
}

/// Classes of which a report has a line.
const CLASSES: usize = 20;

/// A line for each class, but no more than fit a screen.
fn write_classes(f: &mut Formatter<'_>, classes: &[ClassReport]) -> fmt::Result {
    let Some(first) = classes.first() else { return Ok(()) };
    let listed = &classes[..classes.len().min(CLASSES)];
    let width = listed.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).clamp(4, 40);
    let known = if first.truly.is_some() { "  true labels  both" } else { "" };
    writeln!(f, "classes     label  {:<width$}  encrypted{known}", "name")?;
    for ClassReport { label, name, encrypted, truly, correct } in listed {
        let name = shortened(name, width);
        write!(f, "            {label:>5}  {name:<width$}  {encrypted:>9}")?;
        if let (Some(truly), Some(correct)) = (truly, correct) {
            write!(f, "  {truly:>11}  {correct:>4}")?;
        }
        writeln!(f)?;
    }
    match classes.len() - listed.len() {
        0 => Ok(()),
        more => writeln!(f, "            and {more} more, which --json lists"),
    }
}

/// A name of at most `most` characters.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.into();
    }
    name.chars().take(most - 3).chain("...".chars()).collect()
}

/// A share in percent with two decimals.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
