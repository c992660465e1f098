//! The client's side of CryptoDL: the secret key, encryption of images, decryption of scores. Needs
//! a [`CheckedSpec`] and never the model; builds for wasm32 (with getrandom's browser backend).
//!
//! [`CheckedSpec`]: cryptodl_core::ckks::CheckedSpec
#![forbid(unsafe_code)]

mod decrypt;
mod encrypt;
mod encryptor;
mod error;
mod keygen;
mod scores;
mod secret_key;

pub mod wire;

pub use decrypt::{Decrypted, Decryption, decrypt, decrypt_slots_raw_do_not_return_to_server};
pub use encrypt::{Encryption, EncryptionKey, encrypt};
pub use error::ClientError;
pub use scores::ScoreUnit;
pub use secret_key::SecretKey;
