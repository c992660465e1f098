//! The public keys that a secret key gives.

use cryptodl_core::ckks::sampling::SmallPolynomial;
use cryptodl_core::ckks::{
    EvalKey, EvalKeyLayout, EvalKeys, PublicKey, Randomness, RelinKey, RelinLayout, SecretStream,
};

use crate::{ClientError, SecretKey};

impl SecretKey {
    /// A public encryption key: `b = e - a s` over all of `Q P`.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn public_key(&self, rng: &mut Randomness) -> Result<PublicKey, ClientError> {
        let mut key = PublicKey { seed: rng.fresh_seed()?, b: Vec::new() };
        let limbs: Vec<usize> = (0..self.params().basis().len()).collect();
        key.b = self.zero(&limbs, &key.expand_a(self.params()), &mut rng.streams().stream(0));
        Ok(key)
    }

    /// An evaluation key of every one of `layouts`, in this order.
    ///
    /// # Errors
    /// If the parameters do not allow a layout, two are the same, there are too many
    /// ([`EvalKeys::new`]), or the system has no randomness.
    pub fn eval_keys(&self, layouts: &[EvalKeyLayout], rng: &mut Randomness) -> Result<EvalKeys, ClientError> {
        let key = |layout: &EvalKeyLayout| match *layout {
            EvalKeyLayout::Relinearisation(layout) => self.relin_key(layout, rng).map(EvalKey::Relinearisation),
        };
        let keys: Result<Vec<EvalKey>, ClientError> = layouts.iter().map(key).collect();
        Ok(EvalKeys::new(keys?)?)
    }

    /// A relinearisation key: for every digit `g`, `b_g = e_g - a_g s`, plus `P s^2` in the digit's own limbs.
    ///
    /// # Errors
    /// If the parameters do not allow the layout ([`RelinLayout::check`]), or the system has no randomness.
    pub fn relin_key(&self, layout: RelinLayout, rng: &mut Randomness) -> Result<RelinKey, ClientError> {
        let (params, n) = (self.params(), self.params().n());
        layout.check(params)?;
        let mut key = RelinKey { layout, seed: rng.fresh_seed()?, b: Vec::new() };
        let (limbs, a, streams) = (key.limbs(params), key.expand_a(params), rng.streams());
        for (g, a) in a.chunks_exact(limbs.len() * n).enumerate() {
            let mut b = self.zero(&limbs, a, &mut streams.stream(g as u64));
            for limb in layout.digit_limbs(g, layout.level) {
                let modulus = params.basis().modulus(limb);
                let p = params.basis().product_mod(&params.special(), limb);
                for (b, &s) in b[limb * n..][..n].iter_mut().zip(self.row(limb)) {
                    *b = modulus.add(*b, modulus.mul(p, modulus.mul(s, s)));
                }
            }
            key.b.extend(b);
        }
        Ok(key)
    }

    /// `e - a s` with a fresh error: an encryption of zero under `a`. Evaluation domain, `[limb][N]` over `limbs`.
    fn zero(&self, limbs: &[usize], a: &[u32], stream: &mut SecretStream) -> Vec<u32> {
        let error = SmallPolynomial::error(self.params().n(), stream);
        let rows = limbs.iter().zip(a.chunks_exact(self.params().n())).flat_map(|(&limb, a)| {
            let table = self.params().basis().table(limb);
            let modulus = table.modulus();
            let mut row = error.transform(table);
            for ((e, &a), &s) in row.iter_mut().zip(a).zip(self.row(limb)) {
                *e = modulus.sub(*e, modulus.mul(a, s));
            }
            std::mem::take(&mut *row)
        });
        rows.collect()
    }
}
