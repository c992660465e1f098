//! Encrypted images and encrypted scores: a fixed header, then the packed sets as [`Ciphertexts`] holds them.

use std::io::{self, Read, Write};

use super::container::Fields;
use super::error::expect_field;
use super::rows::{check_row, rows_len};
use super::{Binding, Header, Kind, Reader, WireError, Writer, file_len};
use crate::backend::packed_row;
use crate::ckks::{
    Ciphertexts, CiphertextsInfo, ClientSpec, EncryptionKind, Leaves, MAX_COMPONENTS, MAX_PIXELS, Packing, Params,
};
use crate::ring::{MAX_DIMENSION, MAX_MODULI, unpack_row};

pub(super) const CIPHERTEXTS_HEADER_LEN: usize = 68;

/// What a Program, or its checked spec, says about ciphertexts at its input or output. It never comes from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CiphertextLayout {
    /// [`Kind::Ciphertexts`] or [`Kind::Result`].
    pub kind: Kind,
    /// Chain limbs.
    pub level: usize,
    /// Pixels or scores of an image: ciphertexts per set, where it is spread.
    pub values: usize,
    /// Components of each ciphertext.
    pub components: usize,
    /// Where the pixels of an image may lie, or may have lain.
    pub packing: Packing,
    /// Of a result, where the scores may lie.
    pub scores: Packing,
    /// Whether component 1 is expanded from a seed.
    pub seeded: bool,
}

impl CiphertextLayout {
    /// Encrypted images of a Program.
    pub fn input(spec: &ClientSpec) -> Self {
        let values = spec.input.shape.iter().product();
        let (level, packing) = (spec.input.level, spec.input.packing);
        let seeded = spec.encryption == EncryptionKind::Secret;
        let scores = Packing::Spread;
        CiphertextLayout { kind: Kind::Ciphertexts, level, values, components: 2, packing, scores, seeded }
    }

    /// Encrypted scores of a Program.
    pub fn result(spec: &ClientSpec) -> Self {
        let output = &spec.output;
        let (level, values, components) = (output.level, output.classes, output.components);
        let (packing, scores) = (spec.input.packing, output.packing);
        CiphertextLayout { kind: Kind::Result, level, values, components, packing, scores, seeded: false }
    }

    /// Ciphertexts of a set of so many images that lie so.
    pub fn ciphertexts(&self, params: &Params, leaves: Leaves, images: u64) -> usize {
        let images = usize::try_from(images).unwrap_or(usize::MAX);
        match self.kind {
            Kind::Result => self.scores.of_scores(params.n(), leaves, images).ciphertexts(self.values),
            _ => leaves.ciphertexts(self.values),
        }
    }

    fn set_len(&self, params: &Params, leaves: Leaves, images: u64) -> u64 {
        let stored = if self.seeded { 1 } else { self.components };
        let polynomials = (stored as u64).saturating_mul(self.ciphertexts(params, leaves, images) as u64);
        rows_len(params, params.chain(self.level)).saturating_mul(polynomials)
    }
}

/// The header of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiphertextsHeader {
    /// Chain limbs.
    pub level: u32,
    /// Ciphertexts per set.
    pub values: u32,
    /// Components of each ciphertext.
    pub components: u32,
    /// How the values of images lie in the ciphertexts.
    pub leaves: Leaves,
    /// Index of the first set within the whole that this file is a part of.
    pub first_set: u32,
    /// Number of sets.
    pub sets: u32,
    /// Images over all sets.
    pub images: u64,
    /// Seed of component 1, if it is not stored.
    pub seed: Option<[u8; 32]>,
}

impl CiphertextsHeader {
    fn to_bytes(&self) -> Vec<u8> {
        let Self { level, values, components, leaves, first_set, sets, .. } = *self;
        let words = [level, values, components, leaves.log, first_set, sets, u32::from(self.seed.is_some())];
        let seed = self.seed.unwrap_or_default();
        [words.map(u32::to_le_bytes).as_flattened(), &self.images.to_le_bytes(), &seed].concat()
    }

