//! What client and server of CryptoDL share: the ring, the scheme's public objects, the [`backend::Backend`] trait and the
//! wire formats. Knows no GPU, no network and no secret key.
#![forbid(unsafe_code)]

pub mod backend;
pub mod ckks;
pub mod ring;
pub mod watch;
pub mod wire;
