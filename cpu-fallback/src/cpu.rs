//! The CPU backend: tensors and threads around the kernels.

use std::ops::Range;
use std::sync::Arc;

use cryptodl_core::backend::{
    Backend, Channels, Horner, KeySwitch, LinearMap, Maintenance, Result, Rotation, Shape, SlotwiseOp, Window,
    packed_len, packed_row, slotwise_shape,
};
use cryptodl_core::ring::{Automorphism, Modulus, PrimeDigit, RnsBasis, Twiddle, UniformSource, pack_row, unpack_row};
use rayon::prelude::*;

use crate::ciphertext::{Activation, Decomposed, Division, KeySwitching, Made, Ring, Scratch};
use crate::kernels::convert::Converter;
use crate::kernels::elementwise::{
    Add, AddConstant, AddProduct, AddScaled, Multiply, Permute, ReducedDigit, Scale, SubtractScale,
};
use crate::kernels::expand::Expand;
use crate::kernels::ntt::{ForwardNtt, InverseNtt, Tables};
use crate::kernels::slotwise;
use crate::machine::{Caches, processor};
use crate::memory::{Kept, Pool};
use crate::simd::{Kernels, Simd, with_simd};
use crate::tensor::{CpuTensor, Place};

/// Where there are fewer ciphertexts to rotate for a thread, threads share the rotations of each.
const SOURCES_PER_THREAD: usize = 4;

/// The blocks that a rotation fills, its key's rows, and where each lane comes from.
type Target<'a> = (Vec<&'a mut [u32]>, &'a CpuTensor, &'a [u32]);

/// The CPU backend. Uses the threads of the rayon pool in which it is called.
#[derive(Clone, Debug)]
pub struct Cpu {
    basis: Arc<RnsBasis>,
    /// By limb.
    tables: Arc<[Tables]>,
    kernels: Kernels,
    pool: Arc<Pool>,
    /// Of steps on ciphertexts, and of slot-wise operations.
    scratch: Arc<(Kept<Scratch>, Kept<slotwise::Scratch>)>,
}

impl Cpu {
    /// A backend over `basis` with the machine's best kernels.
    pub fn new(basis: Arc<RnsBasis>) -> Self {
        Self::with_kernels(basis, Kernels::best())
    }

    /// A backend over `basis` with the given kernels.
    pub fn with_kernels(basis: Arc<RnsBasis>, kernels: Kernels) -> Self {
        let tables = (0..basis.len()).map(|limb| Tables::new(basis.table(limb))).collect();
        Cpu { basis, tables, kernels, pool: Arc::default(), scratch: Arc::default() }
    }

    fn ring(&self) -> Ring<'_> {
        Ring { basis: &self.basis, tables: &self.tables }
    }

    /// The chosen kernels.
    pub(crate) fn simd(&self) -> Kernels {
        self.kernels
    }

    fn modulus(&self, x: &Shape, place: Place) -> Modulus {
        self.basis.modulus(x.limbs[place.limb])
    }

    /// Applies `f(modulus, place, row)` to every row.
    fn each_row(&self, x: &mut CpuTensor, f: impl Fn(Modulus, Place, &mut [u32]) + Sync) {
        let shape = x.shape().clone();
        x.par_rows_mut().for_each(|(place, row)| f(self.modulus(&shape, place), place, row));
    }
}

impl Backend for Cpu {
    type Tensor = CpuTensor;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    fn device(&self) -> String {
        processor()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        &self.basis
    }

    fn is_fused(&self) -> bool {
        true
    }

    fn working_set(&self) -> u64 {
        Caches::of_this_machine().shared as u64
    }

    fn is_host(&self) -> bool {
        true
    }

