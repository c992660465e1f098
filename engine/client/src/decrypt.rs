//! Decryption of results.

use std::sync::Arc;

use cryptodl_core::backend::packed_row;
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, CiphertextsInfo, Encoder, HEADROOM, MAX_COMPONENTS, Params, Scale, ScoreLeaves,
    UniformPurpose,
};
use cryptodl_core::parallel;
use cryptodl_core::ring::{CentredConverter, RowKernels, ScalarRows, UniformSource, unpack_row};
use zeroize::Zeroizing;

use crate::{ClientError, ScoreUnit, SecretKey};

/// A set is spoilt when more than one slot in so many is beyond [`HEADROOM`] times the calibrated range.
const SPOILT_SHARE: usize = 10;

/// What a result says about each image.
#[derive(Clone, Debug, PartialEq)]
pub struct Decrypted {
    /// Number of classes.
    pub classes: usize,
    /// What the scores are multiples of: what is finer is noise.
    pub unit: ScoreUnit,
    /// Scores, image-major `[image][class]`, rounded to `unit`.
    pub scores: Vec<f64>,
    /// The class with the largest score before rounding, the first of equals.
    pub labels: Vec<u32>,
    /// Whether a score of the image is beyond four times the calibrated range, so that its label is doubtful.
    pub out_of_range: Vec<bool>,
}

/// Decryption of the result of a Program, set by set.
pub struct Decryption<'a> {
    spec: &'a CheckedSpec,
    decryptor: Decryptor<'a>,
    scores: ScoreLeaves,
    /// Sets that are done.
    sets: usize,
}

impl<'a> Decryption<'a> {
    /// Begins to decrypt what `info` describes.
    ///
    /// # Errors
    /// A key of other parameters; ciphertexts that are not of the spec's output shape.
    pub fn new(spec: &'a CheckedSpec, key: &'a SecretKey, info: &CiphertextsInfo) -> Result<Self, ClientError> {
        let output = &spec.output;
        let most = spec.input.packing.log_leaves();
        require("packing", info.leaves.log as usize, info.leaves.log <= most, || format!("0 to {most}"))?;
        let capacity = info.leaves.capacity(spec.params().n());
        let fits = info.leaves.is_spread() || info.images <= capacity;
        require("images", info.images, fits, || format!("at most {capacity}"))?;
        let scores = output.packing.of_scores(spec.params().n(), info.leaves, info.images);
        let values = scores.ciphertexts(output.classes);
        require("values", info.values, info.values == values, || values.to_string())?;
        require("components", info.components, info.components == output.components, || output.components.to_string())?;
        require("level", info.level, info.level == output.level, || output.level.to_string())?;
        let decryptor = Decryptor::new(spec.params(), key, info, output.scale)?;
        Ok(Decryption { spec, decryptor, scores, sets: 0 })
    }

    /// The same with kernels over the spec's primes that suit the machine better. The bits stay the same.
    #[must_use]
    pub fn with_kernels(mut self, kernels: Arc<dyn RowKernels>) -> Self {
        self.decryptor.kernels = kernels;
        self
    }

    /// Nothing of any image yet.
    fn nothing(&self) -> Decrypted {
        let (classes, unit) = (self.spec.output.classes, ScoreUnit::of(self.spec));
        Decrypted { classes, unit, scores: Vec::new(), labels: Vec::new(), out_of_range: Vec::new() }
    }

    /// What the next set says of its images.
    ///
    /// # Errors
    /// A set of another length, or not canonical; one of which more than a tenth of the slots exceed four times the
    /// calibrated range in one class, as after a decryption with the wrong key.
    ///
    /// # Panics
    /// After the last set.
    pub fn next(&mut self, set: &[u8]) -> Result<Decrypted, ClientError> {
        let (output, n, images) = (&self.spec.output, self.decryptor.params.n(), self.decryptor.info.images);
        let (index, first) = (self.sets, self.sets * n);
        assert!(first < images, "no set after the last");
        self.sets += 1;
        let slots = self.decryptor.set(index, set)?;

        let bound = HEADROOM * output.range[0].abs().max(output.range[1].abs());
        let mut decrypted = self.nothing();
        let unit = decrypted.unit;
        let count = n.min(images - first);
        check_set(index, first..first + count, slots.chunks_exact(n), bound)?;
        let values = self.decryptor.info.values;
        for image in 0..count {
            let score = |class: usize| {
                let of_copies = &slots[class % values * n..][self.scores.slots(image)];
                self.scores.part(image, class / values, of_copies)
            };
            let scores = (0..output.classes).map(score);
            let best = scores.clone().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b));
            decrypted.labels.push(best.map_or(0, |(class, _)| class as u32));
            decrypted.out_of_range.push(scores.clone().any(|score| exceeds(score, bound)));
            decrypted.scores.extend(scores.map(|score| unit.round(score)));
        }
        Ok(decrypted)
    }

    /// What a result that is all in memory says of all images.
    ///
    /// # Errors
    /// As [`Self::next`], or sets of another number than was announced.
    pub fn all(mut self, result: &Ciphertexts) -> Result<Decrypted, ClientError> {
        check_sets(self.decryptor.params, result)?;
        let mut decrypted = self.nothing();
        for set in &result.sets {
            let Decrypted { scores, labels, out_of_range, .. } = self.next(set)?;
            decrypted.scores.extend(scores);
            decrypted.labels.extend(labels);
            decrypted.out_of_range.extend(out_of_range);
        }
        Ok(decrypted)
    }
}

