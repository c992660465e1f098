//! Encryption of one encoded message, with either key.

use cryptodl_core::ckks::sampling::SmallPolynomial;
use cryptodl_core::ckks::{CheckedSpec, EncryptionKind, Params, PublicKey, Randomness, SecretStream, UniformPurpose};
use cryptodl_core::ring::{CentredConverter, UniformSource, pack_row};
use zeroize::Zeroizing;

use crate::{ClientError, EncryptionKey, SecretKey};

/// Encrypts messages (N integers each) at the spec's input level into packed rows `[stored component][limb]`.
pub(crate) enum Encryptor<'a> {
    Secret(SecretEncryptor<'a>),
    Public(PublicEncryptor<'a>),
}

impl<'a> Encryptor<'a> {
    /// Takes a fresh seed for the secret key's uniform components.
    pub(crate) fn new(
        spec: &'a CheckedSpec,
        key: EncryptionKey<'a>,
        rng: &mut Randomness,
    ) -> Result<Self, ClientError> {
        let (params, shift) = (spec.params(), spec.input.encoding().shift);
        match (key, spec.encryption) {
            (EncryptionKey::Secret(key), EncryptionKind::Secret) => {
                key.require(params)?;
                Ok(Encryptor::Secret(SecretEncryptor::new(params, key, shift, rng.fresh_seed()?)))
            }
            (EncryptionKey::Public(key), EncryptionKind::Public) => {
                if key.b.len() != params.basis().len() * params.n() {
                    return Err(ClientError::OtherParams { what: "the public key" });
                }
                Ok(Encryptor::Public(PublicEncryptor::new(params, key, spec.input.level, shift)))
            }
            (_, expected) => Err(ClientError::EncryptionKind { expected }),
        }
    }

    /// The seed from which component 1 is expanded, where it is.
    pub(crate) fn seed(&self) -> Option<[u8; 32]> {
        match self {
            Encryptor::Secret(secret) => Some(secret.seed),
            Encryptor::Public(_) => None,
        }
    }

    /// Encrypts `message`, shifted to the left as the spec's input has it, as object number `object` with noise from `noise`.
    pub(crate) fn encrypt(&self, object: u32, message: &[f64], noise: &mut SecretStream, rows: Vec<&mut [u8]>) {
        match self {
            Encryptor::Secret(secret) => secret.encrypt(object, message, noise, rows),
            Encryptor::Public(public) => public.encrypt(message, noise, rows),
        }
    }
}

/// `c0 = m + e - a s`, with `a` from a seed.
pub(crate) struct SecretEncryptor<'a> {
    params: &'a Params,
    key: &'a SecretKey,
    /// Bits by which messages are shifted to the left.
    shift: u32,
    seed: [u8; 32],
    uniform: UniformSource,
}

impl<'a> SecretEncryptor<'a> {
    fn new(params: &'a Params, key: &'a SecretKey, shift: u32, seed: [u8; 32]) -> Self {
        let uniform = UniformPurpose::Ciphertext.source(params, &seed);
        SecretEncryptor { params, key, shift, seed, uniform }
    }

    fn encrypt(&self, object: u32, message: &[f64], noise: &mut SecretStream, rows: Vec<&mut [u8]>) {
        let n = self.params.n();
        let error = SmallPolynomial::error(n, noise);
        let mut c0 = Zeroizing::new(vec![0; n]);
        let mut a = vec![0; n];
        for (limb, packed) in rows.into_iter().enumerate() {
            let table = self.params.basis().table(limb);
            let modulus = table.modulus();
            let power = modulus.pow(2, self.shift);
            for ((c, &m), e) in c0.iter_mut().zip(message).zip(error.residues(modulus)) {
                *c = modulus.add(modulus.mul(modulus.reduce_signed(m as i64), power), e);
            }
            table.forward(&mut c0);
            self.uniform.fill(object, limb as u32, modulus, 0, &mut a);
            for ((c, &a), &s) in c0.iter_mut().zip(&a).zip(self.key.row(limb)) {
                *c = modulus.sub(*c, modulus.mul(a, s));
            }
            pack_row(&c0, modulus.bits(), packed);
        }
    }
}

