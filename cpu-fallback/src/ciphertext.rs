//! Steps on one whole ciphertext by one thread: everything between a ciphertext's first and last use stays in the core's own
//! caches. The bits are those of the composed steps of `cryptodl_core::backend`.
//!
//! Ciphertexts are `[limb][component][N]`, evaluation domain, canonical.

use cryptodl_core::backend::{Horner, KeySwitch, Maintenance};
use cryptodl_core::ring::{RnsBasis, Twiddle};

use crate::kernels::convert::Converter;
use crate::kernels::elementwise::{AddConstant, InnerProduct, Multiply, Negate, SubtractScale};
use crate::kernels::ntt::{ForwardNtt, InverseNtt, Tables};
use crate::memory::Memory;
use crate::simd::Simd;
use crate::tensor::{CpuTensor, Place};

/// The ring that ciphertexts are over.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) basis: &'a RnsBasis,
    /// By limb.
    pub(crate) tables: &'a [Tables],
}

/// Division by the product `D` of the last limbs' primes: `(x - cent(x mod D)) / D`.
pub(crate) struct Division<'a> {
    ring: Ring<'a>,
    limbs: Vec<usize>,
    /// Limbs that stay.
    kept: usize,
    converter: Converter,
    /// `1 / D`.
    factors: Vec<Twiddle>,
}

impl<'a> Division<'a> {
    /// Of ciphertexts over `limbs`, by the primes of all but the first `kept`.
    pub(crate) fn new(ring: Ring<'a>, limbs: &[usize], kept: usize) -> Self {
        let (stay, dropped) = limbs.split_at(kept);
        let factor = |&limb: &usize| {
            let m = ring.basis.modulus(limb);
            Twiddle::new(m, m.inv(ring.basis.product_mod(dropped, limb)))
        };
        Division {
            ring,
            limbs: limbs.to_vec(),
            kept,
            converter: Converter::new(ring.basis, dropped, stay),
            factors: stay.iter().map(factor).collect(),
        }
    }

    /// Divides `x` in place; limbs that are not kept go.
    fn apply<S: Simd>(&self, s: S, components: usize, x: &mut Memory, row: &mut Memory) {
        let n = self.ring.basis.n();
        row.set_len(n);
        let (stay, dropped) = x.split_at_mut(self.kept * components * n);
        for (block, &limb) in dropped.chunks_exact_mut(components * n).zip(&self.limbs[self.kept..]) {
            block.chunks_exact_mut(n).for_each(|row| s.run(InverseNtt(&self.ring.tables[limb], row)));
        }
        for component in 0..components {
            let rows = dropped.chunks_exact_mut(n).skip(component).step_by(components);
            let mut digits: Vec<&mut [u32]> = rows.collect();
            self.converter.digits(s, &mut digits);
            let digits: Vec<&[u32]> = digits.into_iter().map(|digit| &*digit).collect();
            for (target, (&limb, &factor)) in self.limbs.iter().zip(&self.factors).enumerate() {
                self.converter.residues(s, &digits, target, row);
                s.run(ForwardNtt(&self.ring.tables[limb], row));
                let x = &mut stay[(target * components + component) * n..][..n];
                s.run(SubtractScale { modulus: self.ring.basis.modulus(limb), x, y: row, factor });
            }
        }
        x.set_len(self.kept * components * n);
    }
}

/// Three components to two, then division by the special primes and the last of the chain.
pub(crate) struct Relinearisation<'a> {
    ring: Ring<'a>,
    level: usize,
    rows: &'a CpuTensor,
    /// By digit: its limbs of the chain.
    digits: Vec<std::ops::Range<usize>>,
    /// By digit: to all limbs.
    converters: Vec<Converter>,
    /// The chain's limbs up to the level, then the special ones, each with its position in the key.
    limbs: Vec<(usize, usize)>,
    /// The product of the special primes.
    special: Vec<Twiddle>,
    division: Division<'a>,
}

/// Memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The ciphertext on which a step works.
    pub(crate) x: Memory,
    next: Memory,
    /// The third component in coefficient domain, then its digits.
    top: Memory,
    /// Digits modulo one prime, evaluation domain.
    digits: Memory,
    row: Memory,
}

