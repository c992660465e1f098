//! Decryption of results.

use cryptodl_core::backend::packed_row;
use cryptodl_core::ckks::{
    Ciphertexts, ClientSpec, Encoder, HEADROOM, MAX_COMPONENTS, Params, Scale, UniformPurpose, UniformSource,
};
use cryptodl_core::ring::{CentredConverter, unpack_row};
use rayon::prelude::*;
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

/// Decrypts the result of a Program; `params` is what [`ClientSpec::check`] returned.
///
/// # Errors
/// A key of other parameters; ciphertexts that are not of the spec's output shape, or not canonical; a set of which more than a
/// tenth of the slots exceed four times the calibrated range in one class, as after a decryption with the wrong key.
pub fn decrypt(
    spec: &ClientSpec,
    params: &Params,
    key: &SecretKey,
    result: &Ciphertexts,
) -> Result<Decrypted, ClientError> {
    if params.spec() != &spec.params {
        return Err(ClientError::OtherParams { what: "the ring" });
    }
    let output = &spec.output;
    let (classes, images) = (output.classes, result.images);
    require("values", result.values, result.values == classes, || classes.to_string())?;
    require("components", result.components, result.components == output.components, || output.components.to_string())?;
    require("level", result.level, result.level == output.level, || output.level.to_string())?;
    let sets = decrypt_slots_raw_do_not_return_to_server(params, key, result, output.scale)?;

    let bound = HEADROOM * output.range[0].abs().max(output.range[1].abs());
    let unit = ScoreUnit::of(spec);
    let mut decrypted = Decrypted { classes, unit, scores: Vec::new(), labels: Vec::new(), out_of_range: Vec::new() };
    for (set, slots) in sets.iter().enumerate() {
        let first = set * params.n();
        let count = params.n().min(images - first);
        check_set(set, first..first + count, slots.chunks_exact(params.n()), bound)?;
        for slot in 0..count {
            let scores = (0..classes).map(|class| slots[class * params.n() + slot]);
            let best = scores.clone().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b));
            decrypted.labels.push(best.map_or(0, |(class, _)| class as u32));
            decrypted.out_of_range.push(scores.clone().any(|score| exceeds(score, bound)));
            decrypted.scores.extend(scores.map(|score| unit.round(score)));
        }
    }
    Ok(decrypted)
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

/// All slots of every set, `[value][N]`, unrounded, padding included. They contain the ciphertexts' noise, from which whoever
/// also has the ciphertexts can compute the secret key (IND-CPA-D): never show them to the server or to anybody else.
///
/// # Errors
/// A key of other parameters; ciphertexts of a shape that cannot be, of the wrong length, or not canonical.
pub fn decrypt_slots_raw_do_not_return_to_server(
    params: &Params,
    key: &SecretKey,
    ciphertexts: &Ciphertexts,
    scale: Scale,
) -> Result<Vec<Vec<f64>>, ClientError> {
    key.require(params)?;
    check_shape(params, ciphertexts)?;
    let decryptor = Decryptor {
        params,
        key,
        layout: ciphertexts,
        uniform: ciphertexts.seed.map(|seed| UniformSource::new(UniformPurpose::Ciphertext, params, &seed)),
        centre: params.basis().centred_converter(&params.chain(ciphertexts.level), &[]),
        encoder: Encoder::new(params.n()),
        scale,
    };
    let sets = ciphertexts.sets.iter().enumerate();
    sets.map(|(set, bytes)| {
        let slots: Result<Vec<_>, _> =
            (0..ciphertexts.values).into_par_iter().map(|value| decryptor.decrypt(set, bytes, value)).collect();
        Ok(slots?.concat())
    })
    .collect()
}

fn check_shape(params: &Params, ciphertexts: &Ciphertexts) -> Result<(), ClientError> {
    let &Ciphertexts { level, values, components, seed, images, ref sets } = ciphertexts;
    let chain = params.chain_len();
    require("level", level, (1..=chain).contains(&level), || format!("1 to {chain}"))?;
    let most = if seed.is_some() { 2 } else { MAX_COMPONENTS };
    require("components", components, (2..=most).contains(&components), || format!("2 to {most}"))?;
    if images == 0 {
        return Err(ClientError::NoImages);
    }
    let expected = images.div_ceil(params.n());
    require("sets", sets.len(), sets.len() == expected, || format!("{expected} for {images} images"))?;
    // Objects of one seed are numbered in 32 bits.
    let most = u32::MAX as usize / expected;
    require("values", values, (1..=most).contains(&values), || format!("1 to {most}"))?;
    let rows: usize = (0..level).map(|limb| packed_row(params.basis(), limb)).sum();
    let expected = (ciphertexts.stored_components() * rows).saturating_mul(values);
    match sets.iter().position(|set| set.len() != expected) {
        None => Ok(()),
        Some(set) => Err(ClientError::SetLength { set, actual: sets[set].len(), expected }),
    }
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
    layout: &'a Ciphertexts,
    /// Expands component 1 where it did not travel.
    uniform: Option<UniformSource>,
    centre: CentredConverter,
    encoder: Encoder,
    scale: Scale,
}

impl Decryptor<'_> {
    /// The N slots of value `value` of the set `bytes`.
    fn decrypt(&self, set: usize, bytes: &[u8], value: usize) -> Result<Vec<f64>, ClientError> {
        let (n, level) = (self.params.n(), self.layout.level);
        let mut residues = Zeroizing::new(vec![0; level * n]);
        for (limb, row) in residues.chunks_exact_mut(n).enumerate() {
            self.phase(set, bytes, value, limb, row)?;
        }
        let (mut at, mut digits) = (vec![0; level], vec![0; level]);
        let mut slots: Vec<f64> = (0..n)
            .map(|j| {
                at.iter_mut().enumerate().for_each(|(limb, x)| *x = residues[limb * n + j]);
                self.centre.digits(&at, &mut digits);
                self.centre.to_f64(&digits)
            })
            .collect();
        self.encoder.decode(&mut slots, self.scale);
        Ok(slots)
    }

    /// `sum_t c_t s^t` modulo the prime of `limb`, in coefficient domain.
    fn phase(&self, set: usize, bytes: &[u8], value: usize, limb: usize, sum: &mut [u32]) -> Result<(), ClientError> {
        let table = self.params.basis().table(limb);
        let modulus = table.modulus();
        let mut row = vec![0; sum.len()];
        for component in (0..self.layout.components).rev() {
            self.component(set, bytes, value, component, limb, &mut row)?;
            for ((sum, &s), &c) in sum.iter_mut().zip(self.key.row(limb)).zip(&row) {
                *sum = modulus.add(modulus.mul(*sum, s), c);
            }
        }
        table.inverse(sum);
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
            uniform.fill((set * self.layout.values + value) as u32, limb as u32, modulus, 0, row);
            return Ok(());
        }
        let row_bytes = |limb| packed_row(self.params.basis(), limb);
        let limbs_before: usize = (0..limb).map(row_bytes).sum();
        let start = component * self.layout.component_bytes(self.params)
            + self.layout.values * limbs_before
            + value * row_bytes(limb);
        unpack_row(&bytes[start..][..row_bytes(limb)], modulus.bits(), row);
        let canonical = row.iter().all(|&residue| residue < modulus.value());
        if canonical { Ok(()) } else { Err(ClientError::Residue { set, value, component, limb, q: modulus.value() }) }
    }
}
