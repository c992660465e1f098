//! Client specs come from strangers.

use cryptodl_core::ckks::{
    ClientSpec, Digest, EncryptionKind, EvalKeyLayout, InputLayout, OutputLayout, Packing, ParamsSpec, RelinLayout,
    Scale, SecurityLevel,
};
use cryptodl_core::ring::ntt_primes;

/// The layout of the only evaluation key.
fn relin(spec: &mut ClientSpec) -> &mut RelinLayout {
    match &mut spec.evaluation_keys[0] {
        EvalKeyLayout::Relinearisation(layout) => layout,
        other => panic!("{other}"),
    }
}

/// Names of so many classes.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("Größe {class}{}", "☃".repeat(class))).collect()
}

/// A spec as the planner would write it: N = 8192, three chain primes and a special one.
fn honest() -> ClientSpec {
    let primes = ntt_primes(8192, 30, 4).unwrap();
    ClientSpec {
        model: "mnist-1".into(),
        class_names: names(10),
        program: Digest([7; 32]),
        params: ParamsSpec {
            n: 8192,
            primes: primes[1..].to_vec(),
            special_primes: primes[..1].to_vec(),
            security: SecurityLevel::Bits128,
        },
        evaluation_keys: vec![EvalKeyLayout::Relinearisation(RelinLayout::of_primes(3, 1))],
        encryption: EncryptionKind::Public,
        input: InputLayout {
            packing: Packing::Spread,
            shape: [1, 28, 28],
            range: [-0.5, 3.0],
            scale: Scale::new(16384.0).unwrap(),
            level: 3,
        },
        output: OutputLayout {
            packing: Packing::Spread,
            classes: 10,
            components: 4,
            level: 3,
            scale: Scale::new(2f64.powi(70)).unwrap(),
            range: [-40.0, 50.0],
            noise: 0.01,
        },
    }
}

#[test]
fn an_honest_spec_passes() {
    let spec = honest().check().unwrap();
    let params = spec.params();
    assert_eq!((params.n(), params.chain_len(), params.special()), (8192, 3, vec![3]));
    assert_eq!((spec.class_name(1), spec.class_name(10)), (Some("Größe 1☃"), None));
    let nameless = ClientSpec { class_names: Vec::new(), ..honest() };
    assert_eq!(nameless.check().unwrap().class_name(1), None);
    let keyless = ClientSpec { evaluation_keys: Vec::new(), encryption: EncryptionKind::Secret, ..honest() };
    keyless.check().unwrap();
}

#[test]
fn small_rings_are_for_tests_only() {
    let mut spec = honest();
    let primes = ntt_primes(1024, 30, 4).unwrap();
    spec.params = ParamsSpec {
        n: 1024,
        primes: primes[1..].to_vec(),
        special_primes: primes[..1].to_vec(),
        security: SecurityLevel::Bits128,
    };
    spec.clone().check_insecure_for_tests().unwrap();
    let error = spec.check().unwrap_err().to_string();
    assert!(error.contains("params: log2(QP) = 120.0 bits at N = 1024 is not 128-bit secure"), "{error}");
}

