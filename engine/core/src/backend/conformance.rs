//! The conformance suite: whether a backend returns the same bits as another.
//!
//! [`compare`] runs every operation of [`Backend`] on two backends over the same [`RnsBasis`], with random and with extreme
//! inputs, and stops at the first residue that differs. The judge is usually the reference of `cryptodl-cpu`, which takes the
//! second-tier steps from their default composition, so that fused kernels are compared with what they must equal.

use std::fmt;
use std::ops::Range;

use super::{
    Backend, BackendError, Horner, KeySwitch, LinearMap, MAX_TAPS, MAX_WEIGHT, PADDING, ProductPlan, Shape, SlotwiseOp,
    Window, packed_len, slotwise_shape,
};
use crate::ckks::{Params, ParamsSpec, RelinLayout, SecurityLevel, UniformPurpose, UniformSource};
use crate::ring::{RingError, RnsBasis, ntt_primes};

/// Limbs of the basis that the suite needs: a chain of four and two special primes.
pub const LIMBS: usize = CHAIN + SPECIAL;
const CHAIN: usize = 4;
const SPECIAL: usize = 2;

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Method of [`Backend`].
    pub operation: &'static str,
    /// What is special about the inputs.
    pub case: String,
    /// Shape of the operand.
    pub shape: Shape,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { operation, case, shape } = self;
        let Shape { limbs, values, components, lanes } = shape;
        write!(f, "{operation}, {case}, on limbs {limbs:?} x {values} values x {components} components x {lanes} lanes")
    }
}

/// Where two results differ first, in tensor order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a tensor.
    Residue {
        /// Position in the result's list of limbs.
        limb: usize,
        /// Value.
        value: usize,
        /// Component.
        component: usize,
        /// Lane.
        lane: usize,
    },
    /// In packed bytes.
    Byte(usize),
    /// In a yes (1) or no (0).
    Answer,
    /// In the number of residues or bytes.
    Length,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Residue { limb, value, component, lane } => {
                write!(f, "limb {limb}, value {value}, component {component}, lane {lane}")
            }
            Place::Byte(index) => write!(f, "byte {index}"),
            Place::Answer => write!(f, "the answer"),
            Place::Length => write!(f, "the length"),
        }
    }
}

/// A comparison that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {cause}")]
pub struct Failure {
    /// What was compared.
    pub check: Box<Check>,
    /// Why it did not pass.
    pub cause: Cause,
}

/// Why a comparison did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The results differ.
    #[error("{place} is {actual}, expected {expected}")]
    Difference {
        /// The first difference.
        place: Place,
        /// The reference's result there.
        expected: u64,
        /// The candidate's result there.
        actual: u64,
    },
    /// The result has another shape.
    #[error("the result has shape {actual:?}, expected {expected:?}")]
    Shape {
        /// Shape of the reference's result.
        expected: Shape,
        /// Shape of the candidate's result.
        actual: Shape,
    },
    /// A backend could not do it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Parameters fit for [`compare`]: dimension `n`, four chain primes of which one is small, two special primes. Not secure.
///
/// # Errors
/// `n` is no supported dimension.
pub fn params_for_tests(n: usize) -> Result<Params, RingError> {
    let large = ntt_primes(n, 30, LIMBS - 1)?;
    // Any size that has a prime; the least keeps other bit lengths and byte counts honest.
    let small = (14..30).find_map(|bits| ntt_primes(n, bits, 1).ok()).expect("30 bits have primes")[0];
    let (special, chain) = large.split_at(SPECIAL);
    let mut primes = chain.to_vec();
    primes.insert(1, small);
    let spec = ParamsSpec { n, primes, special_primes: special.to_vec(), security: SecurityLevel::Bits128 };
    Ok(spec.build_insecure_for_tests().expect("a prime chain was built"))
}

