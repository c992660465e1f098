//! Definitions in Rust, and the comparisons with them.

use cryptodl_core::backend::{Horner as Polynomial, LinearMap, MAX_TAPS, MAX_WEIGHT, PADDING};
use cryptodl_core::ckks::{ParamsSpec, SecurityLevel, UniformPurpose};
use cryptodl_core::ring::{RnsBasis, ntt_primes, pack_row, packed_row_len};
use cryptodl_shaders::params::{
    AccumulateKey, Automorphism, Ceiling, Convert, Elementwise, Expand, Horner, Limb, Multiply, Ntt, Packing,
    PrimeDigit, View,
};
use cryptodl_shaders::{self as shaders, Conversion, Kernel, LinearTables, Variant, groups};

use crate::device::{Device, Launch};

/// A comparison of one variant.
pub type Test = fn(&Device, Variant);

/// The comparison of every kernel; the two passes of a transform are compared together.
pub const TESTS: [(&str, &Kernel, Test); 21] = [
    ("add_constant", &shaders::ADD_CONSTANT, add_constant),
    ("scale", &shaders::SCALE, scale),
    ("add", &shaders::ADD, add),
    ("accumulate", &shaders::ACCUMULATE, accumulate),
    ("subtract_scale", &shaders::SUBTRACT_SCALE, subtract_scale),
    ("copy", &shaders::COPY, copy),
    ("multiply", &shaders::MULTIPLY, multiply),
    ("horner", &shaders::HORNER, horner),
    ("accumulate_key", &shaders::ACCUMULATE_KEY, accumulate_key),
    ("linear", &shaders::LINEAR, linear),
    ("convert_basis", &shaders::CONVERT_BASIS, convert_basis),
    ("prime_digit", &shaders::PRIME_DIGIT, prime_digit),
    ("automorphism", &shaders::AUTOMORPHISM, automorphism),
    ("ntt_forward", &shaders::NTT_FORWARD_ROWS, ntt_forward),
    ("ntt_inverse", &shaders::NTT_INVERSE_ROWS, ntt_inverse),
    ("unpack", &shaders::UNPACK, unpack),
    ("pack", &shaders::PACK, pack),
    ("expand", &shaders::EXPAND, expand),
    ("ceiling_copy", &shaders::CEILING_COPY, ceiling_copy),
    ("ceiling_multiply_add", &shaders::CEILING_MULTIPLY_ADD, ceiling_multiply_add),
    ("ceiling_dot", &shaders::CEILING_DOT, ceiling_dot),
];

/// A basis with primes of many sizes; 30 bits first.
fn basis(n: usize) -> RnsBasis {
    let sizes = [(30, 3), (29, 1), (25, 1), (24, 1), (22, 1), (18, 1)];
    let primes = sizes.iter().flat_map(|&(bits, count)| ntt_primes(n, bits, count).unwrap_or_default());
    RnsBasis::new(n, &primes.collect::<Vec<u32>>()).expect("NTT primes")
}

fn limbs(basis: &RnsBasis) -> Vec<Limb> {
    (0..basis.len()).map(|limb| Limb::new(basis, limb)).collect()
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

    /// A residue, every fourth at a border.
    fn residue(&mut self, q: u32) -> u32 {
        match self.next() % 16 {
            0 => 0,
            1 => 1,
            2 => q - 1,
            3 => q / 2 + (self.next() % 2) as u32,
            _ => (self.next() % u64::from(q)) as u32,
        }
    }
}

/// A dense tensor and its shape.
#[derive(Clone)]
struct Tensor {
    values: u32,
    components: u32,
    lanes: u32,
    residues: Vec<u32>,
}

impl Tensor {
    fn new(limbs: &[Limb], values: u32, components: u32, lanes: u32, mut residue: impl FnMut(&Limb) -> u32) -> Self {
        let len = values * components * lanes;
        let residues = limbs.iter().flat_map(|limb| (0..len).map(|_| residue(limb)).collect::<Vec<_>>()).collect();
        Tensor { values, components, lanes, residues }
    }

    /// Random residues, and the largest.
    fn pair(limbs: &[Limb], values: u32, components: u32, lanes: u32) -> [Self; 2] {
        let mut random = Random(u64::from(values * components + lanes));
        let random = Tensor::new(limbs, values, components, lanes, |limb| random.residue(limb.q));
        [random, Tensor::new(limbs, values, components, lanes, |limb| limb.q - 1)]
    }

    fn zeros(limbs: &[Limb], values: u32, components: u32, lanes: u32) -> Self {
        Tensor::new(limbs, values, components, lanes, |_| 0)
    }

    fn view(&self) -> View {
        View::dense(self.values, self.components, self.lanes)
    }

