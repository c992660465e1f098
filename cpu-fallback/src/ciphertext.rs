//! Steps on one whole ciphertext by one thread: everything between a ciphertext's first and last use stays in the core's own
//! caches. The bits are those of the composed steps of `cryptodl_core::backend`.
//!
//! Ciphertexts are `[limb][component][N]`, evaluation domain, canonical.

use std::ops::Range;

use cryptodl_core::backend::{Horner, KeySwitch, Maintenance};
use cryptodl_core::ring::{PrimeDigit, RnsBasis, Twiddle};

use crate::kernels::convert::Converter;
use crate::kernels::elementwise::{AddConstant, InnerProduct, Multiply, Negate, ReducedDigit, SubtractScale};
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

/// From the last component of ciphertexts, under another secret, to two components, then division by the special
/// primes and the last of the chain.
pub(crate) struct KeySwitching<'a> {
    ring: Ring<'a>,
    level: usize,
    digits: Vec<Digit>,
    /// The chain's limbs up to the level, then the special ones, each with its position in the key.
    limbs: Vec<(usize, usize)>,
    /// The product of the special primes.
    special: Vec<Twiddle>,
    division: Division<'a>,
}

/// How a digit is cut from residues in coefficient domain.
enum Digit {
    /// From several limbs of the chain, to all limbs.
    Primes(Range<usize>, Converter),
    /// From one limb.
    Part(usize, PrimeDigit),
}

/// Memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The ciphertext on which a step works.
    pub(crate) x: Memory,
    /// The component that is switched in coefficient domain, then its digits.
    top: Memory,
    /// Digits modulo one prime or all of them, evaluation domain.
    digits: Memory,
    /// What it becomes.
    made: Made,
}

/// What [`KeySwitching::switch`] makes, and what it needs for that.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) next: Memory,
    row: Memory,
}

/// A ciphertext and the digits of its component 1.
#[derive(Clone, Copy)]
pub(crate) struct Decomposed<'a> {
    x: &'a [u32],
    digits: &'a [u32],
}

impl Scratch {
    /// What was decomposed last, and memory for what is made of it.
    pub(crate) fn decomposed(&mut self) -> (Decomposed<'_>, &mut Made) {
        (Decomposed { x: &self.x, digits: &self.digits }, &mut self.made)
    }

    /// Takes a ciphertext, one block of components for each limb.
    pub(crate) fn load(&mut self, blocks: &[&[u32]]) {
        self.x.set_parts(blocks.iter().map(|block| block.len()).sum(), blocks.iter().copied());
    }

    /// Divides the ciphertext in place.
    pub(crate) fn divide<S: Simd>(&mut self, s: S, division: &Division<'_>, components: usize) {
        division.apply(s, components, &mut self.x, &mut self.made.row);
    }
}

impl<'a> KeySwitching<'a> {
    /// Of ciphertexts over the first `level` limbs, dropping `drop` of them, with keys like `key`.
    pub(crate) fn new(ring: Ring<'a>, key: &KeySwitch<'a, CpuTensor>, level: usize, drop: usize) -> Self {
        assert!(level <= key.layout.level && drop < level, "level {level}, key for {}, drop {drop}", key.layout.level);
        let limbs: Vec<usize> = (0..level).chain(key.special.iter().copied()).collect();
        let in_key = |&limb: &usize| {
            let position = key.rows.shape().limbs.iter().position(|&l| l == limb);
            (limb, position.expect("the key has every limb"))
        };
        let digit = |g| {
            let own = key.layout.digit_limbs(g, level);
            match key.layout.prime_parts {
                1 => {
                    let converter = Converter::new(ring.basis, &own.clone().collect::<Vec<_>>(), &limbs);
                    Digit::Primes(own, converter)
                }
                parts => {
                    let digit = PrimeDigit::new(ring.basis.modulus(own.start), key.layout.part(g), parts);
                    Digit::Part(own.start, digit)
                }
            }
        };
        let special = |limb| Twiddle::new(ring.basis.modulus(limb), ring.basis.product_mod(key.special, limb));
        KeySwitching {
            ring,
            level,
            digits: (0..key.layout.digits(level)).map(digit).collect(),
            limbs: limbs.iter().map(in_key).collect(),
            special: (0..level).map(special).collect(),
            division: Division::new(ring, &limbs, level - drop),
        }
    }

    /// Relinearises `scratch.x`, of three components, in place with the rows of a key.
    pub(crate) fn relinearise<S: Simd>(&self, s: S, rows: &CpuTensor, scratch: &mut Scratch) {
        const COMPONENTS: usize = 3;
        let n = self.ring.basis.n();
        let Scratch { x, top, digits, made: Made { next, row } } = scratch;
        self.cut(s, COMPONENTS, x, top);
        digits.set_len(self.digits.len() * n);
        next.set_len(self.limbs.len() * 2 * n);
        for (target, sums) in next.chunks_exact_mut(2 * n).enumerate() {
            self.transform(s, target, top, digits);
            self.product(s, target, rows, (COMPONENTS, x), digits, sums);
        }
        self.division.apply(s, 2, next, row);
        std::mem::swap(x, next);
    }

