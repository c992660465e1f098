//! Steps composed from the primitives: what every backend can do, and what fused kernels must equal.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Backend, Channels, Horner, LinearMap, PatersonStockmeyer, Result, Shape};
use crate::ring::Automorphism;

/// One operation that acts on each lane by itself.
#[derive(Clone, Copy, Debug)]
pub enum SlotwiseOp<'a> {
    /// A linear map on the values.
    Linear(&'a LinearMap),
    /// An activation whose products are neither relinearised nor rescaled: c components become d (c - 1) + 1.
    Polynomial(&'a Horner),
}

impl SlotwiseOp<'_> {
    /// Shape of the result on an operand of shape `x`.
    ///
    /// # Panics
    /// If the operand does not have the map's inputs, or its values are no multiple of the
    /// polynomial's channels.
    pub fn result(&self, x: &Shape) -> Shape {
        match self {
            SlotwiseOp::Linear(map) => {
                assert_eq!(x.values, map.inputs(), "values of the operand");
                Shape { values: map.outputs(), ..x.clone() }
            }
            SlotwiseOp::Polynomial(p) => {
                Channels::new(p.channels(), x.values);
                Shape { components: p.degree() * (x.components - 1) + 1, ..x.clone() }
            }
        }
    }
}

/// Shape of the result of [`Backend::slotwise`] on the whole of an operand of shape `x`.
pub fn slotwise_shape(ops: &[SlotwiseOp<'_>], x: &Shape) -> Shape {
    ops.iter().fold(x.clone(), |shape, op| op.result(&shape))
}

/// Chain limbs and components of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CiphertextShape {
    /// Chain limbs, 1 or more.
    pub level: usize,
    /// Components, 2 or more.
    pub components: usize,
}

impl CiphertextShape {
    /// What two ciphertexts have in common when they are added: the one with more limbs drops its
    /// last ones without division, and missing components are zero.
    pub fn joined(self, other: Self) -> Self {
        CiphertextShape { level: self.level.min(other.level), components: self.components.max(other.components) }
    }
}

/// Ciphertext maintenance: what follows a product of two ciphertexts, at once or later. Without
/// any, it is *lazy*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Maintenance {
    /// Relinearise the product's three components to two.
    pub relinearise: bool,
    /// Rescale by this many primes, merged with the relinearisation's division where there is one.
    pub drop: usize,
}

impl Maintenance {
    /// Whether anything follows.
    pub fn acts(self) -> bool {
        self != Self::default()
    }

    /// The ciphertext afterwards, from the product.
    pub fn result(self, product: CiphertextShape) -> CiphertextShape {
        CiphertextShape {
            level: product.level - self.drop,
            components: if self.relinearise { 2 } else { product.components },
        }
    }
}

/// How the ciphertext component under another secret is cut into digits for key switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelinLayout {
    /// Highest level (chain limbs) at which the key is used.
    pub level: usize,
    /// Chain primes per digit, 1 to 4; at most one more than there are special primes.
    pub digit_primes: usize,
    /// Digits in which each prime is cut, 1 to 4; 1 where a digit has several primes.
    #[serde(default = "RelinLayout::whole", skip_serializing_if = "RelinLayout::is_whole")]
    pub prime_parts: usize,
}

impl RelinLayout {
    /// `prime_parts` where digits have whole primes.
    pub(crate) fn whole() -> usize {
        1
    }

    /// Whether digits have whole primes.
    pub(crate) fn is_whole(prime_parts: &usize) -> bool {
        *prime_parts == Self::whole()
    }

    /// Digits of whole primes.
    pub const fn of_primes(level: usize, digit_primes: usize) -> Self {
        RelinLayout { level, digit_primes, prime_parts: 1 }
    }

    /// Number of digits at `level`.
    pub fn digits(&self, level: usize) -> usize {
        level.div_ceil(self.digit_primes) * self.prime_parts
    }

    /// Chain limbs of digit `digit` at `level`.
    pub fn digit_limbs(&self, digit: usize, level: usize) -> std::ops::Range<usize> {
        let first = digit / self.prime_parts * self.digit_primes;
        first..(first + self.digit_primes).min(level)
    }