    fn shape<'a>(&self, x: &'a CpuTensor) -> &'a Shape {
        x.shape()
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        let mut x = self.uninitialised(shape)?;
        x.par_rows_mut().for_each(|(_, row)| row.fill(0));
        Ok(x)
    }

    fn uninitialised(&self, shape: Shape) -> Result<CpuTensor> {
        CpuTensor::uninitialised(shape, &self.pool)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<CpuTensor> {
        let mut x = self.uninitialised(shape)?;
        x.residues_mut().copy_from_slice(residues);
        Ok(x)
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
        let mut rest = packed;
        let blocks: Vec<&[u8]> = (shape.limbs.iter())
            .map(|&limb| {
                rest.split_off(..shape.values * packed_row(&self.basis, limb)).expect("the length was checked")
            })
            .collect();
        let rows = out.par_rows_mut().filter(|(place, _)| place.component == component);
        Ok(rows.all(|(place, row)| {
            let (m, len) = (self.modulus(&shape, place), packed_row(&self.basis, shape.limbs[place.limb]));
            unpack_row(&blocks[place.limb][place.value * len..][..len], m.bits(), row);
            row.iter().fold(0, |largest, &residue| largest.max(residue)) < m.value()
        }))
    }

    fn pack(&self, x: &CpuTensor, component: usize) -> Result<Vec<u8>> {
        let shape = x.shape();
        assert_eq!(shape.lanes, self.basis.n(), "whole polynomials");
        let mut packed = vec![0; packed_len(&self.basis, shape)];
        let mut rest = &mut packed[..];
        for (limb, &index) in shape.limbs.iter().enumerate() {
            let (bits, len) = (self.basis.modulus(index).bits(), packed_row(&self.basis, index));
            let block = rest.split_off_mut(..shape.values * len).expect("the lengths add up");
            block.par_chunks_exact_mut(len).enumerate().for_each(|(value, bytes)| {
                pack_row(x.row(Place { limb, value, component }), bits, bytes);
            });
        }
        Ok(packed)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut CpuTensor, component: usize) -> Result<()> {
        let limbs = out.shape().limbs.clone();
        let key = source.key();
        with_simd!(self.kernels, s => self.each_row(out, |modulus, place, row| {
            if place.component == component {
                let (object, limb) = (first_object + place.value as u32, limbs[place.limb] as u32);
                s.run(Expand { key, object, limb, modulus, out: row });
            }
        }));
        Ok(())
    }

    fn linear(&self, map: &LinearMap, x: &CpuTensor) -> Result<CpuTensor> {
        let ops = [SlotwiseOp::Linear(map)];
        let mut out = self.uninitialised(slotwise_shape(&ops, x.shape()))?;
        self.slotwise(&ops, x, 0..x.shape().lanes, &mut out)?;
        Ok(out)
    }

    fn multiply(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        let (left, right) = (a.shape(), b.shape());
        assert_eq!(left, &Shape { components: left.components, ..right.clone() }, "factors");
        let components = left.components + right.components - 1;
        let mut out = self.uninitialised(Shape { components, ..left.clone() })?;
        let of = |x: &Shape| x.components * x.lanes;
        let factors = a.residues().par_chunks_exact(of(left)).zip(b.residues().par_chunks_exact(of(right)));
        let products = out.residues_mut().par_chunks_exact_mut(components * left.lanes);
        with_simd!(self.kernels, s => products.zip(factors).enumerate().for_each(|(index, (product, (a, b)))| {
            let modulus = self.basis.modulus(left.limbs[index / left.values]);
            s.run(Multiply { modulus, lanes: left.lanes, a, b, out: product });
        }));
        Ok(out)
    }

    fn add_constant(&self, x: &mut CpuTensor, constants: &[u32]) -> Result<()> {
        let channels = Channels::of(constants, x.shape());
        with_simd!(self.kernels, s => self.each_row(x, |m, place, row| {
            if place.component == 0 {
                let constant = constants[channels.index(place.limb, place.value)];
                s.run(AddConstant { modulus: m, x: row, constant });
            }
        }));
        Ok(())
    }

    fn scale(&self, x: &mut CpuTensor, factors: &[u32]) -> Result<()> {
        let channels = Channels::of(factors, x.shape());
        with_simd!(self.kernels, s => self.each_row(x, |m, place, row| {
            let factor = Twiddle::new(m, factors[channels.index(place.limb, place.value)]);
            s.run(Scale { modulus: m, x: row, factor });
        }));
        Ok(())
    }

    fn accumulate(&self, acc: &mut CpuTensor, x: &CpuTensor, factors: &[u32]) -> Result<()> {
        let (to, from) = (acc.shape(), x.shape());
        assert_eq!((to.values, to.lanes), (from.values, from.lanes), "values and lanes");
        assert!(from.components <= to.components, "{} components to {}", from.components, to.components);
        let in_x = |limb| from.limbs.iter().position(|l| l == limb).expect("the operand has every limb");
        let in_x: Vec<usize> = to.limbs.iter().map(in_x).collect();
        let channels = Channels::of(factors, to);
        with_simd!(self.kernels, s => self.each_row(acc, |m, place, sums| {
            if place.component < from.components {
                let factor = Twiddle::new(m, factors[channels.index(place.limb, place.value)]);
                let x = x.row(Place { limb: in_x[place.limb], ..place });
                s.run(AddScaled { modulus: m, sums, x, factor });
            }
        }));
        Ok(())
    }

    fn add(&self, x: &mut CpuTensor, y: &CpuTensor) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "summands");
        with_simd!(self.kernels, s => self.each_row(x, |m, place, row| {
            s.run(Add { modulus: m, x: row, y: y.row(place) });
        }));
        Ok(())
    }

    fn subtract_scale(&self, x: &mut CpuTensor, y: &CpuTensor, factors: &[u32]) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "operands of a difference");
        assert_eq!(factors.len(), x.shape().limbs.len(), "one factor per limb");
        with_simd!(self.kernels, s => self.each_row(x, |m, place, row| {
            let factor = Twiddle::new(m, factors[place.limb]);
            s.run(SubtractScale { modulus: m, x: row, y: y.row(place), factor });
        }));
        Ok(())
    }

    fn accumulate_key(&self, acc: &mut CpuTensor, digit: &CpuTensor, key: &CpuTensor, row: usize) -> Result<()> {
        let expected = Shape { components: 1, ..acc.shape().clone() };
        assert_eq!((digit.shape(), acc.shape().components, key.shape().components), (&expected, 2, 2), "key switch");
        let in_key = |limb| key.shape().limbs.iter().position(|l| l == limb).expect("the key has every limb");
        let key_limbs: Vec<usize> = acc.shape().limbs.iter().map(in_key).collect();
        with_simd!(self.kernels, s => self.each_row(acc, |m, place, sums| {
            let key = key.row(Place { limb: key_limbs[place.limb], value: row, ..place });
            s.run(AddProduct { modulus: m, sums, a: digit.row(Place { component: 0, ..place }), b: key });
        }));
        Ok(())
    }

    fn forward_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        let limbs = x.shape().limbs.clone();
        with_simd!(self.kernels, s => x.par_rows_mut().for_each(|(place, row)| {
            s.run(ForwardNtt(&self.tables[limbs[place.limb]], row));
        }));
        Ok(())
    }

    fn inverse_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        let limbs = x.shape().limbs.clone();
        with_simd!(self.kernels, s => x.par_rows_mut().for_each(|(place, row)| {
            s.run(InverseNtt(&self.tables[limbs[place.limb]], row));
        }));
        Ok(())
    }

    fn convert_basis(&self, x: &CpuTensor, limbs: &[usize]) -> Result<CpuTensor> {
        let (from, n) = (x.shape(), x.shape().lanes);
        let mut out = self.uninitialised(Shape { limbs: limbs.to_vec(), ..from.clone() })?;
        let converter = Converter::new(&self.basis, &from.limbs, limbs);
        let values = out.values_mut().into_par_iter().enumerate();
        with_simd!(self.kernels, s => values.for_each_init(Vec::new, |rows: &mut Vec<u32>, (value, mut out)| {
            let value = x.value(value);
            for component in 0..from.components {
                rows.clear();
                value.iter().for_each(|block| rows.extend_from_slice(&block[component * n..][..n]));
                let mut digits: Vec<&mut [u32]> = rows.chunks_exact_mut(n).collect();
                converter.digits(s, &mut digits);
                let digits: Vec<&[u32]> = digits.into_iter().map(|digit| &*digit).collect();
                for (target, out) in out.iter_mut().enumerate() {
                    converter.residues(s, &digits, target, &mut out[component * n..][..n]);
                }
            }
        }));
        Ok(out)
    }

    fn prime_digit(&self, x: &CpuTensor, part: usize, parts: usize, limbs: &[usize]) -> Result<CpuTensor> {
        let &[own] = &x.shape().limbs[..] else { panic!("digits of one prime") };
        let digit = PrimeDigit::new(self.basis.modulus(own), part, parts);
        let mut out = self.uninitialised(Shape { limbs: limbs.to_vec(), ..x.shape().clone() })?;
        let shape = out.shape().clone();
        with_simd!(self.kernels, s => out.par_rows_mut().for_each(|(place, out)| {
            let x = x.row(Place { limb: 0, ..place });
            s.run(ReducedDigit { digit, modulus: self.modulus(&shape, place), x, out });
        }));
        Ok(out)
    }

    fn automorphism(&self, automorphism: Automorphism, x: &CpuTensor) -> Result<CpuTensor> {
        assert_eq!(x.shape().lanes, automorphism.n(), "whole polynomials");
        let sources = automorphism.sources();
        let mut out = self.uninitialised(x.shape().clone())?;
        with_simd!(self.kernels, s => out.par_rows_mut().for_each(|(place, out)| {
            s.run(Permute { sources: &sources, x: x.row(place), out });
        }));
        Ok(out)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: Range<usize>, out: &mut CpuTensor) -> Result<()> {
        with_simd!(self.kernels, s => slotwise::run(s, (&self.basis, &self.scratch.1), ops, x, lanes, out));
        Ok(())
    }

    fn mod_down(&self, x: &CpuTensor, dropped: &[usize]) -> Result<CpuTensor> {
        let shape = x.shape();
        let kept = shape.limbs.len() - dropped.len();
        assert_eq!(&shape.limbs[kept..], dropped, "the dropped limbs are the last ones");
        let division = Division::new(self.ring(), &shape.limbs, kept);
        let result = Shape { limbs: shape.limbs[..kept].to_vec(), ..shape.clone() };
        with_simd!(self.kernels, s => each_value(&self.scratch.0, x, self.uninitialised(result)?, |_, x, scratch| {
            scratch.load(x);
            scratch.divide(s, &division, shape.components);
        }))
    }

    fn relinearise(&self, x: &CpuTensor, key: &KeySwitch<'_, CpuTensor>, drop: usize) -> Result<CpuTensor> {
        let shape = x.shape();
        let level = shape.limbs.len();
        assert_eq!(shape.components, 3, "relinearisation takes three components");
        assert!(shape.limbs.iter().copied().eq(0..level), "a ciphertext of the chain");
        let switching = KeySwitching::new(self.ring(), key, level, drop);
        let result = Shape { limbs: (0..level - drop).collect(), components: 2, ..shape.clone() };
        with_simd!(self.kernels, s => each_value(&self.scratch.0, x, self.uninitialised(result)?, |_, x, scratch| {
            scratch.load(x);
            switching.relinearise(s, key.rows, scratch);
        }))
    }

    fn rotate(&self, x: &mut CpuTensor, from: Range<usize>, rotations: &[Rotation<'_, CpuTensor>]) -> Result<()> {
        let shape = x.shape().clone();
        Rotation::check(rotations, &shape, &from);
        let Some(first) = rotations.first() else { return Ok(()) };
        let level = shape.limbs.len();
        let switch = KeySwitching::new(self.ring(), &first.key, level, 0);
        let rotations: Vec<_> = rotations
            .iter()
            .map(|rotation| (rotation.to.clone(), rotation.key.rows, rotation.automorphism.sources()))
            .collect();
        // The blocks of every value go to the value that it is rotated from.
        let mut values: Vec<_> = x.values_mut().into_iter().map(Some).collect();
        let mut take = |value: usize| values[value].take().expect("no value is read or written twice");
        let work: Vec<_> = (0..from.len())
            .map(|index| {
                let targets = rotations.iter().filter(|(to, ..)| index < to.len());
                let targets: Vec<_> =
                    targets.map(|(to, rows, sources)| (take(to.start + index), *rows, &sources[..])).collect();
                (take(from.start + index), targets)
            })
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        let n = self.basis.n();
        // Each source is one thread's, or where there are few, each target.
        let together = work.len() >= SOURCES_PER_THREAD * rayon::current_num_threads();
        with_simd!(self.kernels, s => {
            let rotate = |cut: Decomposed<'_>, made: &mut Made, (mut target, rows, sources): Target<'_>| {
                switch.switch(s, rows, cut, made);
                for (row, image) in target.iter_mut().flat_map(|block| block.chunks_exact_mut(n)).enumerate() {
                    s.run(Permute { sources, x: &made.next[row * n..][..n], out: image });
                }
            };
            let decompose = |source: Vec<&mut [u32]>, scratch: &mut Scratch| {
                let source: Vec<&[u32]> = source.into_iter().map(|block| &*block).collect();
                scratch.load(&source);
                switch.decompose(s, scratch);
            };
            if together {
                work.into_par_iter().for_each_init(|| self.scratch.0.take(), |scratch, (source, targets)| {
                    decompose(source, scratch);
                    let (cut, made) = scratch.decomposed();
                    targets.into_iter().for_each(|target| rotate(cut, made, target));
                });
            } else {
                for (source, targets) in work {
                    let mut scratch = self.scratch.0.take();
                    decompose(source, &mut scratch);
                    let (cut, _) = scratch.decomposed();
                    targets.into_par_iter().for_each_init(
                        || self.scratch.0.take(),
                        |own, target| rotate(cut, own.decomposed().1, target),
                    );
                }
            }
        });
        Ok(())
    }

    fn activation(
        &self,
        polynomial: &Horner,
        products: &[Maintenance],
        key: Option<&KeySwitch<'_, CpuTensor>>,
        z: &CpuTensor,
    ) -> Result<CpuTensor> {
        let shape = z.shape();
        let channels = Channels::new(polynomial.channels(), shape.values);
        let activation = Activation::new(self.ring(), polynomial, products, key, (&shape.limbs, shape.components));
        let (level, components) = activation.result(shape.limbs.len());
        let result = Shape { limbs: shape.limbs[..level].to_vec(), components, ..shape.clone() };
        with_simd!(self.kernels, s => each_value(&self.scratch.0, z, self.uninitialised(result)?, |value, z, scratch| {
            activation.apply(s, &shape.limbs, channels.of_value(value), z, scratch);
        }))
    }
}

/// Applies `f(index, value, scratch)` to every value of `x`; what it leaves in its scratch's `x` is
/// that value of `out`.
fn each_value(
    kept: &Kept<Scratch>,
    x: &CpuTensor,
    mut out: CpuTensor,
    f: impl Fn(usize, &[&[u32]], &mut Scratch) + Sync,
) -> Result<CpuTensor> {
    let values = out.values_mut().into_par_iter().enumerate();
    values.for_each_init(
        || kept.take(),
        |scratch, (value, out)| {
            f(value, &x.value(value), scratch);
            let mut rest = &scratch.x[..];
            for block in out {
                let result = rest.split_off(..block.len()).expect("a value of the result's shape");
                block.copy_from_slice(result);
            }
        },
    );
    Ok(out)
}
