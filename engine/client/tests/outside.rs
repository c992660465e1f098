//! Programs that know only `docs/format.md` make keys, encrypt images with either key and decrypt a
//! result: `tests/outside`. Needs `python3`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cryptodl_client::wire::{read_secret_key, write_secret_key};
use cryptodl_client::{ScoreUnit, SecretKey, decrypt, decrypt_slots_raw_do_not_return_to_server};
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, ClientSpec, Digest, Encoder, EncryptionKind, EvalKeyLayout, InputLayout, OutputLayout,
    Packing, ParamsSpec, Randomness, RelinLayout, Scale, SecurityLevel, UniformPurpose, noise,
};
use cryptodl_core::ring::{Automorphism, NttTable, ntt_primes, pack_row, packed_row_len};
use cryptodl_core::wire::{
    Binding, CiphertextLayout, read_ciphertexts, read_eval_keys, read_public_key, write_ciphertexts, write_client_spec,
    write_public_key,
};

const N: usize = 4096;

fn spec() -> ClientSpec {
    // Limbs of two sizes, so that rows differ in length.
    let primes = [ntt_primes(N, 30, 2), ntt_primes(N, 24, 1)].map(|found| found.expect("such primes exist")).concat();
    let scale = Scale::new(f64::from(1 << 22) * 1.25).expect("an allowed scale");
    ClientSpec {
        model: "outside".into(),
        class_names: Vec::new(),
        program: Digest([9; 32]),
        params: ParamsSpec { n: N, primes, special_primes: Vec::new(), security: SecurityLevel::Bits128 },
        evaluation_keys: Vec::new(),
        encryption: EncryptionKind::Secret,
        input: InputLayout { packing: Packing::Spread, shape: [1, 1, 1], range: [0.0, 1.0], scale, level: 3 },
        output: OutputLayout {
            packing: Packing::Spread,
            classes: 10,
            components: 4,
            level: 3,
            scale,
            range: [-8.0, 8.0],
            noise: 2e-3,
        },
    }
}

/// Score of class `value` of `image`.
fn score(image: usize, value: usize) -> f64 {
    7.0 * ((image * 31 + value * 17) as f64).sin()
}

/// A result with so many components as the spec says, as products without relinearisation leave it: all but the first
/// uniform and `c_0 = m - c_1 s - c_2 s^2 - ...`. Images whose pixels were packed have their scores where the leaves say.
fn result(spec: &CheckedSpec, key: &SecretKey, images: usize) -> Ciphertexts {
    let params = spec.params();
    let OutputLayout { classes, components, level, scale, .. } = spec.output;
    let leaves = spec.input.packing.of_images(params.n(), images);
    let scores = spec.output.packing.of_scores(params.n(), leaves, images);
    let values = scores.ciphertexts(classes);
    let (encoder, source) = (Encoder::new(N), UniformPurpose::Ciphertext.source(params, &[1; 32]));
    let set = |set: usize| {
        let mut rows = vec![Vec::new(); components];
        for limb in params.chain(level) {
            let table = params.basis().table(limb);
            let secret = transform(table, key.coefficients().iter().map(|&c| f64::from(c)));
            for value in 0..values {
                let factor = |part: usize, slot: usize| match part {
                    0 => 1.0,
                    t => 2.0 * (std::f64::consts::PI * (t * (2 * slot + 1)) as f64 / (2 << scores.log) as f64).cos(),
                };
                let sum = |slot: usize| {
                    let of_class = |(part, class)| factor(part, slot) * score(set * N + (slot >> scores.log), class);
                    (value..classes).step_by(values).enumerate().map(of_class).sum()
                };
                let mut message: Vec<f64> = (0..N).map(sum).collect();
                encoder.encode(&mut message, scale);
                let (m, mut c_0, mut power) = (table.modulus(), transform(table, message), secret.clone());
                for (component, rows) in rows.iter_mut().enumerate().skip(1) {
                    let mut c_t = vec![0; N];
                    let object = ((set * values + value) * components + component) as u32;
                    source.fill(object, limb as u32, m, 0, &mut c_t);
                    for j in 0..N {
                        c_0[j] = m.sub(c_0[j], m.mul(c_t[j], power[j]));
                        power[j] = m.mul(power[j], secret[j]);
                    }
                    rows.extend(pack(table, &c_t));
                }
                rows[0].extend(pack(table, &c_0));
            }
        }
        rows.concat()
    };
    let sets = (0..images.div_ceil(N)).map(set).collect();
    Ciphertexts { level, values, components, leaves, first_set: 7, seed: None, images, sets }
}

