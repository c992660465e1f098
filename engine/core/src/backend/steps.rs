//! Steps composed from the primitives: what every backend can do, and what fused kernels must equal.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Backend, Channels, Horner, LinearMap, PatersonStockmeyer, Result, Shape};

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

/// How the ciphertext component under `s^2` is cut into digits for key switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelinLayout {
    /// Highest level (chain limbs) at which the key is used.
    pub level: usize,
    /// Chain primes per digit, 1 to 4; the special product must be at least as large as a digit.
    pub digit_primes: usize,
}

impl RelinLayout {
    /// Number of digits at `level`.
    pub fn digits(&self, level: usize) -> usize {
        level.div_ceil(self.digit_primes)
    }

    /// Chain limbs of digit `digit` at `level`.
    pub fn digit_limbs(&self, digit: usize, level: usize) -> std::ops::Range<usize> {
        digit * self.digit_primes..((digit + 1) * self.digit_primes).min(level)
    }
}

/// A relinearisation key in a backend's memory.
#[derive(Clone, Copy, Debug)]
pub struct KeySwitch<'a, T> {
    /// Rows `g` of two components `(b_g, a_g)`, evaluation domain, limbs: chain `0 .. layout.level`, then special.
    pub rows: &'a T,
    /// Digits.
    pub layout: RelinLayout,
    /// Indices of the special limbs in the basis.
    pub special: &'a [usize],
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
    let basis = backend.basis();
    let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();

    // P times components 0 and 1, on the chain's limbs; zero on the special limbs.
    let mut kept = part(backend, x, 0..level, 0..2)?;
    let p: Vec<u32> = (0..level).map(|limb| basis.product_mod(key.special, limb)).collect();
    backend.scale(&mut kept, &p)?;
    let mut acc = backend.zeros(Shape { limbs: limbs.clone(), components: 2, ..shape.clone() })?;
    let to = backend.shape(&acc).window().with_limbs(0..level);
    backend.copy(&kept, &backend.shape(&kept).window(), &mut acc, &to)?;
    std::mem::drop(kept);

    let mut top = part(backend, x, 0..level, 2..3)?;
    backend.inverse_ntt(&mut top)?;
    for g in 0..key.layout.digits(level) {
        let residues = part(backend, &top, key.layout.digit_limbs(g, level), 0..1)?;
        let mut digit = backend.convert_basis(&residues, &limbs)?;
        backend.forward_ntt(&mut digit)?;
        backend.accumulate_key(&mut acc, &digit, key.rows, g)?;
    }
    backend.mod_down(&acc, &limbs[level - drop..])
}
