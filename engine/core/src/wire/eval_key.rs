//! The evaluation key: digit layout, seed, then `b` of every digit; only the (zero) header when nothing is key-switched.

use std::io::{self, Read, Write};

use super::container::Fields;
use super::error::expect_field;
use super::rows::{read_rows, rows_len, write_rows};
use super::{Binding, Header, Kind, Reader, WireError, Writer, file_len};
use crate::ckks::{Params, RelinKey, RelinLayout};

const LAYOUT_LEN: usize = 8;
const SEED_LEN: usize = 32;
/// Bytes before the rows.
pub(super) const HEADER_LEN: u64 = (LAYOUT_LEN + SEED_LEN) as u64;

/// Bytes of an evaluation key file.
pub fn eval_key_len(params: &Params, layout: Option<RelinLayout>) -> u64 {
    file_len(payload_len(params, layout))
}

fn payload_len(params: &Params, layout: Option<RelinLayout>) -> u64 {
    let rows = layout.map_or(0, |layout| {
        let limbs = params.chain(layout.level).into_iter().chain(params.special());
        layout.digits(layout.level) as u64 * rows_len(params, limbs)
    });
    HEADER_LEN + rows
}

/// Writes an evaluation key, or that none is needed.
///
/// # Errors
/// The sink fails.
pub fn write_eval_key(sink: impl Write, binding: &Binding<'_>, key: Option<&RelinKey>) -> io::Result<()> {
    let params = binding.params;
    let layout = key.map(|key| key.layout);
    let mut writer = Writer::new(sink, &Header::new(Kind::EvalKey, binding, payload_len(params, layout)))?;
    writer.put(layout.map_or([0; 2], layout_fields).map(u32::to_le_bytes).as_flattened())?;
    writer.put(&key.map_or([0; SEED_LEN], |key| key.seed))?;
    if let Some(key) = key {
        let limbs = key.limbs(params);
        for digit in key.b.chunks_exact(limbs.len() * params.n()) {
            write_rows(&mut writer, params, &limbs, digit)?;
        }
    }
    writer.finish()
}

/// Reads an evaluation key that must have `layout`, or state that none is needed.
///
/// # Errors
/// See [`WireError`].
pub fn read_eval_key(
    source: impl Read,
    binding: &Binding<'_>,
    layout: Option<RelinLayout>,
) -> Result<Option<RelinKey>, WireError> {
    let params = binding.params;
    let mut reader = Reader::open(source, Kind::EvalKey, binding)?;
    reader.expect_payload(payload_len(params, layout))?;
    let expected = layout.map_or([0; 2], layout_fields);
    for (field, (actual, expected)) in FIELDS.into_iter().zip(read_layout(&mut reader)?.into_iter().zip(expected)) {
        expect_field(field, actual, expected)?;
    }
    let key = match layout {
        Some(layout) => {
            let mut seed = [0; SEED_LEN];
            reader.fill(&mut seed)?;
            let mut key = RelinKey { layout, seed, b: Vec::new() };
            let limbs = key.limbs(params);
            for _ in 0..layout.digits(layout.level) {
                key.b.extend(read_rows(&mut reader, params, &limbs)?);
            }
            Some(key)
        }
        None => {
            read_no_key(&mut reader)?;
            None
        }
    };
    reader.finish()?;
    Ok(key)
}

/// What follows the layout where no key is needed: an unused seed, and nothing more.
pub(super) fn read_no_key<R: Read>(reader: &mut Reader<R>) -> Result<(), WireError> {
    reader.expect_payload(HEADER_LEN)?;
    let mut seed = [0; SEED_LEN];
    reader.fill(&mut seed)?;
    let unused = seed == [0; SEED_LEN];
    if unused { Ok(()) } else { Err(WireError::field("seed of an empty evaluation key", "set", "zero")) }
}

pub(super) const FIELDS: [&str; 2] = ["level of the evaluation key", "primes per digit of the evaluation key"];

fn layout_fields(layout: RelinLayout) -> [u32; 2] {
    [layout.level as u32, layout.digit_primes as u32]
}

/// Level and primes per digit, both 0 for a key that is not needed.
pub(super) fn read_layout<R: Read>(reader: &mut Reader<R>) -> Result<[u32; 2], WireError> {
    let mut bytes = [0; LAYOUT_LEN];
    reader.fill(&mut bytes)?;
    let mut fields = Fields(&bytes);
    Ok([fields.u32(), fields.u32()])
}
