//! Why an ONNX file is no network of CryptoDL.

use std::io;
use std::path::PathBuf;

use cryptodl_network::{Invalid, text};
use thiserror::Error;

use crate::limits::{MAX_BYTES, OPSETS};

/// Why an ONNX file cannot be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than this program reads.
    #[error("the file is larger than {MAX_BYTES} bytes, the most that is read of an ONNX file or of its external data")]
    TooLarge,
    /// The bytes are no ONNX model.
    #[error("this is no valid ONNX model: {message}")]
    Malformed {
        /// What is wrong.
        message: String,
    },
    /// A version of the operators that is not read.
    #[error(
        "the model uses version {found} of the ONNX operators (its opset); versions {} to {} are read: export it again \
         with `opset_version=20`, or convert it with onnx.version_converter",
        OPSETS[0],
        OPSETS[1]
    )]
    Opset {
        /// The version.
        found: i64,
    },
    /// Inputs or outputs that no network of images has.
    #[error("{message}")]
    Interface {
        /// What was found, and what is allowed.
        message: String,
    },
    /// A tensor among the weights that cannot be read.
    #[error("tensor `{}`: {problem}", text::name(tensor))]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A node that cannot be computed under encryption, or is wrong.
    #[error("node {} ({}): {problem}", label(node), text::name(op))]
    Node {
        /// Its name, or the name of its output if it has none.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong, and what to do instead.
        problem: String,
    },
    /// The layers make no network.
    #[error("{0}")]
    Network(#[from] Invalid),
}

impl ImportError {
    /// Whether the model is a proper one that uses what encrypted networks cannot have, and names
    /// where.
    pub fn names_a_node(&self) -> bool {
        matches!(self, ImportError::Node { .. })
    }
}

fn label(node: &str) -> String {
    format!("`{}`", text::name(node))
}

/// What is wrong with one node, without its name.
pub(crate) type Refusal = String;
