//! Encryption of images: value `v` of a set carries pixel `v` of up to N images, one image per slot.

use std::sync::atomic::{AtomicUsize, Ordering};

use cryptodl_core::backend::packed_row;
use cryptodl_core::ckks::{Ciphertexts, ClientSpec, Encoder, Params, PublicKey, Randomness};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::encryptor::Encryptor;
use crate::{ClientError, SecretKey};

/// Who encrypts: it must be whom the spec names.
#[derive(Clone, Copy, Debug)]
pub enum EncryptionKey<'a> {
    /// The data owner.
    Secret(&'a SecretKey),
    /// A third party.
    Public(&'a PublicKey),
}

/// Encrypts `count` images. `images` is image-major, each image in channel, row, column order, its values already in the
/// spec's range; `params` is what [`ClientSpec::check`] returned. The slots that are left over in the last set hold
/// the value of the range that is nearest to zero.
///
/// `progress` is told how many of all ciphertexts are done, from any thread. The result depends on the state of `rng` and not
/// on the number of threads.
///
/// # Errors
/// A key of another kind or of other parameters; no images, or not `count` of the spec's size; a pixel that is out of range
/// (by more than the rounding of an `f32`), infinite or not a number; no randomness.
///
/// # Panics
/// If the spec would not pass [`ClientSpec::check`].
pub fn encrypt(
    spec: &ClientSpec,
    params: &Params,
    key: EncryptionKey<'_>,
    images: &[f32],
    count: usize,
    rng: &mut Randomness,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Ciphertexts, ClientError> {
    if params.spec() != &spec.params {
        return Err(ClientError::OtherParams { what: "the ring" });
    }
    check_images(spec, params, images, count)?;
    let encryptor = Encryptor::new(spec, params, key, rng)?;
    let (encoder, streams) = (Encoder::new(params.n()), rng.streams());

    let (values, level, seed) = (spec.input.shape.iter().product(), spec.input.level, encryptor.seed());
    let mut ciphertexts = Ciphertexts { level, values, components: 2, seed, images: count, sets: Vec::new() };
    let [low, high] = spec.input.range;
    let padding = 0f64.clamp(low, high);
    let (scale, _) = spec.input.encoding();
    let total = count.div_ceil(params.n()) * values;
    let done = AtomicUsize::new(0);
    for (set, images) in images.chunks(params.n() * values).enumerate() {
        // A hostile spec can ask for more than there is.
        let (mut bytes, len) = (Vec::new(), ciphertexts.set_bytes(params));
        bytes.try_reserve_exact(len).map_err(|_| ClientError::OutOfMemory { bytes: len })?;
        bytes.resize(len, 0);
        rows_by_value(&mut bytes, params, &ciphertexts).into_par_iter().enumerate().for_each(|(value, rows)| {
            let object = set * values + value;
            let mut message = Zeroizing::new(vec![padding; params.n()]);
            for (slot, image) in message.iter_mut().zip(images.chunks_exact(values)) {
                *slot = f64::from(image[value]);
            }
            encoder.encode(&mut message, scale);
            encryptor.encrypt(object as u32, &message, &mut streams.stream(object as u64), rows);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        });
        ciphertexts.sets.push(bytes);
    }
    Ok(ciphertexts)
}

fn check_images(spec: &ClientSpec, params: &Params, images: &[f32], count: usize) -> Result<(), ClientError> {
    let pixels: usize = spec.input.shape.iter().product();
    if count == 0 {
        return Err(ClientError::NoImages);
    }
    // Objects of one seed are numbered in 32 bits.
    let allowed = (u32::MAX as usize / pixels).saturating_mul(params.n());
    if count > allowed {
        return Err(ClientError::TooManyImages { count, allowed });
    }
    if Some(images.len()) != count.checked_mul(pixels) {
        return Err(ClientError::ImageSize { count, pixels, actual: images.len() });
    }
    let [low, high] = spec.input.range;
    let slack = 4.0 * f64::from(f32::EPSILON) * low.abs().max(high.abs());
    let allowed = low - slack..=high + slack;
    match images.iter().position(|&value| !allowed.contains(&f64::from(value))) {
        None => Ok(()),
        Some(i) => Err(ClientError::Pixel { image: i / pixels, pixel: i % pixels, value: images[i], low, high }),
    }
}

/// The packed rows of every value of a set, `[stored component][limb]`; in the set they lie `[component][limb][value]`.
fn rows_by_value<'a>(set: &'a mut [u8], params: &Params, layout: &Ciphertexts) -> Vec<Vec<&'a mut [u8]>> {
    let mut by_value: Vec<Vec<_>> = (0..layout.values).map(|_| Vec::new()).collect();
    let mut rest = set;
    for limb in (0..layout.stored_components()).flat_map(|_| 0..layout.level) {
        let row = packed_row(params.basis(), limb);
        let (rows, tail) = std::mem::take(&mut rest).split_at_mut(layout.values * row);
        rest = tail;
        by_value.iter_mut().zip(rows.chunks_exact_mut(row)).for_each(|(rows, row)| rows.push(row));
    }
    by_value
}
