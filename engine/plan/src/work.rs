//! What a schedule costs: operations and bytes counted exactly, and their price in the fixed table.

use cryptodl_core::backend::{CiphertextShape, Maintenance};
use cryptodl_core::ckks::Leaves;

use super::cost::{self, CostTable};
use super::lowered::Lowered;
use super::ring::Ring;
use super::scores;
use super::steps::{StepKind, Steps};
use super::unpacking::Unpacking;
use cryptodl_program::Arrangement;

const COST: CostTable = CostTable::SHIPPED;

/// Operations of one step on one ciphertext set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiply-adds per image: weights times values.
    pub multiply_adds: u64,
    /// Multiply-adds per image of the network's layers, before anything was merged.
    pub layer_multiply_adds: u64,
    /// Multiply-adds of a weight with a residue: the above times components, limbs and N.
    pub residue_multiply_adds: u64,
    /// Residues that linear maps gather: taps times positions, for every group.
    pub map_reads: u64,
    /// Residues that linear maps write.
    pub map_writes: u64,
    /// Products of residues.
    pub multiplies: u64,
    /// Transforms of one polynomial modulo one prime.
    pub ntts: u64,
    /// Residues converted from one prime to another.
    pub conversions: u64,
    /// Residues that are written to memory and read again: operands and results of steps that do not fuse with their neighbours.
    pub streamed: u64,
}

impl Work {
    /// The sum of two.
    pub fn plus(self, other: Work) -> Work {
        Work {
            multiply_adds: self.multiply_adds + other.multiply_adds,
            layer_multiply_adds: self.layer_multiply_adds + other.layer_multiply_adds,
            residue_multiply_adds: self.residue_multiply_adds + other.residue_multiply_adds,
            map_reads: self.map_reads + other.map_reads,
            map_writes: self.map_writes + other.map_writes,
            multiplies: self.multiplies + other.multiplies,
            ntts: self.ntts + other.ntts,
            conversions: self.conversions + other.conversions,
            streamed: self.streamed + other.streamed,
        }
    }

    /// Work counted for N = 1, at another N.
    fn at(self, n: usize) -> Work {
        let n = n as u64;
        Work {
            residue_multiply_adds: self.residue_multiply_adds * n,
            map_reads: self.map_reads * n,
            map_writes: self.map_writes * n,
            multiplies: self.multiplies * n,
            conversions: self.conversions * n,
            streamed: self.streamed * n,
            ..self
        }
    }

    fn price(&self, ring: &Ring) -> f64 {
        let n = ring.shape.n as f64;
        self.residue_multiply_adds as f64 * cost::planes(ring.shape.prime_bits) * COST.multiply_add_plane
            + self.map_reads as f64 * COST.map_read
            + self.map_writes as f64 * COST.map_write
            + self.multiplies as f64 * COST.multiply
            + self.ntts as f64 * n * libm::log2(n) * COST.ntt_layer
            + self.conversions as f64 * COST.convert
            + self.streamed as f64 * COST.stream
    }
}

/// How key switching cuts components into digits.
#[derive(Clone, Copy, Debug)]
pub struct Switching {
    /// Special primes.
    pub special: usize,
    /// Chain primes per digit; one where primes are cut.
    pub digit_primes: usize,
    /// Digits for each prime, or 1.
    pub parts: usize,
}

impl Switching {
    /// Of a ring.
    pub fn of(ring: &Ring) -> Self {
        Switching { special: ring.special.len(), digit_primes: ring.shape.digit_primes, parts: ring.shape.parts }
    }

    /// Digits at a level.
    fn digits(self, level: usize) -> usize {
        level.div_ceil(self.digit_primes) * self.parts
    }
}

/// What a schedule does on one ciphertext set with so many limbs and special primes, counted for N = 1: all rings of these
/// numbers of primes share it.
pub struct Counted {
    /// In the order of the walk's steps.
    steps: Vec<Work>,
    result: CiphertextShape,
    switching: Switching,
    /// Whether few images are packed, and with them their scores.
    packs: bool,
    /// Price of a byte up or down.
    byte: f64,
    /// Values of an image.
    inputs: usize,
    classes: usize,
}

impl Counted {
    /// Counts the work of the steps of a structure; `packs` says whether few images are packed, and `byte` is the price of one
    /// that is sent or received.
    pub fn new(network: &Lowered, plan: &Steps, limbs: usize, switching: Switching, packs: bool, byte: f64) -> Self {
        let mut steps = vec![Work::default(); plan.0.len()];
        let result = count(network, plan, limbs, switching, &mut steps);
        Counted { steps, result, switching, packs, byte, inputs: network.inputs, classes: network.scores() }
    }

    /// Work of every step on one ciphertext set in dimension `n`, in the order of the walk's steps.
    pub fn steps(&self, n: usize) -> Vec<Work> {
        self.steps.iter().map(|work| work.at(n)).collect()
    }