    /// Which part of its prime digit `digit` is.
    pub fn part(&self, digit: usize) -> usize {
        digit % self.prime_parts
    }

    /// `log2` of the root mean square over the digits at `level` of their sizes, where primes have `prime_bits` bits. The last
    /// digit has the primes that are left, and the last part of a prime the bits that are left.
    pub fn log_digit(&self, level: usize, prime_bits: u32) -> f64 {
        let digits = self.digits(level);
        let bits = |digit: usize| {
            let primes = self.digit_limbs(digit, level).len() as u32;
            let part = prime_bits.div_ceil(self.prime_parts as u32);
            let (before, last) = (part * self.part(digit) as u32, self.part(digit) + 1 == self.prime_parts);
            primes * if last { prime_bits - before } else { part }
        };
        // Relative to the largest, whose square may be beyond what a float holds.
        let most = (0..digits).map(bits).max().unwrap_or(0);
        let sum: f64 = (0..digits).map(|digit| libm::exp2(2.0 * (f64::from(bits(digit)) - f64::from(most)))).sum();
        f64::from(most) + 0.5 * libm::log2(sum / digits as f64)
    }
}

/// A key-switching key in a backend's memory.
#[derive(Clone, Copy, Debug)]
pub struct KeySwitch<'a, T> {
    /// Rows `g` of two components `(b_g, a_g)`, evaluation domain, limbs: chain `0 .. layout.level`, then special.
    pub rows: &'a T,
    /// Digits.
    pub layout: RelinLayout,
    /// Indices of the special limbs in the basis.
    pub special: &'a [usize],
}

/// One automorphism of a number of ciphertexts.
#[derive(Clone, Debug)]
pub struct Rotation<'a, T> {
    /// The automorphism.
    pub automorphism: Automorphism,
    /// The key for it.
    pub key: KeySwitch<'a, T>,
    /// The values that receive the images.
    pub to: Range<usize>,
}

impl<T> Rotation<'_, T> {
    /// What every implementation of [`Backend::rotate`] relies on, for an operand of shape `x` over the first
    /// limbs of a chain.
    ///
    /// # Panics
    /// If there are more values to receive images than there are images, if they overlap with those that are read or
    /// with each other, if a value leaves the operand, or if the keys have different digits.
    pub fn check(rotations: &[Self], x: &Shape, from: &Range<usize>) {
        assert_eq!(x.components, 2, "rotations take two components");
        let level = x.limbs.len();
        assert!(x.limbs.iter().copied().eq(0..level), "a ciphertext of the chain");
        let mut taken = vec![false; x.values];
        let mut take = |values: &Range<usize>| {
            assert!(values.end <= x.values, "values {values:?} of {}", x.values);
            let clashes = taken[values.clone()].iter_mut().any(|taken| std::mem::replace(taken, true));
            assert!(!clashes, "values {values:?} are read or written twice");
        };
        take(from);
        for Rotation { key, to, automorphism } in rotations {
            take(to);
            assert!(to.len() <= from.len(), "{} images of {} values", to.len(), from.len());
            assert_eq!(automorphism.n(), x.lanes, "an automorphism of the ring");
            assert!(level <= key.layout.level, "level {level}, key for {}", key.layout.level);
            assert_eq!((key.layout, key.special), (rotations[0].key.layout, rotations[0].key.special), "digits");
        }
    }
}

