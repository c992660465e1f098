//! The fuzz target's body (`fuzz/src/onnx.rs`) on stable Rust: mutated valid files and plain noise
//! never panic.

#[path = "../../../fuzz/src/onnx.rs"]
mod bodies;
#[path = "../../../fuzz/src/smoke.rs"]
mod smoke;

use smoke::smoke;

#[test]
fn exported_networks() {
    smoke(bodies::onnx, include_bytes!("fixtures/line.legacy.onnx"), 2000);
    smoke(bodies::onnx, include_bytes!("fixtures/residual.tensorflow.onnx"), 2000);
    smoke(bodies::onnx, include_bytes!("fixtures/spelled.legacy.onnx"), 2000);
    smoke(bodies::onnx, include_bytes!("fixtures/spelled.dynamo.onnx"), 1000);
}
