//! The scheme's public side: leveled RNS-CKKS with N real slots in dimension N over the conjugate-invariant ring.

mod check;
mod ciphertext;
mod encoder;
pub mod flood;
mod keys;
pub mod noise;
mod packing;
mod params;
mod random;
mod rerandomise;
pub mod sampling;
mod scale;
mod security;
mod spec;
mod uniform;

pub use check::{
    CheckedSpec, HEADROOM, MAX_CHANNELS, MAX_CLASSES, MAX_COMPONENTS, MAX_DIGIT_PRIMES, MAX_PIXELS, MAX_SIDE,
    MIN_SECURE_DIMENSION, SpecError,
};
pub use ciphertext::{Ciphertexts, CiphertextsInfo};
pub use encoder::Encoder;
pub use keys::{AutomorphismLayout, EvalKey, EvalKeyLayout, EvalKeys, MAX_EVAL_KEYS, PowerLayout, PublicKey};
pub use packing::{Leaves, Packing, RotationStage, ScoreLeaves};
pub use params::{MAX_SPECIAL_PRIMES, Params, ParamsError, ParamsSpec, params_for_tests};
pub use random::{RandomError, Randomness, SecretStream, SecretStreams};
pub use rerandomise::rerandomise;
pub use scale::Scale;
pub use security::SecurityLevel;
pub use spec::{ClientSpec, Digest, Encoding, EncryptionKind, InputLayout, OutputLayout};
pub use uniform::UniformPurpose;

/// How keys are cut into digits is part of the scheme, though backends define it.
pub use crate::backend::RelinLayout;
