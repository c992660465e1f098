//! The whole way in one process: keys, encryption, computation, decryption, and what the plaintext network says.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use cryptodl::{Checkpoint, Keys, Request, Thrift, row_kernels};
use cryptodl_client::{Decrypted, Decryption, Encryption, SecretKey, decrypt_slots_raw_do_not_return_to_server};
use cryptodl_core::ckks::{Ciphertexts, Randomness};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_core::wire::{CiphertextLayout, write_ciphertexts, write_eval_keys, write_public_key};
use cryptodl_network::plain::logits;
use cryptodl_plan::BytesReport;
use cryptodl_program::plain;
use cryptodl_run::{ComputeReport, Rerandomisation};
use ndarray::{Array2, Axis, Slice};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::files::{Access, Output, make_folder};
use crate::flags::TestSeed;
use crate::prepared::Prepared;
use crate::progress::{Bar, timed};
use crate::samples::Samples;

/// Everything that a run gives.
pub struct Outcome {
    pub decrypted: Decrypted,
    /// Labels of the float network.
    pub plaintext: Vec<u32>,
    /// Labels of the Program in plain mode.
    pub quantised: Vec<u32>,
    pub stages: Stages,
    /// Of the median of all repetitions.
    pub compute: ComputeReport,
    /// Seconds of each repetition.
    pub repetitions: Vec<f64>,
    pub noise: NoiseBits,
    pub bytes: BytesReport,
    pub sets: usize,
}

/// Seconds of each stage.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Stages {
    /// Reading and planning the model: once per model.
    pub prepare: f64,
    pub keygen: f64,
    pub encrypt: f64,
    /// All that the server does, from the received bytes to the result's bytes.
    pub compute: f64,
    pub decrypt: f64,
}

impl Stages {
    /// Of all stages.
    pub fn total(&self) -> f64 {
        self.prepare + self.keygen + self.encrypt + self.compute + self.decrypt
    }
}

/// Classifies `samples` under encryption, computing `repeat` times, and compares.
pub fn classify(prepared: &Prepared, samples: &Samples, seed: &TestSeed, repeat: NonZeroUsize) -> Result<Outcome> {
    let mut session = Session::start(prepared, samples, seed)?;
    (0..repeat.get()).try_for_each(|_| session.compute())?;
    session.finish()
}

/// Images that are encrypted once and classified any number of times.
pub struct Session<'a> {
    prepared: &'a Prepared,
    samples: &'a Samples,
    stages: Stages,
    keys: Keys,
    uploaded: Ciphertexts,
    masks: Randomness,
    /// Of the last computation.
    result: Option<Ciphertexts>,
    /// Of each computation.
    reports: Vec<ComputeReport>,
}

impl<'a> Session<'a> {
    /// Makes keys and encrypts.
    pub fn start(prepared: &'a Prepared, samples: &'a Samples, seed: &TestSeed) -> Result<Self> {
        let masks = seed.masks(prepared.circuit_privacy().is_some())?;
        Self::encrypted(prepared, samples, |purpose| seed.randomness(purpose), masks)
    }

    /// Makes keys, encrypts and computes, and goes on where an earlier process was killed that was
    /// given the same folder.
    ///
    /// Both roles are played here, so the folder holds what the client's secrets are made of.
    pub fn resume(prepared: &'a Prepared, samples: &'a Samples, folder: &Path, thrift: Thrift) -> Result<Self> {
        make_folder(folder, Access::Owner)?;
        let spec = prepared.spec();
        let mut images = blake3::Hasher::new();
        images.update(&spec.program.0);
        for pixel in samples.pixels() {
            images.update(&pixel.to_le_bytes());
        }
        let secret = client_secret(&folder.join("client"), images.finalize().as_bytes())?;
        let randomness = |purpose: &str| Ok(Randomness::from_secret(&secret, purpose));
        let mut session = Self::encrypted(prepared, samples, randomness, Randomness::from_os()?)?;
        let request = Request::new(spec.program, &session.uploaded.info(), (&session.keys.evaluation).into(), true);
        let checkpoint = Checkpoint::open(&folder.join("server"), request, thrift)?;
        session.compute_from(Some(&checkpoint))?;
        Ok(session)
    }

