//! Encrypted execution of a Program on a backend.

mod loader;

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use cryptodl_core::backend::{Backend, KeySwitch, Shape, Transfers};
use cryptodl_core::ckks::flood::add_flood;
use cryptodl_core::ckks::{
    Ciphertexts, CiphertextsInfo, EncryptionKind, EvalKeyLayout, EvalKeys, Leaves, Packing, Params, PublicKey,
    Randomness, RelinLayout, ScoreLeaves, UniformPurpose, rerandomise,
};
use cryptodl_core::ring::UniformSource;

use zeroize::Zeroizing;

use super::checkpoint::{Checkpoint, Resumable, SetDigest, digest};
use super::execution::{Input, WatchOfSet};
use super::execution_plan::ExecutionPlan;
use super::{ComputeReport, RunError};
use cryptodl_core::watch::Watch;
use cryptodl_program::{CircuitPrivacy, Program, ScorePacking};

use super::scores::ScorePacker;
use loader::{Loaded, Loader};

/// Bytes of operands and results of a network that is large for the host's memory: the system takes longer to hand out that
/// many pages than bands take on top, and bands use the same pages again and again.
const LARGE: u64 = 1 << 30;

/// A Program prepared for one backend. Reusable for any number of requests.
pub struct Executor<B: Backend> {
    backend: B,
    params: Params,
    plan: ExecutionPlan,
    /// Whether the next set is loaded while one is computed: where a device computes, and has room for it.
    loads_ahead: bool,
    seeded: bool,
    relin: Option<RelinLayout>,
    packing: Packing,
    /// By how many leaves the packing's automorphisms rotate, ascending, and the layouts of their keys.
    rotations: Vec<(usize, EvalKeyLayout)>,
    /// How the scores of few images are packed, and the packing of them and of images.
    score_packing: Option<ScorePacking>,
    scores: Packing,
    /// Layouts of the keys for powers of the secret that packing takes, from the square on.
    powers: Vec<EvalKeyLayout>,
    circuit_privacy: Option<CircuitPrivacy>,
}

/// A client's evaluation keys in a backend's memory, ready for any number of requests.
pub struct ExpandedKeys<T> {
    /// Of the relinearisation key, if the Program has one.
    relin: Option<T>,
    /// Of the keys for automorphisms, in the order of their steps.
    rotations: Vec<T>,
    /// Of the keys for the third power of the secret and those after it.
    powers: Vec<T>,
}

/// How a result is re-randomised, so that it does not give away exact equations in the weights (see
/// SECURITY.md for what remains).
pub enum Rerandomisation<'a> {
    /// Fresh encryptions of zero under the client's public key are added, and the flood of a
    /// Program that has circuit privacy.
    Fresh {
        /// Encrypts the zeros.
        key: &'a PublicKey,
        /// Draws their noise, and the flood.
        rng: &'a mut Randomness,
    },
    /// Nothing is added, for tests that compare results bit for bit. The client then also learns
    /// exact equations in the weights.
    Omitted,
}

/// What is added to a result: encryptions of zero, and a flood where there is one.
struct Zeros {
    /// In tensor order, none where re-randomisation is omitted. They are wiped on drop, but not the
    /// backend's tensor that they are uploaded to.
    residues: Option<Zeroizing<Vec<u32>>>,
    /// Seconds that it took to draw them.
    seconds: f64,
}

impl<B: Backend> Executor<B> {
    /// Prepares `program`. `backend` is bound to the basis of the Program's parameters.
    /// `memory_budget` bounds the operands and results of a segment on the backend, in bytes, and
    /// sizes its slices and bands (at most half as much again); keys, encryptions of zero and a few
    /// ciphertexts per thread come on top. It cannot change a bit of the result.
    ///
    /// # Errors
    /// Parameters or maps refused, or a budget below what one set needs.
    pub fn new(program: &Program, params: &Params, backend: B, memory_budget: u64) -> Result<Self, RunError> {
        let large = if backend.is_host() { LARGE } else { u64::MAX };
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
        let plan = ExecutionPlan::new(program, params, memory_budget, large)?;
        let room = memory_budget - plan.peak();
        let score_packing = program.content.score_packing;
        let powers = score_packing.map_or(Vec::new(), |_| program.content.powers(plan.output().components));
        Ok(Executor {
            loads_ahead: !backend.is_host() && !plan.loads_input() && plan.input().bytes() <= room,
            plan,
            seeded: program.content.encryption == EncryptionKind::Secret,
            relin: program.content.relin(),
            packing: program.content.input.packing,
            rotations: program.content.rotations(params.n()),
            score_packing,
            scores: program.content.output.packing,
            powers,
            circuit_privacy: program.content.circuit_privacy,
            params: params.clone(),
            backend,
        })
    }