    pub(super) fn read<R: Read>(reader: &mut Reader<R>) -> Result<Self, WireError> {
        let mut bytes = [0; CIPHERTEXTS_HEADER_LEN];
        reader.fill(&mut bytes)?;
        let mut fields = Fields(&bytes);
        let [level, values, components, packing, first_set, sets, seeded] = std::array::from_fn(|_| fields.u32());
        let (images, seed) = (fields.u64(), fields.bytes());
        let seed = match seeded {
            0 if seed == [0; 32] => None,
            0 => return Err(WireError::field("seed of unseeded ciphertexts", "set", "zero")),
            1 => Some(seed),
            other => return Err(WireError::field("seeded flag", other, "0 or 1")),
        };
        let most = MAX_DIMENSION.trailing_zeros();
        if packing > most {
            return Err(WireError::field("packing", packing, format!("0 to {most}")));
        }
        let leaves = Leaves { log: packing };
        Ok(CiphertextsHeader { level, values, components, leaves, first_set, sets, images, seed })
    }

    /// What holds for every Program; `sets_len` is the length of all sets.
    pub(super) fn check(&self, kind: Kind, sets_len: u64) -> Result<(), WireError> {
        let within = |field, actual: u32, least: usize, most: usize| {
            let allowed = (least..=most).contains(&(actual as usize));
            if allowed { Ok(()) } else { Err(WireError::field(field, actual, format!("{least} to {most}"))) }
        };
        within("level", self.level, 1, MAX_MODULI)?;
        within("values per set", self.values, 1, MAX_PIXELS)?;
        within("components", self.components, 2, MAX_COMPONENTS)?;
        if self.images == 0 {
            return Err(WireError::field("number of images", 0, "at least 1"));
        }
        // A set holds one image at least, and N at most; less where an image has several slots, and then there is one.
        let most = if self.leaves.is_spread() { self.images } else { 1 };
        let sets = self.images.div_ceil(self.leaves.capacity(MAX_DIMENSION) as u64)..=most;
        if !sets.contains(&self.sets.into()) {
            let allowed = format!("{} to {} for {} images", sets.start(), sets.end(), self.images);
            return Err(WireError::field("number of sets", self.sets, allowed));
        }
        self.check_numbers()?;
        if self.seed.is_some() && (kind == Kind::Result || self.components != 2) {
            return Err(WireError::field("seeded flag", 1, "0 for results and for more than two components"));
        }
        // Every value has as many bytes as every other.
        let parts = self.polynomials();
        if sets_len == 0 || !u128::from(sets_len).is_multiple_of(parts) {
            let allowed = format!("a multiple of {parts}: sets, values and stored components");
            return Err(WireError::field("length of all sets", sets_len, allowed));
        }
        Ok(())
    }

    /// Every value of every set has a number below 2^32 within the whole.
    fn check_numbers(&self) -> Result<(), WireError> {
        let end = u64::from(self.first_set) + u64::from(self.sets);
        if u128::from(end) * u128::from(self.values) < 1 << 32 {
            return Ok(());
        }
        let most = (u64::from(u32::MAX) / u64::from(self.values.max(1))).saturating_sub(self.sets.into());
        let allowed = format!("at most {most} with {} sets of {} values", self.sets, self.values);
        Err(WireError::field("index of the first set", self.first_set, allowed))
    }

    /// Polynomials that are stored, in all sets.
    pub(super) fn polynomials(&self) -> u128 {
        let stored = if self.seed.is_some() { 1 } else { self.components };
        [self.sets, self.values, stored].map(u128::from).into_iter().product()
    }

