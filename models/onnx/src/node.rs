//! One node of a graph: its operands and attributes.

use cryptodl_network::limits::MAX_DIMENSION;

use crate::error::{ImportError, Refusal};
use crate::proto::{AttributeProto, NodeProto, TensorProto};

/// A node. Versions of an operator differ in whether a number is an attribute or an operand; both
/// are read, whichever the version.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    proto: &'a NodeProto,
}

impl<'a> Node<'a> {
    pub(crate) fn new(proto: &'a NodeProto) -> Self {
        Self { proto }
    }

    pub(crate) fn op(&self) -> &'a str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// Whether the operator is one of ONNX itself.
    pub(crate) fn is_standard(&self) -> bool {
        matches!(self.proto.domain.as_deref().unwrap_or_default(), "" | "ai.onnx")
    }

    pub(crate) fn domain(&self) -> &'a str {
        self.proto.domain.as_deref().unwrap_or_default()
    }

    /// Its name, or that of its first output.
    pub(crate) fn name(&self) -> &'a str {
        let name = self.proto.name.as_deref().filter(|name| !name.is_empty());
        name.or(self.proto.output.first().map(String::as_str)).unwrap_or_default()
    }

    pub(crate) fn refused(&self, problem: Refusal) -> ImportError {
        ImportError::Node { node: self.name().into(), op: self.op().into(), problem }
    }

    /// Names of all operands; an empty one was left out.
    pub(crate) fn inputs(&self) -> &'a [String] {
        &self.proto.input
    }

    pub(crate) fn outputs(&self) -> &'a [String] {
        &self.proto.output
    }

    /// The module of the exported program that the node is part of, as far as the exporter says it:
    /// `conv1` of a node `/conv1/Conv`, or of the scopes `['', 'conv1', 'conv2d']`.
    pub(crate) fn scope(&self) -> Option<&'a str> {
        let scopes =
            self.proto.metadata_props.iter().find(|entry| entry.key.as_deref() == Some("pkg.torch.onnx.name_scopes"));
        if let Some(scopes) = scopes.and_then(|entry| entry.value.as_deref()) {
            let inner = scopes.trim_start_matches('[').trim_end_matches(']');
            let mut names = inner.rsplit(',').map(|name| name.trim().trim_matches(['\'', '"']));
            names.next();
            return names.next().filter(|name| !name.is_empty());
        }
        let name = self.proto.name.as_deref()?.strip_prefix('/')?;
        name.rsplit_once('/')
            .map(|(scope, _)| scope.rsplit('/').next().unwrap_or(scope))
            .filter(|name| !name.is_empty())
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// A flag, which is 0 or 1 and 0 where it is absent.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(crate) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.s.as_deref()?).ok()
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.attribute(name)?.t.as_ref()
    }

    /// So many sizes, each from `least` to [`MAX_DIMENSION`]; `default` where the attribute is absent.
    pub(crate) fn sizes(&self, name: &str, count: usize, least: i64, default: usize) -> Result<Vec<usize>, Refusal> {
        let Some(found) = self.ints(name).filter(|list| !list.is_empty()) else { return Ok(vec![default; count]) };
        let all = least..=MAX_DIMENSION as i64;
        match found.len() == count && found.iter().all(|size| all.contains(size)) {
            true => Ok(found.iter().map(|&size| size as usize).collect()),
            false if found.len() > 16 => Err(format!("`{name}` has {} numbers; it must have {count}", found.len())),
            false => Err(format!("`{name}` is {found:?}; it must be {count} numbers from {least} to {MAX_DIMENSION}")),
        }
    }
}
