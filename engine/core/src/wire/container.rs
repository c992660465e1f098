//! The container: header, payload, checksum.

use std::cmp::Ordering;
use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use super::WireError;
use super::error::expect_field;
use crate::ckks::{Digest, Params};

/// The first bytes of every file.
pub const MAGIC: [u8; 8] = *b"CRYPTODL";
/// Version of the format.
pub const VERSION: u32 = 2;
/// Bytes of the header.
pub const HEADER_LEN: usize = 88;
/// Bytes of the checksum.
pub const TRAILER_LEN: usize = 32;

/// The Program of files that belong to parameters only.
const NO_PROGRAM: Digest = Digest([0; 32]);

/// Bytes that are read and hashed at a time: they stay in cache.
const CHUNK: usize = 1 << 16;

/// What a file holds. The discriminants are the codes in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`crate::ckks::ClientSpec`].
    ClientSpec = 1,
    /// A secret key; only the client crate reads and writes it.
    SecretKey,
    /// A [`crate::ckks::PublicKey`].
    PublicKey,
    /// [`crate::ckks::EvalKeys`], possibly none.
    EvalKey,
    /// Encrypted images.
    Ciphertexts,
    /// Encrypted scores.
    Result,
    /// A Program; the program crate reads and writes it.
    Program,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 7] = [
        Kind::ClientSpec,
        Kind::SecretKey,
        Kind::PublicKey,
        Kind::EvalKey,
        Kind::Ciphertexts,
        Kind::Result,
        Kind::Program,
    ];

    fn from_code(code: u32) -> Result<Self, WireError> {
        let known = Self::ALL.into_iter().find(|&kind| kind as u32 == code);
        known.ok_or_else(|| WireError::field("kind", code, format!("1 to {}", Self::ALL.len())))
    }

    /// Whether files of this kind are keys: these belong to parameters, and to no Program.
    pub fn is_key(self) -> bool {
        matches!(self, Kind::SecretKey | Kind::PublicKey | Kind::EvalKey)
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ClientSpec => "client spec",
            Kind::SecretKey => "secret key",
            Kind::PublicKey => "public key",
            Kind::EvalKey => "evaluation key",
            Kind::Ciphertexts => "ciphertexts",
            Kind::Result => "result",
            Kind::Program => "Program",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file that is no key must belong to: one Program and its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Digest of the Program.
    pub program: Digest,
    /// Its ring and chain.
    pub params: &'a Params,
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload holds.
    pub kind: Kind,
    /// The Program that the file belongs to; zero in keys, which serve every Program of their
    /// parameters.
    pub program: Digest,
    /// Digest of ring and chain ([`crate::ckks::ParamsSpec::digest`]).
    pub params: Digest,
    /// Bytes of the payload.
    pub payload: u64,
}

impl Header {
    /// The header of a file of `kind` that belongs to `binding`.
    ///
    /// # Panics
    /// If files of this kind are keys.
    pub fn new(kind: Kind, binding: &Binding<'_>, payload: u64) -> Self {
        assert!(!kind.is_key(), "keys belong to no Program");
        Header { kind, program: binding.program, params: Digest(*binding.params.digest()), payload }
    }

    /// The header of a key over `params`.
    ///
    /// # Panics
    /// If files of this kind are not keys.
    pub fn of_key(kind: Kind, params: &Params, payload: u64) -> Self {
        assert!(kind.is_key(), "only keys belong to no Program");
        Header { kind, program: NO_PROGRAM, params: Digest(*params.digest()), payload }
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        file_len(self.payload)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let words = [VERSION, self.kind as u32].map(u32::to_le_bytes);
        [&MAGIC[..], words.as_flattened(), &self.program.0, &self.params.0, &self.payload.to_le_bytes()].concat()
    }

    fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let mut fields = Fields(bytes);
        let _magic: [u8; 8] = fields.bytes();
        let version = fields.u32();
        if version != VERSION {
            return Err(WireError::Version { actual: version });
        }
        let kind = Kind::from_code(fields.u32())?;
        let (program, params) = (Digest(fields.bytes()), Digest(fields.bytes()));
        if kind.is_key() {
            expect_field("program digest of a key", program, NO_PROGRAM)?;
        }
        Ok(Header { kind, program, params, payload: fields.u64() })
    }
}