/// Decrypts a result that is all in memory, as [`Decryption`] does set by set.
///
/// # Errors
/// As [`Decryption`], or sets of another number.
pub fn decrypt(spec: &CheckedSpec, key: &SecretKey, result: &Ciphertexts) -> Result<Decrypted, ClientError> {
    // The number of sets is the plainest of what can be wrong, and is said first.
    check_sets(spec.params(), result)?;
    Decryption::new(spec, key, &result.info())?.all(result)
}

/// Refuses a set with too many scores of one class beyond `bound`.
fn check_set<'a>(
    set: usize,
    images: std::ops::Range<usize>,
    classes: impl Iterator<Item = &'a [f64]>,
    bound: f64,
) -> Result<(), ClientError> {
    // All slots count, padding too: a wrapped coefficient spoils every slot, an outlier only its own.
    let exceeding = classes.map(|slots| (slots.iter().filter(|&&score| exceeds(score, bound)).count(), slots.len()));
    let (class, (exceeding, slots)) = exceeding.enumerate().max_by_key(|&(_, (count, _))| count).unwrap_or((0, (0, 0)));
    if exceeding * SPOILT_SHARE <= slots {
        return Ok(());
    }
    Err(ClientError::Spoilt { set, first: images.start, last: images.end - 1, class, exceeding, bound })
}

/// Whether a score is beyond `bound`. One that is not a number is: modulo more than 2^1024, noise overflows an `f64`.
fn exceeds(score: f64, bound: f64) -> bool {
    score.is_nan() || score.abs() > bound
}

/// All slots of every set, `[value][N]`, unrounded, padding included, wiped when they are dropped. They contain the
/// ciphertexts' noise, from which whoever also has the ciphertexts can compute the secret key (IND-CPA-D): never show them to
/// the server or to anybody else.
///
/// # Errors
/// A key of other parameters; ciphertexts of a shape that cannot be, of the wrong length, or not canonical.
pub fn decrypt_slots_raw_do_not_return_to_server(
    params: &Params,
    key: &SecretKey,
    ciphertexts: &Ciphertexts,
    scale: Scale,
) -> Result<Vec<Zeroizing<Vec<f64>>>, ClientError> {
    check_sets(params, ciphertexts)?;
    let decryptor = Decryptor::new(params, key, &ciphertexts.info(), scale)?;
    ciphertexts.sets.iter().enumerate().map(|(index, set)| decryptor.set(index, set)).collect()
}

fn check_info(params: &Params, info: &CiphertextsInfo) -> Result<(), ClientError> {
    let &CiphertextsInfo { level, values, components, leaves: _, first_set, seed, images } = info;
    let chain = params.chain_len();
    require("level", level, (1..=chain).contains(&level), || format!("1 to {chain}"))?;
    let most = if seed.is_some() { 2 } else { MAX_COMPONENTS };
    require("components", components, (2..=most).contains(&components), || format!("2 to {most}"))?;
    if images == 0 {
        return Err(ClientError::NoImages);
    }
    // The values of all sets of a whole are numbered in 32 bits.
    let most = u32::MAX as usize / info.sets(params);
    require("values", values, (1..=most).contains(&values), || format!("1 to {most}"))?;
    require("first set", first_set, info.is_numbered(params), || {
        format!("at most {}", u32::MAX as usize / values - info.sets(params))
    })
}

fn check_sets(params: &Params, ciphertexts: &Ciphertexts) -> Result<(), ClientError> {
    let (images, sets) = (ciphertexts.images, ciphertexts.sets.len());
    if images == 0 {
        return Err(ClientError::NoImages);
    }
    let expected = ciphertexts.info().sets(params);
    require("sets", sets, sets == expected, || format!("{expected} for {images} images"))
}

fn require(
    field: &'static str,
    actual: usize,
    fits: bool,
    expected: impl FnOnce() -> String,
) -> Result<(), ClientError> {
    if fits { Ok(()) } else { Err(ClientError::Shape { field, actual, expected: expected() }) }
}

