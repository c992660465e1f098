//! What is written is read back, in files of exactly the predicted size.

use cryptodl_core::ckks::{
    Ciphertexts, ClientSpec, Digest, EvalKey, EvalKeyLayout, EvalKeys, MAX_EVAL_KEYS, Packing, Params, ParamsSpec,
    PublicKey, RelinLayout,
};
use cryptodl_core::ring::ntt_primes;
use cryptodl_core::wire::{self, Binding, CiphertextLayout, Contents, Kind};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::examples::{self, LAYOUTS, eval_key, eval_keys};
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

fn key(params: &Params, layout: EvalKeyLayout) -> impl Strategy<Value = EvalKey> + use<> {
    let digits = layout.digits();
    let b = residues(params, &layout.limbs(params), digits.digits(digits.level));
    (any::<[u8; 32]>(), b).prop_map(move |(seed, b)| EvalKey { layout, seed, b })
}

/// All layouts of a level of digits, and parts of primes, with and without an automorphism.
fn layouts(level: usize) -> impl Iterator<Item = EvalKeyLayout> {
    let digits = (1..=4).map(move |primes| RelinLayout::of_primes(level, primes));
    let parts = (2..=4).map(move |prime_parts| RelinLayout { prime_parts, ..RelinLayout::of_primes(level, 1) });
    let kinds = |digits| {
        [EvalKeyLayout::Relinearisation(digits)]
            .into_iter()
            .chain([5, 9].map(|g| EvalKeyLayout::automorphism(g, digits)))
    };
    digits.chain(parts).flat_map(kinds)
}

/// Some of the keys that the parameters allow.
fn some_eval_keys() -> impl Strategy<Value = (Params, EvalKeys)> {
    (params(), any::<u64>()).prop_flat_map(|(params, chosen)| {
        let layouts = (1..=params.chain_len()).flat_map(layouts).filter(|layout| layout.check(&params).is_ok());
        let keys: Vec<_> = layouts
            .enumerate()
            .filter(|(i, _)| chosen >> (i % 64) & 3 == 3)
            .map(|(_, layout)| key(&params, layout))
            .collect();
        (Just(params), keys.prop_map(|keys| EvalKeys::new(keys).expect("different layouts")))
    })
}

