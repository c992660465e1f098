//! The networks that ship inside the program.

use std::path::Path;

use crate::network::{ModelError, Network};

#[derive(Clone, Copy)]
struct Shipped {
    toml: &'static str,
    weights: &'static [u8],
    calibration: &'static [u8],
}

macro_rules! shipped {
    ($names:ident, $networks:ident: $($folder:literal: $($name:literal),+;)+) => {
        const $names: &[&str] = &[$($($name),+),+];
        const $networks: &[Shipped] = &[$($(Shipped {
            toml: include_str!(concat!("../zoo/", $folder, $name, ".toml")),
            weights: include_bytes!(concat!("../zoo/", $folder, $name, ".safetensors")),
            calibration: include_bytes!(concat!("../zoo/", $folder, $name, ".calibration.safetensors")),
        }),+),+];
    };
}

#[cfg(feature = "every-network")]
shipped! {
    NAMES, SHIPPED:
    "": "mnist-1", "mnist-1-square", "mnist-2", "mnist-2-sigmoid", "mnist-2-tanh", "mnist-best",
        "mnist-res", "swish-mnist", "cryptonets", "secureml", "chabanne-light", "fashion-1";
    "table-1/": "mnist-1-least-squares", "mnist-1-taylor", "mnist-1-chebyshev", "mnist-1-modified-chebyshev",
        "mnist-1-derivative-3", "mnist-1-derivative-4", "mnist-1-derivative-5", "mnist-1-derivative-6", "mnist-1-derivative-7",
        "mnist-1-derivative-8";
}

// What a program that travels to another machine measures (`benches/gpu-bundle.sh`).
#[cfg(not(feature = "every-network"))]
shipped! {
    NAMES, SHIPPED:
    "": "mnist-1", "mnist-2";
}

/// Names of the shipped networks.
pub fn names() -> &'static [&'static str] {
    NAMES
}

/// The shipped network of this name, or the one described by the file if `name_or_path` ends in `.toml`.
///
/// # Errors
/// Those of [`Network::load`]; an unknown name lists the shipped ones.
pub fn load(name_or_path: &str) -> Result<Network, ModelError> {
    if name_or_path.ends_with(".toml") {
        return Network::load(Path::new(name_or_path));
    }
    match NAMES.iter().position(|name| *name == name_or_path) {
        Some(index) => {
            let Shipped { toml, weights, calibration } = SHIPPED[index];
            Network::parse(name_or_path, toml, weights, Some(calibration))
        }
        None => Err(ModelError::UnknownModel { name: name_or_path.into() }),
    }
}

/// The bytes of the weight file of `network`, which [`load`] found under this name.
///
/// # Errors
/// A file that cannot be read.
pub fn weights(name_or_path: &str, network: &Network) -> Result<Vec<u8>, ModelError> {
    match NAMES.iter().position(|name| *name == name_or_path) {
        Some(index) => Ok(SHIPPED[index].weights.to_vec()),
        None => {
            let path = Path::new(name_or_path).with_file_name(&network.weights);
            std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
        }
    }
}