#[test]
fn hostile_specs_are_refused_by_name() {
    type Change = fn(&mut ClientSpec);
    let cases: &[(Change, &str)] = &[
        (|s| s.model = "\u{1b}[2J".into(), "model = "),
        (|s| s.model = "x".repeat(201), "at most 200 bytes without control characters"),
        (|s| s.params.n = 512, "params.n = 512 is not allowed: at least 1024"),
        (|s| s.params.n = 0, "params.n = 0"),
        (|s| s.params.n = 10_000, "params: ring dimension 10000"),
        (|s| s.params.n = 1 << 40, "params: ring dimension"),
        (|s| s.params.primes = vec![], "the modulus chain is empty"),
        (|s| s.params.primes[1] = 536_903_681 + 2, "params: modulus 536903683 is not allowed: it must be a prime"),
        // 3 * 2^15 + 1 = 98305 = 5 * 19661 is 1 mod 4N but composite.
        (|s| s.params.primes[0] = 98_305, "modulus 98305 is not allowed: it must be a prime"),
        (|s| s.params.primes[0] = s.params.primes[2], "occurs twice"),
        (|s| s.params.special_primes[0] = s.params.primes[2], "occurs twice"),
        (|s| s.params.primes = vec![s.params.primes[0]; 100_000], "100001 moduli are not allowed"),
        (|s| s.params.special_primes = vec![s.params.primes[0]; 5], "5 special primes are not allowed: at most 4"),
        (|s| s.params.primes.extend(ntt_primes(8192, 29, 4).unwrap()), "is not 128-bit secure: at most 214"),
        (|s| s.params.security = SecurityLevel::Bits256, "is not 256-bit secure: at most 114"),
        (|s| s.input.shape = [0, 28, 28], "input.shape[0] = 0 is not allowed: 1 to 64 channels"),
        (|s| s.input.shape = [65, 28, 28], "input.shape[0] = 65"),
        (|s| s.input.shape = [1, 0, 28], "input.shape[1] = 0 is not allowed: 1 to 4096 pixels"),
        (|s| s.input.shape = [1, 28, usize::MAX], "input.shape[2] = "),
        (|s| s.input.shape = [64, 4096, 4096], "input.shape = 1073741824 is not allowed: at most 1048576"),
        (|s| s.input.range = [1.0, 0.0], "input.range = [1, 0] is not allowed: two finite numbers in ascending order"),
        (|s| s.input.range = [1.0, 1.0], "input.range"),
        (|s| s.input.range = [f64::NAN, 1.0], "input.range = [NaN, 1]"),
        (|s| s.input.range = [0.0, f64::INFINITY], "input.range = [0, inf]"),
        (|s| s.input.range = [-2e6, 0.0], "of magnitude at most 1000000"),
        (|s| s.input.level = 0, "input.level = 0 is not allowed: 1 to 3, the length of params.primes"),
        (|s| s.input.level = 4, "input.level = 4"),
        (|s| s.input.level = 1 << 50, "input.level"),
        (|s| s.input.scale = s.input.scale.times(2f64.powi(75)), "input.scale = 2^89.0 is not allowed"),
        (|s| s.input.scale = s.input.scale.times(f64::INFINITY), "input.scale = 2^inf"),
        (|s| s.input.scale = s.input.scale.times(f64::NAN), "input.scale = 2^NaN"),
        (|s| s.class_names = names(9), "class_names = 9 names is not allowed: none, or one for each of the 10 classes"),
        (|s| s.class_names = names(11), "class_names = 11 names"),
        (|s| s.class_names[3] = String::new(), "class_names = \"\""),
        (|s| s.class_names[3] = "x".repeat(201), "1 to 200 bytes"),
        (|s| s.class_names[3] = "a\nb".into(), "class_names = \"a\\nb\""),
        (|s| s.class_names[3] = "a\u{1b}[2J".into(), "class_names = "),
        (|s| s.class_names[3] = "a\u{202e}b".into(), "class_names = "),
        (|s| s.class_names[3] = "a\u{2028}b".into(), "class_names = "),
        (|s| s.class_names[3] = " cat".into(), "no space at either end"),
        (|s| s.class_names[3] = "=HYPERLINK(\"x\")".into(), "spreadsheets take for a formula"),
        (|s| s.class_names[3] = "@cat".into(), "class_names = "),
        (
            |s| {
                s.output.classes = 400;
                s.class_names = vec!["x".repeat(200); 400];
            },
            "class_names = 80000 bytes in all is not allowed: at most 65536",
        ),
        (|s| s.output.classes = 0, "output.classes = 0 is not allowed: 1 to 65536"),
        (|s| s.output.classes = 65_537, "output.classes = 65537"),
        (|s| s.output.components = 1, "output.components = 1 is not allowed: 2 to 16"),
        (|s| s.output.components = 17, "output.components = 17"),
        (|s| s.output.level = 4, "output.level = 4"),
        (|s| s.output.level = 2, "output.scale = 2^70.0 is not allowed: 4 times the range needs 77.6 bits"),
        (|s| s.output.range = [0.0, 1e6], "4 times the range needs 91.9 bits at this scale, of 89.0"),
        (|s| s.output.range = [f64::NEG_INFINITY, 0.0], "output.range"),
        (|s| s.output.noise = f64::NAN, "output.noise = NaN is not allowed: a number from 0 to 1000000"),
        (|s| s.output.noise = -1.0, "output.noise = -1"),
        (|s| relin(s).level = 0, "evaluation_keys.level = 0 is not allowed: 1 to 3"),
        (|s| relin(s).level = 4, "evaluation_keys.level = 4"),
        (|s| relin(s).digit_primes = 0, "evaluation_keys.digit_primes = 0 is not allowed: 1 to 4"),
        (|s| relin(s).digit_primes = 5, "evaluation_keys.digit_primes = 5"),
        (|s| relin(s).digit_primes = 3, "exceeds that by more than 30 bits"),
        (|s| relin(s).prime_parts = 0, "evaluation_keys.prime_parts = 0"),
        (|s| relin(s).prime_parts = 5, "evaluation_keys.prime_parts = 5"),
        (|s| (relin(s).digit_primes, relin(s).prime_parts) = (2, 2), "evaluation_keys.prime_parts = 2"),
        (
            |s| s.evaluation_keys.push(EvalKeyLayout::automorphism(1, RelinLayout::of_primes(2, 1))),
            "evaluation_keys.element = 1 is not allowed: 5, 9, 13",
        ),
        (
            |s| s.evaluation_keys.push(EvalKeyLayout::automorphism(7, RelinLayout::of_primes(2, 1))),
            "evaluation_keys.element = 7",
        ),
        (
            |s| s.evaluation_keys.extend([1, 2].map(|l| EvalKeyLayout::automorphism(5, RelinLayout::of_primes(l, 1)))),
            "evaluation_keys = a key for X -> X^5 for level 2 with digits of 1 primes is not allowed: at most one key",
        ),
        (
            |s| s.evaluation_keys.push(EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1))),
            "evaluation_keys = a relinearisation key for level 2 with digits of 1 primes is not allowed: at most one key",
        ),
        (|s| s.params.special_primes.clear(), "key switching needs params.special_primes"),
        (
            |s| (s.evaluation_keys, s.params.special_primes) = (vec![], vec![]),
            "encryption = public is not allowed: public-key encryption needs params.special_primes",
        ),
    ];
    for (i, (change, fragment)) in cases.iter().enumerate() {
        let mut spec = honest();
        change(&mut spec);
        match spec.check() {
            Ok(_) => panic!("case {i} ({fragment}) passed"),
            Err(error) => {
                assert!(error.to_string().contains(fragment), "case {i}: {error} lacks {fragment}");
            }
        }
    }
}
