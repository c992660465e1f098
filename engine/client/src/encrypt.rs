//! Encryption of images: value `v` of a set carries pixel `v` of up to N images, one image per slot. Where a Program allows
//! it, few images lie in fewer ciphertexts, with several pixels of each in every one ([`Leaves`](cryptodl_core::ckks::Leaves)).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptodl_core::backend::packed_row;
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, CiphertextsInfo, ClientSpec, Encoder, Params, PublicKey, Randomness, SecretStreams,
};
use cryptodl_core::parallel;
use cryptodl_core::ring::{RowKernels, ScalarRows};
use cryptodl_core::watch::Watch;
use zeroize::Zeroizing;

use crate::encryptor::Encryptor;
use crate::{ClientError, SecretKey};

/// Ciphertexts whose pixels a thread collects together at most.
const MOST_TOGETHER: usize = 8;
/// Groups of ciphertexts at least, for as many threads.
const LEAST_GROUPS: usize = 64;

/// Who encrypts: it must be whom the spec names.
#[derive(Clone, Copy, Debug)]
pub enum EncryptionKey<'a> {
    /// The data owner.
    Secret(&'a SecretKey),
    /// A third party.
    Public(&'a PublicKey),
}

/// Encryption of a number of images, set by set, as compactly as the spec allows. The slots that are left over in the last set hold
/// the value of the range that is nearest to zero. The sets are a whole, so the first has index 0;
/// a part of them can be computed and decrypted by itself, with its own first index and the same
/// seed. What encryption gives depends on the state of the randomness and not on the number of
/// threads.
pub struct Encryption<'a> {
    spec: &'a CheckedSpec,
    encryptor: Encryptor<'a>,
    kernels: Arc<dyn RowKernels>,
    encoder: Encoder,
    streams: SecretStreams,
    info: CiphertextsInfo,
    /// Values of an image.
    pixels: usize,
    /// Slots of the leaves of all images, `[image][leaf]`.
    slots: Vec<u32>,
    /// Sets that are done.
    sets: usize,
}

impl<'a> Encryption<'a> {
    /// Begins to encrypt `count` images. It takes fresh randomness.
    ///
    /// # Errors
    /// A key of another kind or of other parameters; no images, or more than one seed allows; no randomness.
    pub fn new(
        spec: &'a CheckedSpec,
        key: EncryptionKey<'a>,
        count: usize,
        rng: &mut Randomness,
    ) -> Result<Self, ClientError> {
        let params = spec.params();
        let pixels: usize = spec.input.shape.iter().product();
        if count == 0 {
            return Err(ClientError::NoImages);
        }
        // The values of all sets are numbered in 32 bits, and so are those of their results.
        let allowed = (u32::MAX as usize / pixels.max(spec.output.classes)).saturating_mul(params.n());
        if count > allowed {
            return Err(ClientError::TooManyImages { count, allowed });
        }
        let encryptor = Encryptor::new(spec, key, rng)?;
        let (level, seed) = (spec.input.level, encryptor.seed());
        let leaves = spec.input.packing.of_images(params.n(), count);
        let values = leaves.ciphertexts(pixels);
        let info = CiphertextsInfo { level, values, components: 2, leaves, first_set: 0, seed, images: count };
        let (encoder, streams) = (Encoder::new(params.n()), rng.streams());
        let slots = leaves.slots(params.n());
        let kernels = Arc::new(ScalarRows(params.basis().clone()));
        Ok(Encryption { spec, encryptor, kernels, encoder, streams, info, pixels, slots, sets: 0 })
    }

    /// The same with kernels over the spec's primes that suit the machine better. The bits stay the same.
    #[must_use]
    pub fn with_kernels(self, kernels: Arc<dyn RowKernels>) -> Self {
        Encryption { kernels, ..self }
    }

    /// What the sets are.
    pub fn info(&self) -> &CiphertextsInfo {
        &self.info
    }

    /// Images of the next set: N, fewer in the last set, 0 after it.
    pub fn next_images(&self) -> usize {
        let n = self.spec.params().n();
        (self.info.images - self.info.images.min(self.sets * n)).min(n)
    }

