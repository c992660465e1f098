//! What is compared: every operation, with random and with extreme inputs.

use std::ops::Range;

use super::call::{Call, Host};
use super::suite::Suite;
use super::{CHAIN, Failure};
use crate::backend::{
    Backend, LinearMap, MAX_TAPS, MAX_WEIGHT, Maintenance, RelinLayout, SlotwiseOp, Window, packed_len, slotwise_shape,
};
use crate::ring::{Automorphism, RnsBasis, UniformSource, pack_row, packed_row_len};

impl<R: Backend, C: Backend> Suite<'_, R, C> {
    pub(super) fn memory(&mut self) -> Result<(), Failure> {
        let n = self.n();
        let x = self.random(&[2, 0, 5], 3, 2, n);
        self.check("zeros", Call::Zeros(x.shape.clone()))?;
        self.check("round trip", Call::Upload(x.clone()))?;
        let y = self.random(&[1, 2], 4, 5, n);
        let corners = [
            (x.shape.window(), x.shape.window(), x.clone()),
            (
                Window { limbs: 1..3, values: 1..3, components: 0..2, lanes: 3..n - 1 },
                Window { limbs: 0..2, values: 2..4, components: 3..5, lanes: 0..n - 4 },
                y.clone(),
            ),
            (
                Window { limbs: 0..1, values: 0..1, components: 1..2, lanes: 5..6 },
                Window { limbs: 1..2, values: 3..4, components: 0..1, lanes: n - 1..n },
                y.clone(),
            ),
            (
                x.shape.window().with_limbs(1..3).with_values(2..2),
                y.shape.window().with_values(0..0).with_components(0..2),
                y,
            ),
        ];
        for (from, to, out) in corners {
            self.check(format!("{from:?} to {to:?}"), Call::Copy { x: x.clone(), from, out, to })?;
        }
        Ok(())
    }

    pub(super) fn wire(&mut self) -> Result<(), Failure> {
        let n = self.n();
        for limbs in [&[0][..], &[1], &[1, 0, 4]] {
            let [random, largest] = self.operands(limbs, 3, 2, n);
            for (case, x) in [random, largest] {
                for component in 0..2 {
                    self.check(format!("{case}, component {component}"), Call::Pack { x: x.clone(), component })?;
                    let case = format!("what was packed, {case}, component {component}");
                    self.check(case, Call::Repack { x: x.clone(), component })?;
                }
            }
            // The primes themselves are refused wherever they stand.
            let mut out = self.largest(limbs, 2, 1, n);
            let len = packed_len(self.basis(), &out.shape);
            self.check("all bits set", Call::Unpack { packed: vec![0xff; len], out: out.clone(), component: 0 })?;
            for at in [0, n + 1, out.residues.len() - 1] {
                let kept = out.residues[at];
                out.residues[at] += 1;
                let packed = pack(self.basis(), &out);
                out.residues[at] = kept;
                let case = format!("residue {at} equal to its prime");
                self.check(case, Call::Unpack { packed, out: out.clone(), component: 0 })?;
            }
        }
        for (component, first_object) in [(0, 0), (1, 7), (2, 1 << 31)] {
            let out = self.random(&[1, 4, 0], 3, 3, n);
            let source = UniformSource::from_key([component as u8; 32]);
            let case = format!("objects from {first_object}, component {component}");
            self.check(case, Call::Expand { source, first_object, out, component })?;
        }
        Ok(())
    }

    pub(super) fn arithmetic(&mut self) -> Result<(), Failure> {
        for lanes in self.lane_counts() {
            let limbs = [0, 1, 5];
            for (case, x) in self.operands(&limbs, 3, 2, lanes) {
                let factors = self.factors(&limbs, 1);
                let y = if case == "random residues" { self.random(&limbs, 3, 2, lanes) } else { x.clone() };
                let zero = Host { residues: vec![0; x.residues.len()], ..x.clone() };
                self.check(case, Call::Add { x: x.clone(), y: y.clone() })?;
                self.check(case, Call::SubtractScale { x, y: y.clone(), factors: factors.clone() })?;
                self.check("zero minus something", Call::SubtractScale { x: zero, y, factors })?;
            }
            for channels in [1, 2, 3, 6] {
                for (case, x) in self.operands(&limbs, 6, 2, lanes) {
                    let case = format!("{case}, {channels} channels");
                    let constants = self.factors(&limbs, channels);
                    self.check(case.clone(), Call::AddConstant { x: x.clone(), constants })?;
                    let factors = self.factors(&limbs, channels);
                    self.check(case, Call::Scale { x, factors })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn joins(&mut self) -> Result<(), Failure> {
        // Limbs of what is added, which may have more than the sum has and in another order, then
        // of the sum.
        let limbs: [(&[usize], &[usize]); 3] =
            [(&[0, 1], &[0, 1]), (&[0, 1, 2, 3, 5], &[0, 1, 2]), (&[5, 0, 3, 1], &[1, 5])];
        for (from, to) in limbs {
            for (components, sums) in [(1, 1), (2, 2), (1, 3), (2, 3), (3, 5)] {
                for (channels, lanes) in [1, 2, 3, 6].into_iter().zip(self.lane_counts()) {
                    let operands = self.operands(from, 6, components, lanes).into_iter();
                    for ((case, x), (_, acc)) in operands.zip(self.operands(to, 6, sums, lanes)) {
                        let factors = match case {
                            "random residues" => self.factors(to, channels),
                            _ => self.largest(to, channels, 1, 1).residues,
                        };
                        let case = format!("{case}, {components} components over limbs {from:?}, {channels} channels");
                        self.check(case, Call::Accumulate { acc, x, factors })?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn products(&mut self) -> Result<(), Failure> {
        for (left, right) in [(1, 1), (2, 2), (2, 1), (3, 2), (2, 3), (4, 2), (5, 5)] {
            for lanes in self.lane_counts() {
                let factors = self.operands(&[1, 0], 3, left, lanes).into_iter();
                for ((case, a), (_, b)) in factors.zip(self.operands(&[1, 0], 3, right, lanes)) {
                    self.check(format!("{case}, times {right} components"), Call::Multiply { a, b })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn linear_maps(&mut self) -> Result<(), Failure> {
        let maps = [
            ("one product", self.map([1, 1, 1, 1], 1, 0)),
            ("dense", self.map([21, 10, 21, 1], 1, 0)),
            ("convolution", self.map([18, 7, 9, 5], 1, 0)),
            ("padded convolution", self.map([18, 5, 9, 4], 1, 3)),
            ("grouped convolution", self.map([24, 6, 5, 3], 3, 4)),
            ("one row per group", self.map([12, 4, 3, 2], 4, 0)),
            ("only padding", self.map([3, 2, 2, 2], 1, 1)),
        ];
        for (name, map) in &maps {
            for (components, lanes) in (2..=5).zip(self.lane_counts()) {
                for (case, x) in self.operands(&[1, 0, 5], map.inputs(), components, lanes) {
                    self.check(format!("{name}, {case}"), Call::Linear { map, x })?;
                }
            }
        }
        // The longest sums of the largest products, of either sign and of both.
        for (name, signs) in [("positive", [1, 1]), ("negative", [-1, -1]), ("alternating", [1, -1])] {
            let weights = (0..MAX_TAPS).map(|tap| MAX_WEIGHT * signs[tap % 2]).collect();
            let gather = (0..MAX_TAPS).map(|tap| tap as u32 % 3).collect();
            let map =
                LinearMap::new(self.basis(), 3, 1, MAX_TAPS, 1, 0, weights, gather, &[-1.0]).expect("the largest map");
            let x = self.largest(&[0, 1], 3, 2, self.n().min(17));
            self.check(format!("{MAX_TAPS} {name} taps, largest residues"), Call::Linear { map: &map, x })?;
        }
        Ok(())
    }

    pub(super) fn slotwise_runs(&mut self) -> Result<(), Failure> {
        let (n, limbs) = (self.n(), [0, 1, 3]);
        // Twelve values in between: the first map has six rows at two positions each.
        let (first, last) = (self.map([18, 6, 9, 2], 1, 4), self.map([12, 5, 12, 1], 1, 0));
        for degree in 2..=4 {
            for negate in [false, true] {
                let polynomial = self.horner(degree, negate, 1);
                let activation = SlotwiseOp::Polynomial(&polynomial);
                let run = [SlotwiseOp::Linear(&first), activation, SlotwiseOp::Linear(&last)];
                let name = format!("degree {degree}, {}", if negate { "negated" } else { "not negated" });
                // A square starts from three components, which the other degrees would make too many.
                let components = if degree == 2 { 3 } else { 2 };
                let runs = [
                    (&run[..], first.inputs(), 0..n),
                    (&run[..2], first.inputs(), 3..n - 2),
                    (&[activation], 5, n - 1..n),
                    (&run[..1], first.inputs(), 5..5),
                ];
                for (ops, values, lanes) in runs {
                    for (case, x) in self.operands(&limbs, values, components, n) {
                        let case = format!("{} operations, {name}, lanes {lanes:?}, {case}", ops.len());
                        self.slotwise_run(case, ops, x, lanes.clone())?;
                    }
                }
            }
        }
        // Degree 5 does not fit the registers. A channel is a row of the map before, or each value
        // is one.
        let lanes = n - 13..n;
        for (degree, channels) in (2..=5).flat_map(|degree| [(degree, 6), (degree, 12)]) {
            let polynomial = self.horner(degree, degree % 2 == 0, channels);
            let run = [SlotwiseOp::Linear(&first), SlotwiseOp::Polynomial(&polynomial), SlotwiseOp::Linear(&last)];
            let name = format!("degree {degree}, {channels} channels");
            for (ops, values) in [(&run[..], first.inputs()), (&run[1..], 12)] {
                let x = self.random(&limbs, values, 2, n);
                self.slotwise_run(format!("{} operations, {name}", ops.len()), ops, x, lanes.clone())?;
            }
            let part = polynomial.of_values(3..8, 12);
            let x = self.random(&limbs, 5, 2, n);
            let case = format!("values 3 to 7 of 12, {name}");
            self.slotwise_run(case, &[SlotwiseOp::Polynomial(&part)], x, lanes.clone())?;
        }
        Ok(())
    }

    /// A run on some lanes, written over random residues.
    fn slotwise_run(
        &mut self,
        case: String,
        ops: &[SlotwiseOp<'_>],
        x: Host,
        lanes: Range<usize>,
    ) -> Result<(), Failure> {
        let shape = slotwise_shape(ops, &x.shape);
        let out = self.random(&shape.limbs, shape.values, shape.components, shape.lanes);
        self.check(case, Call::Slotwise { ops, x, lanes, out })
    }

    pub(super) fn transforms(&mut self) -> Result<(), Failure> {
        let limbs: Vec<usize> = (0..self.basis().len()).rev().collect();
        let n = self.n();
        for (case, x) in self.operands(&limbs, 3, 2, n) {
            self.check(case, Call::ForwardNtt(x.clone()))?;
            self.check(case, Call::InverseNtt(x))?;
        }
        Ok(())
    }

    pub(super) fn conversions(&mut self) -> Result<(), Failure> {
        let n = self.n();
        let pairs: [(&[usize], &[usize]); 6] = [
            (&[0], &[1, 2, 3]),
            (&[1], &[0, 1]),
            (&[4, 5], &[0, 1, 2, 3]),
            (&[3, 4, 5], &[1, 0]),
            (&[1, 2, 4, 5], &[0, 1, 3]),
            (&[0, 1, 2, 3], &[0, 1, 2, 3, 4, 5]),
        ];
        for (from, to) in pairs {
            for (case, x) in self.operands(from, 2, 2, n) {
                self.check(format!("{case}, to limbs {to:?}"), Call::ConvertBasis { x, limbs: to.to_vec() })?;
            }
            // Around the borders -D/2 and D/2 of the centred representative.
            let x = self.around_half(from);
            self.check(
                format!("around half the product, to limbs {to:?}"),
                Call::ConvertBasis { x, limbs: to.to_vec() },
            )?;
        }
        // Digits of 15, 10 and 8 bits, and of the small prime; each is below all the primes that it goes to.
        for (from, parts, to) in [(0, 2, &[2, 5][..]), (4, 3, &[0, 1, 3]), (2, 4, &[1, 2]), (1, 2, &[0, 1, 2])] {
            for part in 0..parts {
                let around = ("around half the prime", self.around_half(&[from]));
                for (case, x) in self.operands(&[from], 3, 1, n).into_iter().chain([around]) {
                    let case = format!("{case}, part {part} of {parts}, to limbs {to:?}");
                    self.check(case, Call::PrimeDigit { x, part, parts, limbs: to.to_vec() })?;
                }
            }
        }
        for (limbs, dropped) in [(&[0, 1, 2][..], 1), (&[2, 0, 1], 1), (&[0, 1, 4, 5], 2), (&[0, 1, 2, 3, 4, 5], 4)] {
            for components in [1, 2, 4] {
                for (case, x) in self.operands(limbs, 2, components, n) {
                    let dropped = limbs[limbs.len() - dropped..].to_vec();
                    self.check(format!("{case}, by limbs {dropped:?}"), Call::ModDown { x, dropped })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn key_switches(&mut self) -> Result<(), Failure> {
        let n = self.n();
        for (limbs, row) in [(&[0, 1, 4][..], 0), (&[5, 2], 2)] {
            let key = self.random(&[0, 1, 2, 3, 4, 5], 3, 2, n);
            let digits = self.operands(limbs, 3, 1, n).into_iter();
            for ((case, digit), (_, acc)) in digits.zip(self.operands(limbs, 3, 2, n)) {
                let key = key.clone();
                self.check(format!("{case}, row {row}"), Call::AccumulateKey { acc, digit, key, row })?;
            }
        }
        let special = [CHAIN, CHAIN + 1];
        for (digit_primes, specials) in [(1, 1), (2, 2), (2, 1)] {
            let key = self.relin_key(CHAIN, digit_primes, &special[..specials]);
            for level in [1, 2, 3, CHAIN] {
                for drop in (0..=1).filter(|&drop| drop < level) {
                    for (case, x) in self.operands(&[0, 1, 2, 3][..level], 2, 3, n) {
                        let case = format!("{case}, digits of {digit_primes} over {specials}, drop {drop}");
                        self.check(case, Call::Relinearise { x, key: key.clone(), drop })?;
                    }
                }
            }
        }
        // Digits below the primes, for which one special prime is enough whatever its size.
        let layout = RelinLayout { prime_parts: 3, ..RelinLayout::of_primes(2, 1) };
        let key = self.key_of(layout, &special[..1]);
        for (case, x) in self.operands(&[0, 1], 2, 3, n) {
            self.check(
                format!("{case}, three digits for every prime"),
                Call::Relinearise { x, key: key.clone(), drop: 1 },
            )?;
        }
        Ok(())
    }

    pub(super) fn automorphisms(&mut self) -> Result<(), Failure> {
        let n = self.n();
        let power = |exponent| Automorphism::power(n, 5, exponent);
        for exponent in [0, 1, 3, n / 4, n / 2, n - 1] {
            for (case, x) in self.operands(&[0, 5, 1], 2, 2, n) {
                let case = format!("{case}, X -> X^{}", power(exponent).element());
                self.check(case, Call::Automorphism { automorphism: power(exponent), x })?;
            }
        }
        let special = [CHAIN, CHAIN + 1];
        let parts = RelinLayout { prime_parts: 3, ..RelinLayout::of_primes(3, 1) };
        for (layout, special) in [(RelinLayout::of_primes(CHAIN, 2), &special[..]), (parts, &special[..1])] {
            let rotations = [1, n / 2, 7].map(|exponent| (power(exponent), self.key_of(layout, special)));
            let level = 3;
            // From value 1 to others, from two values to as many or fewer, and to none.
            for (from, to) in [(1..2, [2..3, 4..5, 0..1]), (2..4, [0..2, 5..6, 4..4])] {
                for (case, x) in self.operands(&[0, 1, 2][..level], 6, 2, n) {
                    let targets = rotations.iter().zip(to.clone());
                    let rotations = targets.map(|((g, key), to)| (*g, key.clone(), to)).collect();
                    let case = format!("{case}, values {from:?} to {to:?}, {layout:?}");
                    self.check(case, Call::Rotate { x, from: from.clone(), rotations })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn activations(&mut self) -> Result<(), Failure> {
        let n = self.n();
        let key = self.relin_key(CHAIN, 1, &[CHAIN]);
        let after = |relinearise, drop| Maintenance { relinearise, drop };
        let maintenance = [
            vec![after(false, 0)],
            vec![after(true, 1)],
            vec![after(false, 1), after(false, 0)],
            vec![after(true, 1), after(true, 1)],
            vec![after(true, 0), after(true, 2), after(false, 0)],
        ];
        // Some values of so many, of a polynomial for all of them.
        let parts = [(1, 0..2, 2), (2, 0..4, 4), (2, 1..3, 4), (4, 1..3, 4)];
        for products in maintenance {
            for ((channels, values, total), negate) in parts.iter().cloned().zip([false, true, true, false]) {
                let whole = self.horner(products.len() + 1, negate, channels);
                let polynomial = whole.of_values(values.clone(), total);
                let z = self.random(&[0, 1, 2, 3], values.len(), 2, n);
                let used = products.iter().any(|product| product.relinearise);
                let (key, products) = (used.then(|| key.clone()), products.clone());
                let case = described(&products, negate, channels, &values);
                self.check(case, Call::Activation { polynomial: &polynomial, products, key, z })?;
            }
        }
        // The operand has more limbs than most products that its multiple is added to.
        let maintenance = [
            (3, true, vec![after(false, 0), after(false, 0)]),
            (4, false, vec![after(true, 1), after(true, 1)]),
            (5, true, vec![after(true, 1), after(true, 1), after(true, 0)]),
            (6, false, vec![after(true, 1), after(true, 0), after(false, 1)]),
        ];
        for (degree, negate, products) in maintenance {
            for (channels, values, total) in [parts[0].clone(), parts[2].clone()] {
                let whole = self.paterson_stockmeyer(degree, negate, channels);
                let polynomial = whole.of_values(values.clone(), total);
                let z = self.random(&[0, 1, 2, 3], values.len(), 2, n);
                let used = products.iter().any(|product| product.relinearise);
                let (key, products) = (used.then(|| key.clone()), products.clone());
                let case = format!("degree {degree}, {}", described(&products, negate, channels, &values));
                self.check(case, Call::PatersonStockmeyer { polynomial: &polynomial, products, key, z })?;
            }
        }
        Ok(())
    }
}

/// What is special about an activation.
fn described(products: &[Maintenance], negate: bool, channels: usize, values: &Range<usize>) -> String {
    let sign = if negate { "negated" } else { "not negated" };
    format!("{products:?}, {sign}, values {values:?} with {channels} channels in all")
}

/// Packs component 0, residue by residue; unlike a backend's, it takes residues that are not canonical.
fn pack(basis: &RnsBasis, x: &Host) -> Vec<u8> {
    let mut packed = Vec::with_capacity(packed_len(basis, &x.shape));
    for (block, &limb) in x.residues.chunks_exact(x.shape.limb_len()).zip(&x.shape.limbs) {
        let bits = basis.modulus(limb).bits();
        for row in block.chunks_exact(x.shape.lanes) {
            let start = packed.len();
            packed.resize(start + packed_row_len(row.len(), bits), 0);
            pack_row(row, bits, &mut packed[start..]);
        }
    }
    packed
}
