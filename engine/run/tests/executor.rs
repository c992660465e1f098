//! The executor: several sets, and what it refuses.

use cryptodl_client::{Decrypted, EncryptionKey, SecretKey, decrypt, encrypt};
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, EvalKeyLayout, EvalKeys, Leaves, Packing, PublicKey, Randomness, RelinLayout,
};
use cryptodl_core::watch::Watch;
use cryptodl_core::wire::{Binding, CiphertextLayout, read_ciphertexts, write_ciphertexts};
use cryptodl_cpu::Cpu;
use cryptodl_plan::{PlanOptions, ScheduleKind, plan};
use cryptodl_program::Program;
use cryptodl_program::plain;
use cryptodl_run::{Executor, Rerandomisation, RunError};
use cryptodl_zoo as zoo;
use ndarray::ArrayView2;

const BUDGET: u64 = 4 << 30;

fn program(schedule: ScheduleKind) -> Program {
    // The smallest ring has no room for key switching.
    let n = (schedule == ScheduleKind::Auto).then_some(2048);
    let options = PlanOptions { schedule, n, ..PlanOptions::default() };
    plan(&zoo::load("mnist-1-square").unwrap(), &options).unwrap().program
}

struct Client {
    spec: CheckedSpec,
    secret: SecretKey,
    public: PublicKey,
    rng: Randomness,
}

impl Client {
    fn new(program: &Program) -> Self {
        let spec = program.client_spec().check().unwrap();
        let mut rng = Randomness::insecure_from_seed_for_tests(1, "executor");
        let secret = SecretKey::generate(spec.params(), &mut rng);
        let public = secret.public_key(&mut rng).unwrap();
        Client { spec, secret, public, rng }
    }

    fn encrypt(&mut self, program: &Program, images: &[f32]) -> Ciphertexts {
        let (key, count) = (EncryptionKey::Secret(&self.secret), images.len() / program.inputs());
        encrypt(&self.spec, key, images, count, &mut self.rng, Watch::default()).unwrap()
    }

    fn executor(&self, program: &Program, budget: u64) -> Result<Executor<Cpu>, RunError> {
        Executor::new(program, self.spec.params(), Cpu::new(self.spec.params().basis().clone()), budget)
    }
}

/// Images of one gray each, in the Program's range.
fn grays(program: &Program, count: usize) -> Vec<f32> {
    let [low, high] = program.content.input.range;
    let gray = |i: usize| (low + (high - low) * (i % 7) as f64 / 6.0) as f32;
    (0..count).flat_map(|i| std::iter::repeat_n(gray(i), program.inputs())).collect()
}

#[test]
fn every_set_has_its_own_images_and_masks() {
    let program = program(ScheduleKind::Auto);
    let mut client = Client::new(&program);
    let n = client.spec.params().n();
    let count = 2 * n + 3;
    let images = grays(&program, count);
    let input = client.encrypt(&program, &images);
    assert_eq!(input.sets.len(), 3);
    let executor = client.executor(&program, BUDGET).unwrap();
    let none = EvalKeys::default();
    let compute = |how| executor.compute(&input, &none, how, Watch::default()).unwrap();
    let (bare, report) = compute(Rerandomisation::Omitted);
    let (masked, _) = compute(Rerandomisation::Fresh { key: &client.public, rng: &mut client.rng });
    let work: u64 = report.segments.iter().map(|segment| segment.residue_multiply_adds).sum();
    assert_eq!(work % 3, 0);

    // The last set again, alone, but as if it were the first: its component 1 is then another one.
    let last = Ciphertexts { images: 3, sets: vec![input.sets[2].clone()], ..input.clone() };
    let (alone, _) = executor.compute(&last, &none, Rerandomisation::Omitted, Watch::default()).unwrap();
    assert_ne!(alone.sets[0], bare.sets[2]);

    let expected = plain(&program, ArrayView2::from_shape((count, program.inputs()), &images).unwrap());
    for result in [&bare, &masked] {
        let decrypted = decrypt(&client.spec, &client.secret, result).unwrap();
        assert_eq!(decrypted.labels.len(), count);
        let squares = decrypted.scores.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b));
        let rms = (squares.sum::<f64>() / expected.len() as f64).sqrt();
        // Gray images are unlike digits, and scores are rounded; scores of another image differ by ten times as much.
        assert!(rms < 0.15 * expected.std(0.0), "{rms}");
    }
    assert!(masked.sets.iter().zip(&bare.sets).all(|(masked, bare)| masked != bare));
}