/// `c = (x - cent(x mod P)) / P`, plus `m` in component 0, where `x = (b u + e, a u + e')` over `Q P` and `u` is ternary: the
/// division shrinks the encryption's noise `e_pk u + e + e' s` to that of a rounding.
pub(crate) struct PublicEncryptor<'a> {
    params: &'a Params,
    level: usize,
    /// Bits by which messages are shifted to the left.
    shift: u32,
    key: &'a PublicKey,
    a: Vec<u32>,
    special: Vec<usize>,
    remainder: CentredConverter,
}

impl<'a> PublicEncryptor<'a> {
    fn new(params: &'a Params, key: &'a PublicKey, level: usize, shift: u32) -> Self {
        let special = params.special();
        let remainder = params.basis().centred_converter(&special, &params.chain(level));
        PublicEncryptor { params, level, shift, key, a: key.expand_a(params), special, remainder }
    }

    fn encrypt(&self, message: &[f64], noise: &mut SecretStream, mut rows: Vec<&mut [u8]>) {
        let u = SmallPolynomial::ternary(self.params.n(), noise);
        let (c0, c1) = rows.split_at_mut(self.level);
        for (key, message, rows) in [(&self.key.b, Some(message), c0), (&self.a, None, c1)] {
            let error = SmallPolynomial::error(self.params.n(), noise);
            self.component(key, &u, &error, message, rows);
        }
    }

    /// One component: `(k u + e - r) / P + m` with `r = cent((k u + e) mod P)`.
    fn component(
        &self,
        key: &[u32],
        u: &SmallPolynomial,
        error: &SmallPolynomial,
        message: Option<&[f64]>,
        rows: &mut [&mut [u8]],
    ) {
        let (n, basis) = (self.params.n(), self.params.basis());
        let remainder = self.remainder(key, u, error);
        for (limb, packed) in rows.iter_mut().enumerate() {
            let table = basis.table(limb);
            let modulus = table.modulus();
            let p = basis.product_mod(&self.special, limb);
            let by_p = modulus.inv(p);
            // e - r + P m is transformed at once.
            let digits = remainder.chunks_exact(self.special.len());
            let mut row: Zeroizing<Vec<u32>> = Zeroizing::new(
                error
                    .residues(modulus)
                    .zip(digits)
                    .map(|(e, r)| modulus.sub(e, self.remainder.residue(r, limb)))
                    .collect(),
            );
            let power = modulus.mul(p, modulus.pow(2, self.shift));
            for (c, &m) in row.iter_mut().zip(message.into_iter().flatten()) {
                *c = modulus.add(*c, modulus.mul(power, modulus.reduce_signed(m as i64)));
            }
            table.forward(&mut row);
            let u = u.transform(table);
            for ((c, &k), &u) in row.iter_mut().zip(&key[limb * n..]).zip(&*u) {
                *c = modulus.mul(by_p, modulus.add(*c, modulus.mul(k, u)));
            }
            pack_row(&row, modulus.bits(), packed);
        }
    }

    /// `cent((k u + e) mod P)` of every coefficient, as digits `[N][special prime]` of the conversion.
    fn remainder(&self, key: &[u32], u: &SmallPolynomial, error: &SmallPolynomial) -> Zeroizing<Vec<i32>> {
        let (n, count) = (self.params.n(), self.special.len());
        let mut residues = Zeroizing::new(vec![0; n * count]);
        for (position, &limb) in self.special.iter().enumerate() {
            let table = self.params.basis().table(limb);
            let modulus = table.modulus();
            let mut product = u.transform(table);
            for (u, &k) in product.iter_mut().zip(&key[limb * n..]) {
                *u = modulus.mul(k, *u);
            }
            table.inverse(&mut product);
            for ((j, &product), e) in product.iter().enumerate().zip(error.residues(modulus)) {
                residues[j * count + position] = modulus.add(product, e);
            }
        }
        let mut digits = Zeroizing::new(vec![0; n * count]);
        for (residues, digits) in residues.chunks_exact(count).zip(digits.chunks_exact_mut(count)) {
            self.remainder.digits(residues, digits);
        }
        digits
    }
}
