//! Neural networks on data that nobody can read.
//!
//! A **client** encrypts images. A **server**, which has a trained network, classifies them without ever decrypting them. The
//! client decrypts the labels. This crate is both sides; the command line `cryptodl` is made of it.
//!
//! ```
//! # fn main() -> Result<(), cryptodl::Error> {
//! use cryptodl::{Client, Model, Placement, PlanOptions, Server, Watch};
//!
//! // The server: a network, planned once.
//! let model = Model::load("mnist-1")?;
//! let program = model.plan(&PlanOptions::default(), Watch::default())?.program;
//! let server = Server::new(Placement::default())?;
//! let service = server.prepare(&program)?;
//!
//! // The client: needs the public description of the Program only.
//! let client = Client::from(service.spec().clone());
//! let keys = client.generate_keys()?;
//! let image = vec![0.0; 28 * 28];
//! let mut request = Vec::new();
//! client.encrypt(&keys, &image, &mut request, Watch::default())?;
//!
//! // The server again: it sees public keys and ciphertexts.
//! let accepted = service.accept_keys(&keys.evaluation, &keys.public)?;
//! let mut response = Vec::new();
//! service.infer(&accepted, &request[..], &mut response, Watch::default())?;
//!
//! // The client.
//! let labels = client.decrypt(&keys.secret, &response[..], Watch::default())?.labels;
//! assert_eq!(labels.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! | for | see |
//! |---|---|
//! | keys, encryption, decryption | [`Client`], [`Keys`] |
//! | networks: shipped, from files, or your own | [`Model`], [`network`] |
//! | what is computed, and what it costs | [`Program`], [`PlanReport`] |
//! | computing | [`Server`], [`Service`], [`Placement`] |
//! | progress, and ending early | [`Watch`] |
//! | going on after a process was killed | [`Checkpoint`], [`Computation::resume`] |
//!
//! Everything that travels is a stream of bytes ([`std::io::Read`], [`std::io::Write`]) whose format docs/format.md describes. Files of
//! any size take the memory of one *set*, as many images as a ciphertext has slots. SECURITY.md says what is protected, and against
//! whom.
//!
//! With `default-features = false` only the client is built. It needs neither a GPU nor threads, and builds for
//! `wasm32-unknown-unknown`.
#![forbid(unsafe_code)]

mod client;
mod error;
#[cfg(feature = "server")]
mod keys;
#[cfg(feature = "server")]
mod memory;
#[cfg(feature = "server")]
mod model;
#[cfg(feature = "server")]
mod placement;
#[cfg(feature = "server")]
mod server;

pub use client::{Client, Keys, row_kernels};
pub use cryptodl_client::{ClientError, Decrypted, EncryptionKey, ScoreUnit, SecretKey};
pub use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, CiphertextsInfo, ClientSpec, Digest, EncryptionKind, EvalKeys, Params, PublicKey,
    Randomness, SecurityLevel, SpecError,
};
pub use cryptodl_core::watch::{Cancelled, Progress, Watch};
pub use cryptodl_core::wire::{Binding, WireError};
pub use error::Error;

#[cfg(feature = "server")]
pub use cryptodl_network as network;
#[cfg(feature = "server")]
pub use cryptodl_plan::{
    PackingKind, Plan, PlanChoice, PlanError, PlanNote, PlanOptions, PlanRemedy, PlanReport, ScheduleKind,
};
#[cfg(feature = "server")]
pub use cryptodl_program::{CircuitPrivacy, PrivacyGoal, Program, ProgramError, Salt, Tolerance};
#[cfg(feature = "server")]
pub use cryptodl_run::{
    Checkpoint, CheckpointError, ComputeParts, ComputeReport, KeysDigest, Request, Rerandomisation, RunError,
    SegmentTime, Thrift, least_memory_budget,
};
#[cfg(feature = "server")]
pub use keys::{KeyFolder, KeyFolderError};
#[cfg(feature = "server")]
pub use memory::default_budget;
#[cfg(feature = "server")]
pub use model::Model;
#[cfg(feature = "server")]
pub use placement::{BackendChoice, CpuKernels, Placement, PlacementError, cpu_kernels};
#[cfg(feature = "server")]
pub use server::{AcceptedEvaluationKeys, AcceptedKeys, CompileProgress, Computation, Machine, Server, Service};
