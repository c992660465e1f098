//! Activations of a Program.

use cryptodl_core::backend::{CiphertextShape, Horner, Maintenance, PatersonStockmeyer};
use cryptodl_core::ckks::Scale;
use cryptodl_core::ring::RnsBasis;

use crate::arrangement::{Arrangement, ProductTrace, SquareForm};

/// An activation of a Program: integers at the scales of the places where they are added.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationStep {
    /// Whether the monic part is negated.
    pub negate: bool,
    /// Degree of the polynomial.
    pub degree: usize,
    /// The monic part, one for all channels, or one for each.
    pub channels: Vec<Polynomial>,
    /// Scale of the operand, then after each product.
    pub scales: Vec<Scale>,
    /// What follows each product.
    pub maintenance: Vec<Maintenance>,
}

/// Integer-valued numbers of a monic polynomial.
#[derive(Clone, Debug, PartialEq)]
pub enum Polynomial {
    /// `c_(d-1), ..., c_0`: see [`Horner`].
    Horner(Vec<f64>),
    /// See [`PatersonStockmeyer`].
    PatersonStockmeyer {
        /// `w = z (z + shift)`.
        shift: f64,
        /// `c_0, c_1, ...`.
        constants: Vec<f64>,
        /// `b_1, b_2, ...`.
        multiples: Vec<f64>,
    },
}

/// The form of an activation that backends take.
#[derive(Clone, Debug)]
pub enum PreparedPolynomial {
    /// Horner's rule.
    Horner(Horner),
    /// Fewer products.
    PatersonStockmeyer(PatersonStockmeyer),
}

impl ActivationStep {
    /// Rounds `sign (((z + c_(d-1)) z + c_(d-2)) z + ...) + c_0`, of which `channels` holds
    /// `c_(d-1), ..., c_0` for all channels together or for each, to the scales of the operand and
    /// of the products, `maintenance.len() + 1` of them.
    pub fn new(negate: bool, channels: &[&[f64]], scales: Vec<Scale>, maintenance: Vec<Maintenance>) -> Self {
        let degree = channels[0].len();
        let arrangement = Arrangement::with_products(degree, maintenance.len());
        let polynomial = |&channel: &&[f64]| match arrangement {
            Arrangement::Horner => {
                Polynomial::Horner(scales.iter().zip(channel).map(|(scale, &c)| scale.integer(c)).collect())
            }
            Arrangement::PatersonStockmeyer => {
                let form = SquareForm::of_horner(channel);
                let odd = degree % 2 == 1;
                let places = std::iter::once(square_form_start(&scales, odd)).chain(scales[2..].iter().copied());
                let multiples = form.multiples.iter().enumerate();
                Polynomial::PatersonStockmeyer {
                    shift: scales[0].integer(form.shift),
                    constants: places.zip(&form.constants).map(|(scale, &c)| scale.integer(c)).collect(),
                    multiples: multiples.map(|(i, b)| libm::rint(b * multiple_scale(&scales, odd, i))).collect(),
                }
            }
        };
        let channels = channels.iter().map(polynomial).collect();
        ActivationStep { negate, degree, channels, scales, maintenance }
    }

    pub(crate) fn arrangement(&self) -> Arrangement {
        Arrangement::with_products(self.degree, self.maintenance.len())
    }

