//! Why a file is refused.

use std::fmt::Display;

use super::{Kind, VERSION};
use crate::ckks::Digest;

/// Why a file is refused. It names no path: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The source could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The first bytes are not the magic.
    #[error("not a CryptoDL file: a key, ciphertexts, a client spec or a Program is needed")]
    NotCryptodl,
    /// Written by another version of the format.
    #[error("{}", version_text(*actual))]
    Version {
        /// The version that the file claims.
        actual: u32,
    },
    /// A CryptoDL file, but not the one that was asked for.
    #[error("wrong kind of file: this is `{actual}`, needed here is `{expected}`")]
    Kind {
        /// What the file is.
        actual: Kind,
        /// What it should be.
        expected: Kind,
    },
    /// The file ends inside its header, so that nobody knows how long it should be.
    #[error("truncated: it has {has} bytes, not even a whole header; copy it again from where it was made")]
    NoHeader {
        /// Bytes that are there.
        has: u64,
    },
    /// The file ends early.
    #[error("truncated: it has {has} bytes and needs {needs}; copy it again from where it was made")]
    Truncated {
        /// Bytes that are there.
        has: u64,
        /// Bytes of the whole file.
        needs: u64,
    },
    /// The file goes on after its end.
    #[error("there are bytes after the end, at {len} bytes; copy it again from where it was made")]
    Trailing {
        /// Bytes of the whole file.
        len: u64,
    },
    /// Contents and checksum differ.
    #[error("damaged: its checksum does not match; copy it again from where it was made")]
    Checksum,
    /// The file belongs to another Program.
    #[error(
        "made for Program {}, but this is Program {}: the same model and the same planning options are \
         needed everywhere",
        actual.short(),
        expected.short()
    )]
    Program {
        /// Digest in the file.
        actual: Digest,
        /// Digest of the Program at hand.
        expected: Digest,
    },
    /// The file belongs to another ring or modulus chain.
    #[error(
        "made for parameters {}, but these are parameters {}: make it again from this client spec",
        actual.short(),
        expected.short()
    )]
    Params {
        /// Digest in the file.
        actual: Digest,
        /// Digest of the parameters at hand.
        expected: Digest,
    },
    /// A field of a header has a value that is not allowed here.
    #[error("{field} is {actual}, but {allowed} is needed; make the file again")]
    Field {
        /// Which field.
        field: &'static str,
        /// What the file says.
        actual: String,
        /// What it may say.
        allowed: String,
    },
    /// A residue is not reduced.
    #[error("residue {index} of limb {limb} is {residue}, but must be below the prime {prime}; make the file again")]
    Residue {
        /// Index of the limb in the chain, special primes after it.
        limb: usize,
        /// Index among the residues of this limb in the file, or in the set for ciphertexts.
        index: usize,
        /// The residue.
        residue: u32,
        /// The limb's prime.
        prime: u32,
    },
    /// What a file holds does not fit this machine's memory.
    #[error("no memory for {bytes} bytes of it: use a machine with more, or end other programs")]
    OutOfMemory {
        /// Bytes that are needed at once.
        bytes: u64,
    },
    /// The text of a client spec cannot be understood.
    #[error("not a valid client spec: {}; whoever planned the Program must write it again", one_line(.0))]
    Text(#[from] serde_json::Error),
}

impl WireError {
    /// A [`WireError::Field`].
    pub fn field(field: &'static str, actual: impl Display, allowed: impl Display) -> Self {
        WireError::Field { field, actual: actual.to_string(), allowed: allowed.to_string() }
    }
}

/// What to do about a file of another version.
fn version_text(actual: u32) -> String {
    if actual < VERSION {
        format!(
            "format version {actual} comes from an older release, and this program reads version {VERSION}: make the file \
             again with this program; keys, too, must be made again"
        )
    } else {
        format!("format version {actual} is unknown: this program reads version {VERSION}; use a newer program")
    }
}

/// An error in one line: it quotes what a stranger wrote, which may be line feeds and what looks like other errors.
fn one_line(error: &serde_json::Error) -> String {
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    error.to_string().chars().map(escape).collect()
}

/// `actual` must be `expected`, or else [`WireError::Field`].
pub(super) fn expect_field<T: PartialEq + Display>(
    field: &'static str,
    actual: T,
    expected: T,
) -> Result<(), WireError> {
    if actual == expected { Ok(()) } else { Err(WireError::field(field, actual, expected)) }
}