fn sets() -> impl Strategy<Value = (Params, CiphertextLayout, Ciphertexts)> {
    let sizes = (1usize..4, 1usize..4, 2usize..5, 1usize..200, 0usize..1 << 30);
    (params(), sizes, any::<Option<[u8; 32]>>()).prop_flat_map(
        |(params, (level, values, components, images, first_set), seed)| {
            let (level, kind) =
                (level.min(params.chain_len()), [Kind::Result, Kind::Ciphertexts][seed.is_some() as usize]);
            let components = if seed.is_some() { 2 } else { components };
            let packing = Packing::Spread;
            let layout =
                CiphertextLayout { kind, level, values, components, packing, scores: packing, seeded: seed.is_some() };
            let empty = Ciphertexts {
                level,
                values,
                components,
                leaves: Default::default(),
                first_set,
                seed,
                images,
                sets: Vec::new(),
            };
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
        let file = written(|file| wire::write_public_key(file, &params, &key));
        prop_assert_eq!(file.len() as u64, wire::public_key_len(&params));
        prop_assert_eq!(wire::read_public_key(&file[..], &params).unwrap(), key);
    }

    #[test]
    fn evaluation_keys((params, keys) in some_eval_keys()) {
        let file = written(|file| wire::write_eval_keys(file, &params, &keys));
        prop_assert_eq!(file.len() as u64, wire::eval_keys_len(&params, &keys.layouts()));
        let needed: Vec<_> = keys.layouts().into_iter().skip(1).collect();
        let kept = wire::read_needed_eval_keys(&file[..], &params, &needed).unwrap();
        prop_assert!(kept.iter().eq(keys.iter().skip(1)));
        prop_assert_eq!(wire::read_eval_keys(&file[..], &params).unwrap(), keys);
    }

    #[test]
    fn ciphertexts((params, layout, ciphertexts) in sets()) {
        let file = written(|file| wire::write_ciphertexts(file, &bind(&params), &layout, &ciphertexts));
        prop_assert_eq!(file.len() as u64, wire::ciphertexts_len(&params, &layout, ciphertexts.images as u64));
        prop_assert_eq!(wire::read_ciphertexts(&file[..], &bind(&params), &layout).unwrap(), ciphertexts);
    }

    #[test]
    fn client_specs(
        model in ".{0,40}",
        class_names in prop::collection::vec(".{0,20}", 0..4),
        program in any::<[u8; 32]>(),
        noise in 1e-300f64..1e300,
        n in any::<usize>(),
    ) {
        let mut spec = ClientSpec { model, class_names, program: Digest(program), ..SPEC.clone() };
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
    for (params, known) in [(&params, true), (binding().params, false)] {
        let public = written(|file| wire::write_public_key(file, params, &examples::public_key(params, 1)));
        let public = wire::identify(&public[..]).map(|identity| identity.contents);
        assert_eq!(public.ok(), known.then_some(Contents::PublicKey));
        let eval = written(|file| wire::write_eval_keys(file, params, &eval_keys(params, &LAYOUTS[1..])));
        let eval = wire::identify(&eval[..]).map(|identity| identity.contents);
        let first = Some(LAYOUTS[1]);
        assert_eq!(eval.ok(), known.then_some(Contents::EvalKeys { count: 1, first }));
        for layout in [CiphertextLayout { level: 1, ..CiphertextLayout::input(&SPEC) }, CiphertextLayout::result(&SPEC)]
        {
            let sets = examples::ciphertexts(params, &layout, 1500);
            let file = written(|file| wire::write_ciphertexts(file, &bind(params), &layout, &sets));
            let found = wire::identify(&file[..]).map(|identity| identity.contents);
            let Ok(Contents::Ciphertexts(header)) = found else {
                assert!(!known, "{found:?}");
                continue;
            };
            assert_eq!((known, header.images, header.first_set, header.seed), (true, 1500, 5, sets.seed));
        }
    }
}

#[test]
fn no_evaluation_key() {
    let (params, none) = (binding().params, EvalKeys::default());
    let file = written(|file| wire::write_eval_keys(file, params, &none));
    assert_eq!(file.len() as u64, wire::eval_keys_len(params, &[]));
    assert_eq!(wire::read_eval_keys(&file[..], params).unwrap(), none);
    assert_eq!(wire::identify(&file[..]).unwrap().contents, Contents::EvalKeys { count: 0, first: None });
}

/// A list has one key of every layout at most, and so many keys at most.
#[test]
fn lists_of_evaluation_keys() {
    let params = binding().params;
    let keys = eval_keys(params, &LAYOUTS);
    for (layout, seed) in LAYOUTS.into_iter().zip(2..) {
        assert_eq!(keys.get(layout), Some(&eval_key(params, layout, seed)));
    }
    assert_eq!(keys.get(EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 2))), None);
    let key = |level, digit_primes, seed| {
        let layout = EvalKeyLayout::Relinearisation(RelinLayout::of_primes(level, digit_primes));
        EvalKey { layout, seed: [seed; 32], b: Vec::new() }
    };
    let twins = EvalKeys::new(vec![key(2, 1, 1), key(1, 1, 1), key(2, 1, 2)]).unwrap_err().to_string();
    assert!(twins.contains("level 2 with digits of 1 primes") && twins.contains("one key of every layout"), "{twins}");
    let many = |count| EvalKeys::new((1..=count).map(|level| key(level, 1, 1)).collect());
    assert_eq!(many(MAX_EVAL_KEYS).unwrap().iter().len(), 64);
    assert!(many(MAX_EVAL_KEYS + 1).unwrap_err().to_string().contains("at most 64"));
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
    let (params, keys) = (binding().params, eval_keys(binding().params, &LAYOUTS));
    let file = written(|file| wire::write_eval_keys(file, params, &keys));
    assert_eq!(wire::read_eval_keys(Slow(&file, false), params).unwrap(), keys);
}

/// The sizes that the project promises, by hand: fresh 784-pixel images at N = 8192 with three 30-bit limbs.
#[test]
fn sizes_by_hand() {
    let primes = ntt_primes(8192, 30, 3).expect("such primes exist");
    let params = ParamsSpec { n: 8192, primes, special_primes: Vec::new(), ..SPEC.params.clone() }.build().unwrap();
    let (kind, packing) = (Kind::Ciphertexts, Packing::Spread);
    let layout =
        CiphertextLayout { kind, level: 3, values: 784, components: 2, packing, scores: packing, seeded: true };
    let row = 8192 * 30 / 8;
    assert_eq!(wire::ciphertexts_len(&params, &layout, 8192), 120 + 68 + 784 * 3 * row);
    assert_eq!(wire::ciphertexts_len(&params, &layout, 8193), 120 + 68 + 2 * 784 * 3 * row);
    assert_eq!(wire::public_key_len(&params), 120 + 32 + 3 * row);
    assert_eq!(wire::eval_keys_len(&params, &[]), 120 + 4);
    let layout = EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1));
    assert_eq!(wire::eval_keys_len(&params, &[layout; 3]), 120 + 4 + 3 * (48 + 2 * 2 * row));
}
