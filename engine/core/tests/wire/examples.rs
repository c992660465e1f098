//! One valid file of every kind that core reads, each with its reader.

use cryptodl_core::ckks::{
    AutomorphismLayout, Ciphertexts, EvalKey, EvalKeyLayout, EvalKeys, Params, PublicKey, RelinLayout,
};
use cryptodl_core::wire::{self, CiphertextLayout, Kind, WireError};

use crate::fuzz_bodies::{SPEC, binding, written};

pub struct Example {
    pub kind: Kind,
    pub file: Vec<u8>,
    pub read: fn(&[u8]) -> Result<(), WireError>,
}

/// Canonical residues of `limbs`, `[limb][N]`, from a cheap sequence.
pub fn residues(params: &Params, limbs: &[usize], seed: u32) -> Vec<u32> {
    let words = (0..params.n() as u32).map(move |j| (j + seed).wrapping_mul(0x9e37_79b9) >> 2);
    limbs.iter().flat_map(|&limb| words.clone().map(move |w| w % params.basis().modulus(limb).value())).collect()
}

pub fn public_key(params: &Params, seed: u32) -> PublicKey {
    let limbs: Vec<usize> = (0..params.basis().len()).collect();
    PublicKey { seed: [seed as u8; 32], b: residues(params, &limbs, seed) }
}

pub fn eval_key(params: &Params, layout: EvalKeyLayout, seed: u32) -> EvalKey {
    let (limbs, digits) = (layout.limbs(params), layout.digits());
    let b = (0..digits.digits(digits.level) as u32).flat_map(|g| residues(params, &limbs, seed + g)).collect();
    EvalKey { layout, seed: [seed as u8; 32], b }
}

/// One key of each of `layouts`, with seeds from 2.
pub fn eval_keys(params: &Params, layouts: &[EvalKeyLayout]) -> EvalKeys {
    let key = |(&layout, seed): (&EvalKeyLayout, u32)| eval_key(params, layout, seed);
    EvalKeys::new(layouts.iter().zip(2..).map(key).collect()).expect("different layouts")
}

/// The layout that the spec asks for, and another that its parameters allow.
pub const LAYOUTS: [EvalKeyLayout; 2] = [
    EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1)),
    EvalKeyLayout::Automorphism(AutomorphismLayout { element: 5, level: 1, digit_primes: 1, prime_parts: 3 }),
];

/// Sets of zeros, which are valid residues: a part of a whole, from its sixth set on.
pub fn ciphertexts(params: &Params, layout: &CiphertextLayout, images: usize) -> Ciphertexts {
    let CiphertextLayout { level, values, components, seeded, .. } = *layout;
    let seed = seeded.then_some([3; 32]);
    let mut ciphertexts = Ciphertexts {
        level,
        values,
        components,
        leaves: Default::default(),
        first_set: 5,
        seed,
        images,
        sets: Vec::new(),
    };
    ciphertexts.sets = vec![vec![0; ciphertexts.set_bytes(params)]; images.div_ceil(params.n())];
    ciphertexts
}

pub fn all() -> Vec<Example> {
    let (binding, spec) = (binding(), &*SPEC);
    let keys = [0, 1, 2].map(|count| eval_keys(binding.params, &LAYOUTS[..count]));
    let eval_keys = |keys: &EvalKeys| Example {
        kind: Kind::EvalKey,
        file: written(|file| wire::write_eval_keys(file, binding.params, keys)),
        read: |file| wire::read_eval_keys(file, crate::fuzz_bodies::binding().params).map(drop),
    };
    let [input, result] = [CiphertextLayout::input(spec), CiphertextLayout::result(spec)];
    let sets = |layout| ciphertexts(binding.params, layout, 17);
    vec![
        Example {
            kind: Kind::ClientSpec,
            file: written(|file| wire::write_client_spec(file, spec)),
            read: |file| wire::read_client_spec(file).map(drop),
        },
        Example {
            kind: Kind::PublicKey,
            file: written(|file| wire::write_public_key(file, binding.params, &public_key(binding.params, 1))),
            read: |file| wire::read_public_key(file, crate::fuzz_bodies::binding().params).map(drop),
        },
        eval_keys(&keys[1]),
        eval_keys(&keys[2]),
        eval_keys(&keys[0]),
        Example {
            kind: Kind::Ciphertexts,
            file: written(|file| wire::write_ciphertexts(file, &binding, &input, &sets(&input))),
            read: |file| {
                let layout = CiphertextLayout::input(&SPEC);
                wire::read_ciphertexts(file, &crate::fuzz_bodies::binding(), &layout).map(drop)
            },
        },
        Example {
            kind: Kind::Result,
            file: written(|file| wire::write_ciphertexts(file, &binding, &result, &sets(&result))),
            read: |file| {
                let layout = CiphertextLayout::result(&SPEC);
                wire::read_ciphertexts(file, &crate::fuzz_bodies::binding(), &layout).map(drop)
            },
        },
    ]
}