fn transform(table: &NttTable, coefficients: impl IntoIterator<Item = f64>) -> Vec<u32> {
    let mut row: Vec<u32> = coefficients.into_iter().map(|c| table.modulus().reduce_integer_f64(c)).collect();
    table.forward(&mut row);
    row
}

fn pack(table: &NttTable, row: &[u32]) -> Vec<u8> {
    let bits = table.modulus().bits();
    let mut packed = vec![0; packed_row_len(N, bits)];
    pack_row(row, bits, &mut packed);
    packed
}

fn there_is_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("not tested: there is no python3");
    }
    found
}

/// Runs a program of `tests/outside`.
fn outside(program: &str, arguments: &[PathBuf]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/outside").join(program);
    let output = Command::new("python3").arg("-B").arg(program).args(arguments).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Keys as the page describes them: they are read, and what is left of each `b + a s` is an error
/// of the same integers in every limb, beside `P s^2` where a digit has its limbs.
#[test]
fn a_program_written_from_the_format_description_makes_keys() {
    if !there_is_python() {
        return;
    }
    const N: usize = 64;
    let mut spec = spec();
    let primes = [ntt_primes(N, 30, 3), ntt_primes(N, 20, 1)].map(|found| found.expect("such primes exist")).concat();
    (spec.params.n, spec.params.primes) = (N, primes[1..].to_vec());
    spec.params.special_primes = primes[..1].to_vec();
    let parts = RelinLayout { prime_parts: 3, ..RelinLayout::of_primes(2, 1) };
    spec.evaluation_keys = vec![
        EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1)),
        EvalKeyLayout::automorphism(25, RelinLayout::of_primes(2, 1)),
        EvalKeyLayout::automorphism(13, parts),
        EvalKeyLayout::power(3, parts),
    ];
    let spec = spec.check_insecure_for_tests().expect("a valid spec");
    let params = spec.params();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = ["client.spec", "secret.key", "public.key", "eval.key"].map(|name| folder.path().join(name));
    write_client_spec(std::fs::File::create(&files[0]).expect("a writable folder"), &spec).expect("written");
    outside("keygen.py", &files);

    let open = |i: usize| std::fs::File::open(&files[i]).expect("written");
    let secret = read_secret_key(open(1), params).expect("a secret key");
    assert!([-1, 0, 1].iter().all(|c| secret.coefficients().contains(c)));
    let secret: Vec<f64> = secret.coefficients().iter().map(|&c| f64::from(c)).collect();
    // The integers that are left in a limb of a row, and how many times P s^2 or P s is taken away there.
    let left = |limb: usize, b: &[u32], a: &[u32], layout: Option<EvalKeyLayout>, times: u32| -> Vec<i64> {
        let table = params.basis().table(limb);
        let (m, s) = (table.modulus(), transform(table, secret.iter().copied()));
        let p = params.basis().product_mod(&params.special(), limb);
        let mut under = s.clone();
        let element = layout.map_or(0, EvalKeyLayout::element);
        if let Some(automorphism) = Automorphism::new(N, element) {
            (0..N).for_each(|lane| under[automorphism.source(lane)] = s[lane]);
        }
        let mut row: Vec<u32> = (0..N)
            .map(|j| {
                let from = (1..layout.map_or(1, EvalKeyLayout::of_power)).fold(s[j], |power, _| m.mul(power, s[j]));
                m.sub(m.add(b[j], m.mul(a[j], under[j])), m.mul(times, m.mul(p, from)))
            })
            .collect();
        table.inverse(&mut row);
        let q = i64::from(m.value());
        row.into_iter().map(|x| if 2 * i64::from(x) > q { i64::from(x) - q } else { i64::from(x) }).collect()
    };
    let check = |errors: Vec<Vec<i64>>| {
        assert!(errors.iter().all(|error| *error == errors[0]), "the same integers in every limb: {errors:?}");
        let largest = errors[0].iter().map(|e| e.abs()).max();
        assert!((4..=21).contains(&largest.expect("N of them")), "an error: {errors:?}");
    };
    let public = read_public_key(open(2), params).expect("a public key");
    let a = public.expand_a(params);
    let rows = |limb: usize| limb * N..(limb + 1) * N;
    check((0..4).map(|limb| left(limb, &public.b[rows(limb)], &a[rows(limb)], None, 0)).collect());

    let keys = read_eval_keys(open(3), params).expect("evaluation keys");
    assert_eq!(keys.layouts(), spec.evaluation_keys);
    for key in keys.iter() {
        let (layout, limbs) = (key.layout.digits(), key.layout.limbs(params));
        let a = key.expand_a(params);
        for digit in 0..layout.digits(2) {
            // Digits of ten bits, where a prime has several.
            let times = 1 << (10 * layout.part(digit));
            let part = |(i, &limb): (usize, &usize)| {
                let rows = rows(digit * limbs.len() + i);
                let own = layout.digit_limbs(digit, 2).contains(&limb);
                left(limb, &key.b[rows.clone()], &a[rows], Some(key.layout), if own { times } else { 0 })
            };
            check(limbs.iter().enumerate().map(part).collect());
        }
    }
}