    /// The most bytes of operands and results of a set that are alive at a time.
    pub fn peak(&self) -> u64 {
        self.plan.peak()
    }

    /// What the steps of a set that a [`Watch`] is told of compute: for each of them, names of layers of the network. Where a layer is
    /// computed in bands, several steps have its name.
    pub fn layers(&self) -> Vec<String> {
        self.plan.layers()
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Begins to classify the images of sets that come one after the other, as `input` describes
    /// them. The result's bytes are the same on every backend, with every budget and number of
    /// threads, up to the re-randomisation. Of `eval_keys` it takes those whose layouts are the
    /// Program's, and leaves the others alone.
    ///
    /// # Errors
    /// Input of another layout.
    pub fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        keys: &'a ExpandedKeys<B::Tensor>,
        rerandomisation: Rerandomisation<'a>,
        watch: Watch<'a>,
    ) -> Result<Computation<'a, B>, RunError> {
        self.check_input(input)?;
        Ok(Computation {
            executor: self,
            keys,
            special: self.params.special(),
            component_bytes: input.component_bytes(&self.params),
            set_bytes: input.set_bytes(&self.params),
            leaves: input.leaves,
            images: input.images,
            first_set: input.first_set,
            sets: input.sets(&self.params),
            uniform: input.seed.map(|seed| UniformPurpose::Ciphertext.source(&self.params, &seed)),
            rerandomisation,
            watch,
            checkpoint: None,
            waiting: None,
            loaded: 0,
            computed: 0,
            crossed: self.backend.transfers(),
            report: ComputeReport::default(),
        })
    }

    /// What the sets of a result are, for images as `input` describes them: the same sets of the
    /// same whole.
    pub fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo {
        let &CiphertextsInfo { first_set, images, leaves, .. } = input;
        let Shape { values, components, limbs, .. } = self.output(leaves, images);
        let level = limbs.len() - self.divided_limbs();
        // Without a packing of scores, they lie as those of spread images do.
        let leaves = if self.score_packing.is_some() { leaves } else { Leaves::default() };
        CiphertextsInfo { level, values, components, leaves, first_set, seed: None, images }
    }

    /// How the scores of so many images lie that lie so.
    fn score_leaves(&self, leaves: Leaves, images: usize) -> ScoreLeaves {
        self.scores.of_scores(self.params.n(), leaves, images)
    }

    /// Shape of what is re-randomised.
    fn output(&self, leaves: Leaves, images: usize) -> Shape {
        let shape = self.plan.output().clone();
        let Some(ScorePacking { drop, .. }) = self.score_packing else { return shape };
        let values = self.score_leaves(leaves, images).ciphertexts(shape.values);
        let limbs = shape.limbs[..shape.limbs.len() - drop].to_vec();
        Shape { limbs, values, components: 2, ..shape }
    }

    /// Classifies the images in `input`, which are all in memory, as [`Self::begin`] does set by set, with keys that are expanded for
    /// this one request.
    ///
    /// # Errors
    /// Input of another layout, residues that are none, a missing key, or what the backend could not do. Nothing is kept.
    pub fn compute(
        &self,
        input: &Ciphertexts,
        eval_keys: &EvalKeys,
        rerandomisation: Rerandomisation<'_>,
        watch: Watch<'_>,
    ) -> Result<(Ciphertexts, ComputeReport), RunError> {
        let start = Instant::now();
        let info = input.info();
        let keys = self.expand_keys(eval_keys)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut computation = self.begin(&info, &keys, rerandomisation, watch)?;
        check("the number of sets", input.sets.len(), computation.sets)?;
        let mut sets = Vec::with_capacity(input.sets.len());
        for set in &input.sets {
            sets.extend(computation.push(set)?);
        }
        let (last, mut report) = computation.finish()?;
        sets.extend(last);
        report.seconds += seconds;
        report.parts.key = seconds;
        Ok((Ciphertexts::new(&self.result(&info), sets), report))
    }

    /// Limbs that are divided off after the re-randomisation.
    fn divided_limbs(&self) -> usize {
        self.circuit_privacy.map_or(0, |privacy| privacy.drop)
    }

    /// Draws what is added to a result.
    fn draw_zeros(&self, output: &Shape, rerandomisation: &mut Rerandomisation<'_>) -> Zeros {
        let started = Instant::now();
        let residues = match rerandomisation {
            Rerandomisation::Omitted => None,
            Rerandomisation::Fresh { key, rng } => {
                let &Shape { values, components, ref limbs, .. } = output;
                let mut zeros = Zeroizing::new(vec![0; output.len()]);
                let level = limbs.len();
                rerandomise(&self.params, key, &mut zeros, values, components, level, rng);
                if let Some(CircuitPrivacy { doublings, .. }) = self.circuit_privacy {
                    add_flood(&self.params, doublings, &mut zeros, values, components, level, rng);
                }
                Some(zeros)
            }
        };
        Zeros { residues, seconds: started.elapsed().as_secs_f64() }
    }

    /// Re-randomises a result, divides it where noise is hidden, and packs it.
    fn finish(&self, mut x: B::Tensor, zeros: Zeros, report: &mut ComputeReport) -> Result<Vec<u8>, RunError> {
        let started = Instant::now();
        let components = self.backend.shape(&x).components;
        if let Some(residues) = zeros.residues {
            let zeros = self.backend.upload(self.backend.shape(&x).clone(), &residues)?;
            self.backend.add(&mut x, &zeros)?;
        }
        // After the flood, which makes the division a function of what is already hidden.
        if self.divided_limbs() > 0 {
            let limbs = &self.backend.shape(&x).limbs;
            x = self.backend.mod_down(&x, &limbs[limbs.len() - self.divided_limbs()..])?;
        }
        self.backend.synchronise()?;
        report.parts.rerandomisation += zeros.seconds + started.elapsed().as_secs_f64();
        let started = Instant::now();
        let packed: Result<Vec<_>, _> = (0..components).map(|c| self.backend.pack(&x, c)).collect();
        let packed = packed?.concat();
        report.parts.pack += started.elapsed().as_secs_f64();
        Ok(packed)
    }

    fn check_input(&self, input: &CiphertextsInfo) -> Result<(), RunError> {
        let sets = input.sets(&self.params);
        let refused = |field, actual: usize, expected| RunError::Input { field, actual: actual.to_string(), expected };
        if sets == 0 {
            return Err(refused("the number of images", 0, "1 or more".into()));
        }
        // The values of all sets of a whole are numbered in 32 bits, and so are those of the
        // results.
        let most = u32::MAX as usize / self.plan.input().values.max(self.plan.output().values);
        if sets > most {
            return Err(refused("the number of sets", sets, format!("at most {most}")));
        }
        if input.first_set > most - sets {
            let expected = format!("at most {} for {sets} sets", most - sets);
            return Err(refused("the index of the first set", input.first_set, expected));
        }
        if let Some(CircuitPrivacy { goal, .. }) = self.circuit_privacy
            && sets > goal.sets as usize
        {
            return Err(RunError::TooManySets { actual: sets, most: goal.sets });
        }
        check("the number of chain limbs", input.level, self.plan.input().limbs.len())?;
        let most = self.packing.log_leaves();
        if input.leaves.log > most {
            return Err(refused("the packing", input.leaves.log as usize, format!("0 to {most}")));
        }
        let capacity = input.leaves.capacity(self.params.n());
        if !input.leaves.is_spread() && input.images > capacity {
            return Err(refused("the number of images", input.images, format!("at most {capacity}")));
        }
        check("the number of values", input.values, input.leaves.ciphertexts(self.plan.input().values))?;
        check("the number of components", input.components, 2)?;
        check("the number of stored components", input.stored_components(), if self.seeded { 1 } else { 2 })
    }

    /// Expands a client's evaluation keys in the backend's memory, once for all of its requests. It takes those whose layouts are the
    /// Program's, and leaves the others alone.
    ///
    /// # Errors
    /// A missing key, or no room for it.
    pub fn expand_keys(&self, keys: &EvalKeys) -> Result<ExpandedKeys<B::Tensor>, RunError> {
        let relin =
            self.relin.map(|layout| self.expand_key(keys, EvalKeyLayout::Relinearisation(layout))).transpose()?;
        let rotations =
            self.rotations.iter().map(|&(_, layout)| self.expand_key(keys, layout)).collect::<Result<_, _>>()?;
        let beyond_square = self.powers.iter().skip(1);
        let powers = beyond_square.map(|&layout| self.expand_key(keys, layout)).collect::<Result<_, _>>()?;
        Ok(ExpandedKeys { relin, rotations, powers })
    }

    /// The rows of one key.
    fn expand_key(&self, keys: &EvalKeys, layout: EvalKeyLayout) -> Result<B::Tensor, RunError> {
        let key = keys.get(layout).ok_or_else(|| RunError::EvalKey {
            expected: layout.to_string(),
            actual: match &keys.layouts()[..] {
                [] => "there are no evaluation keys".into(),
                layouts => {
                    let names: Vec<String> = layouts.iter().map(EvalKeyLayout::to_string).collect();
                    format!("there is {}", names.join(", "))
                }
            },
        })?;
        let (n, limbs) = (self.params.n(), layout.limbs(&self.params));
        let digits = layout.digits().digits(layout.digits().level);
        let parts = [&key.b, &key.expand_a(&self.params)];
        // Host rows are [digit][limb][N] for b and a apart; tensors are [limb][digit][component][N].
        let mut rows = Vec::with_capacity(2 * key.b.len());
        for limb in 0..limbs.len() {
            for digit in 0..digits {
                parts.iter().for_each(|part| rows.extend_from_slice(&part[(digit * limbs.len() + limb) * n..][..n]));
            }
        }
        let shape = Shape { limbs, values: digits, components: 2, lanes: n };
        Ok(self.backend.upload(shape, &rows)?)
    }
}

