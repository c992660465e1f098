//! The client's part: encryption and decryption, on its own code path and on the CPU whatever the backend.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use cryptodl::{Keys, row_kernels};
use cryptodl_client::{Decryption, Encryption, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::backend::{Backend, Measured, Shape};
use cryptodl_core::ckks::{Ciphertexts, ClientSpec, EncryptionKind, Params, Randomness, Scale, UniformPurpose, noise};
use cryptodl_core::watch::Watch;
use cryptodl_core::wire::{Binding, CiphertextLayout, read_ciphertexts, write_ciphertexts};
use cryptodl_cpu::Reference;

use super::cases::Shipped;
use super::kernels::{Bench, Work};

/// Standard deviations within which the noise of every slot stays: the chance that one of 10^7 slots leaves them is about 10^-5.
const DEVIATIONS: f64 = 7.0;

/// Values of a set that are encrypted at most: more take as long each. Whole sets are measured with whole models.
const MOST_VALUES: usize = 256;

/// The largest scale of an encrypted score here, `log2`: computed scores have larger ones, which encryption need not handle.
const LOG_SCALE: i32 = 36;

/// Encryption of a set as `shipped` takes it and decryption of one as it returns it, but nothing that is in `seen`.
pub fn client<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    Shipped { program, params, .. }: &Shipped,
    seen: &mut HashSet<String>,
) -> Result<()> {
    let spec = program.client_spec();
    let ring = format!("N = {}, {} bits", params.n(), params.basis().modulus(0).bits());
    let (input, output) = (&spec.input, &spec.output);
    let encrypts = seen.insert(format!("encrypt {ring} {} {:?}", input.level, input.shape));
    let decrypts = seen.insert(format!("decrypt {ring} {} {} {}", output.level, output.components, output.classes));
    if !encrypts && !decrypts {
        return Ok(());
    }
    let mut rng = Randomness::from_os()?;
    let keys = Keys::generate(&spec.clone().check()?, &mut rng)?;
    let mut client = Client { spec, params, keys, rng };
    if encrypts {
        client.encryption(bench, backend)?;
    }
    if decrypts {
        client.decryption(bench, backend)?;
    }
    Ok(())
}

/// Who encrypts and decrypts.
struct Client<'a> {
    spec: ClientSpec,
    params: &'a Params,
    keys: Keys,
    rng: Randomness,
}