/// Both encryptions as the page describes them: the files are read, the slots are the pixels, and the noise is what the page
/// says, neither more nor less.
#[test]
fn a_program_written_from_the_format_description_encrypts() {
    if !there_is_python() {
        return;
    }
    for (encryption, level) in [(EncryptionKind::Secret, 2), (EncryptionKind::Public, 1)] {
        let mut spec = spec();
        // A level below the chain's length, so that limbs which take no part lie before the special ones.
        let primes = ntt_primes(N, 30, 3).expect("such primes exist");
        (spec.params.primes, spec.params.special_primes) = (primes[1..].to_vec(), primes[..1].to_vec());
        (spec.encryption, spec.output.level) = (encryption, 2);
        (spec.input.level, spec.input.shape, spec.input.range) = (level, [1, 1, 2], [0.25, 1.0]);
        let spec = spec.check().expect("a valid spec");
        let params = spec.params();
        let mut rng = Randomness::insecure_from_seed_for_tests(2, "outside");
        let key = SecretKey::generate(params, &mut rng);
        let public = key.public_key(&mut rng).expect("a key");

        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = ["key", "client.spec", "images.json", "images.enc"].map(|name| folder.path().join(name));
        let create = |i: usize| std::fs::File::create(&files[i]).expect("a writable folder");
        let binding = Binding { program: spec.program, params };
        match encryption {
            EncryptionKind::Secret => write_secret_key(create(0), &key).expect("written"),
            EncryptionKind::Public => write_public_key(create(0), params, &public).expect("written"),
        }
        write_client_spec(create(1), &spec).expect("written");
        let images = N + 3;
        let pixel = |image: usize, value: usize| 0.25 + ((image * 7 + value * 5) % 64) as f64 / 128.0;
        let rows: Vec<String> = (0..images).map(|i| format!("[{}, {}]", pixel(i, 0), pixel(i, 1))).collect();
        std::fs::write(&files[2], format!("[{}]", rows.join(","))).expect("written");
        outside("encrypt.py", &files);

        let file = std::fs::File::open(&files[3]).expect("written");
        let ciphertexts = read_ciphertexts(file, &binding, &CiphertextLayout::input(&spec)).expect("a valid file");
        let sets = decrypt_slots_raw_do_not_return_to_server(params, &key, &ciphertexts, spec.input.scale).unwrap();
        let mut squares = 0.0;
        for (set, slots) in sets.iter().enumerate() {
            for (i, slot) in slots.iter().enumerate() {
                let (image, value) = (set * N + i % N, i / N);
                let expected = if image < images { pixel(image, value) } else { 0.25 };
                squares += (slot - expected).powi(2);
            }
        }
        let measured = (squares / (4 * N) as f64).sqrt() * spec.input.scale.value();
        // The formulas of the page.
        let n = N as f64;
        let (error, half, secret) = (10.5 * (2.0 * n - 1.0), (2.0 * n - 1.0) / 12.0, 2.0 / 3.0 * (2.0 * n - 1.0));
        let documented = match encryption {
            EncryptionKind::Secret => (error + half).sqrt(),
            EncryptionKind::Public => {
                let p = f64::from(spec.params.special_primes[0]);
                (half * (2.0 + secret) + error * (2.0 * secret + 1.0) / (p * p)).sqrt()
            }
        };
        let predicted = match encryption {
            EncryptionKind::Secret => noise::fresh_secret(N),
            EncryptionKind::Public => noise::fresh_public(N, params.log_p()),
        };
        assert!((documented / predicted.rms - 1.0).abs() < 1e-6, "{documented} against {}", predicted.rms);
        // 16,384 slots: the deviation of their root mean square is about one in a hundred.
        assert!((measured / documented - 1.0).abs() < 0.06, "{encryption:?}: {measured} against {documented}");
    }
}

