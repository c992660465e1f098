//! What kernels are told: plain structs, checked against their WGSL twins by the build.
//!
//! Numbers count elements (`u32`) unless they say otherwise. A dispatch works on the limbs `0 .. groups.z` of its `limbs`
//! table; its operands' [`View`]s place limb 0 wherever the caller likes, so that windows need no copies.

use bytemuck::{Pod, Zeroable};
use cryptodl_core::ring::{Modulus, RnsBasis};

/// Where an operand lies in its binding: element `(limb, value, component, lane)` is at
/// `base + limb * self.limb + value * self.value + component * self.component + lane`, below `2^32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct View {
    /// First element.
    pub base: u32,
    /// Stride of limbs.
    pub limb: u32,
    /// Stride of values.
    pub value: u32,
    /// Stride of components.
    pub component: u32,
}

impl View {
    /// A whole tensor `[limb][value][component][lane]`.
    pub fn dense(values: u32, components: u32, lanes: u32) -> Self {
        View { base: 0, limb: values * components * lanes, value: components * lanes, component: lanes }
    }
}

/// One limb of a dispatch: its prime's constants and the operation's. Make one with [`Limb::new`] and fill in the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limb {
    /// The prime.
    pub q: u32,
    /// `ceil(log2 q)`.
    pub bits: u32,
    /// `floor(2^(bits + 31) / q)`, for Barrett reduction of numbers below `2^(bits + 31)`.
    pub barrett: u32,
    /// Index in the basis: selects twiddles and row constants, and is part of a seed's nonce.
    pub index: u32,
    /// `subtract_scale`: the factor, canonical.
    pub factor: u32,
    /// Shoup's companion of `factor`.
    pub companion: u32,
    /// `accumulate_key`: position of the limb in the key's view. `accumulate`: in the view of what
    /// is added. `unpack`, `pack`: word of the packed binding where the
    /// limb's rows begin.
    pub source: u32,
    /// `ceil(bits / 8)`: planes of bytes.
    pub planes: u32,
    /// `convert_basis`: see [`Conversion`](crate::Conversion). Canonical.
    pub constant: u32,
    /// Unused.
    pub padding_0: u32,
    /// Unused.
    pub padding_1: u32,
    /// Unused.
    pub padding_2: u32,
}

impl Limb {
    /// Constants of limb `index` of `basis`.
    pub fn new(basis: &RnsBasis, index: usize) -> Self {
        let m = basis.modulus(index);
        let (q, bits) = (m.value(), m.bits());
        let barrett = ((1u64 << (bits + 31)) / u64::from(q)) as u32;
        Limb { q, bits, barrett, index: index as u32, planes: bits.div_ceil(8), ..Limb::default() }
    }

    /// With a factor in `[0, q)`.
    pub fn with_factor(self, factor: u32) -> Self {
        let [factor, companion] = self.factor(factor);
        Limb { factor, companion, ..self }
    }

    /// A factor in `[0, q)` with Shoup's companion, as tables of factors have it.
    pub fn factor(&self, factor: u32) -> [u32; 2] {
        [factor, ((u64::from(factor) << 32) / u64::from(self.q)) as u32]
    }

    /// With a place in another operand.
    pub fn with_source(self, source: u32) -> Self {
        Limb { source, ..self }
    }

    /// The modulus.
    pub fn modulus(&self) -> Modulus {
        Modulus::new(self.q).expect("made from a modulus")
    }
}

/// Of `add_constant`, `scale`, `add`, `accumulate`, `subtract_scale`, `copy`.
///
/// The third binding of `add_constant` is a table `[limb][channel]` of constants, canonical. That
/// of `scale` and the fourth of `accumulate` are tables of [`Limb::factor`]s.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Elementwise {
    /// What is changed.
    pub x: View,
    /// The other operand; ignored where there is none.
    pub y: View,
    /// Values.
    pub values: u32,
    /// Components: 1 for `add_constant`, which would add to all; those of `y` for `accumulate`.
    pub components: u32,
    /// Lanes.
    pub lanes: u32,
    /// Channels of the table, where there is one.
    pub channels: u32,
    /// Values of a channel, at least 1 where there are several.
    pub positions: u32,
    /// Unused.
    pub padding_0: u32,
    /// Unused.
    pub padding_1: u32,
    /// Unused.
    pub padding_2: u32,
}

/// Of `multiply`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Multiply {
    /// Left factor.
    pub a: View,
    /// Right factor.
    pub b: View,
    /// Product, of `left + right - 1` components.
    pub out: View,
    /// Values.
    pub values: u32,
    /// Components of `a`.
    pub left: u32,
    /// Components of `b`.
    pub right: u32,
    /// Lanes.
    pub lanes: u32,
}

/// Of `horner`: a polynomial of degree 2 to 4 of ciphertexts of two components, without relinearisation.
///
/// The fourth binding is a table `[limb][channel]` of four words, `c_(d-1), ..., c_0` and any,
/// canonical.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Horner {
    /// Argument, of two components.
    pub z: View,
    /// Result, of `degree + 1` components.
    pub out: View,
    /// Values.
    pub values: u32,
    /// Degree, 2 to 4.
    pub degree: u32,
    /// 1 if the monic part is negated before the last constant is added, else 0.
    pub negate: u32,
    /// Lanes.
    pub lanes: u32,
    /// Channels of the table.
    pub channels: u32,
    /// Values of a channel, at least 1 where there are several.
    pub positions: u32,
    /// Unused.
    pub padding_0: u32,
    /// Unused.
    pub padding_1: u32,
}

