//! Measured noise against `cryptodl_core::ckks::noise`, and key switching against its definition.

mod common;

use common::*;
use cryptodl_client::SecretKey;
use cryptodl_core::ckks::{EncryptionKind, EvalKey, EvalKeyLayout, Params, RelinLayout, noise, rerandomise};
use cryptodl_core::ring::{Automorphism, PrimeDigit};

const VALUES: usize = 4;

/// Noise of a fresh ciphertext, in units of the integer message.
fn fresh_noise(n: usize, special: usize, kind: EncryptionKind) -> f64 {
    let spec = checked(&spec(n, 2, special, VALUES, kind));
    let secret = SecretKey::generate(spec.params(), &mut rng(1, "keygen"));
    let images = numbers(n * VALUES, 2);
    let ciphertexts = encrypt_with(&spec, &secret, &images, 3).unwrap();
    let scale = spec.input.scale.value();
    let slots = slots(&secret, &ciphertexts, scale);
    rms((0..VALUES * n).map(|i| (slots[i] - f64::from(images[(i % n) * VALUES + i / n])) * scale))
}

#[test]
fn fresh_ciphertexts() {
    for n in [1024, 4096, 8192] {
        let measured = fresh_noise(n, 0, EncryptionKind::Secret);
        assert_noise(&format!("secret, N = {n}"), measured, noise::fresh_secret(n).rms);
        for special in [1, 3] {
            let measured = fresh_noise(n, special, EncryptionKind::Public);
            let predicted = noise::fresh_public(n, 30.0 * special as f64);
            assert_noise(&format!("public, {special} special primes, N = {n}"), measured, predicted.rms);
        }
    }
}

#[test]
fn rerandomised_results() {
    for n in [1024, 8192] {
        for components in 2..=4 {
            let spec = checked(&spec(n, 3, 1, VALUES, EncryptionKind::Public));
            let params = spec.params();
            let secret = SecretKey::generate(params, &mut rng(4, "keygen"));
            let public = secret.public_key(&mut rng(4, "public key")).unwrap();
            let mut residues = vec![0; 3 * VALUES * components * n];
            rerandomise(params, &public, &mut residues, VALUES, components, 3, &mut rng(5, "rerandomise"));
            let result = pack(params, &residues, 3, VALUES, components);
            let predicted = noise::rerandomise(n, components);
            assert_noise(
                &format!("{components} components, N = {n}"),
                rms(slots(&secret, &result, 1.0)),
                predicted.rms,
            );
            // Every component is masked.
            assert!(residues.chunks_exact(n).all(|row| row.iter().any(|&residue| residue > 0)));
        }
    }
}

/// A polynomial over some limbs, evaluation domain.
type Poly = Vec<Vec<u32>>;

fn uniform(params: &Params, limbs: &[usize], seed: u64) -> Poly {
    let streams = rng(seed, "uniform").streams();
    let row = |&limb: &usize| {
        let mut words = vec![0; params.n()];
        streams.stream(limb as u64).fill(&mut words);
        words.iter().map(|&word| params.basis().modulus(limb).reduce(word)).collect()
    };
    limbs.iter().map(row).collect()
}

/// `(x - cent(x mod D)) / D` for the product `D` of the last `dropped` of `limbs`.
fn mod_down(params: &Params, limbs: &[usize], dropped: usize, mut x: Poly) -> Poly {
    let basis = params.basis();
    let (kept, dropped) = limbs.split_at(limbs.len() - dropped);
    let mut low = x.split_off(kept.len());
    low.iter_mut().zip(dropped).for_each(|(row, &limb)| basis.table(limb).inverse(row));
    let remainder = convert(params, dropped, kept, &low);
    for ((x, r), &limb) in x.iter_mut().zip(&remainder).zip(kept) {
        let modulus = basis.modulus(limb);
        let inverse = modulus.inv(basis.product_mod(dropped, limb));
        x.iter_mut().zip(r).for_each(|(x, &r)| *x = modulus.mul(inverse, modulus.sub(*x, r)));
    }
    x
}