/// Bytes of a file with a payload of `payload` bytes.
pub fn file_len(payload: u64) -> u64 {
    payload.saturating_add((HEADER_LEN + TRAILER_LEN) as u64)
}

/// Little-endian fields of a fixed-size header, one after the other.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn bytes<const K: usize>(&mut self) -> [u8; K] {
        let (&field, rest) = self.0.split_first_chunk().expect("headers are as long as their fields");
        self.0 = rest;
        field
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

/// Reads one container from its header to its checksum, hashing on the way.
pub struct Reader<R> {
    source: R,
    /// Wiped, because it keeps the last bytes that it took: they can be a key's.
    hasher: Zeroizing<blake3::Hasher>,
    header: Header,
    position: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Not a CryptoDL file, an unknown version or kind, truncated.
    pub fn new(mut source: R) -> Result<Self, WireError> {
        let mut bytes = [0; HEADER_LEN];
        let has = read_up_to(&mut source, &mut bytes)?;
        if !bytes[..has].iter().zip(MAGIC).all(|(&byte, magic)| byte == magic) {
            return Err(WireError::NotCryptodl);
        }
        if has < HEADER_LEN {
            return Err(WireError::NoHeader { has: has as u64 });
        }
        let header = Header::parse(&bytes)?;
        let mut hasher = Zeroizing::new(blake3::Hasher::new());
        hasher.update(&bytes);
        Ok(Reader { source, hasher, header, position: HEADER_LEN as u64 })
    }

    /// Reads the header of a file that must be of `kind` and belong to `binding`.
    ///
    /// # Errors
    /// As [`Self::new`]; another kind, Program or parameters.
    pub fn open(source: R, kind: Kind, binding: &Binding<'_>) -> Result<Self, WireError> {
        let reader = Self::new(source)?;
        reader.expect_kind(kind)?;
        let (actual, expected) = (reader.header.program, binding.program);
        if actual != expected {
            return Err(WireError::Program { actual, expected });
        }
        reader.expect_params(binding.params)?;
        Ok(reader)
    }

    /// Reads the header of a key that must be of `kind` and belong to `params`.
    ///
    /// # Errors
    /// As [`Self::new`]; another kind or other parameters.
    pub fn open_key(source: R, kind: Kind, params: &Params) -> Result<Self, WireError> {
        let reader = Self::new(source)?;
        reader.expect_kind(kind)?;
        reader.expect_params(params)?;
        Ok(reader)
    }

    fn expect_params(&self, params: &Params) -> Result<(), WireError> {
        let (actual, expected) = (self.header.params, Digest(*params.digest()));
        if actual == expected { Ok(()) } else { Err(WireError::Params { actual, expected }) }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file must be of `kind`.
    ///
    /// # Errors
    /// [`WireError::Kind`].
    pub fn expect_kind(&self, kind: Kind) -> Result<(), WireError> {
        let actual = self.header.kind;
        if actual == kind { Ok(()) } else { Err(WireError::Kind { actual, expected: kind }) }
    }

    /// The payload must have `payload` bytes.
    ///
    /// # Errors
    /// [`WireError::Field`].
    pub fn expect_payload(&self, payload: u64) -> Result<(), WireError> {
        expect_field("payload length", self.header.payload, payload)
    }

    /// Bytes of the payload that are still to be read.
    pub fn remaining(&self) -> u64 {
        (HEADER_LEN as u64).saturating_add(self.header.payload).saturating_sub(self.position)
    }

    /// The payload must have exactly `len` more bytes.
    ///
    /// # Errors
    /// [`WireError::Field`].
    pub fn expect_remaining(&self, len: u64) -> Result<(), WireError> {
        self.expect_payload((self.position - HEADER_LEN as u64).saturating_add(len))
    }

    /// The payload must have `len` more bytes, or more than that.
    ///
    /// # Errors
    /// [`WireError::Field`].
    pub fn expect_at_least(&self, len: u64) -> Result<(), WireError> {
        if self.remaining() >= len {
            return Ok(());
        }
        let least = (self.position - HEADER_LEN as u64).saturating_add(len);
        Err(WireError::field("payload length", self.header.payload, format!("at least {least}")))
    }

    /// Reads the next bytes of the payload.
    ///
    /// # Errors
    /// A payload that is shorter than it must be; truncated, or the source cannot be read.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), WireError> {
        self.expect_at_least(out.len() as u64)?;
        for chunk in out.chunks_mut(CHUNK) {
            self.fill_unhashed(chunk)?;
            self.hasher.update(chunk);
        }
        Ok(())
    }