/// A compact upload as the page describes it: every pixel is in the slot from which rotations bring it to its image.
#[test]
fn a_program_written_from_the_format_description_packs_compactly() {
    if !there_is_python() {
        return;
    }
    const PIXELS: usize = 11;
    let packing = Packing::Compact(3);
    let mut spec = spec();
    let primes = ntt_primes(N, 30, 4).expect("such primes exist");
    (spec.params.primes, spec.params.special_primes) = (primes[1..].to_vec(), primes[..1].to_vec());
    (spec.input.packing, spec.input.shape, spec.input.range) = (packing, [1, 1, PIXELS], [-0.5, 1.0]);
    spec.output.packing = Packing::Compact(1);
    let layout = RelinLayout::of_primes(spec.input.level, 1);
    let automorphisms = packing.automorphisms(N).into_iter();
    spec.evaluation_keys = automorphisms.map(|g| EvalKeyLayout::automorphism(g.element(), layout)).collect();
    let spec = spec.check_insecure_for_tests().expect("a valid spec");
    let params = spec.params();
    let key = SecretKey::generate(params, &mut Randomness::insecure_from_seed_for_tests(3, "outside"));
    for (images, ciphertexts) in [(2, 2), (N / 8, 2), (N / 8 + 1, 3)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = ["key", "client.spec", "images.json", "images.enc"].map(|name| folder.path().join(name));
        let create = |i: usize| std::fs::File::create(&files[i]).expect("a writable folder");
        write_secret_key(create(0), &key).expect("written");
        write_client_spec(create(1), &spec).expect("written");
        let pixel = |image: usize, value: usize| ((image * 7 + value * 5) % 64) as f64 / 128.0;
        let row = |image| format!("{:?}", (0..PIXELS).map(|value| pixel(image, value)).collect::<Vec<f64>>());
        std::fs::write(&files[2], format!("[{}]", (0..images).map(row).collect::<Vec<_>>().join(",")))
            .expect("written");
        outside("encrypt.py", &files);

        let file = std::fs::File::open(&files[3]).expect("written");
        let binding = Binding { program: spec.program, params };
        let ciphertexts_read = read_ciphertexts(file, &binding, &CiphertextLayout::input(&spec)).expect("a valid file");
        assert_eq!((ciphertexts_read.values, ciphertexts_read.sets.len()), (ciphertexts, 1));
        let sets =
            decrypt_slots_raw_do_not_return_to_server(params, &key, &ciphertexts_read, spec.input.scale).unwrap();
        let leaves = ciphertexts_read.leaves;
        let mut expected = vec![0.0; ciphertexts * N];
        let copies = spec.output.packing.of_scores(N, leaves, images).log;
        for (copy, slots) in leaves.slots(N).chunks(1 << leaves.log).enumerate().take(images << copies) {
            for value in 0..PIXELS {
                expected[value % ciphertexts * N + slots[value / ciphertexts] as usize] = pixel(copy >> copies, value);
            }
        }
        let largest = sets[0].iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Six deviations of the noise.
        let bound = 6.0 * noise::fresh_secret(N).rms / spec.input.scale.value();
        assert!(largest < bound && bound < 0.01, "{images} images: {largest}, at most {bound}");
    }
}

