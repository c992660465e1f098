//! How large an ONNX file may be. Whatever is larger is refused before it takes memory.

/// Largest ONNX file that is read, in bytes, and the most that is read of external data: a network
/// has at most 32 MiB of weights.
pub const MAX_BYTES: u64 = 1 << 26;
/// Most fields in all messages of a file. A message takes a hundred times more memory than its
/// shortest encoding.
pub const MAX_FIELDS: usize = 1 << 20;
/// Most nodes of a graph.
pub const MAX_NODES: usize = 1 << 14;
/// Most axes of a tensor.
pub const MAX_AXES: usize = 8;
/// Most values of one constant.
pub const MAX_CONSTANT: usize = 1 << 23;
/// Most values that all constants and all index maps made on the way may have together, those that
/// they are made of included.
pub const MAX_MADE: usize = 1 << 26;
/// Oldest and newest version of the operators of ONNX that are read.
pub const OPSETS: [i64; 2] = [11, 28];
