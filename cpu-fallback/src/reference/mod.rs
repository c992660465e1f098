//! The oracle: every operation as its definition reads, single-threaded. It shares tensors and their copies with what it judges,
//! and no arithmetic.

mod crt;
mod transform;

use std::sync::Arc;

use cryptodl_core::backend::{Backend, LinearMap, PADDING, Result, Shape, Window, packed_len, packed_row};
use cryptodl_core::ring::{Automorphism, RnsBasis, UniformSource};

use crate::machine::processor;
use crate::tensor::{CpuTensor, Place};

/// The reference backend.
#[derive(Clone, Debug)]
pub struct Reference {
    basis: Arc<RnsBasis>,
}

impl Reference {
    /// A backend over `basis`.
    pub fn new(basis: Arc<RnsBasis>) -> Self {
        Reference { basis }
    }

    fn prime(&self, limb: usize) -> u64 {
        self.basis.modulus(limb).value().into()
    }

    /// Replaces every residue `x` by `f(prime, place, lane, x)`.
    fn map(&self, x: &mut CpuTensor, f: impl Fn(u64, Place, usize, u64) -> u64) {
        let limbs = x.shape().limbs.clone();
        for (place, row) in x.rows_mut() {
            let q = self.prime(limbs[place.limb]);
            for (lane, residue) in row.iter_mut().enumerate() {
                *residue = f(q, place, lane, (*residue).into()) as u32;
            }
        }
    }
}

