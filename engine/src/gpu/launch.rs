//! From operands to dispatches: one per run of limbs that lie in one page of every operand.

use std::ops::Range;

use cryptodl_core::backend::{Horner, LinearMap, Result, Window};
use cryptodl_shaders::params::{self, Limb, View};
use cryptodl_shaders::{self as shaders, Conversion, groups};

use super::Gpu;
use super::recorder::{Argument, Slice};
use super::tensor::{GpuTensor, runs};

/// A range of lanes of all limbs, values and components.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a> {
    pub tensor: &'a GpuTensor,
    pub first: usize,
}

impl<'a> Lanes<'a> {
    /// From lane 0 on.
    pub fn of(tensor: &'a GpuTensor) -> Self {
        Lanes { tensor, first: 0 }
    }

    fn view(&self, limb: usize) -> View {
        self.tensor.view(limb, [0, 0, self.first])
    }
}

/// Direction of a transform.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Inverse,
}

impl Gpu {
    /// One dispatch; the operands are bindings 2, 3, ...
    pub(super) fn launch<'a>(
        &self,
        (kernel, specialised): (&'static shaders::Kernel, u32),
        params: &'a impl bytemuck::Pod,
        limbs: &'a [Limb],
        operands: impl IntoIterator<Item = Argument<'a>>,
        groups: [u32; 3],
    ) -> Result<()> {
        if groups.contains(&0) {
            return Ok(());
        }
        let fixed = [Argument::Bytes(bytemuck::bytes_of(params)), Argument::Bytes(bytemuck::must_cast_slice(limbs))];
        let kernel = self.pipelines.get(kernel, specialised);
        self.recorder.dispatch(kernel, fixed.into_iter().chain(operands).collect(), groups)
    }

    /// The constants of the limb at position `limb` of `x`.
    pub(super) fn limb(&self, x: &GpuTensor, limb: usize) -> Limb {
        Limb::new(&self.basis, x.shape.limbs[limb])
    }

    /// `add`, `scale`, `copy` and so on: changes window `to` of `x` by means of a window of `y` with the same extents. `limb`
    /// tells what the kernel must know of the limb at a position of `x`.
    pub(super) fn elementwise(
        &self,
        kernel: &'static shaders::Kernel,
        (x, to): (&GpuTensor, &Window),
        y: Option<(&GpuTensor, &Window)>,
        limb: impl Fn(usize) -> Limb,
    ) -> Result<()> {
        let first = |window: &Window| [window.values.start, window.components.start, window.lanes.start];
        let operands = [Some((x, to)), y].into_iter().flatten();
        let operands: Vec<_> = operands.map(|(tensor, window)| (tensor, window.limbs.start)).collect();
        for run in runs(to.limbs.len(), &operands) {
            let at = to.limbs.start + run.start;
            let y = y.map(|(y, from)| (y, from, from.limbs.start + run.start));
            let params = params::Elementwise {
                x: x.view(at, first(to)),
                y: y.map_or_else(View::default, |(y, from, at)| y.view(at, first(from))),
                values: to.values.len() as u32,
                components: to.components.len() as u32,
                lanes: to.lanes.len() as u32,
                ..Default::default()
            };
            let limbs: Vec<Limb> = (0..run.len()).map(|i| limb(at + i)).collect();
            let operands = std::iter::once(x.page(at)).chain(y.map(|(y, _, at)| y.page(at))).map(Argument::Buffer);
            let groups = groups::elementwise(&params, run.len() as u32);
            self.launch((kernel, 0), &params, &limbs, operands, groups)?;
        }
        Ok(())
    }