pub(super) fn slotwise<B: Backend + ?Sized>(
    backend: &B,
    ops: &[SlotwiseOp<'_>],
    x: &B::Tensor,
    lanes: Range<usize>,
    out: &mut B::Tensor,
) -> Result<()> {
    let shape = backend.shape(x).clone();
    let mut part = backend.uninitialised(Shape { lanes: lanes.len(), ..shape.clone() })?;
    let whole = backend.shape(&part).window();
    backend.copy(x, &shape.window().with_lanes(lanes.clone()), &mut part, &whole)?;
    for op in ops {
        part = match op {
            SlotwiseOp::Linear(map) => backend.linear(map, &part)?,
            SlotwiseOp::Polynomial(polynomial) => lazy_polynomial(backend, polynomial, part)?,
        };
    }
    let (from, to) = (backend.shape(&part).window(), backend.shape(out).window().with_lanes(lanes));
    backend.copy(&part, &from, out, &to)
}

fn lazy_polynomial<B: Backend + ?Sized>(backend: &B, polynomial: &Horner, z: B::Tensor) -> Result<B::Tensor> {
    let limbs = backend.shape(&z).limbs.clone();
    let mut u = copy_of(backend, &z)?;
    for product in 0..polynomial.degree() {
        if product > 0 {
            u = backend.multiply(&u, &z)?;
        }
        add_horner_constant(backend, polynomial, product, &limbs, &mut u)?;
    }
    Ok(u)
}

/// Adds the constant that follows `products` products; the last after the sign.
fn add_horner_constant<B: Backend + ?Sized>(
    backend: &B,
    polynomial: &Horner,
    products: usize,
    limbs: &[usize],
    u: &mut B::Tensor,
) -> Result<()> {
    if polynomial.negates() && products + 1 == polynomial.degree() {
        negate(backend, limbs, u)?;
    }
    backend.add_constant(u, &polynomial.constants(products, limbs))
}

fn negate<B: Backend + ?Sized>(backend: &B, limbs: &[usize], u: &mut B::Tensor) -> Result<()> {
    let minus_one: Vec<u32> = limbs.iter().map(|&limb| backend.basis().modulus(limb).value() - 1).collect();
    backend.scale(u, &minus_one)
}

pub(super) fn activation<B: Backend + ?Sized>(
    backend: &B,
    polynomial: &Horner,
    products: &[Maintenance],
    key: Option<&KeySwitch<'_, B::Tensor>>,
    z: &B::Tensor,
) -> Result<B::Tensor> {
    assert_eq!(products.len() + 1, polynomial.degree(), "one maintenance per product");
    let mut u = copy_of(backend, z)?;
    for step in 0..polynomial.degree() {
        if step > 0 {
            u = relinearised_rescaled(backend, product(backend, &u, z)?, products[step - 1], key)?;
        }
        let limbs = backend.shape(&u).limbs.clone();
        add_horner_constant(backend, polynomial, step, &limbs, &mut u)?;
    }
    Ok(u)
}

/// [`Backend::activation`] in the arrangement with fewer products.
pub fn paterson_stockmeyer<B: Backend + ?Sized>(
    backend: &B,
    polynomial: &PatersonStockmeyer,
    products: &[Maintenance],
    key: Option<&KeySwitch<'_, B::Tensor>>,
    z: &B::Tensor,
) -> Result<B::Tensor> {
    assert_eq!(products.len(), polynomial.products(), "one maintenance per product");
    let limbs = backend.shape(z).limbs.clone();
    let mut shifted = copy_of(backend, z)?;
    backend.add_constant(&mut shifted, &polynomial.shift(&limbs))?;
    let w = relinearised_rescaled(backend, backend.multiply(z, &shifted)?, products[0], key)?;
    drop(shifted);
    let mut u = copy_of(backend, if polynomial.is_odd() { z } else { &w })?;
    let limbs = backend.shape(&u).limbs.clone();
    backend.add_constant(&mut u, &polynomial.constants(0, &limbs))?;
    for (step, maintenance) in products.iter().enumerate().skip(1) {
        let mut sum = product(backend, &u, &w)?;
        let limbs = backend.shape(&sum).limbs.clone();
        backend.accumulate(&mut sum, z, &polynomial.multiples(step, &limbs))?;
        u = relinearised_rescaled(backend, sum, *maintenance, key)?;
        let limbs = backend.shape(&u).limbs.clone();
        if polynomial.negates() && step + 1 == products.len() {
            negate(backend, &limbs, &mut u)?;
        }
        backend.add_constant(&mut u, &polynomial.constants(step, &limbs))?;
    }
    Ok(u)
}

/// The product of two ciphertexts. The one with more limbs drops its last ones without division to meet the other: its scale stays.
fn product<B: Backend + ?Sized>(backend: &B, a: &B::Tensor, b: &B::Tensor) -> Result<B::Tensor> {
    let (level_a, level_b) = (backend.shape(a).limbs.len(), backend.shape(b).limbs.len());
    let meet = |x: &B::Tensor, level| part(backend, x, 0..level, 0..backend.shape(x).components);
    match level_a.cmp(&level_b) {
        Ordering::Less => backend.multiply(a, &meet(b, level_a)?),
        Ordering::Equal => backend.multiply(a, b),
        Ordering::Greater => backend.multiply(&meet(a, level_b)?, b),
    }
}

/// Maintenance after a product: relinearisation, division by the last primes of the chain, or both
/// at once.
///
/// # Panics
/// If there is nothing to do, or it relinearises without a key.
pub fn relinearise_rescale<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    maintenance: Maintenance,
    key: Option<&KeySwitch<'_, B::Tensor>>,
) -> Result<B::Tensor> {
    assert!(maintenance.acts(), "something to do");
    if maintenance.relinearise {
        return backend.relinearise(x, key.expect("relinearisation comes with a key"), maintenance.drop);
    }
    let limbs = &backend.shape(x).limbs;
    backend.mod_down(x, &limbs[limbs.len() - maintenance.drop..])
}