/// Compares all operations of `candidate` with those of `reference` and calls `progress` after each check that passed.
/// Inputs follow from `seed` alone.
///
/// # Errors
/// The first [`Failure`].
///
/// # Panics
/// If the two backends have different bases, or fewer than [`LIMBS`] limbs.
pub fn compare<R: Backend, C: Backend>(
    reference: &R,
    candidate: &C,
    seed: u64,
    progress: &mut dyn FnMut(&Check),
) -> Result<Vec<Check>, Failure> {
    let (ours, theirs) = (reference.basis(), candidate.basis());
    assert_eq!((ours.n(), ours.primes()), (theirs.n(), theirs.primes()), "the bases of the backends");
    assert!(ours.len() >= LIMBS, "{} limbs, the suite needs {LIMBS}", ours.len());
    let mut suite = Suite { reference, candidate, random: Random(seed), progress, passed: Vec::new() };
    suite.memory()?;
    suite.wire()?;
    suite.arithmetic()?;
    suite.products()?;
    suite.linear_maps()?;
    suite.slotwise_runs()?;
    suite.transforms()?;
    suite.conversions()?;
    suite.key_switches()?;
    suite.activations()?;
    Ok(suite.passed)
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A residue, every fourth at a border.
    fn residue(&mut self, q: u32) -> u32 {
        match self.below(16) {
            0 => 0,
            1 => 1,
            2 => q - 1,
            3 => q / 2 + self.below(2) as u32,
            _ => self.below(q.into()) as u32,
        }
    }

    fn weight(&mut self) -> i16 {
        self.below(2 * MAX_WEIGHT as u64 + 1) as i16 - MAX_WEIGHT
    }

    fn constant(&mut self) -> f64 {
        let magnitude = (self.next() >> 11) as f64 * [1.0, 1024.0][self.below(2) as usize];
        if self.below(2) == 0 { -magnitude } else { magnitude }
    }
}

/// A tensor on the host.
#[derive(Clone)]
struct Host {
    shape: Shape,
    residues: Vec<u32>,
}

impl Host {
    fn upload<B: Backend>(&self, backend: &B) -> super::Result<B::Tensor> {
        backend.upload(self.shape.clone(), &self.residues)
    }
}

/// One call with its inputs, ready for any backend. What a call changes in place starts as the given tensor.
enum Call<'a> {
    Zeros(Shape),
    Upload(Host),
    Copy { x: Host, from: Window, out: Host, to: Window },
    Unpack { packed: Vec<u8>, out: Host, component: usize },
    Pack { x: Host, component: usize },
    Repack { x: Host, component: usize },
    Expand { source: UniformSource, first_object: u32, out: Host, component: usize },
    Linear { map: &'a LinearMap, x: Host },
    Multiply { a: Host, b: Host },
    AddConstant { x: Host, constants: Vec<u32> },
    Scale { x: Host, factors: Vec<u32> },
    Add { x: Host, y: Host },
    SubtractScale { x: Host, y: Host, factors: Vec<u32> },
    AccumulateKey { acc: Host, digit: Host, key: Host, row: usize },
    ForwardNtt(Host),
    InverseNtt(Host),
    ConvertCentred { x: Host, limbs: Vec<usize> },
    Slotwise { ops: &'a [SlotwiseOp<'a>], x: Host, lanes: Range<usize>, out: Host },
    ModDown { x: Host, dropped: Vec<usize> },
    Relinearize { x: Host, key: Key<'a>, drop: usize },
    Activation { polynomial: &'a Horner, products: Vec<ProductPlan>, key: Option<Key<'a>>, z: Host },
}

/// A relinearisation key on the host.
#[derive(Clone)]
struct Key<'a> {
    rows: Host,
    layout: RelinLayout,
    special: &'a [usize],
}

impl Key<'_> {
    fn switch<'a, T>(&'a self, rows: &'a T) -> KeySwitch<'a, T> {
        KeySwitch { rows, layout: self.layout, special: self.special }
    }
}

enum Output {
    Tensor(Host),
    Bytes(Vec<u8>),
    Answer(bool),
}

