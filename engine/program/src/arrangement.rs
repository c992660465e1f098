//! In which order the products of an activation are taken.

use cryptodl_core::backend::{CiphertextShape, Maintenance};

/// A product within an activation, before its maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Chain limbs: those of the operand that has fewer.
    pub level: usize,
    /// Components of the two operands.
    pub operands: [usize; 2],
}

impl Product {
    /// The product's ciphertext.
    pub fn shape(&self) -> CiphertextShape {
        CiphertextShape { level: self.level, components: self.operands[0] + self.operands[1] - 1 }
    }
}

/// What an activation does to the shape of ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductTrace {
    /// Its products in order.
    pub products: Vec<Product>,
    /// The activation's value.
    pub result: CiphertextShape,
}

/// How a monic polynomial of degree `d` is computed from products of ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// Horner's rule, `d - 1` products with `z`. Without relinearisation and rescaling it acts on each lane by itself.
    Horner,
    /// `ceil(d / 2)` products, all but the first with `w = z (z + shift)`; for degrees where these are fewer.
    PatersonStockmeyer,
}

impl Arrangement {
    /// Those worth a thought for activations of degree `d`.
    pub fn of_degree(degree: usize) -> &'static [Self] {
        if degree <= 3 { &[Self::Horner] } else { &[Self::Horner, Self::PatersonStockmeyer] }
    }

    /// The one of an activation of degree `d` with so many products.
    pub fn with_products(degree: usize, products: usize) -> Self {
        let found = Self::of_degree(degree).iter().find(|arrangement| arrangement.products(degree) == products);
        *found.expect("a schedule plans all products of one arrangement")
    }

    /// Products of ciphertexts.
    pub fn products(self, degree: usize) -> usize {
        match self {
            Self::Horner => degree - 1,
            Self::PatersonStockmeyer => degree.div_ceil(2),
        }
    }

    /// Takes the products in order: `product(i, u, v)` makes the i-th (from 0) of two earlier results. Returns the last.
    pub fn follow<S: Clone>(self, degree: usize, z: S, mut product: impl FnMut(usize, &S, &S) -> S) -> S {
        match self {
            Self::Horner => (0..self.products(degree)).fold(z.clone(), |u, i| product(i, &u, &z)),
            Self::PatersonStockmeyer => {
                let w = product(0, &z, &z);
                let start = if degree % 2 == 1 { z } else { w.clone() };
                (1..self.products(degree)).fold(start, |u, i| product(i, &u, &w))
            }
        }
    }

    /// All products on ciphertexts of the shape `z`, of which each is followed by its
    /// `maintenance`.
    pub fn trace(self, degree: usize, maintenance: &[Maintenance], z: CiphertextShape) -> ProductTrace {
        let mut products = Vec::with_capacity(maintenance.len());
        let result = self.follow(degree, z, |i, a: &CiphertextShape, b: &CiphertextShape| {
            let product = Product { level: a.level.min(b.level), operands: [a.components, b.components] };
            products.push(product);
            maintenance[i].result(product.shape())
        });
        ProductTrace { products, result }
    }

    /// Whether a multiple of `z` is added to the i-th product.
    pub fn adds_multiple(self, i: usize) -> bool {
        self == Self::PatersonStockmeyer && i > 0
    }
}

/// The real numbers in Paterson and Stockmeyer's arrangement of a monic polynomial; see
/// [`cryptodl_core::backend::PatersonStockmeyer`].
#[derive(Clone, Debug, PartialEq)]
pub struct SquareForm {
    /// `w = z (z + shift)`.
    pub shift: f64,
    /// `c_0, c_1, ...`; the last is added after the sign.
    pub constants: Vec<f64>,
    /// `b_1, b_2, ...`.
    pub multiples: Vec<f64>,
}

impl SquareForm {
    /// Of `sign (z^d + m_(d-1) z^(d-1) + ... + m_1 z) + last`; `monic` is `m_1, ..., m_(d-1)`, `d >= 3`.
    pub fn new(monic: &[f64], last: f64) -> Self {
        let degree = monic.len() + 1;
        let steps = degree.div_ceil(2) - 1;
        // For even degrees this shift takes the term of degree d - 1, so that u starts as w + c without a multiple of z.
        let shift = if degree.is_multiple_of(2) { monic[degree - 2] / (degree / 2) as f64 } else { 0.0 };
        let mut quotient: Vec<f64> = std::iter::once(0.0).chain(monic.iter().copied()).chain([1.0]).collect();
        let (mut constants, mut multiples) = (vec![last], Vec::new());
        for step in 0..steps {
            // Synthetic division by z^2 + shift z: the remainder is b z + c.
            for i in (2..quotient.len()).rev() {
                quotient[i - 1] -= shift * quotient[i];
            }
            multiples.push(quotient[1]);
            // The remainder's constant joins the step before; the lowest is zero, for w and the monic part have none.
            if step > 0 {
                constants.push(quotient[0]);
            }
            quotient.drain(..2);
        }
        constants.push(quotient[0]);
        constants.reverse();
        multiples.reverse();
        SquareForm { shift, constants, multiples }
    }

