//! One valid file of every kind that core reads, each with its reader.

use cryptodl_core::ckks::{Ciphertexts, ClientSpec, Params, PublicKey, RelinKey};
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

pub fn relin_key(params: &Params, spec: &ClientSpec, seed: u32) -> Option<RelinKey> {
    let layout = spec.relin?;
    let mut key = RelinKey { layout, seed: [seed as u8; 32], b: Vec::new() };
    let limbs = key.limbs(params);
    key.b = (0..layout.digits(layout.level) as u32).flat_map(|g| residues(params, &limbs, seed + g)).collect();
    Some(key)
}

/// Sets of zeros, which are valid residues.
pub fn ciphertexts(params: &Params, layout: &CiphertextLayout, images: usize) -> Ciphertexts {
    let CiphertextLayout { level, values, components, seeded, .. } = *layout;
    let seed = seeded.then_some([3; 32]);
    let mut ciphertexts = Ciphertexts { level, values, components, seed, images, sets: Vec::new() };
    ciphertexts.sets = vec![vec![0; ciphertexts.set_bytes(params)]; images.div_ceil(params.n())];
    ciphertexts
}

pub fn all() -> Vec<Example> {
    let (binding, spec) = (binding(), &*SPEC);
    let key = relin_key(binding.params, spec, 2);
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
            file: written(|file| wire::write_public_key(file, &binding, &public_key(binding.params, 1))),
            read: |file| wire::read_public_key(file, &crate::fuzz_bodies::binding()).map(drop),
        },
        Example {
            kind: Kind::EvalKey,
            file: written(|file| wire::write_eval_key(file, &binding, key.as_ref())),
            read: |file| wire::read_eval_key(file, &crate::fuzz_bodies::binding(), SPEC.relin).map(drop),
        },
        Example {
            kind: Kind::EvalKey,
            file: written(|file| wire::write_eval_key(file, &binding, None)),
            read: |file| wire::read_eval_key(file, &crate::fuzz_bodies::binding(), None).map(drop),
        },
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
