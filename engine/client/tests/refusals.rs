//! Bad input gets a typed error that names what is wrong.

mod common;

use common::*;
use cryptodl_client::{
    ClientError, EncryptionKey, SecretKey, decrypt, decrypt_slots_raw_do_not_return_to_server, encrypt,
};
use cryptodl_core::ckks::{CheckedSpec, Ciphertexts, ClientSpec, EncryptionKind, EvalKeyLayout, RelinLayout};
use cryptodl_core::watch::Watch;

fn setup() -> (CheckedSpec, SecretKey) {
    let spec = checked(&spec(1024, 2, 1, 3, EncryptionKind::Secret));
    let secret = SecretKey::generate(spec.params(), &mut rng(1, "keygen"));
    (spec, secret)
}

fn assert_message(error: ClientError, fragment: &str) {
    assert!(error.to_string().contains(fragment), "{error} lacks {fragment}");
}

#[test]
fn images() {
    let (spec, secret) = setup();
    let run = |images: &[f32], count| {
        let key = EncryptionKey::Secret(&secret);
        encrypt(&spec, key, images, count, &mut rng(1, "encrypt"), Watch::default()).unwrap_err()
    };
    assert_eq!(run(&[], 0), ClientError::NoImages);
    assert_message(run(&[0.0; 5], 2), "2 images of 3 pixel values each are expected, but there are 5 values");
    assert_message(run(&[0.0; 5], usize::MAX), "images at a time are too many");
    for bad in [1.001, -1.001, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut images = [0.0; 12];
        images[7] = bad;
        assert_message(run(&images, 4), &format!("image 2, pixel 1: {bad} is not allowed: -1 to 1"));
    }
}

#[test]
fn pixels_at_the_border_of_the_range_pass() {
    let (spec, secret) = setup();
    let mut spec = ClientSpec::clone(&spec);
    // Not an f32: its rounding is outside the range.
    spec.input.range = [-0.424_212_96, 0.3];
    for border in spec.input.range {
        encrypt_with(&checked(&spec), &secret, &[border as f32; 3], 1).unwrap();
    }
}

#[test]
fn keys() {
    let (spec, secret) = setup();
    let params = secret.params();
    let public = secret.public_key(&mut rng(1, "public key")).unwrap();
    let run = |spec: &CheckedSpec, key| {
        encrypt(spec, key, &[0.0; 3], 1, &mut rng(1, "encrypt"), Watch::default()).unwrap_err()
    };
    assert_message(run(&spec, EncryptionKey::Public(&public)), "asks for encryption with the secret key");
    let foreign = checked(&common::spec(1024, 3, 0, 3, EncryptionKind::Secret));
    let other = SecretKey::generate(foreign.params(), &mut rng(1, "keygen"));
    assert_message(run(&spec, EncryptionKey::Secret(&other)), "the secret key belongs to other parameters");
    assert_message(run(&foreign, EncryptionKey::Secret(&secret)), "the secret key belongs to other parameters");

    let mut spec = ClientSpec::clone(&spec);
    spec.encryption = EncryptionKind::Public;
    let spec = checked(&spec);
    assert_message(run(&spec, EncryptionKey::Secret(&secret)), "asks for encryption with the public key");
    let mut short = public.clone();
    short.b.pop();
    assert_message(run(&spec, EncryptionKey::Public(&short)), "the public key belongs to other parameters");

    let from = |coefficients: Vec<i8>| SecretKey::from_coefficients(params, coefficients.into());
    assert_eq!(from(secret.coefficients().to_vec()).unwrap().coefficients(), secret.coefficients());
    assert_message(from(vec![0; 1023]).unwrap_err(), "1024 coefficients, each -1, 0 or 1: there are 1023");
    let mut coefficients = vec![0; 1024];
    (coefficients[3], coefficients[1000]) = (2, i8::MIN);
    assert_message(from(coefficients).unwrap_err(), "2 are something else");

    let longer = SecretKey::generate(
        checked(&self::spec(1024, 3, 1, 3, EncryptionKind::Secret)).params(),
        &mut rng(1, "keygen"),
    );
    let layout = EvalKeyLayout::Relinearisation(RelinLayout::of_primes(3, 3));
    assert_message(longer.eval_key(layout, &mut rng(1, "relin key")).unwrap_err(), "a digit (");
    let twins = [EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1)); 2];
    let eval_keys = |layouts| secret.eval_keys(layouts, &mut rng(1, "evaluation keys"));
    assert_message(eval_keys(&twins).unwrap_err(), "one key of every layout");
    assert_eq!(eval_keys(&twins[..1]).unwrap().layouts(), twins[..1]);
    assert!(!format!("{secret:?}").contains("-1"), "a secret key is never printed");
}

