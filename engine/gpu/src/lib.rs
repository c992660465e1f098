//! The GPU backend: every kernel in WGSL, through wgpu, on whatever adapter it reaches (Vulkan, Metal, DX12).
//!
//! [`choose`] names an adapter, [`Gpu::new`] opens it for one ring. Nothing outside this crate names wgpu. Residues stay on the
//! device: a step is recorded and submitted as a whole, and only `download`, `pack` and the answer of `unpack` read back.
//!
//! ```text
//! adapter.rs    which adapters there are, the choice       tensor.rs    pages of whole limbs
//! backend.rs    Backend for Gpu                            pool.rs      device memory under a budget
//! launch.rs     operands to dispatches                     recorder.rs  commands and submissions
//! transfer.rs   host to device and back                    device.rs    the open device and its failures
//! maps.rs       linear maps in device memory               timing.rs    seconds per kernel
//! pipelines.rs  compiled kernels                           variants.rs  which of equivalent kernels to run
//! compile.rs    what it costs to compile them              ceilings.rs  what the device allows
//! ```
#![deny(unsafe_code)]

mod adapter;
mod backend;
mod ceilings;
mod compile;
mod device;
mod error;
mod launch;
mod maps;
mod pipelines;
mod pool;
mod recorder;
mod tensor;
mod timing;
mod transfer;
mod variants;

pub use adapter::{
    Adapter, AdapterFeatures, AdapterInfo, AdapterKind, AdapterLimits, AdapterRequest, adapters, choose,
};
pub use backend::{Gpu, GpuOptions};
pub use compile::{Compilation, CompileTrial};
pub use error::GpuError;
pub use pipelines::{CompileWatch, Compiling};
pub use pool::MemoryUse;
pub use tensor::GpuTensor;
pub use timing::KernelTime;
pub use variants::{Dot, Multiply, Trial};
