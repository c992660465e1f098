//! Body of the fuzz target of `cryptodl_onnx`; `models/onnx/tests/fuzz_bodies.rs` runs it on stable
//! Rust.

use cryptodl_network::plain;
use cryptodl_onnx::{ImportOptions, import_bytes};
use ndarray::Array4;

/// No file does more than fail, and what is imported can be computed.
pub fn onnx(data: &[u8]) {
    let Ok(imported) = import_bytes(data, &ImportOptions::new("fuzzed")) else { return };
    let network = imported.network;
    assert!(!imported.seen.to_string().contains('\u{1b}'), "names are quoted");
    // Windows of many values are allowed, and slow.
    if network.multiply_adds() < 1 << 16 && network.outputs().map(|(_, shape)| shape.len()).sum::<usize>() < 1 << 14 {
        let [channels, height, width] = network.input.shape;
        let scores = plain::logits(&network, Array4::zeros((1, channels, height, width)).view());
        assert_eq!(scores.dim(), (1, network.classes()));
    }
}