    fn expect(&self, layout: &CiphertextLayout, params: &Params) -> Result<(), WireError> {
        expect_field("level", self.level as usize, layout.level)?;
        let most = layout.packing.log_leaves();
        if self.leaves.log > most {
            return Err(WireError::field("packing", self.leaves.log, format!("0 to {most}")));
        }
        expect_field("values per set", self.values as usize, layout.ciphertexts(params, self.leaves, self.images))?;
        expect_field("components", self.components as usize, layout.components)?;
        expect_field("seeded flag", self.seed.is_some(), layout.seeded)?;
        if self.images == 0 {
            return Err(WireError::field("number of images", 0, "at least 1"));
        }
        let capacity = self.leaves.capacity(params.n()) as u64;
        if !self.leaves.is_spread() && self.images > capacity {
            let allowed = format!("at most {capacity} with {} pixels of each in a ciphertext", 1u64 << self.leaves.log);
            return Err(WireError::field("number of images", self.images, allowed));
        }
        expect_field("number of sets", u64::from(self.sets), self.images.div_ceil(capacity))?;
        self.check_numbers()
    }
}

/// Bytes of a file with `images` images, in their best packing.
pub fn ciphertexts_len(params: &Params, layout: &CiphertextLayout, images: u64) -> u64 {
    let leaves = layout.packing.of_images(params.n(), usize::try_from(images).unwrap_or(usize::MAX));
    file_len(payload_len(params, layout, leaves, images))
}

fn payload_len(params: &Params, layout: &CiphertextLayout, leaves: Leaves, images: u64) -> u64 {
    let sets = images.div_ceil(leaves.capacity(params.n()) as u64);
    layout.set_len(params, leaves, images).saturating_mul(sets).saturating_add(CIPHERTEXTS_HEADER_LEN as u64)
}

/// Writes ciphertexts set by set.
pub struct CiphertextsWriter<W> {
    writer: Writer<W>,
    set_len: usize,
}

impl<W: Write> CiphertextsWriter<W> {
    /// Writes the headers of a file of `layout` that is to hold what `info` says.
    ///
    /// # Errors
    /// The sink fails.
    ///
    /// # Panics
    /// If `info` does not have this layout, no images, or numbers its values beyond 32 bits.
    pub fn new(sink: W, binding: &Binding<'_>, layout: &CiphertextLayout, info: &CiphertextsInfo) -> io::Result<Self> {
        let params = binding.params;
        let sets = u32::try_from(info.sets(params)).expect("sets are numbered in 32 bits");
        let header = CiphertextsHeader {
            level: info.level as u32,
            values: info.values as u32,
            components: info.components as u32,
            leaves: info.leaves,
            first_set: u32::try_from(info.first_set).expect("sets are numbered in 32 bits"),
            sets,
            images: info.images as u64,
            seed: info.seed,
        };
        header.expect(layout, params).expect("ciphertexts of this layout");
        let payload = payload_len(params, layout, info.leaves, header.images);
        let mut writer = Writer::new(sink, &Header::new(layout.kind, binding, payload))?;
        writer.put(&header.to_bytes())?;
        Ok(CiphertextsWriter { writer, set_len: info.set_bytes(params) })
    }

    /// Writes the next set.
    ///
    /// # Errors
    /// The sink fails.
    ///
    /// # Panics
    /// If the set has another length, or there are more sets than the header says.
    pub fn put(&mut self, set: &[u8]) -> io::Result<()> {
        assert_eq!(set.len(), self.set_len, "bytes of a set");
        self.writer.put(set)
    }

    /// Writes the checksum.
    ///
    /// # Errors
    /// The sink fails.
    ///
    /// # Panics
    /// If there are fewer sets than the header says.
    pub fn finish(self) -> io::Result<()> {
        self.writer.finish()
    }
}

/// Writes ciphertexts of `layout` that are all in memory.
///
/// # Errors
/// The sink fails.
///
/// # Panics
/// If the ciphertexts do not have this layout: no images, or sets of another number or size.
pub fn write_ciphertexts(
    sink: impl Write,
    binding: &Binding<'_>,
    layout: &CiphertextLayout,
    ciphertexts: &Ciphertexts,
) -> io::Result<()> {
    let mut writer = CiphertextsWriter::new(sink, binding, layout, &ciphertexts.info())?;
    ciphertexts.sets.iter().try_for_each(|set| writer.put(set))?;
    writer.finish()
}