/// Few images travel in few ciphertexts, which rotations turn into one for every pixel: the scores are those of the network.
#[test]
fn few_images_are_packed_compactly() {
    let options = PlanOptions { n: Some(4096), batch: 1, ..PlanOptions::default() };
    let program = plan(&zoo::load("mnist-1-square").unwrap(), &options).unwrap().program;
    assert_eq!(program.content.input.packing, Packing::Compact(10));
    let mut client = Client::new(&program);
    let executor = client.executor(&program, BUDGET).unwrap();
    let layouts = &program.content.evaluation_keys;
    let rotations = program.content.rotations(4096);
    let steps: Vec<usize> = rotations.iter().map(|&(step, _)| step).collect();
    assert!((0..10).all(|i| steps.contains(&(1 << i))) && steps.len() > 10 && steps.is_sorted(), "{steps:?}");
    assert!(rotations.iter().all(|(_, layout)| layouts.contains(layout)));
    // A key for fewer primes than the input has is no help.
    let mut other = program.content.clone();
    let element = Leaves { log: 10 }.rotation(4096, 3).element();
    other.evaluation_keys.push(EvalKeyLayout::automorphism(element, RelinLayout::of_primes(1, 1)));
    assert_eq!(other.rotations(4096), rotations);
    let keys = client.secret.eval_keys(layouts, &mut client.rng).unwrap();
    let pixels = program.inputs();
    // Images whose pixels differ, so that every leaf must come to its place.
    let [low, high] = program.content.input.range;
    let pixel = |i: usize| (low + (high - low) * ((i * i) % 97) as f64 / 96.0 * f64::from(i % pixels > 300)) as f32;
    assert_eq!(program.content.output.packing, Packing::Compact(2));
    for (count, ciphertexts, scores) in
        [(1, 1, 3), (2, 1, 5), (4, 1, 10), (5, 2, 10), (64, 13, 10), (2048, 392, 10), (2049, 784, 10)]
    {
        let images: Vec<f32> = (0..count * pixels).map(pixel).collect();
        let input = client.encrypt(&program, &images);
        assert_eq!((input.values, input.sets.len()), (ciphertexts, 1), "{count} images");
        // The file says how they are packed.
        let binding = Binding { program: client.spec.program, params: client.spec.params() };
        let through_a_file = |layout: CiphertextLayout, ciphertexts: &Ciphertexts| {
            let mut file = Vec::new();
            write_ciphertexts(&mut file, &binding, &layout, ciphertexts).unwrap();
            assert_eq!(read_ciphertexts(&file[..], &binding, &layout).unwrap(), *ciphertexts);
        };
        through_a_file(CiphertextLayout::input(&client.spec), &input);

        let (result, _) = executor.compute(&input, &keys, Rerandomisation::Omitted, Watch::default()).unwrap();
        assert_eq!((result.values, result.components), (scores, 2), "{count} images");
        through_a_file(CiphertextLayout::result(&client.spec), &result);
        let decrypted = decrypt(&client.spec, &client.secret, &result).unwrap();
        assert_eq!(decrypted.labels.len(), count);
        let expected = plain(&program, ArrayView2::from_shape((count, pixels), &images).unwrap());
        let squares = decrypted.scores.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b));
        let rms = (squares.sum::<f64>() / expected.len() as f64).sqrt();
        // The predicted noise, and what scores are rounded to.
        let noise = program.content.output.noise;
        assert!(rms < 4.0 * noise, "{count} images: {rms}, predicted {noise}");
    }
    let input = client.encrypt(&program, &vec![low as f32; pixels]);
    let some = client.secret.eval_keys(&layouts[..5], &mut client.rng).unwrap();
    let error = executor.compute(&input, &some, Rerandomisation::Omitted, Watch::default()).err().unwrap();
    assert!(error.to_string().contains("a key for X -> X^"), "{error}");
    let tight = Ciphertexts { images: 5, ..input };
    let error = executor.compute(&tight, &keys, Rerandomisation::Omitted, Watch::default()).err().unwrap();
    assert!(error.to_string().contains("at most 4"), "{error}");
}

