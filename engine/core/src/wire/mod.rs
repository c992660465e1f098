//! Files: one container ([`Reader`], [`Writer`]) for every kind, described byte for byte in `docs/format.md`.
//!
//! Readers take any [`std::io::Read`] (a byte slice, a file). They know from the kind and the
//! parameters how long a payload, or the next entry of a list, must be before they read it. So what
//! a file claims never decides how much is read, and buffers grow no faster than a file arrives.
//! Every bit is covered by a checksum; whatever is wrong is a [`WireError`], never a panic.
//!
//! Keys belong to parameters. All other files also belong to one Program ([`Binding`]).

mod ciphertexts;
mod client_spec;
mod container;
mod error;
mod eval_key;
mod identify;
mod public_key;
mod rows;

pub use ciphertexts::{
    CiphertextLayout, CiphertextsHeader, CiphertextsReader, CiphertextsWriter, check_residues, ciphertexts_len,
    read_ciphertexts, write_ciphertexts,
};
pub use client_spec::{MAX_CLIENT_SPEC_BYTES, read_client_spec, write_client_spec};
pub use container::{Binding, HEADER_LEN, Header, Kind, MAGIC, Reader, TRAILER_LEN, VERSION, Writer, file_len};
pub use error::WireError;
pub use eval_key::{eval_keys_len, read_eval_keys, read_needed_eval_keys, write_eval_keys};
pub use identify::{Contents, Identity, identify};
pub use public_key::{public_key_len, read_public_key, write_public_key};