impl Backend for Reference {
    type Tensor = CpuTensor;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn kernels(&self) -> &'static str {
        "reference"
    }

    fn device(&self) -> String {
        processor()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        &self.basis
    }

    fn is_host(&self) -> bool {
        true
    }

    fn shape<'a>(&self, x: &'a CpuTensor) -> &'a Shape {
        x.shape()
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        CpuTensor::zeros(shape)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<CpuTensor> {
        CpuTensor::from_residues(shape, residues)
    }

    fn download(&self, x: &CpuTensor) -> Result<Vec<u32>> {
        Ok(x.residues().to_vec())
    }

    fn copy(&self, x: &CpuTensor, from: &Window, out: &mut CpuTensor, to: &Window) -> Result<()> {
        x.copy(from, out, to);
        Ok(())
    }

    fn unpack(&self, packed: &[u8], out: &mut CpuTensor, component: usize) -> Result<bool> {
        let shape = out.shape().clone();
        assert_eq!((packed.len(), shape.lanes), (packed_len(&self.basis, &shape), self.basis.n()), "packed rows");
        let (mut rest, mut valid) = (packed, true);
        for (place, row) in out.rows_mut().filter(|(place, _)| place.component == component) {
            let modulus = self.basis.modulus(shape.limbs[place.limb]);
            let bits = modulus.bits() as usize;
            for (j, residue) in row.iter_mut().enumerate() {
                *residue = (0..bits).map(|b| bit(rest, j * bits + b) << b).sum();
                valid &= *residue < modulus.value();
            }
            rest = &rest[packed_row(&self.basis, shape.limbs[place.limb])..];
        }
        Ok(valid)
    }

    fn pack(&self, x: &CpuTensor, component: usize) -> Result<Vec<u8>> {
        assert_eq!(x.shape().lanes, self.basis.n(), "whole polynomials");
        let mut packed = Vec::new();
        for (position, &limb) in x.shape().limbs.iter().enumerate() {
            let bits = self.basis.modulus(limb).bits() as usize;
            for value in 0..x.shape().values {
                let mut row = vec![0; packed_row(&self.basis, limb)];
                for (j, &residue) in x.row(Place { limb: position, value, component }).iter().enumerate() {
                    for b in 0..bits {
                        row[(j * bits + b) / 8] |= ((residue >> b & 1) as u8) << ((j * bits + b) % 8);
                    }
                }
                packed.extend(row);
            }
        }
        Ok(packed)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut CpuTensor, component: usize) -> Result<()> {
        let limbs = out.shape().limbs.clone();
        for (place, row) in out.rows_mut().filter(|(place, _)| place.component == component) {
            let limb = limbs[place.limb];
            source.fill(first_object + place.value as u32, limb as u32, self.basis.modulus(limb), 0, row);
        }
        Ok(())
    }

    fn linear(&self, map: &LinearMap, x: &CpuTensor) -> Result<CpuTensor> {
        let shape = x.shape().clone();
        assert_eq!(shape.values, map.inputs(), "values of the operand");
        let mut out = CpuTensor::zeros(Shape { values: map.outputs(), ..shape.clone() })?;
        for (place, lanes) in out.rows_mut() {
            let (row, position) = (place.value / map.positions(), place.value % map.positions());
            let limb = shape.limbs[place.limb];
            let constant = if place.component == 0 { map.constants(limb)[row] } else { 0 };
            let shift = (row / map.rows_per_group()) as u32 * map.group_stride();
            let mut sums = vec![i64::from(constant); shape.lanes];
            for (&weight, &index) in map.row(row).iter().zip(map.gather(position)) {
                if index != PADDING {
                    let input = x.row(Place { value: (index + shift) as usize, ..place });
                    sums.iter_mut().zip(input).for_each(|(sum, &x)| *sum += i64::from(weight) * i64::from(x));
                }
            }
            let q = self.prime(limb) as i64;
            lanes.iter_mut().zip(sums).for_each(|(lane, sum)| *lane = sum.rem_euclid(q) as u32);
        }
        Ok(out)
    }

    fn multiply(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        let (left, right) = (a.shape().clone(), b.shape().clone());
        assert_eq!(left, Shape { components: left.components, ..right.clone() }, "factors");
        let mut out = CpuTensor::zeros(Shape { components: left.components + right.components - 1, ..left.clone() })?;
        self.map(&mut out, |q, place, lane, _| {
            let pairs = (0..left.components).filter_map(|i| Some((i, place.component.checked_sub(i)?)));
            let products = pairs.filter(|&(_, j)| j < right.components).map(|(i, j)| {
                let factor = |x: &CpuTensor, component| u64::from(x.row(Place { component, ..place })[lane]);
                factor(a, i) * factor(b, j) % q
            });
            products.sum::<u64>() % q
        });
        Ok(out)
    }

    fn add_constant(&self, x: &mut CpuTensor, constants: &[u32]) -> Result<()> {
        let constants = ByChannel::new(constants, x.shape());
        self.map(x, |q, place, _, x| {
            let constant = if place.component == 0 { constants.at(place) } else { 0 };
            (x + constant) % q
        });
        Ok(())
    }

    fn scale(&self, x: &mut CpuTensor, factors: &[u32]) -> Result<()> {
        let factors = ByChannel::new(factors, x.shape());
        self.map(x, |q, place, _, x| x * factors.at(place) % q);
        Ok(())
    }

    fn accumulate(&self, acc: &mut CpuTensor, x: &CpuTensor, factors: &[u32]) -> Result<()> {
        let (to, from) = (acc.shape().clone(), x.shape().clone());
        assert_eq!((to.values, to.lanes), (from.values, from.lanes), "values and lanes");
        assert!(from.components <= to.components, "{} components to {}", from.components, to.components);
        let in_x = |limb| from.limbs.iter().position(|l| l == limb).expect("the operand has every limb");
        let in_x: Vec<usize> = to.limbs.iter().map(in_x).collect();
        let factors = ByChannel::new(factors, &to);
        self.map(acc, |q, place, lane, sum| {
            if place.component >= from.components {
                return sum;
            }
            let x = x.row(Place { limb: in_x[place.limb], ..place })[lane];
            (sum + factors.at(place) * u64::from(x)) % q
        });
        Ok(())
    }

    fn add(&self, x: &mut CpuTensor, y: &CpuTensor) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "summands");
        self.map(x, |q, place, lane, x| (x + u64::from(y.row(place)[lane])) % q);
        Ok(())
    }

    fn subtract_scale(&self, x: &mut CpuTensor, y: &CpuTensor, factors: &[u32]) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "operands of a difference");
        assert_eq!(factors.len(), x.shape().limbs.len(), "one factor per limb");
        self.map(x, |q, place, lane, x| (x + q - u64::from(y.row(place)[lane])) * u64::from(factors[place.limb]) % q);
        Ok(())
    }

    fn accumulate_key(&self, acc: &mut CpuTensor, digit: &CpuTensor, key: &CpuTensor, row: usize) -> Result<()> {
        let expected = Shape { components: 1, ..acc.shape().clone() };
        assert_eq!((digit.shape(), acc.shape().components, key.shape().components), (&expected, 2, 2), "key switch");
        let limbs = acc.shape().limbs.clone();
        let in_key = |limb| key.shape().limbs.iter().position(|l| *l == limb).expect("the key has every limb");
        self.map(acc, |q, place, lane, x| {
            let key = key.row(Place { limb: in_key(limbs[place.limb]), value: row, ..place })[lane];
            (x + u64::from(digit.row(Place { component: 0, ..place })[lane]) * u64::from(key)) % q
        });
        Ok(())
    }

    fn forward_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        let limbs = x.shape().limbs.clone();
        x.rows_mut().for_each(|(place, row)| transform::forward(self.basis.table(limbs[place.limb]), row));
        Ok(())
    }

    fn inverse_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        let limbs = x.shape().limbs.clone();
        x.rows_mut().for_each(|(place, row)| transform::inverse(self.basis.table(limbs[place.limb]), row));
        Ok(())
    }

    fn convert_basis(&self, x: &CpuTensor, limbs: &[usize]) -> Result<CpuTensor> {
        let primes: Vec<u32> = x.shape().limbs.iter().map(|&limb| self.basis.modulus(limb).value()).collect();
        let composer = crt::Composer::new(&primes);
        let stride = x.shape().limb_len();
        let integers: Vec<_> =
            (0..stride).map(|i| composer.compose(x.residues()[i..].iter().step_by(stride).copied())).collect();
        let mut out = CpuTensor::zeros(Shape { limbs: limbs.to_vec(), ..x.shape().clone() })?;
        for (block, &limb) in out.residues_mut().chunks_exact_mut(stride).zip(limbs) {
            let q = self.basis.modulus(limb).value();
            block.iter_mut().zip(&integers).for_each(|(residue, integer)| *residue = integer.modulo(q));
        }
        Ok(out)
    }

    fn prime_digit(&self, x: &CpuTensor, part: usize, parts: usize, limbs: &[usize]) -> Result<CpuTensor> {
        let &[own] = &x.shape().limbs[..] else { panic!("digits of one prime") };
        let q = self.prime(own) as i64;
        let width = self.basis.modulus(own).bits().div_ceil(parts as u32);
        let digit = |&residue: &u32| {
            let mut rest = if i64::from(residue) > q / 2 { i64::from(residue) - q } else { residue.into() };
            // From the lowest digit on, each takes what is nearest: half of the base goes up.
            for _ in 0..part {
                rest = (rest + (1 << (width - 1))) >> width;
            }
            let carry = (rest + (1 << (width - 1))) >> width;
            if part + 1 == parts { rest } else { rest - (carry << width) }
        };
        let digits: Vec<i64> = x.residues().iter().map(digit).collect();
        let mut out = CpuTensor::zeros(Shape { limbs: limbs.to_vec(), ..x.shape().clone() })?;
        for (block, &limb) in out.residues_mut().chunks_exact_mut(x.shape().limb_len()).zip(limbs) {
            let q = self.prime(limb) as i64;
            block.iter_mut().zip(&digits).for_each(|(residue, digit)| *residue = digit.rem_euclid(q) as u32);
        }
        Ok(out)
    }

    fn automorphism(&self, automorphism: Automorphism, x: &CpuTensor) -> Result<CpuTensor> {
        assert_eq!(x.shape().lanes, automorphism.n(), "whole polynomials");
        let mut coefficients = x.clone();
        self.inverse_ntt(&mut coefficients)?;
        let mut out = coefficients.clone();
        let limbs = x.shape().limbs.clone();
        for (place, row) in out.rows_mut() {
            let q = self.prime(limbs[place.limb]) as u32;
            for (j, &a) in coefficients.row(place).iter().enumerate() {
                let (to, negative) = automorphism.coefficient(j);
                row[to] = if negative && a > 0 { q - a } else { a };
            }
        }
        self.forward_ntt(&mut out)?;
        Ok(out)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

/// Constants `[limb][channel]`. Values are in channel order: the first channel has the first
/// values.
struct ByChannel {
    constants: Vec<u32>,
    channels: usize,
    /// Values of a channel.
    positions: usize,
}

impl ByChannel {
    /// For a tensor of shape `x`.
    fn new(constants: &[u32], x: &Shape) -> Self {
        let channels = constants.len() / x.limbs.len();
        assert_eq!(constants.len(), channels * x.limbs.len(), "as many constants for every limb");
        let positions = x.values / channels;
        assert_eq!(x.values, channels * positions, "as many values for every channel");
        ByChannel { constants: constants.to_vec(), channels, positions }
    }

    fn at(&self, place: Place) -> u64 {
        self.constants[place.limb * self.channels + place.value / self.positions].into()
    }
}

/// Bit `index`, least significant first.
fn bit(bytes: &[u8], index: usize) -> u32 {
    u32::from(bytes[index / 8] >> (index % 8) & 1)
}