/// Sets that keep their index can be computed anywhere, from files of their own, and joined: the
/// bytes are those of the whole.
#[test]
fn parts_of_a_whole_are_computed_and_decrypted_alone() {
    let program = program(ScheduleKind::Auto);
    let mut client = Client::new(&program);
    let (spec, n) = (client.spec.clone(), client.spec.params().n());
    let input = client.encrypt(&program, &grays(&program, 2 * n + 3));
    assert!(input.seed.is_some() && input.first_set == 0);
    let executor = client.executor(&program, BUDGET).unwrap();
    let compute = |input: &Ciphertexts| {
        executor.compute(input, &EvalKeys::default(), Rerandomisation::Omitted, Watch::default()).unwrap().0
    };
    let through_a_file = |layout: CiphertextLayout, ciphertexts: &Ciphertexts| {
        let (mut file, binding) = (Vec::new(), Binding { program: spec.program, params: client.spec.params() });
        write_ciphertexts(&mut file, &binding, &layout, ciphertexts).unwrap();
        let read = read_ciphertexts(&file[..], &binding, &layout).unwrap();
        assert_eq!(&read, ciphertexts);
        read
    };
    let whole = compute(&input);
    let of_whole = decrypt(&client.spec, &client.secret, &whole).unwrap();
    for (first_set, sets, images) in [(0, 1, n), (1, 1, n), (2, 1, 3), (1, 2, n + 3)] {
        let some = input.sets[first_set..first_set + sets].to_vec();
        let part = Ciphertexts { first_set, images, sets: some, ..input.clone() };
        let result = compute(&through_a_file(CiphertextLayout::input(&spec), &part));
        assert_eq!((result.first_set, result.images), (first_set, images));
        assert_eq!(result.sets, whole.sets[first_set..first_set + sets]);
        let result = through_a_file(CiphertextLayout::result(&spec), &result);
        let Decrypted { labels, scores, classes, .. } = decrypt(&client.spec, &client.secret, &result).unwrap();
        let range = first_set * n..first_set * n + images;
        assert_eq!(labels, of_whole.labels[range.clone()]);
        assert_eq!(scores, of_whole.scores[range.start * classes..range.end * classes]);
    }
}

#[test]
fn bad_inputs_and_budgets_are_refused() {
    let program = program(ScheduleKind::Auto);
    let mut client = Client::new(&program);
    let input = client.encrypt(&program, &grays(&program, 5));
    let executor = client.executor(&program, BUDGET).unwrap();
    type Change = fn(&mut Ciphertexts);
    let cases: &[(Change, &str)] = &[
        (|c| c.level -= 1, "the number of chain limbs is 1"),
        (|c| c.values = 783, "the number of values is 783, this Program needs 784"),
        (|c| c.components = 3, "the number of components is 3"),
        (|c| c.seed = None, "the number of stored components is 2"),
        (|c| c.sets.clear(), "the number of sets is 0, this Program needs 1"),
        (|c| (c.images, c.sets) = (0, Vec::new()), "the number of images is 0"),
        (|c| c.images = 0, "the number of images is 0"),
        (|c| c.images = 1 << 20, "the number of sets is 1"),
        // The last index is that whose values are numbered up to 2^32: 5478274 sets of 784.
        (|c| c.first_set = 5_478_274, "the index of the first set is 5478274, this Program needs at most 5478273"),
        (|c| c.first_set = usize::MAX, "the index of the first set is"),
        (|c| c.sets[0].truncate(100), "the length of a set is 100"),
        (|c| c.sets[0].fill(255), "set 0 holds a residue that is not below its prime"),
    ];
    for (change, fragment) in cases {
        let mut bad = input.clone();
        change(&mut bad);
        let error = executor
            .compute(&bad, &EvalKeys::default(), Rerandomisation::Omitted, Watch::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(fragment), "{error} lacks {fragment}");
    }
    let Err(RunError::Budget { needed, .. }) = client.executor(&program, 1 << 20) else { panic!("a tiny budget") };
    client.executor(&program, needed).unwrap();
    assert!(matches!(client.executor(&program, needed - 1), Err(RunError::Budget { .. })));
}

#[test]
fn a_missing_or_foreign_evaluation_key_is_refused() {
    let program = program(ScheduleKind::Layered);
    let mut client = Client::new(&program);
    let input = client.encrypt(&program, &grays(&program, 1));
    let executor = client.executor(&program, BUDGET).unwrap();
    let needed = program.content.relin().unwrap();
    let layouts = [RelinLayout { level: needed.level - 1, ..needed }, needed].map(EvalKeyLayout::Relinearisation);
    let mut keys = |layouts| client.secret.eval_keys(layouts, &mut client.rng).unwrap();
    let (none, other, both) = (keys(&[]), keys(&layouts[..1]), keys(&layouts));
    let compute = |keys: &EvalKeys| executor.compute(&input, keys, Rerandomisation::Omitted, Watch::default());
    let refuse = |keys: &EvalKeys| compute(keys).unwrap_err().to_string();
    let needs = format!("this Program needs {}, but there", layouts[1]);
    assert!(refuse(&none).contains(&format!("{needs} are no evaluation keys")), "{}", refuse(&none));
    assert!(refuse(&other).contains(&format!("{needs} is {}", layouts[0])), "{}", refuse(&other));
    // A key that no step takes changes nothing.
    let one = EvalKeys::new(both.iter().skip(1).cloned().collect()).unwrap();
    assert_eq!(compute(&both).unwrap().0, compute(&one).unwrap().0);
}
