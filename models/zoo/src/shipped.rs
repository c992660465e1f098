//! The networks that ship inside the program.

/// The files of a network.
#[derive(Clone, Copy)]
pub(crate) struct Shipped {
    pub(crate) toml: &'static str,
    pub(crate) weights: &'static [u8],
    pub(crate) calibration: &'static [u8],
}

macro_rules! shipped {
    ($names:ident, $networks:ident: $($folder:literal: $($name:literal),+;)+) => {
        const $names: &[&str] = &[$($($name),+),+];
        const $networks: &[Shipped] = &[$($(Shipped {
            toml: include_str!(concat!("../trained/", $folder, $name, ".toml")),
            weights: include_bytes!(concat!("../trained/", $folder, $name, ".safetensors")),
            calibration: include_bytes!(concat!("../trained/", $folder, $name, ".calibration.safetensors")),
        }),+),+];
    };
}

#[cfg(feature = "every-network")]
shipped! {
    NAMES, SHIPPED:
    "": "mnist-1", "mnist-1-square", "mnist-2", "mnist-2-sigmoid", "mnist-2-tanh", "mnist-best",
        "mnist-res", "swish-mnist", "cryptonets", "secureml", "chabanne-light", "fashion-1", "cifar-10";
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

/// The files of the shipped network of this name.
pub(crate) fn find(name: &str) -> Option<Shipped> {
    NAMES.iter().position(|shipped| *shipped == name).map(|index| SHIPPED[index])
}
