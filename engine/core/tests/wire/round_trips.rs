//! What is written is read back, in files of exactly the predicted size.

use cryptodl_core::ckks::{Ciphertexts, ClientSpec, Digest, Params, ParamsSpec, PublicKey, RelinKey, RelinLayout};
use cryptodl_core::ring::ntt_primes;
use cryptodl_core::wire::{self, Binding, CiphertextLayout, Contents, Kind};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::examples::{self, relin_key};
use crate::fuzz_bodies::{SPEC, binding, written};

/// Small rings: primes of any size, with and without special primes.
fn params() -> impl Strategy<Value = Params> {
    (4u32..7, 16u32..=30, 1usize..4, 0usize..3).prop_map(|(log_n, bits, chain, special)| {
        let n = 1 << log_n;
        let mut primes = ntt_primes(n, bits, chain + special).expect("such primes exist");
        let special_primes = primes.split_off(chain);
        let spec = ParamsSpec { n, primes, special_primes, ..SPEC.params.clone() };
        spec.build_insecure_for_tests().expect("a small ring")
    })
}

/// Residues for `rows` times the given limbs.
fn residues(params: &Params, limbs: &[usize], rows: usize) -> impl Strategy<Value = Vec<u32>> + use<> {
    let primes: Vec<u32> = limbs.iter().map(|&limb| params.basis().modulus(limb).value()).collect();
    let n = params.n();
    vec(any::<u32>(), rows * limbs.len() * n).prop_map(move |mut words| {
        words.iter_mut().enumerate().for_each(|(i, word)| *word %= primes[i / n % primes.len()]);
        words
    })
}

fn public_key() -> impl Strategy<Value = (Params, PublicKey)> {
    params().prop_flat_map(|params| {
        let limbs: Vec<usize> = (0..params.basis().len()).collect();
        let key = (any::<[u8; 32]>(), residues(&params, &limbs, 1)).prop_map(|(seed, b)| PublicKey { seed, b });
        (Just(params), key)
    })
}

fn eval_key() -> impl Strategy<Value = (Params, RelinKey)> {
    (params(), 1usize..4, 1usize..=4).prop_flat_map(|(params, level, digit_primes)| {
        let layout = RelinLayout { level: level.min(params.chain_len()), digit_primes };
        let limbs = RelinKey { layout, seed: [0; 32], b: Vec::new() }.limbs(&params);
        let b = residues(&params, &limbs, layout.digits(layout.level));
        let key = (any::<[u8; 32]>(), b).prop_map(move |(seed, b)| RelinKey { layout, seed, b });
        (Just(params), key)
    })
}

fn sets() -> impl Strategy<Value = (Params, CiphertextLayout, Ciphertexts)> {
    (params(), 1usize..4, 1usize..4, 2usize..5, any::<Option<[u8; 32]>>(), 1usize..200).prop_flat_map(
        |(params, level, values, components, seed, images)| {
            let (level, kind) =
                (level.min(params.chain_len()), [Kind::Result, Kind::Ciphertexts][seed.is_some() as usize]);
            let components = if seed.is_some() { 2 } else { components };
            let layout = CiphertextLayout { kind, level, values, components, seeded: seed.is_some() };
            let empty = Ciphertexts { level, values, components, seed, images, sets: Vec::new() };
            let set = vec(any::<u8>(), empty.set_bytes(&params));
            let sets =
                vec(set, images.div_ceil(params.n())).prop_map(move |sets| Ciphertexts { sets, ..empty.clone() });
            (Just(params), Just(layout), sets)
        },
    )
}

fn bind(params: &Params) -> Binding<'_> {
    Binding { program: Digest([1; 32]), params }
}

proptest! {
    #[test]
    fn public_keys((params, key) in public_key()) {
        let file = written(|file| wire::write_public_key(file, &bind(&params), &key));
        prop_assert_eq!(file.len() as u64, wire::public_key_len(&params));
        prop_assert_eq!(wire::read_public_key(&file[..], &bind(&params)).unwrap(), key);
    }

    #[test]
    fn evaluation_keys((params, key) in eval_key()) {
        let file = written(|file| wire::write_eval_key(file, &bind(&params), Some(&key)));
        prop_assert_eq!(file.len() as u64, wire::eval_key_len(&params, Some(key.layout)));
        prop_assert_eq!(wire::read_eval_key(&file[..], &bind(&params), Some(key.layout)).unwrap(), Some(key));
    }

    #[test]
    fn ciphertexts((params, layout, ciphertexts) in sets()) {
        let file = written(|file| wire::write_ciphertexts(file, &bind(&params), &layout, &ciphertexts));
        prop_assert_eq!(file.len() as u64, wire::ciphertexts_len(&params, &layout, ciphertexts.images as u64));
        prop_assert_eq!(wire::read_ciphertexts(&file[..], &bind(&params), &layout).unwrap(), ciphertexts);
    }

    #[test]
    fn client_specs(model in ".{0,40}", program in any::<[u8; 32]>(), noise in 1e-300f64..1e300, n in any::<usize>()) {
        let mut spec = ClientSpec { model, program: Digest(program), ..SPEC.clone() };
        (spec.output.noise, spec.params.n) = (noise, n);
        let file = written(|file| wire::write_client_spec(file, &spec));
        prop_assert_eq!(&wire::read_client_spec(&file[..]).unwrap(), &spec);
        prop_assert_eq!(wire::identify(&file[..]).unwrap().contents, Contents::ClientSpec(Box::new(spec)));
    }
}