impl Scratch {
    /// Takes a ciphertext, one block of components for each limb.
    pub(crate) fn load(&mut self, blocks: &[&[u32]]) {
        self.x.set_parts(blocks.iter().map(|block| block.len()).sum(), blocks.iter().copied());
    }

    /// Divides the ciphertext in place.
    pub(crate) fn divide<S: Simd>(&mut self, s: S, division: &Division<'_>, components: usize) {
        division.apply(s, components, &mut self.x, &mut self.row);
    }
}

impl<'a> Relinearisation<'a> {
    /// Of ciphertexts over the first `level` limbs, dropping `drop` of them.
    pub(crate) fn new(ring: Ring<'a>, key: &KeySwitch<'a, CpuTensor>, level: usize, drop: usize) -> Self {
        assert!(level <= key.layout.level && drop < level, "level {level}, key for {}, drop {drop}", key.layout.level);
        let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();
        let in_key = |&limb: &usize| {
            let position = key.rows.shape().limbs.iter().position(|&l| l == limb);
            (limb, position.expect("the key has every limb"))
        };
        let digits: Vec<_> = (0..key.layout.digits(level)).map(|g| key.layout.digit_limbs(g, level)).collect();
        let converter =
            |digit: &std::ops::Range<usize>| Converter::new(ring.basis, &digit.clone().collect::<Vec<_>>(), &limbs);
        let special = |limb| Twiddle::new(ring.basis.modulus(limb), ring.basis.product_mod(key.special, limb));
        Relinearisation {
            ring,
            level,
            rows: key.rows,
            converters: digits.iter().map(converter).collect(),
            digits,
            limbs: limbs.iter().map(in_key).collect(),
            special: (0..level).map(special).collect(),
            division: Division::new(ring, &limbs, level - drop),
        }
    }

    /// Relinearises `scratch.x` in place.
    pub(crate) fn apply<S: Simd>(&self, s: S, scratch: &mut Scratch) {
        let n = self.ring.basis.n();
        let Scratch { x, next, top, digits, row } = scratch;
        top.set_parts(self.level * n, x.chunks_exact(3 * n).map(|x| &x[2 * n..]));
        for (limb, top) in top.chunks_exact_mut(n).enumerate() {
            s.run(InverseNtt(&self.ring.tables[limb], top));
        }
        for (converter, limbs) in self.converters.iter().zip(&self.digits) {
            let mut rows: Vec<&mut [u32]> = top[limbs.start * n..limbs.end * n].chunks_exact_mut(n).collect();
            converter.digits(s, &mut rows);
        }
        digits.set_len(self.digits.len() * n);
        next.set_len(self.limbs.len() * 2 * n);
        for (target, (sums, &(limb, in_key))) in next.chunks_exact_mut(2 * n).zip(&self.limbs).enumerate() {
            for (g, digit) in digits.chunks_exact_mut(n).enumerate() {
                if !self.digits[g].contains(&target) {
                    let from = &top[self.digits[g].start * n..self.digits[g].end * n];
                    let rows: Vec<&[u32]> = from.chunks_exact(n).collect();
                    self.converters[g].residues(s, &rows, target, digit);
                    s.run(ForwardNtt(&self.ring.tables[limb], digit));
                }
            }
            // Modulo its own primes a digit is what it was cut from, which is at hand in evaluation domain.
            let own = |g: usize| self.digits[g].contains(&target);
            let digit = |g: usize| if own(g) { &x[(target * 3 + 2) * n..][..n] } else { &digits[g * n..][..n] };
            let all: Vec<&[u32]> = (0..self.digits.len()).map(digit).collect();
            for (component, out) in sums.chunks_exact_mut(n).enumerate() {
                let key = |value| self.rows.row(Place { limb: in_key, value, component });
                let keys: Vec<&[u32]> = (0..self.digits.len()).map(key).collect();
                let start =
                    (target < self.level).then(|| (&x[(target * 3 + component) * n..][..n], self.special[target]));
                let modulus = self.ring.basis.modulus(limb);
                s.run(InnerProduct { modulus, start, digits: &all, keys: &keys, out });
            }
        }
        self.division.apply(s, 2, next, row);
        std::mem::swap(x, next);
    }
}

/// An activation with what follows each product.
pub(crate) struct Activation<'a> {
    ring: Ring<'a>,
    polynomial: &'a Horner,
    components: usize,
    products: Vec<Product<'a>>,
}

