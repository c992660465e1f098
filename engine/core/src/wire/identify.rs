//! What an unknown file is.

use std::io::Read;

use zeroize::Zeroizing;

use super::ciphertexts::CIPHERTEXTS_HEADER_LEN;
use super::error::expect_field;
use super::{CiphertextsHeader, Header, Kind, Reader, WireError, client_spec, eval_key, public_key};
use crate::ckks::{ClientSpec, EvalKeyLayout, MAX_DIGIT_PRIMES, MIN_SECURE_DIMENSION};
use crate::ring::MAX_PARTS;
use crate::ring::{MAX_DIMENSION, MAX_MODULI};

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
    /// Evaluation keys, possibly none. Where one ends and the next begins is known only with the
    /// parameters.
    EvalKeys {
        /// How many.
        count: usize,
        /// What the first one is for.
        first: Option<EvalKeyLayout>,
    },
    /// Encrypted images or scores.
    Ciphertexts(CiphertextsHeader),
    /// A Program, of which only the checksum was checked.
    Program,
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
        Kind::SecretKey => Contents::SecretKey,
        Kind::PublicKey => Contents::PublicKey,
        Kind::Program => Contents::Program,
        Kind::EvalKey => {
            let count = eval_key::read_count(&mut reader)?;
            let first = if count > 0 { Some(eval_key::read_layout(&mut reader)?) } else { None };
            Contents::EvalKeys { count, first }
        }
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
    check_length(&contents, header.payload)?;
    Ok(Identity { header, contents })
}

/// Refuses a key that no parameters allow, and ciphertexts that are shorter than all do, whose payload has `payload` bytes.
fn check_length(contents: &Contents, payload: u64) -> Result<(), WireError> {
    // Bytes before the rows of residues, and the least number of rows.
    let (start, rows) = match contents {
        Contents::SecretKey => {
            let dimensions = MIN_SECURE_DIMENSION as u64..=MAX_DIMENSION as u64;
            if payload.is_power_of_two() && dimensions.contains(&payload) {
                return Ok(());
            }
            let allowed = format!("a power of two from {} to {}", dimensions.start(), dimensions.end());
            return Err(WireError::field("payload length", payload, allowed));
        }
        Contents::PublicKey => (public_key::SEED_LEN, 1),
        &Contents::EvalKeys { count, first: Some(layout) } => {
            let layout = layout.digits();
            for (name, actual, most) in [
                ("evaluation_keys.level", layout.level, MAX_MODULI),
                ("evaluation_keys.digit_primes", layout.digit_primes, MAX_DIGIT_PRIMES),
                ("evaluation_keys.prime_parts", layout.prime_parts, MAX_PARTS),
            ] {
                if !(1..=most).contains(&actual) {
                    return Err(WireError::field(name, actual, format!("1 to {most}")));
                }
            }
            // A row in every limb, for every digit; a row at least in every other key.
            let rows = (layout.digits(layout.level) * layout.level + count - 1) as u128;
            (eval_key::headers_len(count), rows)
        }
        Contents::EvalKeys { first: None, .. } => {
            let none = eval_key::headers_len(0);
            return expect_field("payload length", payload, none);
        }
        Contents::Ciphertexts(header) => {
            (CIPHERTEXTS_HEADER_LEN as u64, header.polynomials() * u128::from(header.level))
        }
        Contents::ClientSpec(_) | Contents::Program => return Ok(()),
    };
    // A prime that is 1 modulo 4N has more bits than 4N.
    const N: u64 = MIN_SECURE_DIMENSION as u64;
    const SHORTEST_ROW: u64 = N * ((4 * N).ilog2() as u64 + 1) / 8;
    let least = u128::from(start) + rows * u128::from(SHORTEST_ROW);
    if u128::from(payload) >= least {
        Ok(())
    } else {
        Err(WireError::field("payload length", payload, format!("at least {least}")))
    }
}
