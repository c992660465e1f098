//! The bodies of the fuzz targets, one function per parser and one for the planner. The same files are modules of ordinary
//! tests, which feed them arbitrary and mutated input on stable Rust (`engine/core/tests/wire`, `engine/client/tests/wire.rs`,
//! `engine/plan/tests`, `models/network/tests`, `models/onnx/tests`, `models/data/tests`).
//!
//! ```text
//! cargo install cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run ciphertexts -- -max_total_time=60
//! RUSTC_BOOTSTRAP=1 cargo fuzz run network fuzz/corpus/network models/zoo/trained -- -max_total_time=60
//! ```
#![forbid(unsafe_code)]

pub mod images;
pub mod network;
pub mod onnx;
pub mod plan;
pub mod program;
pub mod secret_key;
pub mod wire;