    /// The map on `lanes` lanes of `x`, written to as many lanes of `out`.
    pub(super) fn linear_lanes(&self, map: &LinearMap, x: Lanes<'_>, out: Lanes<'_>, lanes: usize) -> Result<()> {
        let map = self.maps.get(map, &self.basis, self.variants.sums, &self.pool, &self.recorder)?;
        let row_groups = map.linear.row_groups();
        for run in runs(x.tensor.shape.limbs.len(), &[(x.tensor, 0), (out.tensor, 0)]) {
            let (from, to) = (x.view(run.start), out.view(run.start));
            let params = map.linear.params(from, to, x.tensor.shape.components as u32, lanes as u32);
            let limbs: Vec<Limb> = run.clone().map(|limb| self.limb(x.tensor, limb)).collect();
            let tables = map.tables.iter().map(|table| Slice::whole(&table.buffer));
            let operands = [x.tensor.page(run.start), out.tensor.page(run.start)].into_iter().chain(tables);
            let groups = groups::linear(&params, row_groups, run.len() as u32);
            self.launch((&shaders::LINEAR, row_groups), &params, &limbs, operands.map(Argument::Buffer), groups)?;
        }
        Ok(())
    }

    /// A polynomial of degree 2 to 4 on `lanes` lanes of ciphertexts of two components.
    pub(super) fn horner_lanes(&self, polynomial: &Horner, z: Lanes<'_>, out: Lanes<'_>, lanes: usize) -> Result<()> {
        for run in runs(z.tensor.shape.limbs.len(), &[(z.tensor, 0), (out.tensor, 0)]) {
            let params = params::Horner {
                z: z.view(run.start),
                out: out.view(run.start),
                values: z.tensor.shape.values as u32,
                degree: polynomial.degree() as u32,
                negate: polynomial.negates().into(),
                lanes: lanes as u32,
            };
            let constants = |limb: usize| -> Vec<u32> {
                (0..polynomial.degree()).map(|k| polynomial.constant(k, z.tensor.shape.limbs[limb])).collect()
            };
            let limb = |limb| self.limb(z.tensor, limb).with_constants(&constants(limb));
            let limbs: Vec<Limb> = run.clone().map(limb).collect();
            let operands = [z.tensor.page(run.start), out.tensor.page(run.start)].map(Argument::Buffer);
            self.launch((&shaders::HORNER, 0), &params, &limbs, operands, groups::horner(&params, run.len() as u32))?;
        }
        Ok(())
    }

    /// Products of ciphertexts; the limbs of `b` may be more than those of `a`.
    pub(super) fn multiply_into(&self, a: &GpuTensor, b: &GpuTensor, out: &GpuTensor) -> Result<()> {
        for run in runs(a.shape.limbs.len(), &[(a, 0), (b, 0), (out, 0)]) {
            let params = params::Multiply {
                a: a.view(run.start, [0; 3]),
                b: b.view(run.start, [0; 3]),
                out: out.view(run.start, [0; 3]),
                values: a.shape.values as u32,
                left: a.shape.components as u32,
                right: b.shape.components as u32,
                lanes: a.shape.lanes as u32,
            };
            let limbs: Vec<Limb> = run.clone().map(|limb| self.limb(a, limb)).collect();
            let operands = [a, b, out].map(|tensor| Argument::Buffer(tensor.page(run.start)));
            self.launch(
                (&shaders::MULTIPLY, 0),
                &params,
                &limbs,
                operands,
                groups::multiply(&params, run.len() as u32),
            )?;
        }
        Ok(())
    }