    fn encrypted(
        prepared: &'a Prepared,
        samples: &'a Samples,
        randomness: impl Fn(&str) -> Result<Randomness>,
        masks: Randomness,
    ) -> Result<Self> {
        let spec = prepared.spec();
        let mut stages = Stages { prepare: prepared.seconds, ..Stages::default() };
        let keys = timed(&mut stages.keygen, || Ok(Keys::generate(spec, &mut randomness("keygen")?)?))?;
        let uploaded = timed(&mut stages.encrypt, || {
            let (bar, mut rng) = (Bar::new("encrypt"), randomness("encrypt")?);
            let show = |progress: Progress| bar.watch(progress);
            let (pixels, count) = (samples.pixels(), samples.count());
            let encryption = Encryption::new(spec, keys.encryption(spec.encryption), count, &mut rng)?;
            Ok(encryption.with_kernels(row_kernels(spec.params())).all(pixels, Watch::new(&show))?)
        })?;
        Ok(Session { prepared, samples, stages, keys, uploaded, masks, result: None, reports: Vec::new() })
    }

    /// Computes once.
    pub fn compute(&mut self) -> Result<()> {
        self.compute_from(None)
    }

    fn compute_from(&mut self, checkpoint: Option<&Checkpoint>) -> Result<()> {
        let Session { prepared, keys, uploaded, masks, .. } = self;
        let bar = Bar::new("compute");
        let show = |progress: Progress| bar.watch(progress);
        let masks = Rerandomisation::Fresh { key: &keys.public, rng: masks };
        let start = Instant::now();
        let accepted = prepared.service.accept_evaluation_keys(&keys.evaluation)?;
        let seconds = start.elapsed().as_secs_f64();
        let watch = Watch::new(&show);
        let (result, mut report) = prepared.service.compute(uploaded, &accepted, masks, checkpoint, watch)?;
        report.seconds += seconds;
        report.parts.key = seconds;
        self.result = Some(result);
        self.reports.push(report);
        Ok(())
    }

    /// Decrypts the last result and compares.
    ///
    /// # Panics
    /// If nothing was computed.
    pub fn finish(self) -> Result<Outcome> {
        let Session { prepared, samples, mut stages, keys, uploaded, result, mut reports, .. } = self;
        let spec = prepared.spec();
        let result = result.expect("a computation");
        let repetitions: Vec<f64> = reports.iter().map(|report| report.seconds).collect();
        reports.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let compute = reports.swap_remove((reports.len() - 1) / 2);
        stages.compute = compute.seconds;

        let decrypted = timed(&mut stages.decrypt, || {
            let decryption = Decryption::new(spec, &keys.secret, &result.info())?;
            Ok(decryption.with_kernels(row_kernels(spec.params())).all(&result)?)
        })?;

        let (scores, plaintext) = in_the_clear(prepared, samples);
        let raw = raw_scores(prepared, &keys.secret, &result, samples.count())?;
        Ok(Outcome {
            plaintext: largest(&plaintext),
            quantised: largest(&scores),
            noise: NoiseBits::new(&raw, &scores, &plaintext),
            bytes: sizes(prepared, &keys, &uploaded, &result)?,
            sets: result.sets.len(),
            stages,
            compute,
            repetitions,
            decrypted,
        })
    }
}

/// The 32 bytes in the file `path` that all randomness of a client is made of, new ones if it is
/// absent. They are of use for `images` alone: other images encrypted with the same randomness would
/// show the difference.
fn client_secret(path: &Path, images: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    if path.exists() {
        let kept = Zeroizing::new(fs::read(path).with_context(|| path.display().to_string())?);
        ensure!(
            kept.len() == 64 && kept[32..] == *images,
            "{} is of other images or of another Program: name another folder with --checkpoint, or delete this one",
            path.display()
        );
        secret.copy_from_slice(&kept[..32]);
    } else {
        let mut words = Zeroizing::new([0; 4]);
        Randomness::from_os()?.streams().stream(0).fill(&mut *words);
        words.iter().zip(secret.chunks_mut(8)).for_each(|(word, part)| part.copy_from_slice(&word.to_le_bytes()));
        let file = Output::create(path, Access::Owner)?;
        file.write(|file| file.write_all(&*secret).and_then(|()| file.write_all(images)))?;
    }
    Ok(secret)
}

/// Images that are computed in the clear together.
const TOGETHER: usize = 512;

