//! `cryptodl infer`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsWriter, read_needed_eval_keys, read_public_key};
use serde::Serialize;

use crate::files::{self, Access, Output, Sets, Written};
use crate::flags::{Checkpointing, Execution, Limit, Planning, TestSeed};
use crate::json::Json;
use crate::memory::peak_rss;
use crate::prepared::{ProgramSource, service};
use crate::progress::{Bar, timed};
use crate::terminal::counted;
use cryptodl::{Checkpoint, ComputeParts, Machine, PrivacyGoal, Request, Rerandomisation, SegmentTime};

/// Classify encrypted images: the server's job, which needs no secret
///
/// The result is masked with fresh encryptions of zero under the client's public key, so that it gives no exact equations in
/// the weights. Masks do not hide everything: the noise of a result shows the network's derivatives at the client's images,
/// unless the Program was planned with --circuit-privacy. The client always learns the scores of up to N images per set.
/// SECURITY.md says what else it learns. With --deterministic nothing is masked and the same input gives the same bytes: for
/// tests only, and refused together with --circuit-privacy.
#[derive(Args)]
#[command(override_usage = "\
cryptodl infer <--model MODEL|--program FILE> --eval-key FILE <--public FILE|--deterministic>
                      --input FILE --out FILE [OPTIONS]")]
#[command(group(ArgGroup::new("computed").required(true).args(["model", "program"])))]
#[command(after_help = "\
Examples:
  cryptodl infer --model mnist-1 --eval-key public/eval.key --public public/public.key \\
      --input digits.ct --out scores.ct
  cryptodl infer --program mnist-1.program --eval-key public/eval.key \\
      --public public/public.key --input digits.ct --out scores.ct --json -")]
pub struct Infer {
    #[command(flatten)]
    source: ProgramSource,
    /// The client's evaluation key
    #[arg(long, value_name = "FILE")]
    eval_key: PathBuf,
    #[command(flatten)]
    masking: Masking,
    /// The client's encrypted images; `-` is standard input
    #[arg(long, value_name = "FILE", value_parser = files::input_path)]
    input: PathBuf,
    /// Where the encrypted scores go; `-` is standard output
    #[arg(long, value_name = "FILE", value_parser = files::output_path)]
    out: PathBuf,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    checkpoint: Checkpointing,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    seed: TestSeed,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Masking {
    /// The client's public key, which masks the result
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
    /// Do not mask the result
    #[arg(long)]
    deterministic: bool,
}

/// What `infer --json` writes: the server's part of what `run --json` does.
#[derive(Serialize)]
struct InferReport {
    model: String,
    #[serde(flatten)]
    machine: Machine,
    program: String,
    images: usize,
    batches: usize,
    /// Sets that a checkpoint had.
    batches_kept: usize,
    masked: bool,
    /// What the results hide beside that.
    circuit_privacy: Option<PrivacyGoal>,
    seconds: Seconds,
    compute_parts: ComputeParts,
    images_per_second: f64,
    /// Multiply-adds are of one set.
    layers: Vec<SegmentTime>,
    files: Vec<Written>,
    /// Of a set's ciphertexts, as predicted.
    predicted_peak_bytes: u64,
    peak_rss_bytes: Option<u64>,
}

#[derive(Default, Serialize)]
struct Seconds {
    /// Of keys and images.
    read: f64,
    prepare: f64,
    compute: f64,
    write: f64,
}

impl Infer {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = std::iter::once(self.out.as_path()).chain(self.json.path()).collect();
        let model = self.source.files();
        let inputs: Vec<&Path> = [self.eval_key.as_path(), &self.input]
            .into_iter()
            .chain(self.masking.public.as_deref())
            .chain(model.iter().map(PathBuf::as_path))
            .collect();
        files::distinct(&outputs, &inputs)?;
        let start = Instant::now();
        let program = self.source.load(&self.planning)?;
        let circuit_privacy = program.content.circuit_privacy.map(|privacy| privacy.goal);
        ensure!(
            !self.masking.deterministic || circuit_privacy.is_none(),
            "--deterministic adds no flood, so that the result would show what --circuit-privacy should hide: \
             give the client's public key with --public instead, or for a test leave out --circuit-privacy"
        );
        let service = service(&program, &self.execution)?;
        let mut seconds = Seconds { prepare: start.elapsed().as_secs_f64(), ..Seconds::default() };
        let (spec, params, binding) = (service.spec(), service.params(), service.binding());
        let start = Instant::now();
        let keys = files::read(&self.eval_key, |file| read_needed_eval_keys(file, params, &spec.evaluation_keys))?;
        let public = self.masking.public.as_ref().map(|path| files::read(path, |file| read_public_key(file, params)));
        let public = public.transpose()?;
        let mut input = Sets::open(&self.input, &spec.model, &binding, &CiphertextLayout::input(spec))?;
        let info = input.info().clone();
        self.limit.check(&self.input, info.images)?;
        seconds.read = start.elapsed().as_secs_f64();
        let json = self.json.create_beside(&self.out)?;
        let out = Output::create(&self.out, Access::Everybody)?;