    /// Price of the schedule for `batch` images on a ring of as many primes, in the fixed table's nanoseconds, its result left
    /// out: rings that differ in the packing of scores alone share it.
    pub fn price(&self, ring: &Ring, public: bool, batch: usize) -> f64 {
        let mut computation: f64 = self.steps.iter().map(|work| work.at(ring.shape.n).price(ring)).sum();
        if self.packs_scores(ring) {
            computation += pack_scores(self.classes, self.result, self.switching, ring).at(ring.shape.n).price(ring);
        }
        let (leaves, limbs) = (Leaves { log: ring.shape.log_leaves }, ring.primes.len() as f64);
        let packed = (leaves.ciphertexts(self.inputs) * ring.shape.n) as f64;
        let crossing = self.crossing(ring);
        let input =
            packed * if public { 2.0 * limbs * crossing } else { limbs * crossing + ring.draws() * COST.expand };
        let whole = batch.div_ceil(ring.shape.n) as f64 * (computation + input);
        whole + self.unpacking_price(ring, &ring.unpacking) + self.powers_price(ring)
    }

    /// Price of the result, of which [`Self::price`] is the rest.
    pub fn result_price(&self, ring: &Ring, batch: usize) -> f64 {
        let (mut result, mut classes) = (self.result, self.classes);
        if self.packs_scores(ring) {
            result = scores::result(result, ring.shape.prime_bits);
            classes = ring.scores().ciphertexts(self.classes);
        }
        let CiphertextShape { level, components } = result;
        let zeros = (components - 1) as f64 * COST.zero_encryption;
        let residues = (classes * ring.shape.n * level) as f64;
        batch.div_ceil(ring.shape.n) as f64 * residues * (components as f64 * self.crossing(ring) + zeros)
    }

    fn packs_scores(&self, ring: &Ring) -> bool {
        self.packs && ring.shape.log_leaves > 0
    }

    /// Price of unpacking the one set of a small batch, and of the keys that this takes.
    pub fn unpacking_price(&self, ring: &Ring, unpacking: &Unpacking) -> f64 {
        if ring.shape.log_leaves == 0 {
            return 0.0;
        }
        let &Unpacking { ref steps, cut, made, .. } = unpacking;
        let rotations = key_switches(cut, made, ring.primes.len(), self.switching);
        rotations.at(ring.shape.n).price(ring) + steps.len() as f64 * self.key(ring)
    }

    /// Price of the keys for powers of the secret by which packed scores are relinearised.
    fn powers_price(&self, ring: &Ring) -> f64 {
        if !self.packs_scores(ring) {
            return 0.0;
        }
        (self.result.components - 2) as f64 * self.key(ring)
    }

    /// Price of a key's bytes for one of the requests that it serves.
    fn key(&self, ring: &Ring) -> f64 {
        let limbs = ring.primes.len();
        let log_qp = f64::from(ring.shape.prime_bits) * limbs as f64 + ring.log_p();
        (self.switching.digits(limbs) * ring.shape.n) as f64 * log_qp / 8.0 * self.byte / REQUESTS_PER_KEY
    }

    /// Price of a residue up or down. What crosses is packed on one side and unpacked on the other.
    fn crossing(&self, ring: &Ring) -> f64 {
        2.0 * COST.pack + f64::from(ring.shape.prime_bits) / 8.0 * self.byte
    }
}

/// Requests over which the upload of keys is shared out, where few images are sent.
const REQUESTS_PER_KEY: f64 = 16.0;

/// Work of packing the scores of few images, for N = 1: key switches, the division and sums.
fn pack_scores(classes: usize, scores: CiphertextShape, switching: Switching, ring: &Ring) -> Work {
    let relinearise = Maintenance { relinearise: true, drop: 0 };
    let three = CiphertextShape { components: 3, ..scores };
    let switches = (2..scores.components).map(|_| maintenance_work(classes, three, &relinearise, switching));
    let after = scores::result(scores, ring.shape.prime_bits);
    let two = CiphertextShape { components: 2, ..scores };
    let rescale = Maintenance { relinearise: false, drop: scores.level - after.level };
    let sums = Work { multiplies: (classes * 2 * after.level) as u64, ..Work::default() };
    let divided = maintenance_work(classes, two, &rescale, switching);
    switches.chain([divided, sums]).fold(Work::default(), Work::plus)
}

/// Work of `made` key switches of the digits of `cut` ciphertexts, with automorphisms, for N = 1.
fn key_switches(cut: usize, made: usize, level: usize, switching: Switching) -> Work {
    let special = switching.special;
    let (digits, limbs) = (switching.digits(level), level + special);
    // Divided by the special primes, as after a relinearisation.
    let ntts = cut * (level + digits * limbs) + made * 2 * limbs;
    let products = made * (level + 2 * digits * limbs + 2 * level);
    let conversions = cut * level * switching.parts * limbs + made * 2 * special * level;
    let streamed = 2 * level * (cut + made);
    Work {
        multiplies: products as u64,
        ntts: ntts as u64,
        conversions: conversions as u64,
        streamed: streamed as u64,
        ..Work::default()
    }
}