#[test]
fn a_program_written_from_the_format_description_decrypts() {
    if !there_is_python() {
        return;
    }
    let class_names: Vec<String> = (0..10).map(|class| format!("\"Größe\" {class}")).collect();
    decrypts(ClientSpec { class_names, ..spec() }.check().expect("a valid spec"), N + 5);
    // Scores of packed images: four of one image in a ciphertext, two of two images, one of three.
    let packed = || {
        let (primes, special) = (ntt_primes(N, 30, 3).expect("such primes exist"), ntt_primes(N, 24, 2));
        let mut spec = spec();
        (spec.input.packing, spec.output.packing) = (Packing::Compact(log_leaves()), Packing::Compact(2));
        (spec.params.primes, spec.params.special_primes) = (primes[1..].to_vec(), primes[..1].to_vec());
        spec.params.primes.extend(special.expect("such primes exist").last());
        let automorphisms = spec.input.packing.automorphisms(N).into_iter();
        let key = |g: Automorphism| EvalKeyLayout::automorphism(g.element(), RelinLayout::of_primes(3, 1));
        spec.evaluation_keys = automorphisms.map(key).collect();
        spec.check_insecure_for_tests().expect("a valid spec")
    };
    for images in 1..4 {
        decrypts(packed(), images);
    }
}

/// `log2` of leaves that leave room for four images.
fn log_leaves() -> u32 {
    N.ilog2() - 2
}

fn decrypts(spec: CheckedSpec, images: usize) {
    let params = spec.params();
    let key = SecretKey::generate(params, &mut Randomness::insecure_from_seed_for_tests(1, "outside"));
    let result = result(&spec, &key, images);
    let ours = decrypt(&spec, &key, &result).expect("a valid result");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = ["secret.key", "client.spec", "result"].map(|name| folder.path().join(name));
    let create = |i: usize| std::fs::File::create(&files[i]).expect("a writable folder");
    let binding = Binding { program: spec.program, params };
    write_secret_key(create(0), &key).expect("written");
    write_client_spec(create(1), &spec).expect("written");
    write_ciphertexts(create(2), &binding, &CiphertextLayout::result(&spec), &result).expect("written");
    let output = outside("decrypt.py", &files);
    let unit = ScoreUnit::of(&spec).value();
    let theirs = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = theirs.lines().skip(1).collect();
    assert_eq!(lines.len(), result.images);
    for (image, line) in lines.into_iter().enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        // Of classes without names there is no such column.
        let name = spec.class_name(ours.labels[image]).map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
        let head: Vec<String> = [image.to_string(), ours.labels[image].to_string()].into_iter().chain(name).collect();
        assert_eq!(fields[..head.len()], head);
        let scores = fields[head.len()..].iter().map(|field| field.parse::<f64>().expect("a number"));
        for (value, theirs) in scores.enumerate() {
            assert_eq!(theirs, ours.scores[image * spec.output.classes + value]);
            assert!(
                (theirs - score(image, value)).abs() < 0.004 + 0.5 * unit,
                "image {image}, class {value}: {theirs}"
            );
        }
    }
}