/// [`relinearise_rescale`] where anything is planned.
fn relinearised_rescaled<B: Backend + ?Sized>(
    backend: &B,
    x: B::Tensor,
    maintenance: Maintenance,
    key: Option<&KeySwitch<'_, B::Tensor>>,
) -> Result<B::Tensor> {
    if maintenance.acts() { relinearise_rescale(backend, &x, maintenance, key) } else { Ok(x) }
}

fn copy_of<B: Backend + ?Sized>(backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
    let shape = backend.shape(x).clone();
    let window = shape.window();
    let mut out = backend.uninitialised(shape)?;
    backend.copy(x, &window, &mut out, &window)?;
    Ok(out)
}

/// The limbs of `x` at positions `positions`, all values, components `components`.
fn part<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    positions: Range<usize>,
    components: Range<usize>,
) -> Result<B::Tensor> {
    let shape = backend.shape(x).clone();
    let from = shape.window().with_limbs(positions.clone()).with_components(components.clone());
    let mut out = backend.uninitialised(Shape {
        limbs: shape.limbs[positions].to_vec(),
        components: components.len(),
        ..shape
    })?;
    let to = backend.shape(&out).window();
    backend.copy(x, &from, &mut out, &to)?;
    Ok(out)
}

pub(super) fn mod_down<B: Backend + ?Sized>(backend: &B, x: &B::Tensor, dropped: &[usize]) -> Result<B::Tensor> {
    let shape = backend.shape(x).clone();
    let kept = shape.limbs.len() - dropped.len();
    assert_eq!(&shape.limbs[kept..], dropped, "the dropped limbs are the last ones");
    let kept_limbs = &shape.limbs[..kept];
    let basis = backend.basis();
    let mut low = part(backend, x, kept..shape.limbs.len(), 0..shape.components)?;
    backend.inverse_ntt(&mut low)?;
    let mut remainder = backend.convert_basis(&low, kept_limbs)?;
    drop(low);
    backend.forward_ntt(&mut remainder)?;
    let mut out = part(backend, x, 0..kept, 0..shape.components)?;
    let inverse = |&limb: &usize| basis.modulus(limb).inv(basis.product_mod(dropped, limb));
    let factors: Vec<u32> = kept_limbs.iter().map(inverse).collect();
    backend.subtract_scale(&mut out, &remainder, &factors)?;
    Ok(out)
}

pub(super) fn relinearise<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    key: &KeySwitch<'_, B::Tensor>,
    drop: usize,
) -> Result<B::Tensor> {
    let shape = backend.shape(x).clone();
    let level = shape.limbs.len();
    assert_eq!(shape.components, 3, "relinearisation takes three components");
    assert!(level <= key.layout.level && drop < level, "level {level}, key for {}, drop {drop}", key.layout.level);
    assert!(shape.limbs.iter().copied().eq(0..level), "a ciphertext of the chain");
    let mut acc = lifted(backend, &part(backend, x, 0..level, 0..2)?, key)?;
    let top = coefficients(backend, part(backend, x, 0..level, 2..3)?)?;
    for g in 0..key.layout.digits(level) {
        let digit = digit(backend, &top, key, g)?;
        backend.accumulate_key(&mut acc, &digit, key.rows, g)?;
    }
    let limbs = &backend.shape(&acc).limbs;
    backend.mod_down(&acc, &limbs[level - drop..])
}

