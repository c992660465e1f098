//! Sets of images as files of their own: parts of a request, and of its result.

use std::io::{self, Read, Write};

use cryptodl::{Binding, CiphertextsInfo, Params};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsReader, CiphertextsWriter, TRAILER_LEN, WireError};

/// What a request of so many images is, in its best packing, but for its seed: that is known to whoever has its ciphertexts.
pub fn request(layout: &CiphertextLayout, params: &Params, images: usize) -> CiphertextsInfo {
    let leaves = layout.packing.of_images(params.n(), images);
    CiphertextsInfo {
        level: layout.level,
        values: layout.ciphertexts(params, leaves, images as u64),
        components: layout.components,
        leaves,
        first_set: 0,
        seed: layout.seeded.then_some([0; 32]),
        images,
    }
}

/// What set number `set` of a request is, as a part of it: its ciphertexts keep the numbers that their seed is expanded with.
pub fn part_of(request: &CiphertextsInfo, set: u64, params: &Params) -> CiphertextsInfo {
    let (set, capacity) = (set as usize, request.leaves.capacity(params.n()));
    let images = request.images.saturating_sub(set * capacity).min(capacity);
    CiphertextsInfo { first_set: request.first_set + set, images, ..request.clone() }
}

/// What the result of such a part of a request is, whose scores are of `layout`.
pub fn result_of(part: &CiphertextsInfo, layout: &CiphertextLayout, params: &Params) -> CiphertextsInfo {
    CiphertextsInfo {
        level: layout.level,
        values: layout.ciphertexts(params, part.leaves, part.images as u64),
        components: layout.components,
        seed: None,
        ..part.clone()
    }
}

/// The headers of the file of a set, which its ciphertexts and their checksum follow.
///
/// # Panics
/// If `part` is not of this layout.
pub fn headers(binding: &Binding<'_>, layout: &CiphertextLayout, part: &CiphertextsInfo) -> Vec<u8> {
    let mut headers = Vec::new();
    CiphertextsWriter::new(&mut headers, binding, layout, part).expect("memory takes headers");
    headers
}

/// Bytes of the file of a set.
///
/// # Panics
/// As [`headers`].
pub fn file_len(binding: &Binding<'_>, layout: &CiphertextLayout, part: &CiphertextsInfo) -> u64 {
    (headers(binding, layout, part).len() + part.set_bytes(binding.params) + TRAILER_LEN) as u64
}

/// The file of a set with these ciphertexts.
///
/// # Panics
/// As [`headers`], and if the ciphertexts have another length.
pub fn file(binding: &Binding<'_>, layout: &CiphertextLayout, part: &CiphertextsInfo, ciphertexts: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(file_len(binding, layout, part) as usize);
    let mut writer = CiphertextsWriter::new(&mut file, binding, layout, part).expect("memory takes a set");
    writer.put(ciphertexts).and_then(|()| writer.finish()).expect("memory takes a set");
    file
}

/// Opens the file of a set of which the first bytes are in `source`, and which has `length` bytes in all. It must have the images and
/// the number of `expected`.
///
/// # Errors
/// It is another file, or has another length than it says.
pub fn open<R: Read>(
    source: R,
    length: u64,
    binding: &Binding<'_>,
    layout: &CiphertextLayout,
    expected: &CiphertextsInfo,
) -> Result<CiphertextsReader<R>, WireError> {
    let reader = CiphertextsReader::open(source, binding, layout)?;
    reader.expect_len(length)?;
    let found = reader.info();
    let numbers = |info: &CiphertextsInfo| format!("{} images from set {} on", info.images, info.first_set);
    if (found.first_set, found.images) != (expected.first_set, expected.images) {
        return Err(WireError::field("part of a whole", numbers(found), numbers(expected)));
    }
    Ok(reader)
}

/// Writes the result of a whole request, of so many images in so many sets. `open` opens the result of a set.
///
/// # Errors
/// What `open` returns; a result of a set is damaged; the sink fails.
pub fn join<R: Read, E: From<WireError> + From<io::Error>>(
    binding: &Binding<'_>,
    layout: &CiphertextLayout,
    images: usize,
    sets: u64,
    mut open: impl FnMut(u64) -> Result<CiphertextsReader<R>, E>,
    sink: impl Write,
) -> Result<(), E> {
    let first = open(0)?;
    // As the result of a computation of the whole says it: the same sets, numbered from 0.
    let whole = CiphertextsInfo { first_set: 0, images, ..first.info().clone() };
    let mut writer = CiphertextsWriter::new(sink, binding, layout, &whole)?;
    let (mut first, mut bytes) = (Some(first), Vec::new());
    for set in 0..sets {
        let mut scores = match first.take() {
            Some(first) => first,
            None => open(set)?,
        };
        while scores.next(&mut bytes)? {
            writer.put(&bytes)?;
        }
        scores.finish()?;
    }
    Ok(writer.finish()?)
}