    /// Of `sign (((z + c_(d-1)) z + c_(d-2)) z + ...) + c_0`, from `c_(d-1), ..., c_0`.
    pub fn of_horner(constants: &[f64]) -> Self {
        let (last, monic) = constants.split_last().expect("a degree of 2 or more");
        let monic: Vec<f64> = monic.iter().rev().copied().collect();
        SquareForm::new(&monic, *last)
    }

    /// Degree, from the sign-free form: whether `u` starts from `z`.
    fn is_odd(degree: usize) -> bool {
        degree % 2 == 1
    }

    /// `w`, and `u` after each step, for the polynomial of the given degree and sign.
    pub fn trace(&self, degree: usize, negate: bool, z: f64) -> Vec<f64> {
        let w = z * (z + self.shift);
        let mut u = if Self::is_odd(degree) { z } else { w } + self.constants[0];
        let mut trace = vec![w];
        for (i, (b, c)) in self.multiples.iter().zip(&self.constants[1..]).enumerate() {
            u = u * w + b * z;
            if negate && i + 1 == self.multiples.len() {
                u = -u;
            }
            u += c;
            trace.push(u);
        }
        trace
    }

    /// Derivative of the result, up to its sign, with respect to each product.
    pub fn sensitivities(&self, degree: usize, z: f64) -> Vec<f64> {
        let w = z * (z + self.shift);
        let (mut u, mut du) = if Self::is_odd(degree) { (z, 0.0) } else { (w, 1.0) };
        u += self.constants[0];
        for (b, c) in self.multiples.iter().zip(&self.constants[1..]) {
            du = du * w + u;
            u = u * w + b * z + c;
        }
        let later = (0..self.multiples.len()).rev().map(|left| libm::pow(w.abs(), left as f64));
        std::iter::once(du).chain(later).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_arrangements_are_the_same_polynomial(
            monic in prop::collection::vec(-2.0..2.0f64, 2..8), last in -2.0..2.0f64, negate: bool, z in -2.0..2.0f64,
        ) {
            let degree = monic.len() + 1;
            let form = SquareForm::new(&monic, last);
            prop_assert_eq!(form.multiples.len() + 1, Arrangement::PatersonStockmeyer.products(degree));
            let sign = if negate { -1.0 } else { 1.0 };
            let value = |z: f64| sign * monic.iter().rev().fold(1.0, |sum, m| sum * z + m) * z + last;
            let trace = form.trace(degree, negate, z);
            prop_assert!((trace.last().unwrap() - value(z)).abs() < 1e-6);
        }

        /// A small change of each product against what the derivative says.
        #[test]
        fn sensitivities_are_derivatives(
            monic in prop::collection::vec(-1.0..1.0f64, 3..8), z in -1.5..1.5f64, which: prop::sample::Index,
        ) {
            let degree = monic.len() + 1;
            let form = SquareForm::new(&monic, 0.3);
            let products = Arrangement::PatersonStockmeyer.products(degree);
            let changed = which.index(products);
            let run = |change: f64| {
                let mut constants = form.constants.iter();
                // As the walk takes it: a change of a product stays in all that is made of it.
                let start = *constants.next().unwrap();
                let w = z * (z + form.shift) + if changed == 0 { change } else { 0.0 };
                let mut u = if degree % 2 == 1 { z } else { w } + start;
                for (i, (b, c)) in form.multiples.iter().zip(constants).enumerate() {
                    u = u * w + b * z + if changed == i + 1 { change } else { 0.0 } + c;
                }
                u
            };
            let step = 1e-5;
            let slope = (run(step) - run(-step)) / (2.0 * step);
            let found = form.sensitivities(degree, z)[changed];
            prop_assert!((slope.abs() - found.abs()).abs() < 1e-4 * (1.0 + slope.abs()), "{} and {}", slope, found);
        }
    }
}
