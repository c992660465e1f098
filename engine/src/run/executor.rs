//! Encrypted execution of a Program on a backend.

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use cryptodl_core::backend::{Backend, KeySwitch, Shape};
use cryptodl_core::ckks::flood::add_flood;
use cryptodl_core::ckks::{
    Ciphertexts, EncryptionKind, Params, PublicKey, Randomness, RelinKey, UniformPurpose, UniformSource, rerandomise,
};

use super::layers::Layers;
use super::{ComputeReport, Progress, RunError};
use crate::plan::{CircuitPrivacy, Program};

/// Bytes of operands and results of a network that is large for the host's memory: the system takes longer to hand out that
/// many pages than bands take on top, and bands use the same pages again and again.
const LARGE: u64 = 1 << 30;

/// A Program prepared for one backend. Reusable for any number of requests.
pub struct Executor<B: Backend> {
    backend: B,
    params: Params,
    layers: Layers,
    /// Whether the next set is loaded while one is computed: where a device computes, and has room for it.
    loads_ahead: bool,
    seeded: bool,
    relin: Option<cryptodl_core::ckks::RelinLayout>,
    circuit_privacy: Option<CircuitPrivacy>,
}

/// A set on the backend, and the seconds that it took.
struct Loaded<T> {
    x: T,
    unpack: f64,
    expand: f64,
}

/// How a result is masked, so that it does not give away exact equations in the weights (see SECURITY.md for what remains).
pub enum Masks<'a> {
    /// Fresh encryptions of zero under the client's public key, and the flood of a Program that has circuit privacy.
    Fresh(&'a PublicKey, &'a mut Randomness),
    /// None, for tests that compare results bit for bit. The client then also learns exact equations in the weights.
    Deterministic,
}

impl<B: Backend> Executor<B> {
    /// Prepares `program`. `backend` is bound to the basis of the Program's parameters. `memory_budget` bounds the
    /// operands and results of a segment on the backend, in bytes, and sizes its slices and bands (at most half as much
    /// again); keys, masks and a few ciphertexts per thread come on top. It cannot change a bit of the result.
    ///
    /// # Errors
    /// Parameters or maps refused, or a budget below what one set needs.
    pub fn new(program: &Program, params: &Params, backend: B, memory_budget: u64) -> Result<Self, RunError> {
        let large = if backend.transfers().is_none() { LARGE } else { u64::MAX };
        Self::arranged(program, params, backend, memory_budget, large)
    }

