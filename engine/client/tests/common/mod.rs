//! What the tests of keys, encryption and decryption share.
#![allow(dead_code)] // Each test binary uses its part.

use cryptodl_client::{ClientError, EncryptionKey, SecretKey, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::backend::packed_row;
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, ClientSpec, Digest, EncryptionKind, InputLayout, OutputLayout, Packing, Params,
    ParamsSpec, Randomness, Scale, SecurityLevel, UniformPurpose,
};
use cryptodl_core::ring::{ntt_primes, pack_row, unpack_row};
use cryptodl_core::watch::Watch;

/// A spec whose Program is the identity on `values` scores, with 30-bit primes.
pub fn spec(n: usize, chain: usize, special: usize, values: usize, encryption: EncryptionKind) -> ClientSpec {
    let primes = ntt_primes(n, 30, chain + special).unwrap();
    let scale = Scale::from_log2(25.0);
    let range = [-1.0, 1.0];
    ClientSpec {
        model: "identity".into(),
        class_names: Vec::new(),
        program: Digest([0; 32]),
        params: ParamsSpec {
            n,
            primes: primes[special..].to_vec(),
            special_primes: primes[..special].to_vec(),
            security: SecurityLevel::Bits128,
        },
        evaluation_keys: Vec::new(),
        encryption,
        input: InputLayout { packing: Packing::Spread, shape: [1, 1, values], range, scale, level: chain },
        output: OutputLayout {
            packing: Packing::Spread,
            classes: values,
            components: 2,
            level: chain,
            scale,
            range,
            noise: 1e-4,
        },
    }
}

/// Randomness that repeats.
pub fn rng(seed: u64, purpose: &str) -> Randomness {
    Randomness::insecure_from_seed_for_tests(seed, purpose)
}

/// `count` numbers in `[-1, 1]`, the same for the same seed.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut words = vec![0; count];
    rng(seed, "numbers").streams().stream(0).fill(&mut words);
    words.iter().map(|&word| (word as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32).collect()
}

/// A spec of any ring, checked.
pub fn checked(spec: &ClientSpec) -> CheckedSpec {
    spec.clone().check_insecure_for_tests().unwrap()
}

/// Encrypts with the key that the spec names.
pub fn encrypt_with(
    spec: &CheckedSpec,
    secret: &SecretKey,
    images: &[f32],
    rng_seed: u64,
) -> Result<Ciphertexts, ClientError> {
    let public = match spec.encryption {
        EncryptionKind::Secret => None,
        EncryptionKind::Public => Some(secret.public_key(&mut rng(rng_seed, "public key"))?),
    };
    let key = public.as_ref().map_or(EncryptionKey::Secret(secret), EncryptionKey::Public);
    let count = images.len() / spec.input.shape.iter().product::<usize>();
    encrypt(spec, key, images, count, &mut rng(rng_seed, "encrypt"), Watch::default())
}

/// All slots of the only set, `[value][N]`, as integers times 1.
pub fn slots(secret: &SecretKey, ciphertexts: &Ciphertexts, scale: f64) -> Vec<f64> {
    let scale = Scale::new(scale).unwrap();
    decrypt_slots_raw_do_not_return_to_server(secret.params(), secret, ciphertexts, scale).unwrap()[0].to_vec()
}

/// The residues of the only set, `[limb][value][component][N]`, with the seed expanded.
pub fn unpack(params: &Params, ciphertexts: &Ciphertexts) -> Vec<u32> {
    let n = params.n();
    let (values, components) = (ciphertexts.values, ciphertexts.components);
    let mut out = vec![0; ciphertexts.level * values * components * n];
    let mut rest = &ciphertexts.sets[0][..];
    for component in 0..ciphertexts.stored_components() {
        for limb in 0..ciphertexts.level {
            for value in 0..values {
                let (row, tail) = rest.split_at(packed_row(params.basis(), limb));
                rest = tail;
                let start = ((limb * values + value) * components + component) * n;
                unpack_row(row, params.basis().modulus(limb).bits(), &mut out[start..start + n]);
            }
        }
    }
    if let Some(seed) = &ciphertexts.seed {
        let source = UniformPurpose::Ciphertext.source(params, seed);
        for (row, out) in out.chunks_exact_mut(2 * n).enumerate() {
            let (limb, value) = (row / values, row % values);
            source.fill(value as u32, limb as u32, params.basis().modulus(limb), 0, &mut out[n..]);
        }
    }
    out
}

/// The inverse of [`unpack`], without a seed.
pub fn pack(params: &Params, residues: &[u32], level: usize, values: usize, components: usize) -> Ciphertexts {
    let n = params.n();
    let mut set = Vec::new();
    for component in 0..components {
        for limb in 0..level {
            for value in 0..values {
                let start = ((limb * values + value) * components + component) * n;
                let mut row = vec![0; packed_row(params.basis(), limb)];
                pack_row(&residues[start..start + n], params.basis().modulus(limb).bits(), &mut row);
                set.extend(row);
            }
        }
    }
    Ciphertexts {
        level,
        values,
        components,
        leaves: Default::default(),
        first_set: 0,
        seed: None,
        images: n,
        sets: vec![set],
    }
}

/// Root mean square.
pub fn rms(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, count), v| (sum + v * v, count + 1));
    (sum / f64::from(count)).sqrt()
}

/// Measured and predicted noise agree within 0.3 bits.
pub fn assert_noise(what: &str, measured: f64, predicted: f64) {
    let difference = (measured / predicted).log2();
    println!("{what}: measured 2^{:.2}, predicted 2^{:.2}", measured.log2(), predicted.log2());
    assert!(difference.abs() < 0.3, "{what}: measured 2^{:.2}, predicted 2^{:.2}", measured.log2(), predicted.log2());
}