impl Call<'_> {
    /// The method's name, and the operand whose shape describes the check.
    fn describe(&self) -> (&'static str, &Shape) {
        match self {
            Call::Zeros(shape) => ("zeros", shape),
            Call::Upload(x) => ("upload", &x.shape),
            Call::Copy { x, .. } => ("copy", &x.shape),
            Call::Unpack { out, .. } => ("unpack", &out.shape),
            Call::Pack { x, .. } => ("pack", &x.shape),
            Call::Repack { x, .. } => ("unpack", &x.shape),
            Call::Expand { out, .. } => ("expand", &out.shape),
            Call::Linear { x, .. } => ("linear", &x.shape),
            Call::Multiply { a, .. } => ("multiply", &a.shape),
            Call::AddConstant { x, .. } => ("add_constant", &x.shape),
            Call::Scale { x, .. } => ("scale", &x.shape),
            Call::Add { x, .. } => ("add", &x.shape),
            Call::SubtractScale { x, .. } => ("subtract_scale", &x.shape),
            Call::AccumulateKey { acc, .. } => ("accumulate_key", &acc.shape),
            Call::ForwardNtt(x) => ("forward_ntt", &x.shape),
            Call::InverseNtt(x) => ("inverse_ntt", &x.shape),
            Call::ConvertCentred { x, .. } => ("convert_centred", &x.shape),
            Call::Slotwise { x, .. } => ("slotwise", &x.shape),
            Call::ModDown { x, .. } => ("mod_down", &x.shape),
            Call::Relinearize { x, .. } => ("relinearize", &x.shape),
            Call::Activation { z, .. } => ("activation", &z.shape),
        }
    }

    fn run<B: Backend>(&self, backend: &B) -> super::Result<Output> {
        let out = match self {
            Call::Zeros(shape) => backend.zeros(shape.clone())?,
            Call::Upload(x) => x.upload(backend)?,
            Call::Copy { x, from, out, to } => {
                let (x, mut out) = (x.upload(backend)?, out.upload(backend)?);
                backend.copy(&x, from, &mut out, to)?;
                out
            }
            Call::Unpack { packed, out, component } => {
                // What a refused unpacking leaves behind is unspecified, hence only the answer is compared.
                return Ok(Output::Answer(backend.unpack(packed, &mut out.upload(backend)?, *component)?));
            }
            Call::Pack { x, component } => return Ok(Output::Bytes(backend.pack(&x.upload(backend)?, *component)?)),
            Call::Repack { x, component } => {
                let packed = backend.pack(&x.upload(backend)?, *component)?;
                let mut out = x.upload(backend)?;
                if !backend.unpack(&packed, &mut out, *component)? {
                    return Ok(Output::Answer(false));
                }
                out
            }
            Call::Expand { source, first_object, out, component } => {
                let mut out = out.upload(backend)?;
                backend.expand(source, *first_object, &mut out, *component)?;
                out
            }
            Call::Linear { map, x } => backend.linear(map, &x.upload(backend)?)?,
            Call::Multiply { a, b } => backend.multiply(&a.upload(backend)?, &b.upload(backend)?)?,
            Call::AddConstant { x, constants } => {
                let mut x = x.upload(backend)?;
                backend.add_constant(&mut x, constants)?;
                x
            }
            Call::Scale { x, factors } => {
                let mut x = x.upload(backend)?;
                backend.scale(&mut x, factors)?;
                x
            }
            Call::Add { x, y } => {
                let mut x = x.upload(backend)?;
                backend.add(&mut x, &y.upload(backend)?)?;
                x
            }
            Call::SubtractScale { x, y, factors } => {
                let mut x = x.upload(backend)?;
                backend.subtract_scale(&mut x, &y.upload(backend)?, factors)?;
                x
            }
            Call::AccumulateKey { acc, digit, key, row } => {
                let mut acc = acc.upload(backend)?;
                backend.accumulate_key(&mut acc, &digit.upload(backend)?, &key.upload(backend)?, *row)?;
                acc
            }
            Call::ForwardNtt(x) => {
                let mut x = x.upload(backend)?;
                backend.forward_ntt(&mut x)?;
                x
            }
            Call::InverseNtt(x) => {
                let mut x = x.upload(backend)?;
                backend.inverse_ntt(&mut x)?;
                x
            }
            Call::ConvertCentred { x, limbs } => backend.convert_centred(&x.upload(backend)?, limbs)?,
            Call::Slotwise { ops, x, lanes, out } => {
                let mut out = out.upload(backend)?;
                backend.slotwise(ops, &x.upload(backend)?, lanes.clone(), &mut out)?;
                out
            }
            Call::ModDown { x, dropped } => backend.mod_down(&x.upload(backend)?, dropped)?,
            Call::Relinearize { x, key, drop } => {
                let rows = key.rows.upload(backend)?;
                backend.relinearize(&x.upload(backend)?, &key.switch(&rows), *drop)?
            }
            Call::Activation { polynomial, products, key, z } => {
                let rows = key.as_ref().map(|key| key.rows.upload(backend)).transpose()?;
                let key = key.as_ref().zip(rows.as_ref()).map(|(key, rows)| key.switch(rows));
                backend.activation(polynomial, products, key.as_ref(), &z.upload(backend)?)?
            }
        };
        backend.synchronise()?;
        Ok(Output::Tensor(Host { shape: backend.shape(&out).clone(), residues: backend.download(&out)? }))
    }
}