/// Reads ciphertexts set by set. Residues stay packed and unchecked: [`crate::backend::Backend::unpack`] reports one that is
/// not reduced, [`check_residues`] names it. Nothing that was read is to be trusted, or published, before
/// [`Self::finish`] has compared the checksum.
pub struct CiphertextsReader<R> {
    reader: Reader<R>,
    info: CiphertextsInfo,
    set_len: usize,
    left: u32,
}

impl<R: Read> CiphertextsReader<R> {
    /// Reads the headers of a file of `layout`.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn open(source: R, binding: &Binding<'_>, layout: &CiphertextLayout) -> Result<Self, WireError> {
        let params = binding.params;
        let mut reader = Reader::open(source, layout.kind, binding)?;
        let header = CiphertextsHeader::read(&mut reader)?;
        header.expect(layout, params)?;
        reader.expect_payload(payload_len(params, layout, header.leaves, header.images))?;
        let too_large = |what, size: u64| WireError::field(what, size, "what fits this machine's memory");
        let set_len = layout.set_len(params, header.leaves, header.images);
        let set_len = usize::try_from(set_len).map_err(|_| too_large("bytes of a set", set_len))?;
        let images = usize::try_from(header.images).map_err(|_| too_large("number of images", header.images))?;
        let (leaves, first_set) = (header.leaves, header.first_set as usize);
        let CiphertextLayout { level, components, .. } = *layout;
        let values = layout.ciphertexts(params, leaves, header.images);
        let info = CiphertextsInfo { level, values, components, leaves, first_set, seed: header.seed, images };
        Ok(CiphertextsReader { reader, info, set_len, left: header.sets })
    }

    /// What the sets are.
    pub fn info(&self) -> &CiphertextsInfo {
        &self.info
    }

    /// The whole source is known to have `len` bytes.
    ///
    /// # Errors
    /// Truncated, or bytes after the end: known now, and not after hours of work.
    pub fn expect_len(&self, len: u64) -> Result<(), WireError> {
        self.reader.expect_len(len)
    }

    /// Replaces `set` by the next one; false, and nothing done, after the last. The buffer grows as bytes arrive, so that a
    /// short file takes little memory whatever it is said to hold.
    ///
    /// # Errors
    /// Truncated, the source cannot be read, no memory.
    pub fn next(&mut self, set: &mut Vec<u8>) -> Result<bool, WireError> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        self.reader.replace(set, self.set_len)?;
        Ok(true)
    }

    /// Compares the checksum, after the last set.
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub fn finish(self) -> Result<(), WireError> {
        self.reader.finish()
    }
}

/// Reads ciphertexts of `layout` into memory, all of them.
///
/// # Errors
/// See [`WireError`].
pub fn read_ciphertexts(
    source: impl Read,
    binding: &Binding<'_>,
    layout: &CiphertextLayout,
) -> Result<Ciphertexts, WireError> {
    let mut reader = CiphertextsReader::open(source, binding, layout)?;
    let (mut sets, mut set) = (Vec::new(), Vec::new());
    while reader.next(&mut set)? {
        sets.push(std::mem::take(&mut set));
    }
    let ciphertexts = Ciphertexts::new(reader.info(), sets);
    reader.finish()?;
    Ok(ciphertexts)
}

/// Checks that every residue of `set` (one of [`Ciphertexts::sets`]) is reduced.
///
/// # Errors
/// [`WireError::Residue`] for the first that is not.
///
/// # Panics
/// If `set` does not hold whole components of these ciphertexts.
pub fn check_residues(params: &Params, ciphertexts: &Ciphertexts, set: &[u8]) -> Result<(), WireError> {
    let mut rest = set;
    let mut row = vec![0; params.n()];
    for component in 0..ciphertexts.stored_components() {
        for limb in params.chain(ciphertexts.level) {
            let modulus = params.basis().modulus(limb);
            for value in 0..ciphertexts.values {
                let (packed, after) = rest.split_at(packed_row(params.basis(), limb));
                unpack_row(packed, modulus.bits(), &mut row);
                check_row(&row, modulus, limb, (component * ciphertexts.values + value) * params.n())?;
                rest = after;
            }
        }
    }
    Ok(())
}