pub(super) fn rotate<B: Backend + ?Sized>(
    backend: &B,
    x: &mut B::Tensor,
    from: Range<usize>,
    rotations: &[Rotation<'_, B::Tensor>],
) -> Result<()> {
    let shape = backend.shape(x).clone();
    Rotation::check(rotations, &shape, &from);
    let Some(Rotation { key: first, .. }) = rotations.first() else { return Ok(()) };
    let level = shape.limbs.len();
    let values = |backend: &B, x: &B::Tensor, values: Range<usize>, components: Range<usize>| -> Result<B::Tensor> {
        let from = backend.shape(x).window().with_values(values.clone()).with_components(components.clone());
        let shape = backend.shape(x).clone();
        let mut out = backend.uninitialised(Shape { values: values.len(), components: components.len(), ..shape })?;
        let to = backend.shape(&out).window();
        backend.copy(x, &from, &mut out, &to)?;
        Ok(out)
    };
    let top = coefficients(backend, values(backend, x, from.clone(), 1..2)?)?;
    let digits: Vec<B::Tensor> =
        (0..first.layout.digits(level)).map(|g| digit(backend, &top, first, g)).collect::<Result<_>>()?;
    drop(top);
    for Rotation { automorphism, key, to } in rotations.iter().filter(|rotation| !rotation.to.is_empty()) {
        let source = from.start..from.start + to.len();
        let mut acc = lifted(backend, &values(backend, x, source, 0..1)?, key)?;
        for (g, digit) in digits.iter().enumerate() {
            if to.len() == from.len() {
                backend.accumulate_key(&mut acc, digit, key.rows, g)?;
            } else {
                let digit = values(backend, digit, 0..to.len(), 0..1)?;
                backend.accumulate_key(&mut acc, &digit, key.rows, g)?;
            }
        }
        let limbs = backend.shape(&acc).limbs.clone();
        let image = backend.automorphism(*automorphism, &backend.mod_down(&acc, &limbs[level..])?)?;
        backend.copy(&image, &backend.shape(&image).window(), x, &shape.window().with_values(to.clone()))?;
    }
    Ok(())
}

/// `P` times the components of `x`, one or two, on the chain's limbs, and zero on the special limbs: a ciphertext of two
/// components to which a key switch adds.
fn lifted<B: Backend + ?Sized>(backend: &B, x: &B::Tensor, key: &KeySwitch<'_, B::Tensor>) -> Result<B::Tensor> {
    let shape = backend.shape(x).clone();
    let level = shape.limbs.len();
    let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();
    let mut lifted = copy_of(backend, x)?;
    let p: Vec<u32> = (0..level).map(|limb| backend.basis().product_mod(key.special, limb)).collect();
    backend.scale(&mut lifted, &p)?;
    let mut acc = backend.zeros(Shape { limbs, components: 2, ..shape.clone() })?;
    let to = backend.shape(&acc).window().with_limbs(0..level).with_components(0..shape.components);
    backend.copy(&lifted, &shape.window(), &mut acc, &to)?;
    Ok(acc)
}

fn coefficients<B: Backend + ?Sized>(backend: &B, mut x: B::Tensor) -> Result<B::Tensor> {
    backend.inverse_ntt(&mut x)?;
    Ok(x)
}

/// Digit `g` of `x`, of one component in coefficient domain, on its own limbs and the special ones: evaluation domain.
fn digit<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    key: &KeySwitch<'_, B::Tensor>,
    g: usize,
) -> Result<B::Tensor> {
    let level = backend.shape(x).limbs.len();
    let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();
    let residues = part(backend, x, key.layout.digit_limbs(g, level), 0..1)?;
    let mut digit = match key.layout.prime_parts {
        1 => backend.convert_basis(&residues, &limbs)?,
        parts => backend.prime_digit(&residues, key.layout.part(g), parts, &limbs)?,
    };
    backend.forward_ntt(&mut digit)?;
    Ok(digit)
}