/// One product and what follows it.
struct Product<'a> {
    /// Limbs before it.
    level: usize,
    then: Then<'a>,
}

enum Then<'a> {
    Nothing,
    Relinearise(Relinearisation<'a>),
    Divide(Division<'a>),
}

impl<'a> Activation<'a> {
    /// On ciphertexts of `components` over `limbs`.
    pub(crate) fn new(
        ring: Ring<'a>,
        polynomial: &'a Horner,
        products: &[Maintenance],
        key: Option<&KeySwitch<'a, CpuTensor>>,
        (limbs, components): (&[usize], usize),
    ) -> Self {
        assert_eq!(products.len() + 1, polynomial.degree(), "one maintenance per product");
        let (mut level, mut held) = (limbs.len(), components);
        let mut product = |maintenance: &Maintenance| {
            let before = level;
            level -= maintenance.drop;
            held += components - 1;
            let then = match (maintenance.relinearise, key) {
                (true, Some(key)) => {
                    assert_eq!(held, 3, "relinearisation takes three components");
                    assert!(limbs[..before].iter().copied().eq(0..before), "a ciphertext of the chain");
                    held = 2;
                    Then::Relinearise(Relinearisation::new(ring, key, before, maintenance.drop))
                }
                (true, None) => panic!("relinearisation comes with a key"),
                (false, _) if maintenance.drop > 0 => Then::Divide(Division::new(ring, &limbs[..before], level)),
                (false, _) => Then::Nothing,
            };
            Product { level: before, then }
        };
        Activation { ring, polynomial, components, products: products.iter().map(&mut product).collect() }
    }

    /// Limbs and components of the result.
    pub(crate) fn result(&self, level: usize) -> (usize, usize) {
        let mut shape = (level, self.components);
        for product in &self.products {
            shape = match &product.then {
                Then::Nothing => (shape.0, shape.1 + self.components - 1),
                Then::Relinearise(step) => (step.division.kept, 2),
                Then::Divide(division) => (division.kept, shape.1 + self.components - 1),
            };
        }
        shape
    }

    /// Leaves the result in `scratch.x`; `z`, of a value of channel `channel`, is one block of
    /// components for each of `limbs`.
    pub(crate) fn apply<S: Simd>(&self, s: S, limbs: &[usize], channel: usize, z: &[&[u32]], scratch: &mut Scratch) {
        let n = self.ring.basis.n();
        let mut held = self.components;
        scratch.load(z);
        self.add_constant(s, 0, (limbs, channel), held, &mut scratch.x);
        for (step, product) in self.products.iter().enumerate() {
            let (before, after) = (held, held + self.components - 1);
            scratch.next.set_len(product.level * after * n);
            let blocks = scratch.next.chunks_exact_mut(after * n).zip(scratch.x.chunks_exact(before * n));
            for ((out, a), (b, &limb)) in blocks.zip(z.iter().zip(limbs)) {
                s.run(Multiply { modulus: self.ring.basis.modulus(limb), lanes: n, a, b, out });
            }
            std::mem::swap(&mut scratch.x, &mut scratch.next);
            held = after;
            match &product.then {
                Then::Nothing => (),
                Then::Relinearise(relinearisation) => {
                    relinearisation.apply(s, scratch);
                    held = 2;
                }
                Then::Divide(division) => scratch.divide(s, division, held),
            }
            self.add_constant(s, step + 1, (limbs, channel), held, &mut scratch.x);
        }
    }

    /// Adds the constant that follows `products` products; the last after the sign.
    fn add_constant<S: Simd>(
        &self,
        s: S,
        products: usize,
        (limbs, channel): (&[usize], usize),
        components: usize,
        x: &mut [u32],
    ) {
        let n = self.ring.basis.n();
        for (x, &limb) in x.chunks_exact_mut(components * n).zip(limbs) {
            let modulus = self.ring.basis.modulus(limb);
            if self.polynomial.negates() && products + 1 == self.polynomial.degree() {
                s.run(Negate { modulus, x: &mut *x });
            }
            let constant = self.polynomial.of_channel(limb, channel)[products];
            s.run(AddConstant { modulus, x: &mut x[..n], constant });
        }
    }
}