    /// `acc += digit key[row]`; `digit` and `acc` have the same limbs, found in the key by prime.
    pub(super) fn accumulate_row(&self, acc: &GpuTensor, digit: &GpuTensor, key: &GpuTensor, row: usize) -> Result<()> {
        let in_key = |limb: &usize| key.shape.limbs.iter().position(|l| l == limb).expect("the key has every limb");
        let in_key: Vec<usize> = acc.shape.limbs.iter().map(in_key).collect();
        for run in runs(in_key.len(), &[(acc, 0), (digit, 0)]) {
            let mut first = run.start;
            while first < run.end {
                // A run may meet several pages of the key.
                let page = key.page_start(in_key[first]);
                let part = in_key[first..run.end].iter().take_while(|&&limb| key.page_start(limb) == page);
                let limb = |(i, &at): (usize, &usize)| self.limb(acc, first + i).with_source((at - page) as u32);
                let limbs: Vec<Limb> = part.enumerate().map(limb).collect();
                let params = params::AccumulateKey {
                    acc: acc.view(first, [0; 3]),
                    digit: digit.view(first, [0; 3]),
                    key: key.view(page, [row, 0, 0]),
                    values: acc.shape.values as u32,
                    lanes: acc.shape.lanes as u32,
                    ..Default::default()
                };
                let operands = [acc.page(first), digit.page(first), key.page(page)].map(Argument::Buffer);
                let groups = groups::accumulate_key(&params, limbs.len() as u32);
                self.launch((&shaders::ACCUMULATE_KEY, 0), &params, &limbs, operands, groups)?;
                first += limbs.len();
            }
        }
        Ok(())
    }

    /// Transforms every polynomial in two passes over memory.
    pub(super) fn transform(&self, x: &GpuTensor, direction: Direction) -> Result<()> {
        let (n, log_n) = (self.basis.n() as u32, self.basis.n().trailing_zeros());
        for (run, page) in x.pages() {
            let view = x.view(run.start, [0; 3]);
            let polynomials = (x.shape.values * x.shape.components) as u32;
            let params = params::Ntt { base: view.base, limb: view.limb, polynomial: n, polynomials };
            let limbs: Vec<Limb> = run.map(|limb| self.limb(x, limb)).collect();
            let count = limbs.len() as u32;
            let columns = |p: &params::Ntt| groups::ntt_columns(p, n, count);
            let rows = |p: &params::Ntt| groups::ntt_rows(p, n, count);
            let (twiddles, passes) = match direction {
                Direction::Forward => (
                    &self.forward_twiddles,
                    [(&shaders::NTT_FORWARD_COLUMNS, columns(&params)), (&shaders::NTT_FORWARD_ROWS, rows(&params))],
                ),
                Direction::Inverse => (
                    &self.inverse_twiddles,
                    [(&shaders::NTT_INVERSE_ROWS, rows(&params)), (&shaders::NTT_INVERSE_COLUMNS, columns(&params))],
                ),
            };
            for (kernel, groups) in passes {
                let operands = [page.clone(), Slice::whole(&twiddles.buffer)].map(Argument::Buffer);
                self.launch((kernel, log_n), &params, &limbs, operands, groups)?;
            }
        }
        Ok(())
    }

    /// Centred conversion of the limbs at positions `sources` of `x`, which lie in one page, to values `first_value ..` of `out`.
    pub(super) fn convert_page(
        &self,
        x: &GpuTensor,
        sources: Range<usize>,
        out: &GpuTensor,
        first_value: usize,
    ) -> Result<()> {
        for run in runs(out.shape.limbs.len(), &[(out, 0)]) {
            let (from, to) = (&x.shape.limbs[sources.clone()], &out.shape.limbs[run.clone()]);
            let conversion = Conversion::new(&self.basis, from, to);
            let params = params::Convert {
                x: x.view(sources.start, [0; 3]),
                out: out.view(run.start, [first_value, 0, 0]),
                sources: sources.len() as u32,
                targets: run.len() as u32,
                values: x.shape.values as u32,
                components: x.shape.components as u32,
                lanes: x.shape.lanes as u32,
                ..Default::default()
            };
            let operands = [Argument::Buffer(x.page(sources.start)), Argument::Buffer(out.page(run.start))];
            let weights = Argument::Bytes(bytemuck::must_cast_slice(&conversion.weights));
            let operands = operands.into_iter().chain([weights]);
            let groups = groups::convert_centred(&params);
            self.launch((&shaders::CONVERT_CENTRED, 0), &params, &conversion.limbs, operands, groups)?;
        }
        Ok(())
    }
}