    /// [`Self::new`] with another bound above which a network takes less memory than it could.
    pub(super) fn arranged(
        program: &Program,
        params: &Params,
        backend: B,
        memory_budget: u64,
        large: u64,
    ) -> Result<Self, RunError> {
        let layers = Layers::new(program, params, memory_budget, large)?;
        let room = memory_budget - layers.peak();
        Ok(Executor {
            loads_ahead: backend.transfers().is_some() && layers.input().bytes() <= room,
            layers,
            seeded: program.content.encryption == EncryptionKind::Secret,
            relin: program.content.relin,
            circuit_privacy: program.content.circuit_privacy,
            params: params.clone(),
            backend,
        })
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Classifies the images in `input`. The result's bytes are the same on every backend, with every budget and number of
    /// threads, up to the masks.
    ///
    /// # Errors
    /// Input of another layout, residues that are none, a missing key, or what the backend could not do. Nothing is kept.
    pub fn compute(
        &self,
        input: &Ciphertexts,
        eval_key: Option<&RelinKey>,
        mut masks: Masks<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(Ciphertexts, ComputeReport), RunError> {
        let start = Instant::now();
        self.check_input(input)?;
        let mut report = ComputeReport::default();
        let crossed = self.backend.transfers();
        let key_rows = self.upload_key(eval_key)?;
        let special = self.params.special();
        let key = key_rows.as_ref().zip(self.relin).map(|(rows, layout)| KeySwitch { rows, layout, special: &special });
        report.parts.key = start.elapsed().as_secs_f64();
        let total = input.sets.len() * self.layers.steps();
        let mut sets = Vec::with_capacity(input.sets.len());
        let mut loaded = None;
        for set in 0..input.sets.len() {
            let Loaded { x, unpack, expand } = match loaded.take() {
                Some(x) => x,
                None => self.load(input, set),
            }?;
            report.parts.unpack += unpack;
            report.parts.expand += expand;
            let following = (self.loads_ahead && set + 1 < input.sets.len()).then_some(set + 1);
            let beside = |masks: &mut Masks<'_>| (self.mask(masks), following.map(|set| self.load(input, set)));
            let computed = |progress_of_set: &dyn Fn(usize)| {
                self.layers.run(&self.backend, x, key.as_ref(), &mut report, progress_of_set)
            };
            let progress_of_set = |segment| progress(Progress { done: set * self.layers.steps() + segment, total });
            let (x, (mask, next)) = if crossed.is_some() {
                // The device computes; the host's threads are free.
                thread::scope(|scope| {
                    let beside = scope.spawn(|| beside(&mut masks));
                    let x = computed(&progress_of_set)?;
                    Ok::<_, RunError>((x, beside.join().unwrap_or_else(|panic| resume_unwind(panic))))
                })?
            } else {
                (computed(&progress_of_set)?, beside(&mut masks))
            };
            loaded = next;
            sets.push(self.finish(x, mask, &mut report)?);
        }
        let shape = self.layers.output();
        let result = Ciphertexts {
            level: shape.limbs.len() - self.divided_limbs(),
            values: shape.values,
            components: shape.components,
            seed: None,
            images: input.images,
            sets,
        };
        report.parts.transfers = self.backend.transfers().zip(crossed).map(|(now, before)| now.since(&before));
        report.seconds = start.elapsed().as_secs_f64();
        Ok((result, report))
    }

    /// Limbs that are divided off after the masks.
    fn divided_limbs(&self) -> usize {
        self.circuit_privacy.map_or(0, |privacy| privacy.drop)
    }

    /// Residues to add to a result, none without masks, and the seconds that it took to draw them.
    fn mask(&self, masks: &mut Masks<'_>) -> (Option<Vec<u32>>, f64) {
        let started = Instant::now();
        let zeros = match masks {
            Masks::Deterministic => None,
            Masks::Fresh(key, rng) => {
                let &Shape { values, components, ref limbs, .. } = self.layers.output();
                let mut zeros = vec![0; self.layers.output().len()];
                let level = limbs.len();
                rerandomise(&self.params, key, &mut zeros, values, components, level, rng);
                if let Some(CircuitPrivacy { doublings, .. }) = self.circuit_privacy {
                    add_flood(&self.params, doublings, &mut zeros, values, components, level, rng);
                }
                Some(zeros)
            }
        };
        (zeros, started.elapsed().as_secs_f64())
    }

    /// Masks a result, divides it where noise is hidden, and packs it.
    fn finish(
        &self,
        mut x: B::Tensor,
        (mask, drawing): (Option<Vec<u32>>, f64),
        report: &mut ComputeReport,
    ) -> Result<Vec<u8>, RunError> {
        let started = Instant::now();
        if let Some(mask) = mask {
            let mask = self.backend.upload(self.layers.output().clone(), &mask)?;
            self.backend.add(&mut x, &mask)?;
        }
        // After the flood, which makes the division a function of what is already hidden.
        if self.divided_limbs() > 0 {
            let limbs = self.layers.output().limbs.as_slice();
            x = self.backend.mod_down(&x, &limbs[limbs.len() - self.divided_limbs()..])?;
        }
        self.backend.synchronise()?;
        report.parts.masks += drawing + started.elapsed().as_secs_f64();
        let started = Instant::now();
        let packed: Result<Vec<_>, _> =
            (0..self.layers.output().components).map(|c| self.backend.pack(&x, c)).collect();
        let packed = packed?.concat();
        report.parts.pack += started.elapsed().as_secs_f64();
        Ok(packed)
    }

    fn check_input(&self, input: &Ciphertexts) -> Result<(), RunError> {
        let bytes = input.set_bytes(&self.params);
        let sets = input.images.div_ceil(self.params.n());
        if sets == 0 {
            return Err(RunError::Input {
                field: "the number of images",
                actual: "0".into(),
                expected: "1 or more".into(),
            });
        }
        // Objects of one seed are numbered in 32 bits.
        let most = u32::MAX as usize / self.layers.input().values;
        if sets > most {
            let (actual, expected) = (sets.to_string(), format!("at most {most}"));
            return Err(RunError::Input { field: "the number of sets", actual, expected });
        }
        if let Some(CircuitPrivacy { goal, .. }) = self.circuit_privacy
            && sets > goal.sets as usize
        {
            let expected = format!("at most the {} of its --circuit-privacy", goal.sets);
            return Err(RunError::Input { field: "the number of sets", actual: sets.to_string(), expected });
        }
        let checks = [
            ("the number of chain limbs", input.level, self.layers.input().limbs.len()),
            ("the number of values", input.values, self.layers.input().values),
            ("the number of components", input.components, 2),
            ("the number of stored components", input.stored_components(), if self.seeded { 1 } else { 2 }),
            ("the number of sets", input.sets.len(), sets),
            ("the length of a set", input.sets.iter().map(Vec::len).find(|&len| len != bytes).unwrap_or(bytes), bytes),
        ];
        match checks.into_iter().find(|(_, actual, expected)| actual != expected) {
            Some((field, actual, expected)) => {
                Err(RunError::Input { field, actual: actual.to_string(), expected: expected.to_string() })
            }
            None => Ok(()),
        }
    }

    fn upload_key(&self, key: Option<&RelinKey>) -> Result<Option<B::Tensor>, RunError> {
        let Some(layout) = self.relin else {
            return Ok(None);
        };
        let describe = |layout: cryptodl_core::ckks::RelinLayout| {
            format!("a relinearisation key for level {} with digits of {} primes", layout.level, layout.digit_primes)
        };
        let key = key.filter(|key| key.layout == layout).ok_or_else(|| RunError::EvalKey {
            expected: describe(layout),
            actual: key.map_or("the evaluation key is empty".into(), |key| format!("got {}", describe(key.layout))),
        })?;
        let (n, limbs) = (self.params.n(), key.limbs(&self.params));
        let digits = layout.digits(layout.level);
        let parts = [&key.b, &key.expand_a(&self.params)];
        // Host rows are [digit][limb][N] for b and a apart; tensors are [limb][digit][component][N].
        let mut rows = Vec::with_capacity(2 * key.b.len());
        for limb in 0..limbs.len() {
            for digit in 0..digits {
                parts.iter().for_each(|part| rows.extend_from_slice(&part[(digit * limbs.len() + limb) * n..][..n]));
            }
        }
        let shape = Shape { limbs, values: digits, components: 2, lanes: n };
        Ok(Some(self.backend.upload(shape, &rows)?))
    }

    fn load(&self, input: &Ciphertexts, set: usize) -> Result<Loaded<B::Tensor>, RunError> {
        let started = Instant::now();
        let mut x = self.backend.any(self.layers.input().clone())?;
        let packed = input.sets[set].chunks_exact(input.component_bytes(&self.params));
        for (component, packed) in packed.enumerate() {
            if !self.backend.unpack(packed, &mut x, component)? {
                return Err(RunError::Residue { set });
            }
        }
        let unpack = started.elapsed().as_secs_f64();
        let started = Instant::now();
        if let Some(seed) = &input.seed {
            let source = UniformSource::new(UniformPurpose::Ciphertext, &self.params, seed);
            self.backend.expand(&source, (set * self.layers.input().values) as u32, &mut x, 1)?;
            self.backend.synchronise()?;
        }
        Ok(Loaded { x, unpack, expand: started.elapsed().as_secs_f64() })
    }
}