/// Of `accumulate_key`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct AccumulateKey {
    /// Two components, changed.
    pub acc: View,
    /// One component.
    pub digit: View,
    /// Two components of one row (`value` is ignored: `base` says which row). Its limb is [`Limb::source`].
    pub key: View,
    /// Values.
    pub values: u32,
    /// Lanes.
    pub lanes: u32,
    /// Unused.
    pub padding: [u32; 2],
}

/// Of the passes of `ntt_forward` and `ntt_inverse`: polynomial `p` of limb `l` is at `base + l * limb + p * polynomial`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Ntt {
    /// First element.
    pub base: u32,
    /// Stride of limbs.
    pub limb: u32,
    /// Stride of polynomials: N, or more to leave some out.
    pub polynomial: u32,
    /// Polynomials per limb.
    pub polynomials: u32,
}

/// Of `linear`. Most fields come from [`LinearTables::params`](crate::LinearTables::params).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Linear {
    /// Operand.
    pub x: View,
    /// Result: value `row * positions + position`.
    pub out: View,
    /// Components; the dispatch has `limbs * components` groups along z.
    pub components: u32,
    /// Lanes.
    pub lanes: u32,
    /// Output positions per row.
    pub positions: u32,
    /// Quads of taps.
    pub quads: u32,
    /// Rows per group.
    pub rows: u32,
    /// Blocks of [`ROWS`](crate::constants::linear::ROWS) rows per group.
    pub blocks: u32,
    /// Groups.
    pub groups: u32,
    /// Distance of the inputs of neighbouring groups.
    pub group_stride: u32,
}

/// Of `convert_basis`. The `limbs` table holds the sources, then the targets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Convert {
    /// Operand, all source limbs.
    pub x: View,
    /// Result, all target limbs of this dispatch.
    pub out: View,
    /// Source limbs, 1 to 8.
    pub sources: u32,
    /// Target limbs.
    pub targets: u32,
    /// Values.
    pub values: u32,
    /// Components.
    pub components: u32,
    /// Lanes.
    pub lanes: u32,
    /// Unused.
    pub padding_0: u32,
    /// Unused.
    pub padding_1: u32,
    /// Unused.
    pub padding_2: u32,
}

/// Of `prime_digit`. The operand has one limb, and the `limbs` table the targets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PrimeDigit {
    /// Operand; its stride of limbs is ignored.
    pub x: View,
    /// Result.
    pub out: View,
    /// Values.
    pub values: u32,
    /// Components.
    pub components: u32,
    /// Lanes.
    pub lanes: u32,
    /// The prime of the operand.
    pub q: u32,
    /// Bits of a digit.
    pub width: u32,
    /// Bits below the digit.
    pub shift: u32,
    /// Half of the base at every digit but the last.
    pub offset: u32,
    /// 1 for the last digit, which takes what is left, else 0.
    pub last: u32,
}

impl PrimeDigit {
    /// The part that tells the digit; fill in the rest.
    pub fn new(digit: cryptodl_core::ring::PrimeDigit) -> Self {
        PrimeDigit {
            q: digit.prime(),
            width: digit.width(),
            shift: digit.shift(),
            offset: digit.offset(),
            last: digit.is_last().into(),
            ..Self::default()
        }
    }
}

/// Of `automorphism`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Automorphism {
    /// Operand, of `2^log_n` lanes.
    pub x: View,
    /// Result.
    pub out: View,
    /// Values.
    pub values: u32,
    /// Components.
    pub components: u32,
    /// Binary logarithm of the dimension.
    pub log_n: u32,
    /// `g` of `X -> X^g`, 1 modulo 4.
    pub element: u32,
}

/// Of `unpack` and `pack`: rows of `lanes * bits / 32` words from [`Limb::source`] on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Packing {
    /// The unpacked residues; `base` says which component, its stride is ignored.
    pub x: View,
    /// Values.
    pub values: u32,
    /// Lanes: N, at least 32.
    pub lanes: u32,
    /// Unused.
    pub padding: [u32; 2],
}

/// Of `expand`: value `v` is object `first_object + v` (modulo `2^32`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Expand {
    /// The residues; `base` says which component, its stride is ignored.
    pub out: View,
    /// The ChaCha20 key as little-endian words.
    pub key: [u32; 8],
    /// Values.
    pub values: u32,
    /// Lanes: N, a multiple of 1024.
    pub lanes: u32,
    /// Object of value 0.
    pub first_object: u32,
    /// Unused.
    pub padding: u32,
}

/// Of `ceiling_copy`, `ceiling_multiply_add` and `ceiling_dot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Ceiling {
    /// Vectors of four words to copy, or times that the loop's body runs.
    pub count: u32,
    /// The loops: what is multiplied by, and for `ceiling_multiply_add` what is added.
    pub factor: u32,
    /// See `factor`.
    pub addend: u32,
    /// Unused.
    pub padding: u32,
}
