//! From operands to dispatches: one per run of limbs that lie in one page of every operand.

use std::ops::Range;

use cryptodl_core::backend::{Channels, Horner, LinearMap, Result, Window};
use cryptodl_core::ring::{Automorphism, PrimeDigit};
use cryptodl_shaders::params::{self, Limb, View};
use cryptodl_shaders::{self as shaders, Conversion, groups};

use super::Gpu;
use super::recorder::{Argument, Slice};
use super::tensor::{Found, GpuTensor, runs, runs_by_prime};

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

/// Bytes of a table that travel with the command. Larger ones get a buffer of their own.
const MAX_ARGUMENT_BYTES: usize = 64 << 10;

/// What a kernel reads for every limb and channel.
pub(super) struct Table {
    /// `[limb][channel]`, as many words for each.
    words: Vec<u32>,
    /// Words of a limb.
    limb: usize,
    channels: Channels,
}

impl Table {
    /// `WIDTH` words for every position of a limb and every channel.
    pub fn new<const WIDTH: usize>(
        limbs: usize,
        channels: Channels,
        words: impl Fn(usize, usize) -> [u32; WIDTH],
    ) -> Self {
        let of_limb = |limb| (0..channels.count()).map(move |channel| (limb, channel));
        let words = (0..limbs).flat_map(of_limb).flat_map(|(limb, channel)| words(limb, channel)).collect();
        Table { words, limb: WIDTH * channels.count(), channels }
    }

    /// The part for the limbs of a run.
    fn of_limbs(&self, run: Range<usize>) -> &[u32] {
        &self.words[run.start * self.limb..run.end * self.limb]
    }
}

impl Gpu {
    /// A table of factors `[limb][channel]` for the limbs of `x` from position 0 on, with their
    /// companions.
    pub(super) fn factors(&self, x: &GpuTensor, factors: &[u32], channels: Channels) -> Table {
        let limbs = factors.len() / channels.count();
        let all: Vec<Limb> = (0..limbs).map(|limb| self.limb(x, limb)).collect();
        Table::new(limbs, channels, |limb, channel| all[limb].factor(factors[limb * channels.count() + channel]))
    }

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

    /// `add`, `subtract_scale` or `copy`: changes window `to` of `x` by means of a window of `y`
    /// with the same extents. `limb` tells what the kernel must know of the limb at a position of
    /// `x`.
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

    /// `add_constant` or `scale`: changes window `to` of `x` by what the table has for its limbs.
    pub(super) fn per_channel(
        &self,
        kernel: &'static shaders::Kernel,
        (x, to): (&GpuTensor, &Window),
        table: &Table,
    ) -> Result<()> {
        let first = [to.values.start, to.components.start, to.lanes.start];
        for run in runs(to.limbs.len(), &[(x, to.limbs.start)]) {
            let at = to.limbs.start + run.start;
            let params = params::Elementwise {
                x: x.view(at, first),
                values: to.values.len() as u32,
                components: to.components.len() as u32,
                lanes: to.lanes.len() as u32,
                channels: table.channels.count() as u32,
                positions: table.channels.positions() as u32,
                ..Default::default()
            };
            let limbs: Vec<Limb> = (0..run.len()).map(|i| self.limb(x, at + i)).collect();
            let groups = groups::elementwise(&params, run.len() as u32);
            self.with_table(table.of_limbs(run), |table| {
                self.launch((kernel, 0), &params, &limbs, [Argument::Buffer(x.page(at)), table], groups)
            })?;
        }
        Ok(())
    }