/// Centred conversion: coefficient domain in, evaluation domain out.
fn convert(params: &Params, from: &[usize], to: &[usize], x: &[Vec<u32>]) -> Poly {
    let converter = params.basis().centred_converter(from, to);
    let digits: Vec<Vec<i32>> = (0..params.n())
        .map(|j| {
            let (at, mut digits): (Vec<u32>, _) = (x.iter().map(|row| row[j]).collect(), vec![0; from.len()]);
            converter.digits(&at, &mut digits);
            digits
        })
        .collect();
    let target = |(position, &limb): (usize, &usize)| {
        let mut row: Vec<u32> = digits.iter().map(|digits| converter.residue(digits, position)).collect();
        params.basis().table(limb).forward(&mut row);
        row
    };
    to.iter().enumerate().map(target).collect()
}

/// `P` times the components of `kept`, one or two, plus the key-switched component `top`; over the key's limbs, not yet divided.
fn key_switch(params: &Params, key: &EvalKey, kept: &[Poly], top: &Poly) -> [Poly; 2] {
    let (n, basis, limbs) = (params.n(), params.basis(), key.layout.limbs(params));
    let layout = key.layout.digits();
    let a = key.expand_a(params);
    let mut top = top.clone();
    top.iter_mut().enumerate().for_each(|(limb, row)| basis.table(limb).inverse(row));
    let digit = |g: usize| match layout.prime_parts {
        1 => {
            let own: Vec<usize> = layout.digit_limbs(g, layout.level).collect();
            convert(params, &own, &limbs, &top[own[0]..][..own.len()])
        }
        parts => {
            let own = layout.digit_limbs(g, layout.level).start;
            let digit = PrimeDigit::new(basis.modulus(own), layout.part(g), parts);
            let target = |&limb: &usize| {
                let modulus = basis.modulus(limb);
                let mut row = top[own].iter().map(|&x| modulus.reduce_signed(digit.of(x).into())).collect::<Vec<_>>();
                basis.table(limb).forward(&mut row);
                row
            };
            limbs.iter().map(target).collect()
        }
    };
    let digits: Vec<Poly> = (0..layout.digits(layout.level)).map(digit).collect();
    [(kept.first(), &key.b), (kept.get(1), &a)].map(|(component, key)| {
        let row = |(position, &limb): (usize, &usize)| {
            let modulus = basis.modulus(limb);
            let p = basis.product_mod(&params.special(), limb);
            let kept = component.and_then(|component| component.get(position));
            let start = |j: usize| kept.map_or(0, |row| modulus.mul(p, row[j]));
            let key_at = |g: usize, j: usize| key[(g * limbs.len() + position) * n + j];
            let sum = |j: usize| {
                let products =
                    digits.iter().enumerate().map(|(g, digit)| modulus.mul(digit[position][j], key_at(g, j)));
                products.fold(start(j), |sum, product| modulus.add(sum, product))
            };
            (0..n).map(sum).collect()
        };
        limbs.iter().enumerate().map(row).collect()
    })
}

/// The image of every row under an automorphism.
fn image(x: &Poly, automorphism: Automorphism) -> Poly {
    x.iter().map(|row| automorphism.sources().iter().map(|&lane| row[lane as usize]).collect()).collect()
}

/// Slots of `factor (sum_t x_t s^t) - sum_t y_t s^t`, centred modulo the first `level` limbs.
fn difference(secret: &SecretKey, level: usize, factor: impl Fn(usize) -> u32, x: &[Poly], y: &[Poly]) -> Vec<f64> {
    let (params, components) = (secret.params(), x.len().max(y.len()));
    let mut residues = Vec::new();
    for limb in 0..level {
        let modulus = params.basis().modulus(limb);
        for t in 0..components {
            let term = |polys: &[Poly], j: usize| polys.get(t).map_or(0, |poly| poly[limb][j]);
            residues.extend((0..params.n()).map(|j| modulus.sub(modulus.mul(factor(limb), term(x, j)), term(y, j))));
        }
    }
    slots(secret, &pack(params, &residues, level, 1, components), 1.0)
}

fn ring(n: usize, chain: usize, special: usize) -> (Params, SecretKey) {
    let spec = checked(&spec(n, chain, special, 1, EncryptionKind::Secret));
    let secret = SecretKey::generate(spec.params(), &mut rng(6, "keygen"));
    (spec.params().clone(), secret)
}

