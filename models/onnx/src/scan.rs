//! A first look at a file as bytes: how many fields its messages have.
//!
//! A decoded message takes far more memory than its encoding: an empty node takes two bytes in the
//! file and 200 in memory. So fields are counted before anything is decoded.

use crate::limits::MAX_FIELDS;

/// The messages that are decoded.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// Fields that are numbers and texts.
    Plain,
}

impl Kind {
    /// The message that a field holds, or none: it holds bytes, or is passed over.
    fn field(self, number: u64) -> Option<Kind> {
        Some(match (self, number) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Graph, 1) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Kind::Tensor,
            (Kind::Graph, 11 | 12) => Kind::ValueInfo,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::ValueInfo, 2) => Kind::Type,
            (Kind::Type, 1) => Kind::TensorType,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Model, 8) | (Kind::Node, 9) | (Kind::Tensor, 13) | (Kind::Shape, 1) => Kind::Plain,
            _ => return None,
        })
    }
}

/// Checks that a file is made of at most [`MAX_FIELDS`] fields.
///
/// # Errors
/// What is wrong with the encoding, or too many fields.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut left = MAX_FIELDS;
    message(bytes, Kind::Model, &mut left)
}

fn message(mut bytes: &[u8], kind: Kind, left: &mut usize) -> Result<(), String> {
    while !bytes.is_empty() {
        *left = left.checked_sub(1).ok_or_else(|| {
            format!("it has more than {MAX_FIELDS} fields; remove what only describes the model, and store weights as raw data")
        })?;
        let tag = varint(&mut bytes)?;
        let skipped = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).map_err(|_| truncated())?;
                let inner = bytes.get(..len).ok_or_else(truncated)?;
                if let Some(kind) = kind.field(tag >> 3) {
                    message(inner, kind, left)?;
                }
                len
            }
            5 => 4,
            other => return Err(format!("a field has the unknown wire type {other}")),
        };
        bytes = bytes.get(skipped..).ok_or_else(truncated)?;
    }
    Ok(())
}

fn truncated() -> String {
    "it ends in the middle of a field; the file is damaged or was cut off".into()
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number has more than ten bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_messages_are_refused_before_they_are_decoded() {
        // A graph of empty nodes.
        let nodes: Vec<u8> = [0x0a, 0x00].repeat(MAX_FIELDS);
        let mut model = vec![0x3a];
        let mut len = nodes.len();
        while len >= 0x80 {
            model.push(len as u8 | 0x80);
            len >>= 7;
        }
        model.push(len as u8);
        model.extend(nodes);
        assert!(check(&model).unwrap_err().contains("more than 1048576 fields"));
        assert!(check(&model[..9]).unwrap_err().contains("cut off"));
    }

    #[test]
    fn numbers_and_wire_types_are_checked() {
        assert!(check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
        assert!(check(&[0x0b]).unwrap_err().contains("wire type 3"));
        assert!(check(&[0x08, 0x07]).is_ok());
    }
}