        let (bar, mut rng) = (Bar::new("compute"), self.seed.masks(circuit_privacy.is_some())?);
        let masks =
            public.as_ref().map_or(Rerandomisation::Omitted, |key| Rerandomisation::Fresh { key, rng: &mut rng });
        let progress = |progress: Progress| bar.watch(progress);
        let refused = || self.input.display().to_string();
        let checkpoint = self.checkpoint.folder.as_deref().map(|folder| {
            let request = Request::new(spec.program, &info, (&keys).into(), public.is_some());
            Checkpoint::open(folder, request, self.checkpoint.thrift())
        });
        let checkpoint = checkpoint.transpose()?;
        let expanding = Instant::now();
        let keys = service.accept_evaluation_keys(&keys).with_context(|| self.eval_key.display().to_string())?;
        let expanding = expanding.elapsed().as_secs_f64();
        let mut computation = service.begin(&info, &keys, masks, Watch::new(&progress)).with_context(refused)?;
        checkpoint.iter().for_each(|checkpoint| computation.resume(checkpoint));
        let mut compute = out.fill(|file| {
            let (layout, result) = (CiphertextLayout::result(spec), service.result(&info));
            let mut writer = CiphertextsWriter::new(file, &binding, &layout, &result)?;
            let mut set = Vec::new();
            while timed(&mut seconds.read, || input.next(&mut set))? {
                let result = computation.push(&set).with_context(refused)?;
                timed(&mut seconds.write, || Ok(result.map_or(Ok(()), |result| writer.put(&result))?))?;
            }
            // Nothing of a damaged file is published.
            timed(&mut seconds.read, || input.finish())?;
            let (last, report) = computation.finish().with_context(refused)?;
            timed(&mut seconds.write, || {
                last.map_or(Ok(()), |result| writer.put(&result))?;
                Ok(writer.finish()?)
            })?;
            Ok::<_, anyhow::Error>(report)
        })?;
        timed(&mut seconds.write, || files::publish_all(vec![out]))?;
        drop(bar);
        checkpoint.map_or(Ok(()), Checkpoint::remove)?;
        compute.seconds += expanding;
        compute.parts.key = expanding;
        seconds.compute = compute.seconds;
        let sets = info.sets(service.params());
        compute.segments.iter_mut().for_each(|segment| segment.residue_multiply_adds /= sets as u64);

        let report = InferReport {
            model: spec.model.clone(),
            machine: service.machine(),
            program: spec.program.to_string(),
            images: info.images,
            batches: sets,
            batches_kept: compute.sets_kept,
            masked: public.is_some(),
            circuit_privacy,
            seconds,
            compute_parts: compute.parts,
            images_per_second: info.images as f64 / compute.seconds,
            layers: compute.segments,
            files: vec![Written::at(&self.out, "for the client")],
            predicted_peak_bytes: service.peak(),
            peak_rss_bytes: peak_rss(),
        };
        json.show(&report, || {
            let (images, seconds) = (counted(report.images, "image"), report.seconds.compute);
            let Machine { backend, device, .. } = &report.machine;
            let kept = match report.batches_kept {
                0 => String::new(),
                kept => format!("{} of {sets} came from the checkpoint\n", counted(kept, "set")),
            };
            format!(
                "{images} in {seconds:.3} s: {:.0} per second on {backend}: {device}\n{kept}{}",
                report.images_per_second,
                files::listed(&report.files)
            )
        })
    }
}