#[test]
fn division_of_two_to_four_components() {
    for (n, components) in [(1024, 2), (8192, 2), (1024, 3), (8192, 3), (8192, 4)] {
        let (params, secret) = ring(n, 3, 0);
        let limbs = params.chain(3);
        let x: Vec<Poly> = (0..components).map(|t| uniform(&params, &limbs, t)).collect();
        let divided: Vec<Poly> = x.iter().map(|x| mod_down(&params, &limbs, 1, x.clone())).collect();
        let q = params.basis().modulus(2).value();
        let factor = |limb: usize| params.basis().modulus(limb).reduce(q.into());
        // The difference is q times the noise.
        let noise = rms(difference(&secret, 2, factor, &divided, &x)) / f64::from(q);
        assert_noise(&format!("{components} components, N = {n}"), noise, noise::divide(n, components as usize).rms);
    }
}

#[test]
fn relinearisation() {
    // Chain, special primes, primes per digit: noise of the key, and noise of the division by P alone.
    for (n, chain, special, digit_primes) in
        [(1024, 3, 1, 1), (8192, 3, 1, 1), (4096, 4, 2, 2), (4096, 3, 2, 2), (4096, 3, 3, 1), (4096, 4, 1, 2)]
    {
        let (params, secret) = ring(n, chain, special);
        let layout = RelinLayout::of_primes(chain, digit_primes);
        let key = secret.eval_key(EvalKeyLayout::Relinearisation(layout), &mut rng(7, "relin key")).unwrap();
        let components = [0, 1, 2].map(|t| uniform(&params, &params.chain(chain), t));
        let limbs = key.layout.limbs(&params);
        let switched =
            key_switch(&params, &key, &components[..2], &components[2]).map(|x| mod_down(&params, &limbs, special, x));
        let measured = rms(difference(&secret, chain, |_| 1, &switched, &components));
        // A shorter last digit adds nothing that counts.
        let whole_digits = chain / digit_primes;
        let (log_digit, log_p) = (30.0 * digit_primes as f64, 30.0 * special as f64);
        let predicted = noise::relinearise(n, whole_digits, log_digit, log_p).plus(noise::divide(n, 2));
        assert_noise(&format!("{layout:?}, {special} special, N = {n}"), measured, predicted.rms);
    }
}

/// An automorphism takes what was switched to an encryption of the image, with the noise of a relinearisation.
#[test]
fn automorphisms() {
    // Chain, special primes, and how the digits are cut.
    for (n, chain, special, digit_primes, prime_parts) in
        [(1024, 3, 1, 1, 1), (8192, 3, 2, 2, 1), (4096, 3, 1, 1, 2), (4096, 2, 1, 1, 3)]
    {
        let (params, secret) = ring(n, chain, special);
        let digits = RelinLayout { level: chain, digit_primes, prime_parts };
        let layout = EvalKeyLayout::automorphism(Automorphism::power(n, 5, 11).element(), digits);
        let key = secret.eval_key(layout, &mut rng(8, "automorphism key")).unwrap();
        let automorphism = Automorphism::new(n, layout.element()).unwrap();
        let x = [0, 1].map(|t| uniform(&params, &params.chain(chain), t));
        let limbs = layout.limbs(&params);
        let switched = key_switch(&params, &key, &x[..1], &x[1]).map(|x| mod_down(&params, &limbs, special, x));
        let switched = switched.map(|x| image(&x, automorphism));
        // What `x` decrypts to, as component 0 of a ciphertext of the image.
        let decrypted = (0..chain).map(|limb| {
            let (modulus, table) = (params.basis().modulus(limb), params.basis().table(limb));
            let mut s: Vec<u32> = secret.coefficients().iter().map(|&c| modulus.reduce_signed(c.into())).collect();
            table.forward(&mut s);
            (0..n).map(|j| modulus.add(x[0][limb][j], modulus.mul(x[1][limb][j], s[j]))).collect()
        });
        let expected = [image(&decrypted.collect(), automorphism)];
        let measured = rms(difference(&secret, chain, |_| 1, &switched, &expected));
        let log_digit = 30.0 * digit_primes as f64 / prime_parts as f64;
        let whole_digits = chain / digit_primes * prime_parts;
        let predicted = noise::relinearise(n, whole_digits, log_digit, 30.0 * special as f64).plus(noise::divide(n, 2));
        assert_noise(&format!("{layout}, {special} special, N = {n}"), measured, predicted.rms);
    }
}