/// The bytes of the least memory budget that suffices for a Program: with narrower bands nothing is
/// gained.
///
/// # Errors
/// A budget as large as can be is too small.
pub fn least_memory_budget(program: &Program, params: &Params) -> Result<u64, RunError> {
    match ExecutionPlan::new(program, params, 0, u64::MAX) {
        Err(RunError::Budget { needed, .. }) if needed < u64::MAX => Ok(needed),
        Err(error) => Err(error),
        Ok(_) => Ok(0),
    }
}

fn check(field: &'static str, actual: usize, expected: usize) -> Result<(), RunError> {
    if actual == expected {
        return Ok(());
    }
    Err(RunError::Input { field, actual: actual.to_string(), expected: expected.to_string() })
}

/// A computation that takes ciphertext sets one after the other and gives each result as soon as it is there. On a device the
/// next set is loaded while one is computed, so that results come one set late.
pub struct Computation<'a, B: Backend> {
    executor: &'a Executor<B>,
    keys: &'a ExpandedKeys<B::Tensor>,
    /// How the pixels of the images lie in the ciphertexts.
    leaves: Leaves,
    /// Images over all sets.
    images: usize,
    /// Special limbs.
    special: Vec<usize>,
    component_bytes: usize,
    set_bytes: usize,
    /// Index of the first set within the whole.
    first_set: usize,
    sets: usize,
    /// Expands component 1 where it did not travel.
    uniform: Option<UniformSource>,
    rerandomisation: Rerandomisation<'a>,
    watch: Watch<'a>,
    checkpoint: Option<&'a Checkpoint>,
    /// A set that is loaded and not yet computed.
    waiting: Option<Waiting<B::Tensor>>,
    loaded: usize,
    computed: usize,
    crossed: Option<Transfers>,
    report: ComputeReport,
}

