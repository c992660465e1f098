//! Re-randomisation: encryptions of zero that hide how a result was computed from whoever made the
//! keys honestly.

use super::sampling::SmallPolynomial;
use super::{Params, PublicKey, Randomness};
use crate::backend::Shape;
use crate::parallel;

/// Adds fresh encryptions of zero to `values` ciphertexts of `components` components (2 or more): `(b u_t + e, a u_t + e')` at
/// components `t, t + 1` for `t = 0 .. components - 2`, with `(b, a)` the chain's part of the public key.
///
/// `residues` are canonical, in evaluation domain, `[limb][value][component][N]` over the first `level` limbs. The result
/// depends on the state of `rng` and not on the number of threads. Noise: [`super::noise::rerandomise`].
///
/// # Panics
/// If there are fewer than two components, the level is not in the chain, or `residues` or the key is of another size.
pub fn rerandomise(
    params: &Params,
    key: &PublicKey,
    residues: &mut [u32],
    values: usize,
    components: usize,
    level: usize,
    rng: &mut Randomness,
) {
    let n = params.n();
    assert!(components >= 2 && level <= params.chain_len(), "{components} components, level {level}");
    assert_eq!(residues.len(), level * values * components * n, "residues of {values} ciphertexts");
    assert_eq!(key.b.len(), params.basis().len() * n, "residues of the public key");
    let a = key.expand_a(params);
    let streams = rng.streams();
    let shape = Shape { limbs: params.chain(level), values, components, lanes: n };
    parallel::for_each(shape.values_mut(residues), |value, mut ciphertext| {
        let mut stream = streams.stream(value as u64);
        for t in 0..components - 1 {
            let u = SmallPolynomial::ternary(n, &mut stream);
            let errors = [(); 2].map(|()| SmallPolynomial::error(n, &mut stream));
            for (limb, ciphertext) in ciphertext.iter_mut().enumerate() {
                let table = params.basis().table(limb);
                let (modulus, u) = (table.modulus(), u.transform(table));
                for ((component, key), error) in ciphertext[t * n..].chunks_exact_mut(n).zip([&key.b, &a]).zip(&errors)
                {
                    let (key, error) = (&key[limb * n..][..n], error.transform(table));
                    for (((c, &e), &k), &u) in component.iter_mut().zip(&*error).zip(key).zip(&*u) {
                        *c = modulus.add(*c, modulus.add(e, modulus.mul(k, u)));
                    }
                }
            }
        }
    });
}
