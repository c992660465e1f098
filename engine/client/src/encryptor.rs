//! Encryption of one encoded message, with either key.

use cryptodl_core::ckks::sampling::SmallPolynomial;
use cryptodl_core::ckks::{CheckedSpec, EncryptionKind, Params, PublicKey, Randomness, SecretStream, UniformPurpose};
use cryptodl_core::ring::{CentredConverter, Integers, RowKernels, UniformSource, pack_row};
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
    pub(crate) fn encrypt(
        &self,
        kernels: &dyn RowKernels,
        object: u32,
        message: &[f64],
        noise: &mut SecretStream,
        rows: Vec<&mut [u8]>,
    ) {
        let message = Integers::new(message);
        match self {
            Encryptor::Secret(secret) => secret.encrypt(kernels, object, &message, noise, rows),
            Encryptor::Public(public) => public.encrypt(kernels, &message, noise, rows),
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

    fn encrypt(
        &self,
        kernels: &dyn RowKernels,
        object: u32,
        message: &Integers,
        noise: &mut SecretStream,
        rows: Vec<&mut [u8]>,
    ) {
        let n = self.params.n();
        let error = SmallPolynomial::error(n, noise).words();
        let mut c0 = Zeroizing::new(vec![0; n]);
        let mut a = vec![0; n];
        for (limb, packed) in rows.into_iter().enumerate() {
            let modulus = self.params.basis().modulus(limb);
            kernels.signed(limb, &mut c0, &error);
            kernels.add_integers(limb, &mut c0, message, modulus.pow(2, self.shift));
            kernels.forward(limb, &mut c0);
            kernels.expand(&self.uniform, object, limb, &mut a);
            kernels.subtract_product(limb, &mut c0, &a, self.key.row(limb));
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

    fn encrypt(
        &self,
        kernels: &dyn RowKernels,
        message: &Integers,
        noise: &mut SecretStream,
        mut rows: Vec<&mut [u8]>,
    ) {
        let u = SmallPolynomial::ternary(self.params.n(), noise).words();
        let (c0, c1) = rows.split_at_mut(self.level);
        for (key, message, rows) in [(&self.key.b, Some(message), c0), (&self.a, None, c1)] {
            let error = SmallPolynomial::error(self.params.n(), noise).words();
            self.component(kernels, key, &u, &error, message, rows);
        }
    }

    /// One component: `(k u + e - r) / P + m` with `r = cent((k u + e) mod P)`.
    fn component(
        &self,
        kernels: &dyn RowKernels,
        key: &[u32],
        u: &[u32],
        error: &[u32],
        message: Option<&Integers>,
        rows: &mut [&mut [u8]],
    ) {
        let (n, basis) = (self.params.n(), self.params.basis());
        let remainder = self.remainder(kernels, key, u, error);
        let (mut row, mut product) = (Zeroizing::new(vec![0; n]), Zeroizing::new(vec![0; n]));
        for (limb, packed) in rows.iter_mut().enumerate() {
            let modulus = basis.modulus(limb);
            let p = basis.product_mod(&self.special, limb);
            let by_p = modulus.inv(p);
            // e - r + P m is transformed at once.
            kernels.signed(limb, &mut row, error);
            for (c, r) in row.iter_mut().zip(remainder.chunks_exact(self.special.len())) {
                *c = modulus.sub(*c, self.remainder.residue(r, limb));
            }
            if let Some(message) = message {
                kernels.add_integers(limb, &mut row, message, modulus.mul(p, modulus.pow(2, self.shift)));
            }
            kernels.forward(limb, &mut row);
            kernels.signed(limb, &mut product, u);
            kernels.forward(limb, &mut product);
            kernels.multiply_add(limb, &mut product, &key[limb * n..][..n], &row);
            product.iter_mut().for_each(|c| *c = modulus.mul(by_p, *c));
            pack_row(&product, modulus.bits(), packed);
        }
    }

    /// `cent((k u + e) mod P)` of every coefficient, as digits `[N][special prime]` of the conversion.
    fn remainder(&self, kernels: &dyn RowKernels, key: &[u32], u: &[u32], error: &[u32]) -> Zeroizing<Vec<i32>> {
        let (n, count) = (self.params.n(), self.special.len());
        let mut residues = Zeroizing::new(vec![0; n * count]);
        let (mut product, mut row) = (Zeroizing::new(vec![0; n]), Zeroizing::new(vec![0; n]));
        for (position, &limb) in self.special.iter().enumerate() {
            let modulus = self.params.basis().modulus(limb);
            kernels.signed(limb, &mut product, u);
            kernels.forward(limb, &mut product);
            for (u, &k) in product.iter_mut().zip(&key[limb * n..]) {
                *u = modulus.mul(k, *u);
            }
            kernels.inverse(limb, &mut product);
            kernels.signed(limb, &mut row, error);
            for (j, (&product, &e)) in product.iter().zip(&*row).enumerate() {
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
