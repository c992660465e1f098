//! The client spec: JSON text.

use std::io::{self, Read, Write};

use serde_json::Value;

use super::error::expect_field;
use super::{Header, Kind, Reader, WireError, Writer};
use crate::ckks::{ClientSpec, Digest};

/// Largest text of a client spec.
pub const MAX_CLIENT_SPEC_BYTES: u64 = 1 << 19;

/// Writes a client spec.
///
/// # Errors
/// The sink fails, or the text is longer than [`MAX_CLIENT_SPEC_BYTES`].
pub fn write_client_spec(sink: impl Write, spec: &ClientSpec) -> io::Result<()> {
    let text = serde_json::to_vec(spec)?;
    let payload = text.len() as u64;
    if payload > MAX_CLIENT_SPEC_BYTES {
        return Err(io::Error::other(format!("a client spec of {payload} bytes: at most {MAX_CLIENT_SPEC_BYTES}")));
    }
    let params = Digest(spec.params.digest());
    let mut writer = Writer::new(sink, &Header { kind: Kind::ClientSpec, program: spec.program, params, payload })?;
    writer.put(&text)?;
    writer.finish()
}

/// Reads a client spec. What it says is unchecked: see [`ClientSpec::check`].
///
/// # Errors
/// See [`WireError`].
pub fn read_client_spec(source: impl Read) -> Result<ClientSpec, WireError> {
    read_payload(Reader::new(source)?)
}

/// Reads what follows the header.
pub(super) fn read_payload<R: Read>(mut reader: Reader<R>) -> Result<ClientSpec, WireError> {
    reader.expect_kind(Kind::ClientSpec)?;
    let header = reader.header().clone();
    if header.payload > MAX_CLIENT_SPEC_BYTES {
        return Err(WireError::field("payload length", header.payload, format!("at most {MAX_CLIENT_SPEC_BYTES}")));
    }
    let mut text = vec![0; header.payload as usize];
    reader.fill(&mut text)?;
    reader.finish()?;
    let spec: ClientSpec = serde_json::from_slice(&text)?;
    check_form("the spec", &serde_json::from_slice(&text)?, &serde_json::to_value(&spec)?)?;
    expect_field("program digest of the header", header.program, spec.program)?;
    expect_field("parameter digest of the header", header.params, Digest(spec.params.digest()))?;
    Ok(spec)
}

/// `found` must be of the form in which `written` was written: the same members, objects where objects are. Reading by type
/// also takes an array for an object.
fn check_form(name: &str, found: &Value, written: &Value) -> Result<(), WireError> {
    let refuse = |actual: &str, allowed: &str| {
        Err(WireError::field("form of the client spec", format!("{actual} as {name}"), allowed))
    };
    match (found, written) {
        (Value::Object(found), Value::Object(written)) => {
            for (name, written) in written {
                match found.get(name) {
                    Some(found) => check_form(name, found, written)?,
                    None => return refuse(&format!("no member {name}"), "exactly the documented members"),
                }
            }
            Ok(())
        }
        (Value::Array(found), Value::Array(written)) => {
            found.iter().zip(written).try_for_each(|(found, written)| check_form(name, found, written))
        }
        (_, Value::Object(_)) => refuse(kind(found), "an object"),
        (_, Value::String(_)) if !found.is_string() => refuse(kind(found), "a string"),
        _ => Ok(()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
