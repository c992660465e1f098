//! Body of the fuzz target of Program files; `engine/plan/tests/program_files.rs` runs it on stable Rust.

use cryptodl_core::ckks::Digest;
use cryptodl_core::wire::{Header, Kind, Writer};
use cryptodl_program::{Program, plain};

/// Reads a Program file with this payload, a right checksum and the right digests, as far as the payload has what they are of. What is
/// read is written as it was, and can be followed.
pub fn read_program(payload: &[u8]) {
    let Ok(program) = Program::read(&sealed(payload)[..]) else { return };
    let mut again = Vec::new();
    program.write(&mut again).expect("memory takes all");
    assert!(again == sealed(payload), "a Program has one encoding");
    assert_eq!(program.ciphertext_shapes().len(), program.content.steps.len() + 1);
    assert_eq!(program.segments().last().map(|segment| segment.end), Some(program.content.steps.len()));
    if program.inputs() < 1 << 12 {
        plain(&program, ndarray::Array2::zeros((1, program.inputs())).view());
    }
}

/// The file of kind 7 with this payload: docs/format.md.
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    let digest = |parts: &[&[u8]]| {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    };
    let length = payload.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let content = payload.get(8..).and_then(|rest| rest.get(..usize::try_from(length).ok()?)).unwrap_or_default();
    let params = params_bytes(content).unwrap_or_default();
    let header = Header {
        kind: Kind::Program,
        program: digest(&[b"cryptodl program v3", content]),
        params: digest(&[b"cryptodl params v1", &params]),
        payload: payload.len() as u64,
    };
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header).expect("memory takes all");
    writer.put(payload).and_then(|()| writer.finish()).expect("memory takes all");
    file
}

/// What the digest of parameters is of: N, then both lists of primes with their lengths. They follow the salt; the level of security,
/// which the digest leaves out, is between.
fn params_bytes(content: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(*content.get(at..)?.first_chunk()?) as usize);
    let lists = 40;
    let special = lists + 4 + word(lists)?.checked_mul(4)?;
    let end = special + 4 + word(special)?.checked_mul(4)?;
    Some([content.get(32..36)?, content.get(lists..end)?].concat())
}