    fn at(&self, limb: usize, value: u32, component: u32, lane: u32) -> u32 {
        let row = (limb as u32 * self.values + value) * self.components + component;
        self.residues[(row * self.lanes + lane) as usize]
    }

    /// The tensor of the same shape with the residues of `f(limb, value, component, lane)`.
    fn map(&self, mut f: impl FnMut(usize, u32, u32, u32) -> u32) -> Vec<u32> {
        let row = |i: usize| i as u32 / self.lanes;
        let place = |i: usize| {
            let component = row(i) % self.components;
            let value = row(i) / self.components % self.values;
            ((row(i) / self.components / self.values) as usize, value, component, i as u32 % self.lanes)
        };
        (0..self.residues.len())
            .map(|i| {
                let (limb, value, component, lane) = place(i);
                f(limb, value, component, lane)
            })
            .collect()
    }
}

/// Compares, and tells the first difference only.
fn assert_same(what: &str, actual: &[u32], expected: &[u32]) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths");
    if let Some(at) = (0..actual.len()).find(|&at| actual[at] != expected[at]) {
        panic!("{what}: residue {at} is {}, expected {}", actual[at], expected[at]);
    }
}

const LANES: [u32; 3] = [1, 67, 1024];

/// The shape of an elementwise dispatch over all of `x` but for its components.
fn over(x: &Tensor, components: u32, channels: u32) -> Elementwise {
    let (values, lanes) = (x.values, x.lanes);
    let positions = values / channels;
    Elementwise { x: x.view(), values, components, lanes, channels, positions, ..Elementwise::default() }
}

