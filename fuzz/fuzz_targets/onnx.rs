#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cryptodl_fuzz::onnx::onnx(data));