    /// Replaces `set` by the encryption of the next [`Self::next_images`] images, image-major, each in channel, row, column
    /// order, with values in the spec's range.
    ///
    /// `watch` is told how many of all ciphertexts are done, from any thread.
    ///
    /// # Errors
    /// Another number of values; a pixel that is out of range (by more than the rounding of an `f32`), infinite or not a
    /// number; no memory; cancelled.
    pub fn next(&mut self, images: &[f32], set: &mut Vec<u8>, watch: Watch<'_>) -> Result<(), ClientError> {
        let Encryption { spec, encryptor, kernels, encoder, streams, info, pixels, slots, sets } = &*self;
        let params = spec.params();
        let (values, n) = (info.values, params.n());
        check_images(spec, images, sets * n, self.next_images())?;
        // A hostile spec can ask for more than there is.
        let len = info.set_bytes(params);
        set.clear();
        let none = |_| ClientError::OutOfMemory { bytes: len };
        set.try_reserve_exact(len).map_err(none)?;
        set.resize(len, 0);
        let [low, high] = spec.input.range;
        let padding = 0f64.clamp(low, high);
        let scale = spec.input.encoding().scale;
        let first = sets * values;
        let (done, total) = (AtomicUsize::new(first), info.sets(params) * values);
        // Neighbouring pixels of an image share a line of the cache, so each thread takes those of several ciphertexts together.
        let together = (values / LEAST_GROUPS).clamp(1, MOST_TOGETHER);
        let mut rows = rows_by_value(set, params, info).into_iter();
        let groups: Vec<Vec<_>> =
            (0..values.div_ceil(together)).map(|_| rows.by_ref().take(together).collect()).collect();
        parallel::try_for_each(groups, |group, rows| {
            let first_value = group * together;
            // Every thread takes some vectors of N numbers from memory of its own. Each one that is missing would end the process,
            // so they are asked for together before.
            let mut working = Vec::<u64>::new();
            working.try_reserve_exact((8 + rows.len()) * n).map_err(none)?;
            drop(std::hint::black_box(working));
            let mut messages = Zeroizing::new(vec![padding; rows.len() * n]);
            // The leaves of an image in a ciphertext are every so many of its pixels.
            let copies = spec.output.packing.of_scores(n, info.leaves, info.images).log;
            let of_image = slots.chunks_exact(1usize << (info.leaves.log + copies));
            for (image, slots) in images.chunks_exact(*pixels).zip(of_image) {
                for slots in slots.chunks_exact(1 << info.leaves.log) {
                    for (pixels, &slot) in image[first_value..].chunks(values).zip(slots) {
                        for (message, &pixel) in messages.chunks_exact_mut(n).zip(pixels) {
                            message[slot as usize] = f64::from(pixel);
                        }
                    }
                }
            }
            for (offset, (message, rows)) in messages.chunks_exact_mut(n).zip(rows).enumerate() {
                watch.check()?;
                let object = first + first_value + offset;
                encoder.encode(message, scale);
                let mut noise = streams.stream(object as u64);
                encryptor.encrypt(&**kernels, object as u32, message, &mut noise, rows);
                watch.tell(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            }
            Ok::<_, ClientError>(())
        })?;
        self.sets += 1;
        Ok(())
    }

    /// All sets, of images that are all in memory.
    ///
    /// # Errors
    /// As [`Self::next`], or images of another number or size than was announced.
    pub fn all(mut self, images: &[f32], watch: Watch<'_>) -> Result<Ciphertexts, ClientError> {
        check_size(images, self.info.images, self.pixels)?;
        let mut sets = Vec::new();
        for images in images.chunks(self.spec.params().n() * self.pixels) {
            let mut set = Vec::new();
            self.next(images, &mut set, watch)?;
            sets.push(set);
        }
        Ok(Ciphertexts::new(&self.info, sets))
    }
}

/// Encrypts `count` images that are all in memory, as [`Encryption`] does set by set.
///
/// # Errors
/// As [`Encryption`], or not `count` images of the spec's size.
pub fn encrypt(
    spec: &CheckedSpec,
    key: EncryptionKey<'_>,
    images: &[f32],
    count: usize,
    rng: &mut Randomness,
    watch: Watch<'_>,
) -> Result<Ciphertexts, ClientError> {
    Encryption::new(spec, key, count, rng)?.all(images, watch)
}

fn check_size(images: &[f32], count: usize, pixels: usize) -> Result<(), ClientError> {
    match count.checked_mul(pixels) {
        Some(len) if len == images.len() => Ok(()),
        _ => Err(ClientError::ImageSize { count, pixels, actual: images.len() }),
    }
}

/// Checks `count` images, of which the first has number `first`.
fn check_images(spec: &ClientSpec, images: &[f32], first: usize, count: usize) -> Result<(), ClientError> {
    let pixels: usize = spec.input.shape.iter().product();
    check_size(images, count, pixels)?;
    let [low, high] = spec.input.range;
    let slack = 4.0 * f64::from(f32::EPSILON) * low.abs().max(high.abs());
    let allowed = low - slack..=high + slack;
    match images.iter().position(|&value| !allowed.contains(&f64::from(value))) {
        None => Ok(()),
        Some(i) => {
            Err(ClientError::Pixel { image: first + i / pixels, pixel: i % pixels, value: images[i], low, high })
        }
    }
}

/// The packed rows of every value of a set, `[stored component][limb]`; in the set they lie `[component][limb][value]`.
fn rows_by_value<'a>(set: &'a mut [u8], params: &Params, layout: &CiphertextsInfo) -> Vec<Vec<&'a mut [u8]>> {
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
