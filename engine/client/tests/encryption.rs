//! Encryption and decryption of whole batches.

mod common;

use std::sync::{Arc, Mutex};

use common::*;
use cryptodl_client::{ClientError, Decryption, Encryption, EncryptionKey, ScoreUnit, SecretKey, decrypt, encrypt};
use cryptodl_core::ckks::{ClientSpec, Encoding, EncryptionKind, Params, Randomness, Scale, noise, rerandomise};
use cryptodl_core::ring::Modulus;
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_cpu::{Kernels, Rows};

const KINDS: [EncryptionKind; 2] = [EncryptionKind::Secret, EncryptionKind::Public];

fn secret(spec: &ClientSpec, seed: u64) -> SecretKey {
    SecretKey::generate(checked(spec).params(), &mut rng(seed, "keygen"))
}

#[test]
fn the_machines_vectors_make_the_same_bytes_and_scores() {
    for (n, kind) in [(1024, EncryptionKind::Secret), (1024, EncryptionKind::Public), (16, EncryptionKind::Secret)] {
        // More values than are encrypted together, and a number of no such groups.
        let values = 150;
        let mut spec = spec(n, 2, 1, values, kind);
        spec.input.scale = Scale::from_log2(45.0);
        spec.output.scale = spec.input.scale;
        let spec = checked(&spec);
        let secret = SecretKey::generate(spec.params(), &mut rng(1, "keygen"));
        let public = secret.public_key(&mut rng(2, "keygen")).unwrap();
        let key = match kind {
            EncryptionKind::Secret => EncryptionKey::Secret(&secret),
            EncryptionKind::Public => EncryptionKey::Public(&public),
        };
        let (count, images) = (n + 3, numbers((n + 3) * values, 1));
        let plain = encrypt(&spec, key, &images, count, &mut rng(3, "encrypt"), Watch::default()).unwrap();
        let scores = decrypt(&spec, &secret, &plain).unwrap();
        for family in Kernels::available() {
            let rows = Arc::new(Rows::with_kernels(spec.params().basis().clone(), family));
            let encryption = Encryption::new(&spec, key, count, &mut rng(3, "encrypt")).unwrap();
            let vectors = encryption.with_kernels(rows.clone()).all(&images, Watch::default()).unwrap();
            assert!(vectors.sets == plain.sets, "{kind:?}, {}", family.name());
            let decryption = Decryption::new(&spec, &secret, &vectors.info()).unwrap().with_kernels(rows);
            assert!(decryption.all(&vectors).unwrap() == scores, "{kind:?}, {}", family.name());
        }
    }
}

#[test]
fn secure_parameters_with_both_keys_and_the_systems_randomness() {
    for (n, chain, special) in [(4096, 2, 1), (8192, 3, 1)] {
        for kind in KINDS {
            let spec = spec(n, chain, special, 3, kind);
            let spec = spec.check().unwrap();
            let params = spec.params();
            let mut os = Randomness::from_os().unwrap();
            let secret = SecretKey::generate(params, &mut os);
            let public = secret.public_key(&mut os).unwrap();
            let key = match kind {
                EncryptionKind::Secret => EncryptionKey::Secret(&secret),
                EncryptionKind::Public => EncryptionKey::Public(&public),
            };
            // One full set and one that is nearly empty.
            let (count, images) = (n + 5, numbers((n + 5) * 3, 1));
            let ciphertexts = encrypt(&spec, key, &images, count, &mut os, Watch::default()).unwrap();
            assert_eq!((ciphertexts.sets.len(), ciphertexts.components), (2, 2));
            assert_eq!(ciphertexts.seed.is_some(), kind == EncryptionKind::Secret);
            assert!(ciphertexts.sets.iter().all(|set| set.len() == ciphertexts.set_bytes(params)));

            let decrypted = decrypt(&spec, &secret, &ciphertexts).unwrap();
            assert_eq!((decrypted.scores.len(), decrypted.labels.len()), (images.len(), count));
            assert!(decrypted.out_of_range.iter().all(|&out| !out));
            let unit = decrypted.unit.value();
            assert!(decrypted.unit == ScoreUnit::of(&spec) && unit <= 0.02, "{unit}");
            for ((score, image), label) in
                decrypted.scores.chunks_exact(3).zip(images.chunks_exact(3)).zip(&decrypted.labels)
            {
                for (score, value) in score.iter().zip(image) {
                    // Half a unit, and 26 deviations of the noise 2^11.9 / 2^25: at slot k it is
                    // a rounding times s_k, whose tail is that of a product of two normal numbers.
                    assert!((score - f64::from(*value)).abs() < 0.5 * unit + 0.003, "{score} for {value}");
                    assert!((score / unit - (score / unit).round()).abs() < 1e-6, "{score} is rounded");
                }
                let largest = image.iter().copied().fold(f32::MIN, f32::max);
                assert!(largest - image[*label as usize] < 0.006, "label {label} of {image:?}");
            }
        }
    }
}