/// Decrypts one value of a set at a time.
struct Decryptor<'a> {
    params: &'a Params,
    key: &'a SecretKey,
    kernels: Arc<dyn RowKernels>,
    info: CiphertextsInfo,
    /// Expands component 1 where it did not travel.
    uniform: Option<UniformSource>,
    centre: CentredConverter,
    encoder: Encoder,
    scale: Scale,
}

impl<'a> Decryptor<'a> {
    fn new(params: &'a Params, key: &'a SecretKey, info: &CiphertextsInfo, scale: Scale) -> Result<Self, ClientError> {
        key.require(params)?;
        check_info(params, info)?;
        Ok(Decryptor {
            params,
            key,
            kernels: Arc::new(ScalarRows(params.basis().clone())),
            uniform: info.seed.map(|seed| UniformPurpose::Ciphertext.source(params, &seed)),
            centre: params.basis().centred_converter(&params.chain(info.level), &[]),
            encoder: Encoder::new(params.n()),
            info: info.clone(),
            scale,
        })
    }

    /// All slots of set number `index`, `[value][N]`.
    fn set(&self, index: usize, bytes: &[u8]) -> Result<Zeroizing<Vec<f64>>, ClientError> {
        let (n, values) = (self.params.n(), self.info.values);
        let rows: usize = (0..self.info.level).map(|limb| packed_row(self.params.basis(), limb)).sum();
        let expected = (self.info.stored_components() * rows).saturating_mul(values);
        if bytes.len() != expected {
            return Err(ClientError::SetLength { set: index, actual: bytes.len(), expected });
        }
        let mut slots = Zeroizing::new(Vec::new());
        slots.try_reserve_exact(values * n).map_err(|_| ClientError::OutOfMemory { bytes: 8 * values * n })?;
        slots.resize(values * n, 0.0);
        let of_values = slots.chunks_exact_mut(n).collect();
        parallel::try_for_each(of_values, |value, slots| self.decrypt(index, bytes, value, slots))?;
        Ok(slots)
    }

    /// The N slots of value `value` of the set `bytes`.
    fn decrypt(&self, set: usize, bytes: &[u8], value: usize, slots: &mut [f64]) -> Result<(), ClientError> {
        let (n, level) = (self.params.n(), self.info.level);
        let mut residues = Zeroizing::new(vec![0; level * n]);
        for (limb, row) in residues.chunks_exact_mut(n).enumerate() {
            self.phase(set, bytes, value, limb, row)?;
        }
        let (mut at, mut digits) = (Zeroizing::new(vec![0; level]), Zeroizing::new(vec![0; level]));
        for (j, slot) in slots.iter_mut().enumerate() {
            at.iter_mut().enumerate().for_each(|(limb, x)| *x = residues[limb * n + j]);
            self.centre.digits(&at, &mut digits);
            *slot = self.centre.to_f64(&digits);
        }
        self.encoder.decode(slots, self.scale);
        Ok(())
    }

    /// `sum_t c_t s^t` modulo the prime of `limb`, in coefficient domain.
    fn phase(&self, set: usize, bytes: &[u8], value: usize, limb: usize, sum: &mut [u32]) -> Result<(), ClientError> {
        let mut row = vec![0; sum.len()];
        for component in (0..self.info.components).rev() {
            self.component(set, bytes, value, component, limb, &mut row)?;
            self.kernels.multiply_add(limb, sum, self.key.row(limb), &row);
        }
        self.kernels.inverse(limb, sum);
        Ok(())
    }

    /// One component in one limb: stored, or expanded.
    fn component(
        &self,
        set: usize,
        bytes: &[u8],
        value: usize,
        component: usize,
        limb: usize,
        row: &mut [u32],
    ) -> Result<(), ClientError> {
        let modulus = self.params.basis().modulus(limb);
        if let Some(uniform) = self.uniform.as_ref().filter(|_| component == 1) {
            let object = (self.info.first_set + set) * self.info.values + value;
            self.kernels.expand(uniform, object as u32, limb, row);
            return Ok(());
        }
        let row_bytes = |limb| packed_row(self.params.basis(), limb);
        let limbs_before: usize = (0..limb).map(row_bytes).sum();
        let start = component * self.info.component_bytes(self.params)
            + self.info.values * limbs_before
            + value * row_bytes(limb);
        unpack_row(&bytes[start..][..row_bytes(limb)], modulus.bits(), row);
        let canonical = row.iter().all(|&residue| residue < modulus.value());
        if canonical { Ok(()) } else { Err(ClientError::Residue { set, value, component, limb, q: modulus.value() }) }
    }
}