    /// Launches what reads a table, which is on the device by then.
    fn with_table(&self, words: &[u32], launch: impl FnOnce(Argument<'_>) -> Result<()>) -> Result<()> {
        let bytes: &[u8] = bytemuck::must_cast_slice(words);
        if bytes.len() <= MAX_ARGUMENT_BYTES {
            return launch(Argument::Bytes(bytes));
        }
        let size = bytes.len() as u64;
        let held = self.pool.take(size)?;
        let table = Slice { buffer: held.buffer.clone(), offset: 0, size };
        self.recorder.write(&table, &[bytes])?;
        launch(Argument::Buffer(table))
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
        let limbs = &z.tensor.shape.limbs;
        let channels = Channels::new(polynomial.channels(), z.tensor.shape.values);
        let constants = Table::new(limbs.len(), channels, |limb, channel| {
            let constants = polynomial.of_channel(limbs[limb], channel);
            std::array::from_fn::<u32, 4, _>(|i| constants.get(i).copied().unwrap_or(0))
        });
        for run in runs(limbs.len(), &[(z.tensor, 0), (out.tensor, 0)]) {
            let params = params::Horner {
                z: z.view(run.start),
                out: out.view(run.start),
                values: z.tensor.shape.values as u32,
                degree: polynomial.degree() as u32,
                negate: polynomial.negates().into(),
                lanes: lanes as u32,
                channels: channels.count() as u32,
                positions: channels.positions() as u32,
                ..Default::default()
            };
            let limbs: Vec<Limb> = run.clone().map(|limb| self.limb(z.tensor, limb)).collect();
            let operands = [z.tensor.page(run.start), out.tensor.page(run.start)].map(Argument::Buffer);
            let groups = groups::horner(&params, run.len() as u32);
            self.with_table(constants.of_limbs(run), |table| {
                let operands = operands.into_iter().chain([table]);
                self.launch((&shaders::HORNER, 0), &params, &limbs, operands, groups)
            })?;
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
        for Found { run, page, sources } in runs_by_prime(&[acc, digit], key) {
            let params = params::AccumulateKey {
                acc: acc.view(run.start, [0; 3]),
                digit: digit.view(run.start, [0; 3]),
                key: key.view(page, [row, 0, 0]),
                values: acc.shape.values as u32,
                lanes: acc.shape.lanes as u32,
                ..Default::default()
            };
            let operands = [acc.page(run.start), digit.page(run.start), key.page(page)].map(Argument::Buffer);
            let groups = groups::accumulate_key(&params, run.len() as u32);
            let limbs = self.limbs_with_sources(acc, run, sources);
            self.launch((&shaders::ACCUMULATE_KEY, 0), &params, &limbs, operands, groups)?;
        }
        Ok(())
    }

    /// `acc += factor x` for the components of `x`, whose limbs are found by prime; the factors are
    /// in the table.
    pub(super) fn accumulate_into(&self, acc: &GpuTensor, x: &GpuTensor, factors: &Table) -> Result<()> {
        for Found { run, page, sources } in runs_by_prime(&[acc], x) {
            let params = params::Elementwise {
                x: acc.view(run.start, [0; 3]),
                y: x.view(page, [0; 3]),
                values: x.shape.values as u32,
                components: x.shape.components as u32,
                lanes: x.shape.lanes as u32,
                channels: factors.channels.count() as u32,
                positions: factors.channels.positions() as u32,
                ..Default::default()
            };
            let operands = [acc.page(run.start), x.page(page)].map(Argument::Buffer);
            let groups = groups::elementwise(&params, run.len() as u32);
            let limbs = self.limbs_with_sources(acc, run.clone(), sources);
            self.with_table(factors.of_limbs(run), |table| {
                let operands = operands.into_iter().chain([table]);
                self.launch((&shaders::ACCUMULATE, 0), &params, &limbs, operands, groups)
            })?;
        }
        Ok(())
    }

    /// The limbs at positions `run` of `x`, with their places in another operand.
    fn limbs_with_sources(&self, x: &GpuTensor, run: Range<usize>, sources: Vec<u32>) -> Vec<Limb> {
        run.zip(sources).map(|(limb, source)| self.limb(x, limb).with_source(source)).collect()
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

    /// A digit of `x`, of one limb, modulo the primes of `out`.
    pub(super) fn prime_digit_into(&self, x: &GpuTensor, digit: PrimeDigit, out: &GpuTensor) -> Result<()> {
        for run in runs(out.shape.limbs.len(), &[(out, 0)]) {
            let params = params::PrimeDigit {
                x: x.view(0, [0; 3]),
                out: out.view(run.start, [0; 3]),
                values: x.shape.values as u32,
                components: x.shape.components as u32,
                lanes: x.shape.lanes as u32,
                ..params::PrimeDigit::new(digit)
            };
            let limbs: Vec<Limb> = run.clone().map(|limb| self.limb(out, limb)).collect();
            let operands = [x.page(0), out.page(run.start)].map(Argument::Buffer);
            let groups = groups::prime_digit(&params, limbs.len() as u32);
            self.launch((&shaders::PRIME_DIGIT, 0), &params, &limbs, operands, groups)?;
        }
        Ok(())
    }

    /// Images of whole polynomials.
    pub(super) fn automorphism_into(&self, automorphism: Automorphism, x: &GpuTensor, out: &GpuTensor) -> Result<()> {
        for run in runs(x.shape.limbs.len(), &[(x, 0), (out, 0)]) {
            let params = params::Automorphism {
                x: x.view(run.start, [0; 3]),
                out: out.view(run.start, [0; 3]),
                values: x.shape.values as u32,
                components: x.shape.components as u32,
                log_n: x.shape.lanes.trailing_zeros(),
                element: automorphism.element(),
            };
            let limbs: Vec<Limb> = run.clone().map(|limb| self.limb(x, limb)).collect();
            let operands = [x.page(run.start), out.page(run.start)].map(Argument::Buffer);
            let groups = groups::automorphism(&params, limbs.len() as u32);
            self.launch((&shaders::AUTOMORPHISM, 0), &params, &limbs, operands, groups)?;
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
            let groups = groups::convert_basis(&params);
            self.launch((&shaders::CONVERT_BASIS, 0), &params, &conversion.limbs, operands, groups)?;
        }
        Ok(())
    }
}