struct Suite<'a, R, C> {
    reference: &'a R,
    candidate: &'a C,
    random: Random,
    progress: &'a mut dyn FnMut(&Check),
    passed: Vec<Check>,
}

impl<R: Backend, C: Backend> Suite<'_, R, C> {
    /// Runs one call on both backends and compares.
    fn check(&mut self, case: impl Into<String>, call: Call<'_>) -> Result<(), Failure> {
        let (operation, shape) = call.describe();
        let check = Check { operation, case: case.into(), shape: shape.clone() };
        if let Err(cause) = self.agree(&call) {
            return Err(Failure { check: Box::new(check), cause });
        }
        (self.progress)(&check);
        self.passed.push(check);
        Ok(())
    }

    fn agree(&self, call: &Call<'_>) -> Result<(), Cause> {
        equal(&call.run(self.reference)?, &call.run(self.candidate)?)
    }

    fn basis(&self) -> &RnsBasis {
        self.reference.basis()
    }

    fn n(&self) -> usize {
        self.basis().n()
    }

    /// Lanes of slot-wise operands: one, odd numbers, and all.
    fn lane_counts(&self) -> [usize; 4] {
        [1, 13, self.n().min(67), self.n()]
    }

    fn random(&mut self, limbs: &[usize], values: usize, components: usize, lanes: usize) -> Host {
        let shape = Shape { limbs: limbs.to_vec(), values, components, lanes };
        let (basis, random) = (self.reference.basis(), &mut self.random);
        let limb = |&limb: &usize| {
            let q = basis.modulus(limb).value();
            (0..shape.limb_len()).map(|_| random.residue(q)).collect::<Vec<_>>()
        };
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    /// The largest residues everywhere.
    fn largest(&self, limbs: &[usize], values: usize, components: usize, lanes: usize) -> Host {
        let shape = Shape { limbs: limbs.to_vec(), values, components, lanes };
        let limb = |&limb: &usize| vec![self.basis().modulus(limb).value() - 1; shape.limb_len()];
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    /// Random and largest operands of one shape, with a word for each.
    fn operands(
        &mut self,
        limbs: &[usize],
        values: usize,
        components: usize,
        lanes: usize,
    ) -> [(&'static str, Host); 2] {
        let random = self.random(limbs, values, components, lanes);
        [("random residues", random), ("largest residues", self.largest(limbs, values, components, lanes))]
    }

    /// One canonical residue per limb.
    fn factors(&mut self, limbs: &[usize]) -> Vec<u32> {
        self.random(limbs, 1, 1, 1).residues
    }

    fn memory(&mut self) -> Result<(), Failure> {
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

    fn wire(&mut self) -> Result<(), Failure> {
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
        let basis = self.basis();
        let spec =
            ParamsSpec { n, primes: basis.primes(), special_primes: Vec::new(), security: SecurityLevel::Bits128 };
        let params = spec.build_insecure_for_tests().expect("the primes of a basis");
        for (component, first_object) in [(0, 0), (1, 7), (2, 1 << 31)] {
            let out = self.random(&[1, 4, 0], 3, 3, n);
            let source = UniformSource::new(UniformPurpose::Ciphertext, &params, &[component as u8; 32]);
            let case = format!("objects from {first_object}, component {component}");
            self.check(case, Call::Expand { source, first_object, out, component })?;
        }
        Ok(())
    }

    fn arithmetic(&mut self) -> Result<(), Failure> {
        for lanes in self.lane_counts() {
            let limbs = [0, 1, 5];
            for (case, x) in self.operands(&limbs, 3, 2, lanes) {
                let (constants, factors) = (self.factors(&limbs), self.factors(&limbs));
                let y = if case == "random residues" { self.random(&limbs, 3, 2, lanes) } else { x.clone() };
                let zero = Host { residues: vec![0; x.residues.len()], ..x.clone() };
                self.check(case, Call::AddConstant { x: x.clone(), constants })?;
                self.check(case, Call::Scale { x: x.clone(), factors: factors.clone() })?;
                self.check(case, Call::Add { x: x.clone(), y: y.clone() })?;
                self.check(case, Call::SubtractScale { x, y: y.clone(), factors: factors.clone() })?;
                self.check("zero minus something", Call::SubtractScale { x: zero, y, factors })?;
            }
        }
        Ok(())
    }

    fn products(&mut self) -> Result<(), Failure> {
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

    /// A random map; every `padding`-th index is padding if that is not 0.
    fn map(&mut self, [inputs, rows, taps, positions]: [usize; 4], groups: usize, padding: usize) -> LinearMap {
        let stride = if groups > 1 { inputs / groups } else { 0 };
        let reach = inputs - (groups - 1) * stride;
        let weights = (0..rows * taps).map(|_| self.random.weight()).collect();
        let gather = (1..=positions * taps)
            .map(|i| if padding > 0 && i % padding == 0 { PADDING } else { self.random.below(reach as u64) as u32 })
            .collect();
        let constants: Vec<f64> = (0..rows).map(|_| self.random.constant()).collect();
        LinearMap::new(self.basis(), inputs, rows, taps, groups, stride as u32, weights, gather, &constants)
            .expect("a map that fits")
    }

    fn linear_maps(&mut self) -> Result<(), Failure> {
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

    fn slotwise_runs(&mut self) -> Result<(), Failure> {
        let (n, limbs) = (self.n(), [0, 1, 3]);
        let (first, last) = (self.map([18, 6, 9, 2], 1, 4), self.map([12, 5, 12, 1], 1, 0));
        for degree in 2..=4 {
            for negate in [false, true] {
                let constants: Vec<f64> = (0..degree).map(|_| self.random.constant()).collect();
                let polynomial = Horner::new(self.basis(), negate, &constants);
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
                        let shape = slotwise_shape(ops, &x.shape);
                        let out = self.random(&limbs, shape.values, shape.components, n);
                        let case = format!("{} operations, {name}, lanes {lanes:?}, {case}", ops.len());
                        self.check(case, Call::Slotwise { ops, x, lanes: lanes.clone(), out })?;
                    }
                }
            }
        }
        Ok(())
    }

    fn transforms(&mut self) -> Result<(), Failure> {
        let limbs: Vec<usize> = (0..self.basis().len()).rev().collect();
        let n = self.n();
        for (case, x) in self.operands(&limbs, 3, 2, n) {
            self.check(case, Call::ForwardNtt(x.clone()))?;
            self.check(case, Call::InverseNtt(x))?;
        }
        Ok(())
    }

    fn conversions(&mut self) -> Result<(), Failure> {
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
                self.check(format!("{case}, to limbs {to:?}"), Call::ConvertCentred { x, limbs: to.to_vec() })?;
            }
            // Around the borders -D/2 and D/2 of the centred representative.
            let x = self.around_half(from);
            self.check(
                format!("around half the product, to limbs {to:?}"),
                Call::ConvertCentred { x, limbs: to.to_vec() },
            )?;
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

    /// Coefficients `(D-1)/2 - 2, ..., (D-1)/2 + 2, ...`, `D` the product of the primes: 1/2 mod q shifted.
    fn around_half(&self, limbs: &[usize]) -> Host {
        let n = self.n();
        let shape = Shape { limbs: limbs.to_vec(), values: 1, components: 1, lanes: n };
        // D is 0 modulo each prime, so (D-1)/2 is -1/2.
        let limb = |&limb: &usize| {
            let m = self.basis().modulus(limb);
            let half = m.neg(m.inv(2));
            (0..n as i64).map(move |j| m.add(half, m.reduce_signed(j % 5 - 2)))
        };
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    fn key_switches(&mut self) -> Result<(), Failure> {
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
        for digit_primes in 1..=2 {
            let key = self.relin_key(CHAIN, digit_primes, &special[..digit_primes]);
            for level in [1, 2, 3, CHAIN] {
                for drop in (0..=1).filter(|&drop| drop < level) {
                    for (case, x) in self.operands(&[0, 1, 2, 3][..level], 2, 3, n) {
                        let case = format!("{case}, digits of {digit_primes}, drop {drop}");
                        self.check(case, Call::Relinearize { x, key: key.clone(), drop })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A key of random rows: to a backend it is only numbers.
    fn relin_key<'k>(&mut self, level: usize, digit_primes: usize, special: &'k [usize]) -> Key<'k> {
        let layout = RelinLayout { level, digit_primes };
        let limbs: Vec<usize> = (0..level).chain(special.iter().copied()).collect();
        let n = self.n();
        Key { rows: self.random(&limbs, layout.digits(level), 2, n), layout, special }
    }

    fn activations(&mut self) -> Result<(), Failure> {
        let n = self.n();
        let key = self.relin_key(CHAIN, 1, &[CHAIN]);
        let plan = |relinearize, drop| ProductPlan { relinearize, drop };
        let plans = [
            vec![plan(false, 0)],
            vec![plan(true, 1)],
            vec![plan(false, 1), plan(false, 0)],
            vec![plan(true, 1), plan(true, 1)],
            vec![plan(true, 0), plan(true, 2), plan(false, 0)],
        ];
        for products in plans {
            for negate in [false, true] {
                let constants: Vec<f64> = (0..=products.len()).map(|_| self.random.constant()).collect();
                let polynomial = Horner::new(self.basis(), negate, &constants);
                let z = self.random(&[0, 1, 2, 3], 2, 2, n);
                let used = products.iter().any(|product| product.relinearize);
                let (key, products) = (used.then(|| key.clone()), products.clone());
                let case = format!("{products:?}, {}", if negate { "negated" } else { "not negated" });
                self.check(case, Call::Activation { polynomial: &polynomial, products, key, z })?;
            }
        }
        Ok(())
    }
}

/// Packs component 0, residue by residue; unlike a backend's, it takes residues that are not canonical.
fn pack(basis: &RnsBasis, x: &Host) -> Vec<u8> {
    let mut packed = Vec::with_capacity(packed_len(basis, &x.shape));
    for (block, &limb) in x.residues.chunks_exact(x.shape.limb_len()).zip(&x.shape.limbs) {
        let bits = basis.modulus(limb).bits();
        for row in block.chunks_exact(x.shape.lanes) {
            let start = packed.len();
            packed.resize(start + crate::ring::packed_row_len(row.len(), bits), 0);
            crate::ring::pack_row(row, bits, &mut packed[start..]);
        }
    }
    packed
}

fn equal(expected: &Output, actual: &Output) -> Result<(), Cause> {
    let differ = |place, expected, actual| Err(Cause::Difference { place, expected, actual });
    match (expected, actual) {
        (Output::Tensor(expected), Output::Tensor(actual)) => {
            if expected.shape != actual.shape {
                return Err(Cause::Shape { expected: expected.shape.clone(), actual: actual.shape.clone() });
            }
            let (e, a) = (&expected.residues, &actual.residues);
            if e.len() != a.len() {
                return differ(Place::Length, e.len() as u64, a.len() as u64);
            }
            match e.iter().zip(a).position(|(e, a)| e != a) {
                Some(at) => differ(residue_place(&expected.shape, at), e[at].into(), a[at].into()),
                None => Ok(()),
            }
        }
        (Output::Bytes(e), Output::Bytes(a)) => {
            if e.len() != a.len() {
                return differ(Place::Length, e.len() as u64, a.len() as u64);
            }
            match e.iter().zip(a).position(|(e, a)| e != a) {
                Some(at) => differ(Place::Byte(at), e[at].into(), a[at].into()),
                None => Ok(()),
            }
        }
        // A refused unpacking has an answer where an accepted one has a tensor.
        (expected, actual) => match (accepted(expected), accepted(actual)) {
            (expected, actual) if expected == actual => Ok(()),
            (expected, actual) => differ(Place::Answer, expected.into(), actual.into()),
        },
    }
}

fn accepted(output: &Output) -> bool {
    !matches!(output, Output::Answer(false))
}

fn residue_place(shape: &Shape, at: usize) -> Place {
    let (row, lane) = (at / shape.lanes, at % shape.lanes);
    let (rest, component) = (row / shape.components, row % shape.components);
    Place::Residue { limb: rest / shape.values, value: rest % shape.values, component, lane }
}