impl Client<'_> {
    /// From pixels to the bytes of a file.
    fn encryption<B: Measured>(&mut self, bench: &mut Bench<'_>, backend: &B) -> Result<()> {
        let Client { spec, params, keys, rng } = self;
        let params = *params;
        let n = params.n();
        let pixels: usize = spec.input.shape.iter().product();
        let values = pixels.min(MOST_VALUES).min((bench.effort.bytes / (4 * n as u64)).max(1) as usize);
        let mut spec = spec.clone();
        spec.input.shape = [1, 1, values];
        let spec = spec.check()?;
        let images = pattern(spec.input.range, n * values);
        let (binding, layout) = (Binding { program: spec.program, params }, CiphertextLayout::input(&spec));
        let kernels = row_kernels(params);
        let mut file = Vec::new();
        let mut run = |file: &mut Vec<u8>| -> Result<()> {
            let key = keys.encryption(spec.encryption);
            let encryption = Encryption::new(&spec, key, n, rng)?.with_kernels(kernels.clone());
            let encrypted = encryption.all(&images, Watch::default())?;
            file.clear();
            Ok(write_ciphertexts(file, &binding, &layout, &encrypted)?)
        };
        run(&mut file)?;
        let (level, bits) = (spec.input.level, params.basis().modulus(0).bits());
        let work = Work {
            kernel: "encrypt",
            shape: format!("N = {n}, {level} x {bits} bits, {values} at once"),
            items: values as u64,
            item: "ciphertext",
            bytes: (4 * images.len() + file.len()) as u64,
            arithmetic: None,
        };
        measure(bench, backend, work, &mut || run(&mut file))?;

        let encrypted = read_ciphertexts(file.as_slice(), &binding, &layout)?;
        let scale = spec.input.scale;
        let slots = decrypt_slots_raw_do_not_return_to_server(params, &keys.secret, &encrypted, scale)?;
        let allowed = DEVIATIONS * noise::fresh_secret(n).worst / scale.value();
        let right = slots[0].iter().enumerate().all(|(i, slot)| {
            let (value, image) = (i / n, i % n);
            (slot - f64::from(images[image * values + value])).abs() <= allowed
        });
        ensure!(right, "encrypt, N = {n}: decryption does not give the pixels back within {allowed:.2e}");
        Ok(())
    }

    /// From the bytes of a file to labels and scores.
    fn decryption<B: Measured>(&mut self, bench: &mut Bench<'_>, backend: &B) -> Result<()> {
        let Client { spec, params, keys, rng } = self;
        let params = *params;
        let mut spec = spec.clone();
        spec.output.scale =
            Scale::new(spec.output.scale.value().min(2f64.powi(LOG_SCALE))).context("a scale that is not positive")?;
        let spec = &spec.check()?;
        let (n, output) = (params.n(), &spec.output);
        let scores = pattern(output.range, n * output.classes);
        let result = result(spec, params, keys, &scores, rng)?;
        let (binding, layout) = (Binding { program: spec.program, params }, CiphertextLayout::result(spec));
        let mut file = Vec::new();
        write_ciphertexts(&mut file, &binding, &layout, &result)?;
        let (level, bits) = (output.level, params.basis().modulus(0).bits());
        let (components, classes) = (output.components, output.classes);
        let kernels = row_kernels(params);
        let mut decrypted = None;
        let mut run = || -> Result<()> {
            let result = read_ciphertexts(file.as_slice(), &binding, &layout)?;
            let decryption = Decryption::new(spec, &keys.secret, &result.info())?.with_kernels(kernels.clone());
            decrypted = Some(decryption.all(&result)?);
            Ok(())
        };
        let work = Work {
            kernel: "decrypt",
            shape: format!("N = {n}, {level} x {bits} bits, {components} components, {classes} at once"),
            items: classes as u64,
            item: "ciphertext",
            bytes: (file.len() + 8 * scores.len()) as u64,
            arithmetic: None,
        };
        measure(bench, backend, work, &mut run)?;

        let decrypted = decrypted.context("nothing was decrypted")?;
        let rounding = 0.5 * decrypted.unit.value();
        let allowed = rounding + DEVIATIONS * noise::fresh_secret(n).worst / output.scale.value();
        let right = decrypted.scores.iter().zip(&scores).all(|(a, &b)| (a - f64::from(b)).abs() <= allowed);
        ensure!(right, "decrypt, N = {n}: it does not give the scores back within {allowed:.2e}");
        Ok(())
    }
}

/// A result as a server would return it that decrypts to `scores`, image-major: a fresh encryption with its seed expanded, and
/// zeros for the other components.
fn result(
    spec: &ClientSpec,
    params: &Params,
    keys: &Keys,
    scores: &[f32],
    rng: &mut Randomness,
) -> Result<Ciphertexts> {
    let output = &spec.output;
    let mut as_input = spec.clone();
    as_input.encryption = EncryptionKind::Secret;
    as_input.input.shape = [1, 1, output.classes];
    as_input.input.level = output.level;
    as_input.input.scale = output.scale;
    as_input.input.range = output.range;
    let key = keys.encryption(EncryptionKind::Secret);
    let mut result = encrypt(&as_input.check()?, key, scores, params.n(), rng, Watch::default())?;
    let seed = result.seed.take().context("encryption with the secret key has a seed")?;
    result.components = output.components;

    let reference = Reference::new(params.basis().clone());
    let shape = Shape { limbs: params.chain(output.level), values: output.classes, components: 1, lanes: params.n() };
    let mut uniform = reference.zeros(shape)?;
    reference.expand(&UniformPurpose::Ciphertext.source(params, &seed), 0, &mut uniform, 0)?;
    let bytes = result.set_bytes(params);
    result.sets[0].extend(reference.pack(&uniform, 0)?);
    result.sets[0].resize(bytes, 0);
    Ok(result)
}

/// `count` numbers all over `range`.
fn pattern([low, high]: [f64; 2], count: usize) -> Vec<f32> {
    (0..count).map(|i| (low + (high - low) * (i % 256) as f64 / 255.0) as f32).collect()
}

/// As [`Bench::measure`], for the host's work, which no device's copies are a measure for. It can fail in a way of its own: the
/// error comes after the measurement.
fn measure<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    work: Work,
    launch: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut failed = None;
    bench.measure(backend, work, || {
        failed = failed.take().or_else(|| launch().err());
        Ok(())
    })?;
    if !backend.is_host()
        && let Some(row) = bench.rows.last_mut()
    {
        row.copy_share = None;
    }
    failed.map_or(Ok(()), Err)
}
