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

/// Says what a file is, and reads it to the end to check that it is whole and undamaged; in little memory. What no reader would
/// take, whatever the parameters, is refused here too.
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
        Kind::SecretKey if !header.payload.is_power_of_two() => {
            return Err(WireError::field("payload length", header.payload, "a power of two"));
        }
        Kind::SecretKey => Contents::SecretKey,
        Kind::PublicKey => Contents::PublicKey,
        Kind::EvalKey => Contents::EvalKey(match eval_key::read_layout(&mut reader)? {
            [0, 0] => {
                eval_key::read_no_key(&mut reader)?;
                None
            }
            [level, digit_primes] if level > 0 && digit_primes > 0 => {
                Some(RelinLayout { level: level as usize, digit_primes: digit_primes as usize })
            }
            _ => {
                return Err(WireError::field(
                    "level or primes per digit of the evaluation key",
                    0,
                    "both zero or none",
                ));
            }
        }),
        Kind::Ciphertexts | Kind::Result => {
            let contents = CiphertextsHeader::read(&mut reader)?;
            contents.check(header.kind, reader.remaining())?;
            Contents::Ciphertexts(contents)
        }
    };
    let mut buffer = Zeroizing::new(vec![0; 1 << 16]);
    while reader.remaining() > 0 {
        let len = reader.remaining().min(buffer.len() as u64) as usize;
        reader.fill(&mut buffer[..len])?;
        // Every coefficient is looked at, so that the time tells nothing but the outcome.
        let others = buffer[..len].iter().filter(|&&byte| byte.wrapping_add(1) > 2).count();
        if header.kind == Kind::SecretKey && others > 0 {
            return Err(WireError::field("a coefficient of the secret key", "something else", "-1, 0 or 1"));
        }
    }
    reader.finish()?;
    Ok(Identity { header, contents })
}
