//! The public keys that a secret key gives.

use cryptodl_core::ckks::sampling::SmallPolynomial;
use cryptodl_core::ckks::{EvalKey, EvalKeyLayout, EvalKeys, PublicKey, Randomness, SecretStream};
use cryptodl_core::ring::{Automorphism, PrimeDigit};
use zeroize::Zeroizing;

use crate::{ClientError, SecretKey};

impl SecretKey {
    /// A public encryption key: `b = e - a s` over all of `Q P`.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn public_key(&self, rng: &mut Randomness) -> Result<PublicKey, ClientError> {
        let mut key = PublicKey { seed: rng.fresh_seed()?, b: Vec::new() };
        let limbs: Vec<usize> = (0..self.params().basis().len()).collect();
        let mut secret = Zeroizing::new(Vec::with_capacity(limbs.len() * self.params().n()));
        limbs.iter().for_each(|&limb| secret.extend_from_slice(self.row(limb)));
        key.b = self.zero(&limbs, &key.expand_a(self.params()), &secret, &mut rng.streams().stream(0));
        Ok(key)
    }

    /// An evaluation key of every one of `layouts`, in this order.
    ///
    /// # Errors
    /// If the parameters do not allow a layout, two are the same, there are too many
    /// ([`EvalKeys::new`]), or the system has no randomness.
    pub fn eval_keys(&self, layouts: &[EvalKeyLayout], rng: &mut Randomness) -> Result<EvalKeys, ClientError> {
        let keys = layouts.iter().map(|&layout| self.eval_key(layout, rng));
        Ok(EvalKeys::new(keys.collect::<Result<_, _>>()?)?)
    }

    /// One evaluation key; [`EvalKey`] says what it encrypts.
    ///
    /// # Errors
    /// If the parameters do not allow the layout ([`EvalKeyLayout::check`]), or the system has no randomness.
    pub fn eval_key(&self, layout: EvalKeyLayout, rng: &mut Randomness) -> Result<EvalKey, ClientError> {
        let (params, n) = (self.params(), self.params().n());
        layout.check(params)?;
        let digits = layout.digits();
        // The secret that the automorphism takes to `s`, `[limb][N]` over the limbs of the key.
        let limbs = layout.limbs(params);
        let mut under = Zeroizing::new(Vec::with_capacity(limbs.len() * n));
        let sources = Automorphism::new(n, layout.element()).map(|automorphism| automorphism.inverse().sources());
        for &limb in &limbs {
            let row = self.row(limb);
            match &sources {
                Some(sources) => under.extend(sources.iter().map(|&lane| row[lane as usize])),
                None => under.extend_from_slice(row),
            }
        }
        let mut key = EvalKey { layout, seed: rng.fresh_seed()?, b: Vec::new() };
        let (a, streams) = (key.expand_a(params), rng.streams());
        for (g, a) in a.chunks_exact(limbs.len() * n).enumerate() {
            let mut b = self.zero(&limbs, a, &under, &mut streams.stream(g as u64));
            for limb in digits.digit_limbs(g, digits.level) {
                let modulus = params.basis().modulus(limb);
                let p = params.basis().product_mod(&params.special(), limb);
                let digit = PrimeDigit::new(modulus, digits.part(g), digits.prime_parts);
                let weight = modulus.mul(p, modulus.reduce(1 << digit.shift()));
                for (b, &s) in b[limb * n..][..n].iter_mut().zip(self.row(limb)) {
                    let from = (1..layout.of_power()).fold(s, |power, _| modulus.mul(power, s));
                    *b = modulus.add(*b, modulus.mul(weight, from));
                }
            }
            key.b.extend(b);
        }
        Ok(key)
    }

    /// `e - a t` with a fresh error: an encryption of zero under the secret `t`. Evaluation domain, all `[limb][N]`
    /// over `limbs`.
    fn zero(&self, limbs: &[usize], a: &[u32], under: &[u32], stream: &mut SecretStream) -> Vec<u32> {
        let n = self.params().n();
        let error = SmallPolynomial::error(n, stream);
        let rows = limbs.iter().zip(a.chunks_exact(n).zip(under.chunks_exact(n))).flat_map(|(&limb, (a, under))| {
            let table = self.params().basis().table(limb);
            let modulus = table.modulus();
            let mut row = error.transform(table);
            for ((e, &a), &t) in row.iter_mut().zip(a).zip(under) {
                *e = modulus.sub(*e, modulus.mul(a, t));
            }
            std::mem::take(&mut *row)
        });
        rows.collect()
    }
}
