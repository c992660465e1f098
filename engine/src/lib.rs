//! The server's side of CryptoDL: a network is planned once ([`plan`]), then executed on batches of ciphertexts ([`run`]).
//!
//! This crate does not depend on the client crate, so it cannot name a secret key.
#![deny(unsafe_code)]

#[cfg(feature = "gpu")]
pub mod gpu;
pub mod plan;
pub mod run;