/// Keys and ciphertexts of the smallest ring that clients accept; those of smaller ones, which only tests have, are refused.
#[test]
fn the_smallest_ring_is_identified() {
    let (primes, special_primes) = (ntt_primes(1024, 14, 1).unwrap(), ntt_primes(1024, 20, 1).unwrap());
    let spec = ParamsSpec { n: 1024, primes, special_primes, ..SPEC.params.clone() };
    let params = spec.build_insecure_for_tests().unwrap();
    let spec = ClientSpec { relin: Some(RelinLayout { level: 1, digit_primes: 1 }), ..SPEC.clone() };
    let key = relin_key(&params, &spec, 1);
    for (params, known) in [(&params, true), (binding().params, false)] {
        let public = written(|file| wire::write_public_key(file, &bind(params), &examples::public_key(params, 1)));
        let public = wire::identify(&public[..]).map(|identity| identity.contents);
        assert_eq!(public.ok(), known.then_some(Contents::PublicKey));
        let key = if known { key.clone() } else { relin_key(params, &SPEC, 1) };
        let eval = written(|file| wire::write_eval_key(file, &bind(params), key.as_ref()));
        let eval = wire::identify(&eval[..]).map(|identity| identity.contents);
        assert_eq!(eval.ok(), known.then_some(Contents::EvalKey(spec.relin)));
        for layout in [CiphertextLayout { level: 1, ..CiphertextLayout::input(&SPEC) }, CiphertextLayout::result(&SPEC)]
        {
            let sets = examples::ciphertexts(params, &layout, 1500);
            let file = written(|file| wire::write_ciphertexts(file, &bind(params), &layout, &sets));
            let found = wire::identify(&file[..]).map(|identity| identity.contents);
            let Ok(Contents::Ciphertexts(header)) = found else {
                assert!(!known, "{found:?}");
                continue;
            };
            assert_eq!((known, header.images, header.seed), (true, 1500, sets.seed));
        }
    }
}

#[test]
fn no_evaluation_key() {
    let file = written(|file| wire::write_eval_key(file, &binding(), None));
    assert_eq!(file.len() as u64, wire::eval_key_len(binding().params, None));
    assert_eq!(wire::read_eval_key(&file[..], &binding(), None).unwrap(), None);
    assert_eq!(wire::identify(&file[..]).unwrap().contents, Contents::EvalKey(None));
}

/// Sources and sinks that move one byte at a time, and are interrupted, make no difference.
#[test]
fn slow_sources() {
    struct Slow<'a>(&'a [u8], bool);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(std::io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut out[..1]) }
        }
    }
    let key = relin_key(binding().params, &SPEC, 5);
    let file = written(|file| wire::write_eval_key(file, &binding(), key.as_ref()));
    assert_eq!(wire::read_eval_key(Slow(&file, false), &binding(), SPEC.relin).unwrap(), key);
}

/// The sizes that the project promises, by hand: fresh 784-pixel images at N = 8192 with three 30-bit limbs.
#[test]
fn sizes_by_hand() {
    let primes = ntt_primes(8192, 30, 3).expect("such primes exist");
    let params = ParamsSpec { n: 8192, primes, special_primes: Vec::new(), ..SPEC.params.clone() }.build().unwrap();
    let layout = CiphertextLayout { kind: Kind::Ciphertexts, level: 3, values: 784, components: 2, seeded: true };
    let row = 8192 * 30 / 8;
    assert_eq!(wire::ciphertexts_len(&params, &layout, 8192), 120 + 60 + 784 * 3 * row);
    assert_eq!(wire::ciphertexts_len(&params, &layout, 8193), 120 + 60 + 2 * 784 * 3 * row);
    assert_eq!(wire::public_key_len(&params), 120 + 32 + 3 * row);
    assert_eq!(wire::eval_key_len(&params, None), 120 + 40);
}