#[test]
fn ciphertexts() {
    let (spec, secret) = setup();
    let good = encrypt_with(&spec, &secret, &numbers(3 * 1025, 1), 1).unwrap();
    decrypt(&spec, &secret, &good).unwrap();

    type Change = fn(&mut Ciphertexts);
    let cases: &[(Change, &str)] = &[
        (|c| c.values = 2, "values = 2: 3 expected"),
        (|c| c.values = usize::MAX, "values = 18446744073709551615"),
        (|c| c.components = 3, "components = 3: 2 expected"),
        (|c| c.level = 1, "level = 1: 2 expected"),
        (|c| c.level = 1 << 60, "level = "),
        (|c| c.first_set = 1 << 31, "first set = 2147483648: at most 1431655763 expected"),
        (|c| c.first_set = usize::MAX, "first set = "),
        (|c| c.images = 0, "no images"),
        (|c| c.images = 1024, "sets = 2: 1 for 1024 images expected"),
        (|c| c.images = usize::MAX, "sets = 2"),
        (|c| c.sets.clear(), "sets = 0: 2 for 1025 images expected"),
        (|c| c.seed = None, "ciphertext set 0 has"),
        (|c| c.sets[1].truncate(100), "ciphertext set 1 has 100 bytes: 23040 expected"),
        (|c| c.sets[1].push(0), "ciphertext set 1 has 23041 bytes"),
        // Row of value 1 in limb 1: after three rows of limb 0 and one of limb 1.
        (
            |c| c.sets[1][4 * 3840..5 * 3840].fill(255),
            "set 1, value 1, component 0, limb 1: a residue is not below its prime",
        ),
    ];
    for (i, (change, fragment)) in cases.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        let error = decrypt(&spec, &secret, &bad).unwrap_err().to_string();
        assert!(error.contains(fragment), "case {i}: {error} lacks {fragment}");
    }
}

#[test]
fn raw_ciphertexts_of_impossible_shape() {
    let (spec, secret) = setup();
    let good = encrypt_with(&spec, &secret, &numbers(3, 1), 1).unwrap();
    type Change = fn(&mut Ciphertexts);
    let cases: &[(Change, &str)] = &[
        (|c| c.level = 0, "level = 0: 1 to 2 expected"),
        (|c| c.level = 3, "level = 3"),
        (|c| c.components = 1, "components = 1: 2 to 2 expected"),
        (|c| c.components = 3, "components = 3: 2 to 2 expected"),
        (|c| (c.seed, c.components) = (None, 17), "components = 17: 2 to 16 expected"),
        (|c| c.values = 0, "values = 0: 1 to 4294967295 expected"),
        (|c| c.values = 1 << 33, "values = 8589934592"),
        (|c| c.values = u32::MAX as usize, "ciphertext set 0 has 23040 bytes"),
    ];
    for (i, (change, fragment)) in cases.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        let slots = decrypt_slots_raw_do_not_return_to_server(secret.params(), &secret, &bad, spec.input.scale);
        let error = slots.unwrap_err().to_string();
        assert!(error.contains(fragment), "case {i}: {error} lacks {fragment}");
    }
}