/// Scores `[image][class]` of the Program in plain mode and of the float network.
fn in_the_clear(prepared: &Prepared, samples: &Samples) -> (Array2<f64>, Array2<f64>) {
    let (bar, count) = (Bar::new("compare"), samples.count());
    bar.say("with the network in the clear".into());
    let classes = prepared.spec().output.classes;
    let (mut scores, mut plaintext) = (Array2::zeros((count, classes)), Array2::zeros((count, classes)));
    let rows = samples.rows();
    for start in (0..count).step_by(TOGETHER) {
        bar.show(start as u64, count as u64);
        let part = Slice::from(start..count.min(start + TOGETHER));
        let values = samples.values.slice_axis(Axis(0), part);
        let program = plain(&prepared.plan.program, rows.slice_axis(Axis(0), part));
        scores.slice_axis_mut(Axis(0), part).assign(&program);
        plaintext.slice_axis_mut(Axis(0), part).assign(&logits(prepared.network(), values).mapv(f64::from));
    }
    (scores, plaintext)
}

/// Index of the largest score of every image, the first of equals.
fn largest(scores: &Array2<f64>) -> Vec<u32> {
    let best = |row: ndarray::ArrayView1<'_, f64>| {
        row.iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(class, _)| class as u32)
    };
    scores.axis_iter(Axis(0)).map(best).collect()
}

/// What encryption and weight rounding did to scores, as `log2` of root mean squares over classes.
pub struct NoiseBits {
    /// Encryption noise over images, but for the hundredth of them where it is largest.
    pub typical: f64,
    /// Of the image in the middle.
    pub median: f64,
    /// Weight rounding over images.
    pub rounding: f64,
}

impl NoiseBits {
    /// From what was decrypted, the Program in plain mode, and the network in the clear, all `[image][class]`.
    fn new(decrypted: &Array2<f64>, quantised: &Array2<f64>, plaintext: &Array2<f64>) -> Self {
        let power = |a: &Array2<f64>, b: &Array2<f64>| {
            let rows = a.rows().into_iter().zip(b.rows());
            rows.map(|(a, b)| (&a - &b).mapv(|d| d * d).mean().unwrap_or(0.0)).collect::<Vec<f64>>()
        };
        let mut noise = power(decrypted, quantised);
        noise.sort_by(f64::total_cmp);
        let bits = |powers: &[f64]| 0.5 * (powers.iter().sum::<f64>() / powers.len() as f64).log2();
        NoiseBits {
            typical: bits(&noise[..noise.len() - noise.len() / 100]),
            median: bits(&noise[noise.len() / 2..][..1]),
            rounding: bits(&power(quantised, plaintext)),
        }
    }
}

/// Scores `[image][class]` before any rounding.
fn raw_scores(prepared: &Prepared, key: &SecretKey, result: &Ciphertexts, images: usize) -> Result<Array2<f64>> {
    let (params, spec, info) = (prepared.params(), prepared.spec(), result.info());
    let (n, values) = (params.n(), info.values);
    let sets = decrypt_slots_raw_do_not_return_to_server(params, key, result, spec.output.scale)?;
    let packed = spec.output.packing.of_scores(n, info.leaves, images);
    let score = |(image, class): (usize, usize)| {
        let (set, image) = (&sets[image / n], image % n);
        packed.part(image, class / values, &set[class % values * n..][packed.slots(image)])
    };
    Ok(Array2::from_shape_fn((images, spec.output.classes), score))
}

/// Sizes of the files that the staged commands write, found by writing them.
fn sizes(prepared: &Prepared, keys: &Keys, uploaded: &Ciphertexts, result: &Ciphertexts) -> Result<BytesReport> {
    let (binding, spec) = (prepared.binding(), prepared.spec());
    let upload = size(|sink| write_ciphertexts(sink, &binding, &CiphertextLayout::input(spec), uploaded))?;
    Ok(BytesReport {
        eval_key: size(|sink| write_eval_keys(sink, prepared.params(), &keys.evaluation))?,
        public_key: size(|sink| write_public_key(sink, prepared.params(), &keys.public))?,
        upload,
        download: size(|sink| write_ciphertexts(sink, &binding, &CiphertextLayout::result(spec), result))?,
        upload_per_image: upload as f64 / uploaded.images as f64,
    })
}

fn size(write: impl FnOnce(&mut Counter) -> io::Result<()>) -> Result<u64> {
    let mut counter = Counter(0);
    write(&mut counter)?;
    Ok(counter.0)
}

/// A sink that counts what it is given.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