/// A set on the backend.
struct Waiting<T> {
    x: T,
    /// Where there is a checkpoint.
    digest: Option<SetDigest>,
}

/// A set that is computed.
enum Set<'s, T> {
    Loaded(T),
    /// Loaded on the way.
    Packed(&'s [u8]),
}

impl<'a, B: Backend> Computation<'a, B> {
    /// Takes what `checkpoint` has of these sets instead of computing it, and keeps there what is
    /// computed. To be called before the first set.
    pub fn resume(&mut self, checkpoint: &'a Checkpoint) {
        self.checkpoint = Some(checkpoint);
    }

    /// Takes the next set, and returns the next result, packed, if it is there.
    ///
    /// # Errors
    /// A set too many or of another length, residues that are none, or what the backend could not do. The computation is then
    /// to be given up.
    pub fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        let start = Instant::now();
        if self.loaded == self.sets {
            check("the number of sets", self.loaded + 1, self.sets)?;
        }
        check("the length of a set", set.len(), self.set_bytes)?;
        let digest = self.checkpoint.map(|_| digest(set));
        let result = match self.waiting.take() {
            Some(before) => self.compute(Set::Loaded(before.x), before.digest, Some((set, digest))).map(Some),
            None => match self.kept(digest.as_ref())? {
                Some(result) => Ok(Some(result)),
                None if self.executor.plan.loads_input() => self.compute(Set::Packed(set), digest, None).map(Some),
                None => {
                    let loaded = self.load(set);
                    let x = self.note(loaded)?;
                    if self.executor.loads_ahead {
                        self.waiting = Some(Waiting { x, digest });
                        Ok(None)
                    } else {
                        self.compute(Set::Loaded(x), digest, None).map(Some)
                    }
                }
            },
        };
        self.report.seconds += start.elapsed().as_secs_f64();
        result
    }

    /// The last result, if it has not come before, and where the time went.
    ///
    /// # Errors
    /// Sets are missing, or what the backend could not do.
    pub fn finish(mut self) -> Result<(Option<Vec<u8>>, ComputeReport), RunError> {
        let start = Instant::now();
        check("the number of sets", self.loaded, self.sets)?;
        let last = self.waiting.take();
        let last = last.map(|set| self.compute(Set::Loaded(set.x), set.digest, None)).transpose()?;
        let mut report = self.report;
        report.parts.transfers =
            self.executor.backend.transfers().zip(self.crossed).map(|(now, before)| now.since(&before));
        report.seconds += start.elapsed().as_secs_f64();
        Ok((last, report))
    }

    /// The result of the next set, if the checkpoint has it.
    fn kept(&mut self, digest: Option<&SetDigest>) -> Result<Option<Vec<u8>>, RunError> {
        let Some((checkpoint, digest)) = self.checkpoint.zip(digest) else { return Ok(None) };
        let result = checkpoint.result(self.loaded, digest)?;
        if result.is_some() {
            self.loaded += 1;
            self.computed += 1;
            self.report.sets_kept += 1;
            self.watch.tell(self.computed * self.executor.plan.steps(), self.sets * self.executor.plan.steps());
        }
        Ok(result)
    }

    /// Computes a set, and loads the next one beside it if there is one.
    fn compute(
        &mut self,
        set: Set<'_, B::Tensor>,
        digest: Option<SetDigest>,
        next: Option<(&[u8], Option<SetDigest>)>,
    ) -> Result<Vec<u8>, RunError> {
        let Executor { backend, plan, relin, .. } = self.executor;
        let key = self.keys.relin.as_ref().zip(*relin);
        let key = key.map(|(rows, layout)| KeySwitch { rows, layout, special: &self.special });
        let (total, before, watch) = (self.sets * plan.steps(), self.computed * plan.steps(), self.watch);
        let of_set = WatchOfSet { watch, before, total };
        let mut report = std::mem::take(&mut self.report);
        let kept = self.checkpoint.zip(digest);
        let resumable = kept.map(|(kept, digest)| Resumable::new(kept, self.computed, digest, plan.digest()));
        let loader = Loader {
            executor: self.executor,
            uniform: self.uniform.as_ref(),
            component_bytes: self.component_bytes,
            leaves: self.leaves,
            rotations: &self.keys.rotations,
            special: &self.special,
            set: self.loaded,
            first_object: self.first_object(),
        };
        let on_the_way = matches!(set, Set::Packed(_));
        let computed = || match set {
            Set::Loaded(x) => plan.execute(backend, Input::Whole(x), key.as_ref(), &mut report, of_set, resumable),
            Set::Packed(bytes) => {
                let load = |values| loader.values(bytes, values);
                plan.execute(backend, Input::Waiting(&load), key.as_ref(), &mut report, of_set, resumable)
            }
        };
        let rerandomisation = &mut self.rerandomisation;
        let output = self.executor.output(self.leaves, self.images);
        let mut beside = || {
            (self.executor.draw_zeros(&output, rerandomisation), next.map(|(set, digest)| (loader.load(set), digest)))
        };
        let (x, (zeros, next)) = if self.crossed.is_some() {
            // The device computes; the host's threads are free.
            thread::scope(|scope| {
                let beside = scope.spawn(beside);
                let x = computed()?;
                Ok::<_, RunError>((x, beside.join().unwrap_or_else(|panic| resume_unwind(panic))))
            })?
        } else {
            (computed()?, beside())
        };
        self.report = report;
        self.computed += 1;
        self.loaded += usize::from(on_the_way);
        if let Some((next, digest)) = next {
            self.waiting = Some(Waiting { x: self.note(next)?, digest });
        }
        let x = self.pack_scores(x)?;
        let result = self.executor.finish(x, zeros, &mut self.report)?;
        if let Some((checkpoint, digest)) = kept {
            let keeping = Instant::now();
            checkpoint.keep_result(self.computed - 1, &digest, &result)?;
            self.report.parts.checkpoint += keeping.elapsed().as_secs_f64();
        }
        Ok(result)
    }

    /// Packs the scores of few images, if the Program does.
    fn pack_scores(&mut self, x: B::Tensor) -> Result<B::Tensor, RunError> {
        let Executor { backend, params, score_packing, .. } = self.executor;
        let Some(packing) = *score_packing else { return Ok(x) };
        let started = Instant::now();
        let ExpandedKeys { relin, powers, .. } = self.keys;
        let special = &self.special[..];
        let powers: Vec<_> = (relin.iter().chain(powers).zip(&self.executor.powers))
            .map(|(rows, layout)| KeySwitch { rows, layout: layout.digits(), special })
            .collect();
        let leaves = self.executor.score_leaves(self.leaves, self.images);
        let packer = ScorePacker { backend, params, packing, leaves, powers: &powers };
        let packed = packer.pack(&x)?;
        backend.synchronise()?;
        self.report.parts.scores += started.elapsed().as_secs_f64();
        Ok(packed)
    }

    fn load(&self, set: &[u8]) -> Result<Loaded<B::Tensor>, RunError> {
        let Computation { executor, component_bytes, leaves, keys, ref special, .. } = *self;
        let (uniform, first_object) = (self.uniform.as_ref(), self.first_object());
        let rotations = &keys.rotations;
        Loader { executor, uniform, component_bytes, leaves, rotations, special, set: self.loaded, first_object }
            .load(set)
    }

    /// Number of the first uniform object of the next set.
    fn first_object(&self) -> u32 {
        let values = self.leaves.ciphertexts(self.executor.plan.input().values);
        ((self.first_set + self.loaded) * values) as u32
    }

    /// Notes what loading took.
    fn note(&mut self, loaded: Result<Loaded<B::Tensor>, RunError>) -> Result<B::Tensor, RunError> {
        let Loaded { x, unpack, expand, rotate } = loaded?;
        self.report.parts.unpack += unpack;
        self.report.parts.expand += expand;
        self.report.parts.rotate += rotate;
        self.loaded += 1;
        Ok(x)
    }
}

#[cfg(test)]
mod tests;