    /// Cuts component 1 of `scratch.x`, of two components, for any number of [`Self::switch`]es.
    pub(crate) fn decompose<S: Simd>(&self, s: S, scratch: &mut Scratch) {
        let n = self.ring.basis.n();
        let Scratch { x, top, digits, .. } = scratch;
        self.cut(s, 2, x, top);
        digits.set_len(self.limbs.len() * self.digits.len() * n);
        for (target, digits) in digits.chunks_exact_mut(self.digits.len() * n).enumerate() {
            self.transform(s, target, top, digits);
        }
    }

    /// Leaves in `own.next` component 0 of a ciphertext with what a key's rows make of its digits.
    pub(crate) fn switch<S: Simd>(&self, s: S, rows: &CpuTensor, cut: Decomposed<'_>, own: &mut Made) {
        let n = self.ring.basis.n();
        let (Decomposed { x, digits }, Made { next, row }) = (cut, own);
        next.set_len(self.limbs.len() * 2 * n);
        let targets = next.chunks_exact_mut(2 * n).zip(digits.chunks_exact(self.digits.len() * n));
        for (target, (sums, digits)) in targets.enumerate() {
            self.product(s, target, rows, (2, x), digits, sums);
        }
        self.division.apply(s, 2, next, row);
    }

    /// Takes the last of `components` components of `x` to coefficient domain, and prepares its conversion.
    fn cut<S: Simd>(&self, s: S, components: usize, x: &[u32], top: &mut Memory) {
        let n = self.ring.basis.n();
        top.set_parts(self.level * n, x.chunks_exact(components * n).map(|x| &x[(components - 1) * n..]));
        for (limb, top) in top.chunks_exact_mut(n).enumerate() {
            s.run(InverseNtt(&self.ring.tables[limb], top));
        }
        for digit in &self.digits {
            if let Digit::Primes(limbs, converter) = digit {
                let mut rows: Vec<&mut [u32]> = top[limbs.start * n..limbs.end * n].chunks_exact_mut(n).collect();
                converter.digits(s, &mut rows);
            }
        }
    }

    /// Modulo its own primes a digit of whole primes is what it was cut from, which is at hand in evaluation domain.
    fn is_own(&self, digit: &Digit, target: usize) -> bool {
        matches!(digit, Digit::Primes(limbs, _) if limbs.contains(&target))
    }

    /// All digits but the own ones modulo the prime at position `target`: `[digit][N]`, evaluation domain.
    fn transform<S: Simd>(&self, s: S, target: usize, top: &[u32], digits: &mut [u32]) {
        let n = self.ring.basis.n();
        let limb = self.limbs[target].0;
        for (digit, out) in self.digits.iter().zip(digits.chunks_exact_mut(n)) {
            if self.is_own(digit, target) {
                continue;
            }
            match digit {
                Digit::Primes(limbs, converter) => {
                    let rows: Vec<&[u32]> = top[limbs.start * n..limbs.end * n].chunks_exact(n).collect();
                    converter.residues(s, &rows, target, out);
                }
                &Digit::Part(own, digit) => {
                    let modulus = self.ring.basis.modulus(limb);
                    s.run(ReducedDigit { digit, modulus, x: &top[own * n..][..n], out });
                }
            }
            s.run(ForwardNtt(&self.ring.tables[limb], out));
        }
    }

    /// Products of the digits and a key modulo the prime at position `target`, plus `P` times the components of `x`
    /// that are kept.
    fn product<S: Simd>(
        &self,
        s: S,
        target: usize,
        rows: &CpuTensor,
        (components, x): (usize, &[u32]),
        digits: &[u32],
        sums: &mut [u32],
    ) {
        let n = self.ring.basis.n();
        let (limb, in_key) = self.limbs[target];
        let digit = |(digit, row)| match self.is_own(digit, target) {
            true => &x[(target * components + components - 1) * n..][..n],
            false => row,
        };
        let digits: Vec<&[u32]> = self.digits.iter().zip(digits.chunks_exact(n)).map(digit).collect();
        for (component, out) in sums.chunks_exact_mut(n).enumerate() {
            let key = |value| rows.row(Place { limb: in_key, value, component });
            let keys: Vec<&[u32]> = (0..digits.len()).map(key).collect();
            let kept = target < self.level && component + 1 < components;
            let start = kept.then(|| (&x[(target * components + component) * n..][..n], self.special[target]));
            let modulus = self.ring.basis.modulus(limb);
            s.run(InnerProduct { modulus, start, digits: &digits, keys: &keys, out });
        }
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
    Relinearise(KeySwitching<'a>, &'a CpuTensor),
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
                    Then::Relinearise(KeySwitching::new(ring, key, before, maintenance.drop), key.rows)
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
                Then::Relinearise(step, _) => (step.division.kept, 2),
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
            scratch.made.next.set_len(product.level * after * n);
            let blocks = scratch.made.next.chunks_exact_mut(after * n).zip(scratch.x.chunks_exact(before * n));
            for ((out, a), (b, &limb)) in blocks.zip(z.iter().zip(limbs)) {
                s.run(Multiply { modulus: self.ring.basis.modulus(limb), lanes: n, a, b, out });
            }
            std::mem::swap(&mut scratch.x, &mut scratch.made.next);
            held = after;
            match &product.then {
                Then::Nothing => (),
                Then::Relinearise(switching, rows) => {
                    switching.relinearise(s, rows, scratch);
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
