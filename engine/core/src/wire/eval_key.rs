//! Evaluation keys: their number, and then for each its layout, its seed, and `b` of every digit.

use std::io::{self, Read, Write};

use super::container::Fields;
use super::rows::{read_rows, rows_len, write_rows};
use super::{Header, Kind, Reader, WireError, Writer, file_len};
use crate::ckks::{EvalKey, EvalKeyLayout, EvalKeys, MAX_EVAL_KEYS, Params, SpecError};

const COUNT_LEN: u64 = 4;
const LAYOUT_LEN: usize = 16;
const SEED_LEN: usize = 32;
/// Bytes of a key before its rows.
const ENTRY_HEADER_LEN: u64 = (LAYOUT_LEN + SEED_LEN) as u64;

/// Bytes of an evaluation key file with one key of each of `layouts`.
pub fn eval_keys_len(params: &Params, layouts: &[EvalKeyLayout]) -> u64 {
    file_len(payload_len(params, layouts))
}

fn payload_len(params: &Params, layouts: &[EvalKeyLayout]) -> u64 {
    let entries = layouts.iter().map(|&layout| ENTRY_HEADER_LEN + key_rows_len(params, layout));
    COUNT_LEN + entries.sum::<u64>()
}

/// Bytes of the rows of a key.
fn key_rows_len(params: &Params, layout: EvalKeyLayout) -> u64 {
    let digits = layout.digits();
    digits.digits(digits.level) as u64 * rows_len(params, layout.limbs(params))
}

/// Writes evaluation keys over `params`, possibly none.
///
/// # Errors
/// The sink fails.
pub fn write_eval_keys(sink: impl Write, params: &Params, keys: &EvalKeys) -> io::Result<()> {
    let payload = payload_len(params, &keys.layouts());
    let mut writer = Writer::new(sink, &Header::of_key(Kind::EvalKey, params, payload))?;
    writer.put(&(keys.iter().len() as u32).to_le_bytes())?;
    for key in keys.iter() {
        writer.put(key.layout.fields().map(u32::to_le_bytes).as_flattened())?;
        writer.put(&key.seed)?;
        let limbs = key.layout.limbs(params);
        for digit in key.b.chunks_exact(limbs.len() * params.n()) {
            write_rows(&mut writer, params, &limbs, digit)?;
        }
    }
    writer.finish()
}

/// Reads evaluation keys over `params`. Every layout is checked ([`EvalKeyLayout::check`]), and
/// memory grows as keys arrive.
///
/// # Errors
/// See [`WireError`].
pub fn read_eval_keys(source: impl Read, params: &Params) -> Result<EvalKeys, WireError> {
    read_kept(source, params, |_| true)
}

/// The same of `needed` layouts only: other keys are read and checked, and take no memory.
///
/// # Errors
/// See [`WireError`]. That a needed key is not there is no error here.
pub fn read_needed_eval_keys(
    source: impl Read,
    params: &Params,
    needed: &[EvalKeyLayout],
) -> Result<EvalKeys, WireError> {
    read_kept(source, params, |layout| needed.contains(&layout))
}

fn read_kept(source: impl Read, params: &Params, keeps: impl Fn(EvalKeyLayout) -> bool) -> Result<EvalKeys, WireError> {
    let mut reader = Reader::open_key(source, Kind::EvalKey, params)?;
    let count = read_count(&mut reader)?;
    let (mut keys, mut layouts) = (Vec::new(), Vec::new());
    for i in 0..count {
        let layout = read_layout(&mut reader)?;
        layout.check(params).map_err(refused)?;
        if layouts.contains(&layout) {
            return Err(WireError::field(
                "an evaluation key",
                format!("{layout} for the second time"),
                "another layout",
            ));
        }
        layouts.push(layout);
        let len = SEED_LEN as u64 + key_rows_len(params, layout);
        if i + 1 < count {
            reader.expect_at_least(len)?
        } else {
            reader.expect_remaining(len)?
        }
        let keeps = keeps(layout);
        let key = read_key(&mut reader, params, layout, keeps)?;
        if keeps {
            keys.push(key);
        }
    }
    reader.finish()?;
    EvalKeys::new(keys).map_err(refused)
}

fn read_key<R: Read>(
    reader: &mut Reader<R>,
    params: &Params,
    layout: EvalKeyLayout,
    keeps: bool,
) -> Result<EvalKey, WireError> {
    let mut seed = [0; SEED_LEN];
    reader.fill(&mut seed)?;
    let mut key = EvalKey { layout, seed, b: Vec::new() };
    let (limbs, digits) = (layout.limbs(params), layout.digits());
    for _ in 0..digits.digits(digits.level) {
        let rows = read_rows(reader, params, &limbs)?;
        if keeps {
            key.b.extend(rows);
        }
    }
    Ok(key)
}

/// What parameters say of a layout is a wrong field of the file.
fn refused(error: SpecError) -> WireError {
    match error {
        SpecError::Field { field, value, allowed } => WireError::Field { field, actual: value, allowed },
        SpecError::Params(error) => WireError::field("an evaluation key", "of a ring that is refused", error),
    }
}

/// Reads the number of keys.
pub(super) fn read_count<R: Read>(reader: &mut Reader<R>) -> Result<usize, WireError> {
    let mut bytes = [0; COUNT_LEN as usize];
    reader.fill(&mut bytes)?;
    let count = u32::from_le_bytes(bytes) as usize;
    let allowed = count <= MAX_EVAL_KEYS;
    if allowed { Ok(count) } else { Err(WireError::field("number of keys", count, format!("0 to {MAX_EVAL_KEYS}"))) }
}

/// Bytes of the payload of `count` keys before the rows, and after the header of the first of them.
pub(super) fn headers_len(count: usize) -> u64 {
    COUNT_LEN + count as u64 * ENTRY_HEADER_LEN
}

/// Reads the layout of the next key, which parameters may still refuse.
pub(super) fn read_layout<R: Read>(reader: &mut Reader<R>) -> Result<EvalKeyLayout, WireError> {
    let mut bytes = [0; LAYOUT_LEN];
    reader.fill(&mut bytes)?;
    let mut fields = Fields(&bytes);
    EvalKeyLayout::from_fields(std::array::from_fn(|_| fields.u32())).map_err(refused)
}
