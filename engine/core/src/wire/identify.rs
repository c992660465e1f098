//! What an unknown file is.

use std::io::Read;

use zeroize::Zeroizing;

use super::{CiphertextsHeader, Header, Kind, Reader, WireError, client_spec, eval_key};
use crate::ckks::{ClientSpec, RelinLayout};

/// A file that is whole and undamaged, as it describes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Kind, digests, length.
    pub header: Header,
    /// What can be said without parameters.
    pub contents: Contents,
}

/// What a file's own header says of its contents. Nothing in it has been compared with a Program.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// A client spec.
    ClientSpec(Box<ClientSpec>),
    /// A secret key.
    SecretKey,
    /// A public key.
    PublicKey,
    /// A relinearisation key of this layout, or that none is needed.
    EvalKey(Option<RelinLayout>),
    /// Encrypted images or scores.
    Ciphertexts(CiphertextsHeader),
}

/// Says what a file is, and reads it to the end to check that it is whole and undamaged; in little memory.
///
/// # Errors
/// See [`WireError`].
pub fn identify(source: impl Read) -> Result<Identity, WireError> {
    let mut reader = Reader::new(source)?;
    let header = reader.header().clone();
    let contents = match header.kind {
        Kind::ClientSpec => {
            let spec = Box::new(client_spec::read_payload(reader)?);
            return Ok(Identity { header, contents: Contents::ClientSpec(spec) });
        }
        Kind::SecretKey => Contents::SecretKey,
        Kind::PublicKey => Contents::PublicKey,
        Kind::EvalKey => Contents::EvalKey(match eval_key::read_layout(&mut reader)? {
            [0, 0] => None,
            [level, digit_primes] => Some(RelinLayout { level: level as usize, digit_primes: digit_primes as usize }),
        }),
        Kind::Ciphertexts | Kind::Result => Contents::Ciphertexts(CiphertextsHeader::read(&mut reader)?),
    };
    let mut buffer = Zeroizing::new(vec![0; 1 << 16]);
    while reader.remaining() > 0 {
        let len = reader.remaining().min(buffer.len() as u64) as usize;
        reader.fill(&mut buffer[..len])?;
    }
    reader.finish()?;
    Ok(Identity { header, contents })
}