/// Counts the work of the steps for N = 1, and returns the shape of the result.
fn count(network: &Lowered, plan: &Steps, limbs: usize, switching: Switching, work: &mut [Work]) -> CiphertextShape {
    let shapes = plan.ciphertext_shapes(network, limbs, |i, products, maintenance| {
        let step = &plan.0[i];
        let stage = &network.stages[step.stage];
        let values = stage.values();
        work[i] = match &step.kind {
            StepKind::Linear(_) => unreachable!("linear steps have no products"),
            StepKind::Maintenance(maintenance) => {
                let product = products[0].shape();
                let streamed = streamed(values, &[product, maintenance.result(product)]);
                maintenance_work(values, product, maintenance, switching).plus(streamed)
            }
            StepKind::Activation(_) => {
                let degree = stage.activation.as_ref().map_or(0, |activation| activation.degree());
                let arrangement = Arrangement::with_products(degree, maintenance.len());
                let components = products[0].operands[0];
                let works = products.iter().zip(maintenance).enumerate().map(|(i, (product, maintenance))| {
                    let [a, b] = product.operands;
                    let extra = if arrangement.adds_multiple(i) { components } else { 0 };
                    let multiplies = (values * (a * b + extra) * product.level) as u64;
                    let after = maintenance_work(values, product.shape(), maintenance, switching);
                    after.plus(Work { multiplies, ..Work::default() })
                });
                works.fold(Work::default(), Work::plus)
            }
        };
    });
    for (i, step) in plan.0.iter().enumerate() {
        match &step.kind {
            StepKind::Linear(terms) => {
                let joins = terms.len() > 1;
                let after = shapes[i + 1];
                for (term, &operand) in terms.iter().zip(&step.operands) {
                    let map = &term.of(network).map;
                    // Each branch is computed with what it has in common with the sum.
                    let taken = CiphertextShape { components: shapes[operand].components, ..after };
                    let residues = (taken.level * taken.components) as u64;
                    let outputs = map.geometry.outputs() as u64;
                    work[i] = work[i].plus(if joins && map.geometry.is_diagonal() {
                        Work {
                            multiplies: outputs * residues,
                            layer_multiply_adds: map.layer_multiply_adds,
                            ..Work::default()
                        }
                    } else {
                        let multiply_adds = map.geometry.multiply_adds();
                        Work {
                            multiply_adds,
                            layer_multiply_adds: map.layer_multiply_adds,
                            residue_multiply_adds: multiply_adds * residues,
                            map_reads: map.geometry.gathered() as u64 * residues,
                            map_writes: outputs * residues,
                            ..Work::default()
                        }
                    });
                    if joins {
                        // Sums are taken in memory.
                        let values = map.geometry.outputs();
                        work[i] = work[i].plus(streamed(values, &[taken, after]));
                    }
                }
            }
            StepKind::Activation(maintenance) => {
                let stage = &network.stages[step.stage];
                let degree = stage.activation.as_ref().map_or(0, |activation| activation.degree());
                let arrangement = Arrangement::with_products(degree, maintenance.len());
                let lazy = arrangement == Arrangement::Horner && maintenance.iter().all(|after| !after.acts());
                if !lazy {
                    let tensors = [shapes[step.operands[0]], shapes[i + 1]];
                    work[i] = work[i].plus(streamed(stage.values(), &tensors));
                }
            }
            StepKind::Maintenance(_) => {}
        }
    }
    *shapes.last().expect("the input's shape at least")
}

/// Tensors of so many values with these ciphertexts that go through memory.
fn streamed(values: usize, tensors: &[CiphertextShape]) -> Work {
    let polynomials: usize = tensors.iter().map(|shape| shape.level * shape.components).sum();
    Work { streamed: (values * polynomials) as u64, ..Work::default() }
}

/// Work of the maintenance of products.
fn maintenance_work(values: usize, product: CiphertextShape, maintenance: &Maintenance, switching: Switching) -> Work {
    let special = switching.special;
    let CiphertextShape { level, components } = product;
    let drop = maintenance.drop;
    let (mut polynomial_products, mut ntts, mut conversions) = (0, 0, 0);
    let mut divide = |components: usize, dropped: usize| {
        let kept = level - drop;
        ntts += components * (dropped + kept);
        conversions += components * dropped * kept;
        components * kept
    };
    if maintenance.relinearise {
        let digits = switching.digits(level);
        polynomial_products += 2 * level + 2 * digits * (level + special) + divide(2, special + drop);
        ntts += level + digits * (level + special);
        conversions += level * switching.parts * (level + special);
    } else if drop > 0 {
        polynomial_products += divide(components, drop);
    }
    Work {
        multiplies: (values * polynomial_products) as u64,
        ntts: (values * ntts) as u64,
        conversions: (values * conversions) as u64,
        ..Work::default()
    }
}