/// Runs an elementwise kernel on `x` and the other operand or table.
fn elementwise(
    (device, variant, kernel): (&Device, Variant, &'static Kernel),
    (limbs, params): (&[Limb], Elementwise),
    x: &Tensor,
    others: &[&[u32]],
) -> Vec<u32> {
    let groups = groups::elementwise(&params, limbs.len() as u32);
    let launch = Launch { kernel, variant, overrides: &[], params, limbs, groups };
    let operands: Vec<&[u32]> = std::iter::once(&x.residues[..]).chain(others.iter().copied()).collect();
    device.run(&launch, &operands).swap_remove(0)
}

/// Runs a kernel that changes all of `x` by means of `y`.
fn with_operand(
    kernel: (&Device, Variant, &'static Kernel),
    limbs: &[Limb],
    components: u32,
    (x, y): (&Tensor, &Tensor),
) -> Vec<u32> {
    let params = Elementwise { y: y.view(), ..over(x, components, 1) };
    elementwise(kernel, (limbs, params), x, &[&y.residues])
}

/// Residues `[limb][channel]`, the largest first.
struct ByChannel {
    channels: u32,
    residues: Vec<u32>,
}

impl ByChannel {
    fn new(limbs: &[Limb], channels: u32) -> Self {
        let mut random = Random(u64::from(channels));
        let residues = limbs.iter().flat_map(|limb| {
            let residue = |channel| if channel == 0 { limb.q - 1 } else { random.residue(limb.q) };
            (0..channels).map(residue).collect::<Vec<_>>()
        });
        ByChannel { channels, residues: residues.collect() }
    }

    /// The one for a value of a tensor with so many.
    fn of(&self, limb: usize, value: u32, values: u32) -> u32 {
        self.residues[limb * self.channels as usize + (value / (values / self.channels)) as usize]
    }

    /// The residues as factors with their companions.
    fn factors(&self, limbs: &[Limb]) -> Vec<u32> {
        let rows = limbs.iter().zip(self.residues.chunks_exact(self.channels as usize));
        rows.flat_map(|(limb, row)| row.iter().flat_map(|&factor| limb.factor(factor))).collect()
    }
}

const CHANNELS: [u32; 4] = [1, 2, 3, 6];

fn add_constant(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    for constants in CHANNELS.map(|channels| ByChannel::new(&limbs, channels)) {
        for x in LANES.into_iter().flat_map(|lanes| Tensor::pair(&limbs, 6, 2, lanes)) {
            let params = (&limbs[..], over(&x, 1, constants.channels));
            let kernel = (device, variant, &shaders::ADD_CONSTANT);
            let actual = elementwise(kernel, params, &x, &[&constants.residues]);
            let expected = x.map(|l, v, c, i| {
                let x = x.at(l, v, c, i);
                if c == 0 { limbs[l].modulus().add(x, constants.of(l, v, 6)) } else { x }
            });
            assert_same(&format!("add_constant, {} channels", constants.channels), &actual, &expected);
        }
    }
}

fn scale(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    for factors in CHANNELS.map(|channels| ByChannel::new(&limbs, channels)) {
        for x in LANES.into_iter().flat_map(|lanes| Tensor::pair(&limbs, 6, 2, lanes)) {
            let params = (&limbs[..], over(&x, 2, factors.channels));
            let kernel = (device, variant, &shaders::SCALE);
            let actual = elementwise(kernel, params, &x, &[&factors.factors(&limbs)]);
            let expected = x.map(|l, v, c, i| limbs[l].modulus().mul(x.at(l, v, c, i), factors.of(l, v, 6)));
            assert_same(&format!("scale, {} channels", factors.channels), &actual, &expected);
        }
    }
}

fn accumulate(device: &Device, variant: Variant) {
    let all = limbs(&basis(1024));
    // The operand has more limbs, and in another order.
    let limbs: Vec<Limb> = [4, 0, 2].into_iter().map(|index| all[index].with_source(index as u32)).collect();
    for factors in CHANNELS.map(|channels| ByChannel::new(&limbs, channels)) {
        for (lanes, (components, sums)) in LANES.into_iter().zip([(2, 3), (1, 3), (2, 2)]) {
            let operands = Tensor::pair(&all, 6, components, lanes);
            for (y, acc) in operands.into_iter().zip(Tensor::pair(&limbs, 6, sums, lanes)) {
                let params = Elementwise { y: y.view(), ..over(&acc, components, factors.channels) };
                let kernel = (device, variant, &shaders::ACCUMULATE);
                let others = [&y.residues[..], &factors.factors(&limbs)];
                let actual = elementwise(kernel, (&limbs, params), &acc, &others);
                let expected = acc.map(|l, v, c, i| {
                    let (m, sum) = (limbs[l].modulus(), acc.at(l, v, c, i));
                    let term = || m.mul(y.at(limbs[l].source as usize, v, c, i), factors.of(l, v, 6));
                    if c < components { m.add(sum, term()) } else { sum }
                });
                assert_same(&format!("accumulate, {} channels", factors.channels), &actual, &expected);
            }
        }
    }
}

fn add(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    // More rows than workgroups in a dimension, once.
    for (values, lanes) in LANES.into_iter().map(|lanes| (3, lanes)).chain([(40_000, 1)]) {
        for x in Tensor::pair(&limbs, values, 2, lanes) {
            let [y, _] = Tensor::pair(&limbs, values, 2, lanes);
            let actual = with_operand((device, variant, &shaders::ADD), &limbs, 2, (&x, &y));
            let expected = x.map(|l, v, c, i| limbs[l].modulus().add(x.at(l, v, c, i), y.at(l, v, c, i)));
            assert_same("add", &actual, &expected);
        }
    }
}

fn subtract_scale(device: &Device, variant: Variant) {
    let limbs: Vec<Limb> = limbs(&basis(1024)).into_iter().map(|limb| limb.with_factor(limb.q - 3)).collect();
    for lanes in LANES {
        let [random, largest] = Tensor::pair(&limbs, 3, 2, lanes);
        let zero = Tensor::zeros(&limbs, 3, 2, lanes);
        for (x, y) in [(&random, &largest), (&largest, &random), (&zero, &largest), (&largest, &zero), (&zero, &zero)] {
            let actual = with_operand((device, variant, &shaders::SUBTRACT_SCALE), &limbs, 2, (x, y));
            let expected = x.map(|l, v, c, i| {
                let m = limbs[l].modulus();
                m.mul(m.sub(y.at(l, v, c, i), x.at(l, v, c, i)), limbs[l].factor)
            });
            assert_same("subtract_scale", &actual, &expected);
        }
    }
}

fn copy(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    let [y, x] = Tensor::pair(&limbs, 3, 2, 67);
    let copied = with_operand((device, variant, &shaders::COPY), &limbs, 2, (&x, &y));
    assert_same("copy", &copied, &y.residues);
    // A window: values 1 and 2, component 1, lanes 5 to 64, to values 0 and 1, component 0, lanes 3 to 62.
    let (to, from) = (x.view(), y.view());
    let params = Elementwise {
        x: View { base: 3, ..to },
        y: View { base: from.value + from.component + 5, ..from },
        values: 2,
        components: 1,
        lanes: 60,
        ..Elementwise::default()
    };
    let kernel = (device, variant, &shaders::COPY);
    let actual = elementwise(kernel, (&limbs, params), &x, &[&y.residues]);
    let inside = |v, c, i| v < 2 && c == 0 && (3..63).contains(&i);
    let expected = x.map(|l, v, c, i| if inside(v, c, i) { y.at(l, v + 1, 1, i + 2) } else { x.at(l, v, c, i) });
    assert_same("copy of a window", &actual, &expected);
}

/// Product of ciphertexts, by definition.
fn product(limbs: &[Limb], a: &Tensor, b: &Tensor) -> Tensor {
    let out = Tensor::zeros(limbs, a.values, a.components + b.components - 1, a.lanes);
    let residues = out.map(|l, v, t, lane| {
        let m = limbs[l].modulus();
        (0..=t)
            .filter(|&i| i < a.components && t - i < b.components)
            .fold(0, |sum, i| m.add(sum, m.mul(a.at(l, v, i, lane), b.at(l, v, t - i, lane))))
    });
    Tensor { residues, ..out }
}

fn multiply(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    for (left, right) in [(1, 1), (2, 2), (2, 1), (3, 2), (2, 3), (5, 5)] {
        for lanes in LANES {
            let pairs = Tensor::pair(&limbs, 2, left, lanes).into_iter().zip(Tensor::pair(&limbs, 2, right, lanes));
            for (a, b) in pairs {
                let expected = product(&limbs, &a, &b);
                let params = Multiply { a: a.view(), b: b.view(), out: expected.view(), values: 2, left, right, lanes };
                let groups = groups::multiply(&params, limbs.len() as u32);
                let launch =
                    Launch { kernel: &shaders::MULTIPLY, variant, overrides: &[], params, limbs: &limbs, groups };
                let out = vec![0; expected.residues.len()];
                let actual = device.run(&launch, &[&a.residues, &b.residues, &out]).swap_remove(2);
                assert_same("multiply", &actual, &expected.residues);
            }
        }
    }
}

fn horner(device: &Device, variant: Variant) {
    let basis = basis(1024);
    let limbs = limbs(&basis);
    let signs = (2..=4).flat_map(|degree| [(degree, false), (degree, true)]);
    for ((degree, negate), channels) in signs.flat_map(|shape| [1, 3].map(|channels| (shape, channels))) {
        let constant = |i: usize| [-1.0, 1e9, 7.0, -3e12, 2e8][i % 5];
        let constants: Vec<f64> = (0..degree * channels as usize).map(constant).collect();
        let polynomial = Polynomial::per_channel(&basis, negate, channels as usize, &constants);
        let rows = (0..limbs.len()).flat_map(|limb| (0..channels as usize).map(move |channel| (limb, channel)));
        // What is behind the constants of a lower degree must not matter.
        let row = |(limb, channel)| {
            let constants = polynomial.of_channel(limb, channel);
            std::array::from_fn::<u32, 4, _>(|i| constants.get(i).copied().unwrap_or(u32::MAX))
        };
        let table: Vec<u32> = rows.flat_map(row).collect();
        for z in LANES.into_iter().flat_map(|lanes| Tensor::pair(&limbs, 6, 2, lanes)) {
            let mut u = z.clone();
            for products in 0..degree {
                if products > 0 {
                    u = product(&limbs, &u, &z);
                }
                u.residues = u.map(|l, v, c, i| {
                    let (m, x) = (limbs[l].modulus(), u.at(l, v, c, i));
                    let x = if negate && products + 1 == degree { m.neg(x) } else { x };
                    let channel = (v / (6 / channels)) as usize;
                    if c == 0 { m.add(x, polynomial.of_channel(l, channel)[products]) } else { x }
                });
            }
            let params = Horner {
                z: z.view(),
                out: u.view(),
                values: 6,
                degree: degree as u32,
                negate: negate.into(),
                lanes: z.lanes,
                channels,
                positions: 6 / channels,
                ..Horner::default()
            };
            let groups = groups::horner(&params, limbs.len() as u32);
            let launch = Launch { kernel: &shaders::HORNER, variant, overrides: &[], params, limbs: &limbs, groups };
            let actual = device.run(&launch, &[&z.residues, &vec![0; u.residues.len()], &table]).swap_remove(1);
            assert_same(&format!("horner of degree {degree}, {channels} channels"), &actual, &u.residues);
        }
    }
}

fn accumulate_key(device: &Device, variant: Variant) {
    let all = limbs(&basis(1024));
    // Limbs in another order than the key's.
    let limbs: Vec<Limb> = [4, 0, 2].into_iter().map(|index| all[index].with_source(index as u32)).collect();
    let [key, _] = Tensor::pair(&all, 3, 2, 1024);
    let digits = Tensor::pair(&limbs, 5, 1, 1024);
    for (digit, acc) in digits.into_iter().zip(Tensor::pair(&limbs, 5, 2, 1024)) {
        let row = 2;
        let params = AccumulateKey {
            acc: acc.view(),
            digit: digit.view(),
            key: View { base: row * key.view().value, ..key.view() },
            values: 5,
            lanes: 1024,
            padding: [0; 2],
        };
        let groups = groups::accumulate_key(&params, limbs.len() as u32);
        let launch =
            Launch { kernel: &shaders::ACCUMULATE_KEY, variant, overrides: &[], params, limbs: &limbs, groups };
        let actual = device.run(&launch, &[&acc.residues, &digit.residues, &key.residues]).swap_remove(0);
        let expected = acc.map(|l, v, c, i| {
            let m = limbs[l].modulus();
            let key = key.at(limbs[l].source as usize, row, c, i);
            m.add(acc.at(l, v, c, i), m.mul(digit.at(l, v, 0, i), key))
        });
        assert_same("accumulate_key", &actual, &expected);
    }
}

/// A map with random weights and indices; every fourth index is padding if `padded`.
fn map(basis: &RnsBasis, [inputs, rows, taps, positions, groups]: [usize; 5], padded: bool) -> LinearMap {
    let mut random = Random((inputs * rows * taps) as u64);
    let stride = if groups > 1 { inputs / groups } else { 0 };
    let reach = (inputs - (groups - 1) * stride) as u64;
    let weights = (0..rows * taps).map(|_| (random.next() % 255) as i16 - MAX_WEIGHT).collect();
    let gather = (1..=positions * taps)
        .map(|i| if padded && i % 4 == 0 { PADDING } else { (random.next() % reach) as u32 })
        .collect();
    let constants: Vec<f64> = (0..rows).map(|row| row as f64 * 1e12 - 5e12).collect();
    LinearMap::new(basis, inputs, rows, taps, groups, stride as u32, weights, gather, &constants).expect("it fits")
}

/// A map with the longest sums of the largest products.
fn longest(basis: &RnsBasis, sign: impl Fn(usize) -> i16) -> LinearMap {
    let weights = (0..MAX_TAPS).map(|tap| MAX_WEIGHT * sign(tap)).collect();
    let gather = (0..MAX_TAPS).map(|tap| tap as u32 % 3).collect();
    LinearMap::new(basis, 3, 1, MAX_TAPS, 1, 0, weights, gather, &[-1.0]).expect("it fits")
}

fn linear(device: &Device, variant: Variant) {
    let basis = basis(1024);
    let limbs = limbs(&basis);
    for (components, lanes) in [(2, 1), (3, 67), (1, 130)] {
        for (shape, padded) in [
            ([1, 1, 1, 1, 1], false),
            ([21, 13, 21, 1, 1], false),
            ([18, 7, 9, 5, 1], true),
            ([40, 35, 70, 2, 1], false),
            ([24, 6, 5, 3, 3], true),
            ([12, 4, 3, 2, 4], false),
            ([90, 34, 270, 1, 2], true),
        ] {
            linear_map(device, variant, (&basis, &limbs), &map(&basis, shape, padded), components, lanes);
        }
    }
    // Most planes and least, with the least room above the sums.
    let limbs: Vec<Limb> = [0, 4, 7].into_iter().map(|index| limbs[index]).collect();
    for sign in [|_| 1, |_| -1, |tap: usize| 1 - 2 * (tap % 2) as i16] {
        linear_map(device, variant, (&basis, &limbs), &longest(&basis, sign), 2, 9);
    }
}

fn linear_map(
    device: &Device,
    variant: Variant,
    (basis, limbs): (&RnsBasis, &[Limb]),
    map: &LinearMap,
    components: u32,
    lanes: u32,
) {
    let tables = LinearTables::new(basis, map, variant.dot);
    // The longest sums take long.
    let row_groups: &[u32] = if map.taps() < MAX_TAPS { &[1, 2, 4] } else { &[1] };
    for x in Tensor::pair(limbs, map.inputs() as u32, components, lanes) {
        let out = Tensor::zeros(limbs, map.outputs() as u32, components, lanes);
        let expected = out.map(|l, value, c, lane| {
            let (row, position) = (value as usize / map.positions(), value as usize % map.positions());
            let first = (row / map.rows_per_group()) as u32 * map.group_stride();
            let taps = map.row(row).iter().zip(map.gather(position)).filter(|&(_, &index)| index != PADDING);
            let sum: i64 =
                taps.map(|(&weight, &index)| i64::from(weight) * i64::from(x.at(l, first + index, c, lane))).sum();
            let m = limbs[l].modulus();
            m.add(m.reduce_signed(sum), if c == 0 { map.constants(limbs[l].index as usize)[row] } else { 0 })
        });
        for &row_groups in row_groups {
            let params = tables.params(x.view(), out.view(), components, lanes);
            let launch = Launch {
                kernel: &shaders::LINEAR,
                variant,
                overrides: &[("ROW_GROUPS", f64::from(row_groups))],
                params,
                limbs,
                groups: groups::linear(&params, row_groups, limbs.len() as u32),
            };
            let operands =
                [&x.residues[..], &out.residues[..], &tables.weights[..], &tables.gather[..], &tables.constants[..]];
            let actual = device.run(&launch, &operands).swap_remove(1);
            let shape = (map.rows(), map.taps(), map.positions(), map.groups());
            assert_same(&format!("linear {shape:?} by {row_groups}"), &actual, &expected);
        }
    }
}

fn convert_basis(device: &Device, variant: Variant) {
    let basis = basis(1024);
    let all = limbs(&basis);
    let pairs: [(&[usize], &[usize]); 5] = [
        (&[0], &[1, 4, 0]),
        (&[5], &[0, 7]),
        (&[3, 7], &[0, 1, 2]),
        (&[6, 1, 4], &[0, 3]),
        (&[7, 6, 5, 4, 3, 2, 1, 0], &[0, 7, 3]),
    ];
    for (from, to) in pairs {
        let sources: Vec<Limb> = from.iter().map(|&limb| all[limb]).collect();
        let targets: Vec<Limb> = to.iter().map(|&limb| all[limb]).collect();
        // Around half the product, too: (D - 1) / 2 is -1/2 modulo each prime.
        let mut lane = 0;
        let half = Tensor::new(&sources, 2, 2, 100, |limb| {
            lane += 1;
            let m = limb.modulus();
            m.add(m.neg(m.inv(2)), m.reduce_signed(lane % 5 - 2))
        });
        for x in Tensor::pair(&sources, 2, 2, 100).into_iter().chain([half]) {
            let out = Tensor::zeros(&targets, 2, 2, 100);
            let converter = basis.centred_converter(from, to);
            let expected = out.map(|l, v, c, i| {
                let residues: Vec<u32> = (0..from.len()).map(|source| x.at(source, v, c, i)).collect();
                let mut digits = vec![0; from.len()];
                converter.digits(&residues, &mut digits);
                converter.residue(&digits, l)
            });
            let tables = Conversion::new(&basis, from, to);
            let params = Convert {
                x: x.view(),
                out: out.view(),
                sources: from.len() as u32,
                targets: to.len() as u32,
                values: 2,
                components: 2,
                lanes: 100,
                ..Convert::default()
            };
            let launch = Launch {
                kernel: &shaders::CONVERT_BASIS,
                variant,
                overrides: &[],
                params,
                limbs: &tables.limbs,
                groups: groups::convert_basis(&params),
            };
            let operands = [&x.residues[..], &out.residues, bytemuck::cast_slice(&tables.weights)];
            assert_same("convert_basis", &device.run(&launch, &operands)[1], &expected);
        }
    }
}

fn prime_digit(device: &Device, variant: Variant) {
    let all = limbs(&basis(1024));
    // 30, 30, 25 and 18 bits in parts that are below all targets.
    for (from, parts, to) in [(0, 2, &[1, 3][..]), (1, 3, &[7, 0]), (4, 4, &[2, 7, 6]), (7, 1, &[7, 0])] {
        let source = [all[from]];
        let targets: Vec<Limb> = to.iter().map(|&limb| all[limb]).collect();
        let mut lane = 0;
        let half = Tensor::new(&source, 2, 2, 100, |limb| {
            lane += 1;
            limb.q / 2 - 2 + lane % 5
        });
        for x in Tensor::pair(&source, 2, 2, 100).into_iter().chain([half]) {
            for part in 0..parts {
                let out = Tensor::zeros(&targets, 2, 2, 100);
                let digit = cryptodl_core::ring::PrimeDigit::new(source[0].modulus(), part, parts);
                let expected =
                    out.map(|l, v, c, i| targets[l].modulus().reduce_signed(digit.of(x.at(0, v, c, i)).into()));
                let (x_view, out_view) = (x.view(), out.view());
                let shape = PrimeDigit {
                    x: x_view,
                    out: out_view,
                    values: 2,
                    components: 2,
                    lanes: 100,
                    ..PrimeDigit::new(digit)
                };
                let launch = Launch {
                    kernel: &shaders::PRIME_DIGIT,
                    variant,
                    overrides: &[],
                    params: shape,
                    limbs: &targets,
                    groups: groups::prime_digit(&shape, targets.len() as u32),
                };
                let operands = [&x.residues[..], &out.residues];
                assert_same("prime_digit", &device.run(&launch, &operands)[1], &expected);
            }
        }
    }
}

fn automorphism(device: &Device, variant: Variant) {
    for n in [1024u32, 4096] {
        let limbs = limbs(&basis(n as usize));
        for element in [1, 5, 4 * n - 3, 2 * n + 1, n + 5] {
            let automorphism = cryptodl_core::ring::Automorphism::new(n as usize, element).expect("1 modulo 4");
            for x in Tensor::pair(&limbs, 3, 2, n) {
                let out = Tensor::zeros(&limbs, 3, 2, n);
                let expected = out.map(|l, v, c, i| x.at(l, v, c, automorphism.source(i as usize) as u32));
                let params = Automorphism {
                    x: x.view(),
                    out: out.view(),
                    values: 3,
                    components: 2,
                    log_n: n.trailing_zeros(),
                    element,
                };
                let launch = Launch {
                    kernel: &shaders::AUTOMORPHISM,
                    variant,
                    overrides: &[],
                    params,
                    limbs: &limbs,
                    groups: groups::automorphism(&params, limbs.len() as u32),
                };
                let operands = [&x.residues[..], &out.residues];
                assert_same("automorphism", &device.run(&launch, &operands)[1], &expected);
            }
        }
    }
}

fn ntt_forward(device: &Device, variant: Variant) {
    ntt(device, variant, true);
}

fn ntt_inverse(device: &Device, variant: Variant) {
    ntt(device, variant, false);
}

fn ntt(device: &Device, variant: Variant, forward: bool) {
    // The rounds depend on the dimension alone: one variant runs all.
    let dimensions: &[_] = match variant.multiply {
        shaders::Multiply::U64 => &[(1024, 5), (8192, 2)],
        shaders::Multiply::Portable => {
            &[(1024, 5), (2048, 3), (4096, 2), (8192, 2), (16384, 1), (32768, 1), (65536, 1)]
        }
    };
    for &(n, values) in dimensions {
        let basis = basis(n);
        let limbs = limbs(&basis);
        // Component 1 of two.
        for x in Tensor::pair(&limbs, values, 2, n as u32) {
            let mut expected = x.residues.clone();
            for (row, polynomial) in expected.chunks_exact_mut(n).enumerate().filter(|(row, _)| row % 2 == 1) {
                let table = basis.table(row / (2 * values as usize));
                if forward { table.forward(polynomial) } else { table.inverse(polynomial) }
            }
            let view = x.view();
            let params = Ntt { base: view.component, limb: view.limb, polynomial: view.value, polynomials: values };
            let count = limbs.len() as u32;
            let (columns, rows) =
                (groups::ntt_columns(&params, n as u32, count), groups::ntt_rows(&params, n as u32, count));
            let (twiddles, passes) = if forward {
                let passes = [(&shaders::NTT_FORWARD_COLUMNS, columns), (&shaders::NTT_FORWARD_ROWS, rows)];
                (shaders::forward_twiddles(&basis), passes)
            } else {
                let passes = [(&shaders::NTT_INVERSE_ROWS, rows), (&shaders::NTT_INVERSE_COLUMNS, columns)];
                (shaders::inverse_twiddles(&basis), passes)
            };
            let mut actual = x.residues;
            for (kernel, groups) in passes {
                let overrides = &[("LOG_N", f64::from(n.ilog2()))];
                let launch = Launch { kernel, variant, overrides, params, limbs: &limbs, groups };
                actual = device.run(&launch, &[&actual, bytemuck::cast_slice(&twiddles)]).swap_remove(0);
            }
            assert_same(&format!("dimension {n}"), &actual, &expected);
        }
    }
}

/// Packs component `component` of `x`; also returns the limbs with the places of their rows.
fn packed(limbs: &[Limb], x: &Tensor, component: u32) -> (Vec<u32>, Vec<Limb>) {
    let (mut bytes, mut placed) = (Vec::new(), Vec::new());
    for (l, limb) in limbs.iter().enumerate() {
        placed.push(limb.with_source(bytes.len() as u32 / 4));
        for value in 0..x.values {
            let row: Vec<u32> = (0..x.lanes).map(|lane| x.at(l, value, component, lane)).collect();
            let start = bytes.len();
            bytes.resize(start + packed_row_len(row.len(), limb.bits), 0);
            pack_row(&row, limb.bits, &mut bytes[start..]);
        }
    }
    let words = bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
    (words.collect(), placed)
}

fn packing(x: &Tensor, component: u32) -> Packing {
    let view = x.view();
    Packing { x: View { base: component * view.component, ..view }, values: x.values, lanes: x.lanes, padding: [0; 2] }
}

fn unpack(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    for mut x in Tensor::pair(&limbs, 3, 2, 1024) {
        let spoil = x.residues.len() - 1;
        for spoilt in [false, true] {
            x.residues[spoil] = limbs.last().expect("limbs").q - u32::from(!spoilt);
            let (words, placed) = packed(&limbs, &x, 1);
            let params = packing(&x, 1);
            let groups = groups::packing(&params, limbs.len() as u32);
            let launch = Launch { kernel: &shaders::UNPACK, variant, overrides: &[], params, limbs: &placed, groups };
            let out = vec![7; x.residues.len()];
            let results = device.run(&launch, &[&words, &out, &[0]]);
            assert_eq!(results[2], [u32::from(spoilt)], "refused");
            if !spoilt {
                assert_same("unpack", &results[1], &x.map(|l, v, c, i| if c == 1 { x.at(l, v, c, i) } else { 7 }));
            }
        }
    }
}

fn pack(device: &Device, variant: Variant) {
    let limbs = limbs(&basis(1024));
    for (x, component) in Tensor::pair(&limbs, 3, 2, 1024).into_iter().zip([0, 1]) {
        let (expected, placed) = packed(&limbs, &x, component);
        let params = packing(&x, component);
        let groups = groups::packing(&params, limbs.len() as u32);
        let launch = Launch { kernel: &shaders::PACK, variant, overrides: &[], params, limbs: &placed, groups };
        let actual = device.run(&launch, &[&x.residues, &vec![7; expected.len()]]).swap_remove(1);
        assert_same("pack", &actual, &expected);
    }
}

fn expand(device: &Device, variant: Variant) {
    let basis = basis(2048);
    let limbs = limbs(&basis);
    let primes = basis.primes();
    let spec = ParamsSpec { n: 2048, primes, special_primes: vec![], security: SecurityLevel::Bits128 };
    let params = spec.build_insecure_for_tests().expect("NTT primes");
    let source = UniformPurpose::Ciphertext.source(&params, &[3; 32]);
    let key = std::array::from_fn(|i| u32::from_le_bytes(source.key().as_chunks().0[i]));
    let first_object = u32::MAX;
    let out = Tensor::zeros(&limbs, 3, 2, 2048);
    let mut expected = out.residues.clone();
    for (row, residues) in expected.chunks_exact_mut(2048).enumerate().filter(|(row, _)| row % 2 == 1) {
        let (limb, value) = (row / 6, row as u32 / 2 % 3);
        let object = first_object.wrapping_add(value);
        source.fill(object, limb as u32, basis.modulus(limb), 0, residues);
    }
    let view = out.view();
    let view = View { base: view.component, ..view };
    let params = Expand { out: view, key, values: 3, lanes: 2048, first_object, padding: 0 };
    let groups = groups::expand(&params, limbs.len() as u32);
    let launch = Launch { kernel: &shaders::EXPAND, variant, overrides: &[], params, limbs: &limbs, groups };
    assert_same("expand", &device.run(&launch, &[&out.residues])[0], &expected);
}

fn ceiling_copy(device: &Device, variant: Variant) {
    let count = 70_000;
    let source: Vec<u32> = (0..4 * count).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).collect();
    let params = Ceiling { count, ..Ceiling::default() };
    // Fewer threads than vectors.
    let launch =
        Launch { kernel: &shaders::CEILING_COPY, variant, overrides: &[], params, limbs: &[], groups: [7, 1, 1] };
    assert_same("ceiling_copy", &device.run(&launch, &[&source, &vec![0; source.len()]])[1], &source);
}

fn ceiling_multiply_add(device: &Device, variant: Variant) {
    let step = |x: u32, p: &Ceiling| x.wrapping_mul(p.factor).wrapping_add(p.addend);
    ceiling_loop(device, variant, &shaders::CEILING_MULTIPLY_ADD, step);
}

fn ceiling_dot(device: &Device, variant: Variant) {
    ceiling_loop(device, variant, &shaders::CEILING_DOT, |x, p| {
        let bytes = x.to_le_bytes().into_iter().zip(p.factor.to_le_bytes());
        bytes.fold(x, |sum, (x, y)| sum.wrapping_add_signed(i32::from(x as i8) * i32::from(y as i8)))
    });
}

fn ceiling_loop(device: &Device, variant: Variant, kernel: &'static Kernel, step: fn(u32, &Ceiling) -> u32) {
    use shaders::constants::ceiling_dot::{CHAINS, STEPS};
    let params = Ceiling { count: 3, factor: 0x80ff_7f03, addend: 5, padding: 0 };
    let chain = |start: u32| (0..STEPS * params.count).fold(start, |x, _| step(x, &params));
    let total = |t: u32| (0..CHAINS).fold(0, |sum: u32, i| sum.wrapping_add(chain(CHAINS * t + i)));
    let expected: Vec<u32> = (0..512).map(total).collect();
    let launch = Launch { kernel, variant, overrides: &[], params, limbs: &[], groups: [2, 1, 1] };
    assert_same(kernel.name, &device.run(&launch, &[&vec![0; 512]])[0], &expected);
}