#[test]
fn progress_counts_every_ciphertext_and_padding_is_zero() {
    let spec = spec(1024, 2, 0, 5, EncryptionKind::Secret);
    let secret = secret(&spec, 1);
    let seen = Mutex::new(Vec::new());
    let progress = |Progress { done, total }| seen.lock().unwrap().push((done, total));
    let images = numbers(10 * 5, 1);
    let key = EncryptionKey::Secret(&secret);
    let ciphertexts =
        encrypt(&checked(&spec), key, &images, 10, &mut rng(1, "encrypt"), Watch::new(&progress)).unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    let slots = slots(&secret, &ciphertexts, spec.input.scale.value());
    assert!(slots.chunks_exact(1024).all(|slots| slots[10..].iter().all(|slot| slot.abs() < 1e-4)));
}

/// Scales of which a double holds the first digits only, as circuit privacy needs them: the message has 51 bits and is shifted.
#[test]
fn scales_beyond_a_double_carry_the_message() {
    for (kind, log2) in KINDS.into_iter().flat_map(|kind| [(kind, 50.5), (kind, 52.0), (kind, 90.5), (kind, 110.0)]) {
        let mut spec = spec(1024, 5, 1, 3, kind);
        spec.input.scale = Scale::from_log2(log2);
        let Encoding { scale: encoded, shift } = spec.input.encoding();
        assert_eq!(encoded.value() * 2f64.powi(shift as i32), spec.input.scale.value());
        assert!((50.0..51.0).contains(&encoded.log2()), "the encoder's integers are exact and use what there is");
        let secret = secret(&spec, 3);
        let images = numbers(1024 * 3, 4);
        let ciphertexts = encrypt_with(&checked(&spec), &secret, &images, 5).unwrap();
        let slots = slots(&secret, &ciphertexts, spec.input.scale.value());
        // What is left is the noise, 2^12 at most over the scale, and what is lost in transforms of doubles.
        let allowed = 2f64.powi(16) / spec.input.scale.value() + 2f64.powi(-42);
        for (i, image) in images.chunks_exact(3).enumerate() {
            for (value, pixel) in image.iter().enumerate() {
                let error = (slots[value * 1024 + i] - f64::from(*pixel)).abs();
                assert!(error < allowed, "{kind:?} at 2^{log2}: {error:e}");
            }
        }
    }
    assert_eq!(
        spec(1024, 5, 1, 3, EncryptionKind::Secret).input.encoding().shift,
        0,
        "ordinary scales are not shifted"
    );
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn a_test_seed_repeats_whatever_the_threads() {
    for kind in KINDS {
        let spec = spec(1024, 2, 1, 7, kind);
        let secret = secret(&spec, 1);
        let images = numbers(7 * 1100, 1);
        let run =
            |threads, seed| with_threads(threads, || encrypt_with(&checked(&spec), &secret, &images, seed).unwrap());
        assert_eq!(run(1, 2), run(4, 2));
        assert_ne!(run(1, 2), run(1, 3));
    }
}

#[test]
fn rerandomised_ciphertexts_decrypt_to_the_same_slots() {
    let spec = spec(1024, 2, 1, 3, EncryptionKind::Secret);
    let secret = secret(&spec, 1);
    let (params, images) = (secret.params(), numbers(3 * 1024, 1));
    let public = secret.public_key(&mut rng(1, "public key")).unwrap();
    let before = unpack(params, &encrypt_with(&checked(&spec), &secret, &images, 2).unwrap());
    let run = |threads, seed| {
        let mut residues = before.clone();
        let mut rng = rng(seed, "rerandomise");
        with_threads(threads, || rerandomise(params, &public, &mut residues, 3, 2, 2, &mut rng));
        residues
    };
    let after = run(1, 3);
    assert_eq!(after, run(4, 3));
    assert_ne!(after, run(1, 4));
    let kept = before.iter().zip(&after).filter(|(a, b)| a == b).count();
    assert!(kept < 3, "{kept} residues are as before");
    let slots = slots(&secret, &pack(params, &after, 2, 3, 2), spec.input.scale.value());
    for (i, slot) in slots.iter().enumerate() {
        assert!((slot - f64::from(images[(i % 1024) * 3 + i / 1024])).abs() < 0.01);
    }
}

#[test]
fn keys_of_a_test_seed_repeat_and_keys_differ() {
    let spec = spec(1024, 2, 1, 1, EncryptionKind::Public);
    assert_eq!(secret(&spec, 1).coefficients(), secret(&spec, 1).coefficients());
    assert_ne!(secret(&spec, 1).coefficients(), secret(&spec, 2).coefficients());
    let (one, two) = (secret(&spec, 1), secret(&spec, 1));
    assert_eq!(one.public_key(&mut rng(3, "a")).unwrap(), two.public_key(&mut rng(3, "a")).unwrap());
    assert_ne!(one.public_key(&mut rng(3, "a")).unwrap(), two.public_key(&mut rng(3, "b")).unwrap());
}

/// Chi-square of the top eight bits, 255 degrees of freedom, in deviations from its mean.
fn top_bits_deviation(residues: &[u32], q: u32) -> f64 {
    let mut counts = [0u32; 256];
    residues.iter().for_each(|&residue| counts[(u64::from(residue) * 256 / u64::from(q)) as usize] += 1);
    let expected = residues.len() as f64 / 256.0;
    let chi: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    (chi - 255.0) / (2.0 * 255f64).sqrt()
}

#[test]
fn equal_images_give_unrelated_uniform_ciphertexts() {
    for kind in KINDS {
        let spec = spec(4096, 2, 1, 4, kind);
        let secret = secret(&spec, 1);
        let params = secret.params();
        let images = vec![0.25; 4 * 4096];
        let ciphertexts = encrypt_with(&checked(&spec), &secret, &images, 2).unwrap();
        let again = encrypt_with(&checked(&spec), &secret, &images, 3).unwrap();
        assert_ne!(ciphertexts.sets, again.sets);
        let residues = unpack(params, &ciphertexts);
        let polynomials: Vec<&[u32]> = residues.chunks_exact(4096).collect();
        for (i, one) in polynomials.iter().enumerate() {
            // Pixels, components and limbs: no two polynomials share more residues than chance allows.
            for other in &polynomials[..i] {
                assert!(one.iter().zip(*other).filter(|(a, b)| a == b).count() < 3);
            }
            let q = params.basis().modulus(i / 8).value();
            assert!(top_bits_deviation(one, q).abs() < 5.0, "polynomial {i} is not uniform");
        }
    }
}

#[test]
fn another_key_is_noticed() {
    for kind in KINDS {
        let spec = spec(1024, 2, 1, 3, kind);
        let (right, wrong) = (secret(&spec, 1), secret(&spec, 2));
        for count in [1, 10, 1024, 1030] {
            let ciphertexts = encrypt_with(&checked(&spec), &right, &numbers(3 * count, 1), 2).unwrap();
            let error = decrypt(&checked(&spec), &wrong, &ciphertexts).unwrap_err();
            assert!(matches!(error, ClientError::Spoilt { set: 0, first: 0, .. }), "{error}");
            assert!(error.to_string().contains("Was it encrypted with another key"), "{error}");
        }
        // Noise of the size of the modulus: uniform over 2^60, whose slots deviate by 2^60 sqrt(2N / 12).
        let ciphertexts = encrypt_with(&checked(&spec), &right, &numbers(3 * 1024, 1), 2).unwrap();
        assert_noise("another key", rms(slots(&wrong, &ciphertexts, 1.0)), 2f64.powi(60) * (2048.0 / 12f64).sqrt());
    }
}

#[test]
fn another_key_is_noticed_where_noise_overflows() {
    let spec = spec(1024, 36, 0, 3, EncryptionKind::Secret);
    let (right, wrong) = (secret(&spec, 1), secret(&spec, 2));
    let ciphertexts = encrypt_with(&checked(&spec), &right, &numbers(3, 1), 2).unwrap();
    let noise = slots(&wrong, &ciphertexts, 1.0);
    assert!(noise.iter().any(|slot| !slot.is_finite()), "36 primes of 30 bits exceed an f64");
    let error = decrypt(&checked(&spec), &wrong, &ciphertexts).unwrap_err();
    assert!(matches!(error, ClientError::Spoilt { .. }), "{error}");
}

#[test]
fn outliers_are_marked_and_spoilt_sets_refused() {
    let mut spec = spec(1024, 2, 0, 2, EncryptionKind::Secret);
    spec.input.range = [-100.0, 100.0];
    let secret = secret(&spec, 1);
    let run = |outliers: usize, count: usize| {
        let mut images = vec![0.5; 2 * count];
        images[..2 * outliers].iter_mut().step_by(2).for_each(|pixel| *pixel = -4.5);
        decrypt(&checked(&spec), &secret, &encrypt_with(&checked(&spec), &secret, &images, 1).unwrap())
    };
    let decrypted = run(100, 1000).unwrap();
    assert_eq!(decrypted.out_of_range.iter().filter(|&&out| out).count(), 100);
    assert!(decrypted.out_of_range[..100].iter().all(|&out| out));
    assert!(decrypted.labels[..100].iter().all(|&label| label == 1));
    // A short batch is mostly padding, so that one outlier does not condemn it.
    assert_eq!(run(1, 1).unwrap().out_of_range, [true]);
    let error = run(103, 1000).unwrap_err();
    let expected = ClientError::Spoilt { set: 0, first: 0, last: 999, class: 0, exceeding: 103, bound: 4.0 };
    assert_eq!(error, expected);
}

/// A stranger's spec may state any noise: scores show no digit of what masks and division leave in them.
#[test]
fn a_spec_that_denies_its_noise_gets_no_noise_to_see() {
    let mut spec = spec(1024, 2, 0, 2, EncryptionKind::Secret);
    let unit = |noise: f64, spec: &mut ClientSpec| {
        spec.output.noise = noise;
        ScoreUnit::of(spec).value()
    };
    let least = unit(1e-300, &mut spec);
    let own = noise::rerandomise(1024, 2).plus(noise::divide(1024, 2)).rms / spec.output.scale.value();
    assert!(least >= 8.0 * own && least < 20.0 * own, "{least} for a noise of {own}");
    assert_eq!(unit(0.0, &mut spec), least);
    assert_eq!(unit(0.03, &mut spec), 0.5);
    assert_eq!(unit(2.0, &mut spec), 20.0);

    // Freshly encrypted numbers have less noise than a masked result; still none of it is to be seen.
    spec.output.noise = 1e-300;
    let secret = secret(&spec, 5);
    let images = [0.25, 0.75];
    let key = EncryptionKey::Secret(&secret);
    let results = (0..20).map(|seed| {
        let mut rng = rng(seed, "encrypt");
        let ciphertexts = encrypt(&checked(&spec), key, &images, 1, &mut rng, Watch::default()).unwrap();
        decrypt(&checked(&spec), &secret, &ciphertexts).unwrap().scores
    });
    let results: Vec<_> = results.collect();
    assert!(results.iter().all(|scores| scores == &results[0]), "{results:?}");
}

/// `[limb][component][N]` of two values, combined limb by limb.
fn combine(params: &Params, residues: &[u32], f: impl Fn(Modulus, [u32; 2], [u32; 2]) -> Vec<u32>) -> Vec<Vec<u32>> {
    let n = params.n();
    let mut out = Vec::new();
    for (limb, rows) in residues.chunks_exact(4 * n).enumerate() {
        let at = |value: usize, j: usize| [rows[2 * value * n + j], rows[(2 * value + 1) * n + j]];
        let lanes: Vec<Vec<u32>> = (0..n).map(|j| f(params.basis().modulus(limb), at(0, j), at(1, j))).collect();
        out.extend((0..lanes[0].len()).map(|component| lanes.iter().map(|lane| lane[component]).collect()));
    }
    out
}

#[test]
fn sums_and_products_of_ciphertexts_decrypt_to_those_of_the_slots() {
    for kind in KINDS {
        let spec = spec(4096, 3, 1, 2, kind);
        let secret = secret(&spec, 1);
        let params = secret.params();
        let images = numbers(2 * 4096, 1);
        let residues = unpack(params, &encrypt_with(&checked(&spec), &secret, &images, 2).unwrap());
        let scale = spec.input.scale.value();
        let check = |residues: Vec<Vec<u32>>, scale: f64, f: fn(f64, f64) -> f64| {
            let components = residues.len() / 3;
            let slots = slots(&secret, &pack(params, &residues.concat(), 3, 1, components), scale);
            for (slot, image) in slots.iter().zip(images.chunks_exact(2)) {
                let expected = f(image[0].into(), image[1].into());
                assert!((slot - expected).abs() < 1e-3, "{slot}, {expected} expected");
            }
        };
        check(combine(params, &residues, |m, a, b| vec![m.add(a[0], b[0]), m.add(a[1], b[1])]), scale, |a, b| a + b);
        // Three components, decrypted with 1, s and s^2.
        let product = |m: Modulus, a: [u32; 2], b: [u32; 2]| {
            vec![m.mul(a[0], b[0]), m.add(m.mul(a[0], b[1]), m.mul(a[1], b[0])), m.mul(a[1], b[1])]
        };
        check(combine(params, &residues, product), scale * scale, |a, b| a * b);
    }
}