    /// The whole source is known to have `len` bytes.
    ///
    /// # Errors
    /// Truncated, or bytes after the end.
    pub fn expect_len(&self, len: u64) -> Result<(), WireError> {
        let needs = self.header.file_len();
        match len.cmp(&needs) {
            Ordering::Less => Err(WireError::Truncated { has: len, needs }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(WireError::Trailing { len: needs }),
        }
    }

    /// Replaces `out` by the next `len` bytes. The buffer grows as they arrive, so that a short file takes little memory
    /// whatever it is said to hold.
    ///
    /// # Errors
    /// As [`Self::fill`]; no memory.
    pub fn replace(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), WireError> {
        out.clear();
        while out.len() < len {
            let start = out.len();
            let step = start.max(CHUNK).max(out.capacity() - start).min(len - start);
            out.try_reserve_exact(step).map_err(|_| WireError::OutOfMemory { bytes: len as u64 })?;
            out.resize(start + step, 0);
            self.fill(&mut out[start..])?;
        }
        Ok(())
    }

    /// Reads the checksum and checks that the file ends there.
    ///
    /// # Errors
    /// Part of the payload is unread, a wrong checksum, trailing bytes, truncated.
    pub fn finish(mut self) -> Result<(), WireError> {
        self.expect_remaining(0)?;
        let mut checksum = [0; TRAILER_LEN];
        self.fill_unhashed(&mut checksum)?;
        if self.hasher.finalize() != checksum {
            return Err(WireError::Checksum);
        }
        if read_up_to(&mut self.source, &mut [0])? > 0 {
            return Err(WireError::Trailing { len: self.header.file_len() });
        }
        Ok(())
    }

    fn fill_unhashed(&mut self, out: &mut [u8]) -> Result<(), WireError> {
        let read = read_up_to(&mut self.source, out)?;
        self.position += read as u64;
        if read < out.len() {
            return Err(WireError::Truncated { has: self.position, needs: self.header.file_len() });
        }
        Ok(())
    }
}

/// Fills `out` as far as the source goes and returns the number of bytes.
fn read_up_to(source: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < out.len() {
        match source.read(&mut out[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Writes one container, hashing on the way.
pub struct Writer<W> {
    sink: W,
    hasher: Zeroizing<blake3::Hasher>,
    remaining: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The sink fails.
    pub fn new(sink: W, header: &Header) -> io::Result<Self> {
        let bytes = header.to_bytes();
        let remaining = bytes.len() as u64 + header.payload;
        let mut writer = Writer { sink, hasher: Zeroizing::new(blake3::Hasher::new()), remaining };
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// Writes the next bytes of the payload.
    ///
    /// # Errors
    /// The sink fails.
    ///
    /// # Panics
    /// If the payload gets longer than the header says.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.remaining = self.remaining.checked_sub(bytes.len() as u64).expect("no more payload than announced");
        for chunk in bytes.chunks(CHUNK) {
            self.hasher.update(chunk);
            self.sink.write_all(chunk)?;
        }
        Ok(())
    }

    /// Writes the checksum.
    ///
    /// # Errors
    /// The sink fails.
    ///
    /// # Panics
    /// If the payload is shorter than the header says.
    pub fn finish(mut self) -> io::Result<()> {
        assert_eq!(self.remaining, 0, "no less payload than announced");
        self.sink.write_all(self.hasher.finalize().as_bytes())?;
        self.sink.flush()
    }
}