    /// The form that backends take.
    pub fn prepare(&self, basis: &RnsBasis) -> PreparedPolynomial {
        // `[number][channel]`.
        let by_number = |of: fn(&Polynomial) -> Vec<f64>| -> Vec<f64> {
            let all: Vec<Vec<f64>> = self.channels.iter().map(of).collect();
            (0..all[0].len()).flat_map(|i| all.iter().map(move |numbers| numbers[i])).collect()
        };
        match self.arrangement() {
            Arrangement::Horner => {
                let constants = by_number(|polynomial| match polynomial {
                    Polynomial::Horner(constants) => constants.clone(),
                    Polynomial::PatersonStockmeyer { .. } => unreachable!("one arrangement for all channels"),
                });
                PreparedPolynomial::Horner(Horner::per_channel(basis, self.negate, self.channels.len(), &constants))
            }
            Arrangement::PatersonStockmeyer => {
                let parts: [fn(&Polynomial) -> Vec<f64>; 3] = [
                    |p| if let Polynomial::PatersonStockmeyer { shift, .. } = p { vec![*shift] } else { vec![] },
                    |p| {
                        if let Polynomial::PatersonStockmeyer { constants, .. } = p {
                            constants.clone()
                        } else {
                            vec![]
                        }
                    },
                    |p| {
                        if let Polynomial::PatersonStockmeyer { multiples, .. } = p {
                            multiples.clone()
                        } else {
                            vec![]
                        }
                    },
                ];
                let [shift, constants, multiples] = parts.map(by_number);
                let odd = self.degree % 2 == 1;
                let form = PatersonStockmeyer::per_channel(basis, self.negate, odd, &shift, &constants, &multiples);
                PreparedPolynomial::PatersonStockmeyer(form)
            }
        }
    }

    /// Whether no product is relinearised or rescaled, in Horner's arrangement: then the step is slot-wise.
    pub fn is_lazy(&self) -> bool {
        self.arrangement() == Arrangement::Horner && !self.maintenance.iter().any(|maintenance| maintenance.acts())
    }

    /// The products on ciphertexts of the shape `z`, and the result.
    pub fn trace(&self, z: CiphertextShape) -> ProductTrace {
        self.arrangement().trace(self.degree, &self.maintenance, z)
    }

    /// Real value of the activation at `z`, the `index`-th of `values` values.
    pub fn evaluate(&self, z: f64, index: usize, values: usize) -> f64 {
        let real = |number: f64, scale: Scale| number / scale.value();
        let last = self.maintenance.len() - 1;
        match &self.channels[index / (values / self.channels.len())] {
            Polynomial::Horner(constants) => {
                let mut u = z + real(constants[0], self.scales[0]);
                for (i, (&c, &scale)) in constants.iter().zip(&self.scales).skip(1).enumerate() {
                    u *= z;
                    if self.negate && i == last {
                        u = -u;
                    }
                    u += real(c, scale);
                }
                u
            }
            Polynomial::PatersonStockmeyer { shift, constants, multiples } => {
                let odd = self.degree % 2 == 1;
                let w = z * (z + real(*shift, self.scales[0]));
                let mut u = if odd { z } else { w } + real(constants[0], square_form_start(&self.scales, odd));
                for (i, (b, &c)) in multiples.iter().zip(&constants[1..]).enumerate() {
                    u = u * w + b / multiple_scale(&self.scales, odd, i) * z;
                    if self.negate && i + 1 == last {
                        u = -u;
                    }
                    u += real(c, self.scales[i + 2]);
                }
                u
            }
        }
    }

    /// The same of every value in `[value][batch]`.
    pub fn apply(&self, values: &mut [f64], batch: usize) {
        let count = values.len() / batch;
        for (index, row) in values.chunks_exact_mut(batch).enumerate() {
            row.iter_mut().for_each(|z| *z = self.evaluate(*z, index, count));
        }
    }
}

/// Scale of the first `u` in Paterson and Stockmeyer's arrangement: that of `z` or of `w`.
fn square_form_start(scales: &[Scale], odd: bool) -> Scale {
    scales[usize::from(!odd)]
}

/// What turns the real multiple of the i-th step (from 0) into an integer: the scale of its product `u w` over that of `z`.
fn multiple_scale(scales: &[Scale], odd: bool, i: usize) -> f64 {
    let u = if i == 0 { square_form_start(scales, odd) } else { scales[i + 1] };
    u.value() * scales[1].value() / scales[0].value()
}
