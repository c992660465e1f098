//! The executor: several sets, and what it refuses.

use cryptodl_client::{EncryptionKey, SecretKey, decrypt, encrypt};
use cryptodl_core::ckks::{Ciphertexts, Params, PublicKey, Randomness, RelinKey, RelinLayout};
use cryptodl_core::watch::Watch;
use cryptodl_cpu::Cpu;
use cryptodl_plan::{PlanOptions, ScheduleKind, plan};
use cryptodl_program::Program;
use cryptodl_program::plain;
use cryptodl_run::{Executor, Masks, RunError};
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
    params: Params,
    secret: SecretKey,
    public: PublicKey,
    rng: Randomness,
}

impl Client {
    fn new(program: &Program) -> Self {
        let params = program.client_spec().check().unwrap();
        let mut rng = Randomness::insecure_from_seed_for_tests(1, "executor");
        let secret = SecretKey::generate(&params, &mut rng);
        let public = secret.public_key(&mut rng).unwrap();
        Client { params, secret, public, rng }
    }

    fn encrypt(&mut self, program: &Program, images: &[f32]) -> Ciphertexts {
        let (key, count) = (EncryptionKey::Secret(&self.secret), images.len() / program.inputs());
        encrypt(&program.client_spec(), &self.params, key, images, count, &mut self.rng, Watch::default()).unwrap()
    }

    fn executor(&self, program: &Program, budget: u64) -> Result<Executor<Cpu>, RunError> {
        Executor::new(program, &self.params, Cpu::new(self.params.basis().clone()), budget)
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
    let n = client.params.n();
    let count = 2 * n + 3;
    let images = grays(&program, count);
    let input = client.encrypt(&program, &images);
    assert_eq!(input.sets.len(), 3);
    let executor = client.executor(&program, BUDGET).unwrap();
    let compute = |masks| executor.compute(&input, None, masks, Watch::default()).unwrap();
    let (bare, report) = compute(Masks::Deterministic);
    let (masked, _) = compute(Masks::Fresh(&client.public, &mut client.rng));
    let work: u64 = report.layers.iter().map(|layer| layer.residue_multiply_adds).sum();
    assert_eq!(work % 3, 0);

    // The last set again, alone: it is expanded as objects of its own number, so it needs all three.
    let last = Ciphertexts { images: 3, sets: vec![input.sets[2].clone()], ..input.clone() };
    let (alone, _) = executor.compute(&last, None, Masks::Deterministic, Watch::default()).unwrap();
    assert_ne!(alone.sets[0], bare.sets[2]);

    let expected = plain(&program, ArrayView2::from_shape((count, program.inputs()), &images).unwrap());
    for result in [&bare, &masked] {
        let decrypted = decrypt(&program.client_spec(), &client.params, &client.secret, result).unwrap();
        assert_eq!(decrypted.labels.len(), count);
        let squares = decrypted.scores.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b));
        let rms = (squares.sum::<f64>() / expected.len() as f64).sqrt();
        // Gray images are unlike digits, and scores are rounded; scores of another image differ by ten times as much.
        assert!(rms < 0.15 * expected.std(0.0), "{rms}");
    }
    assert!(masked.sets.iter().zip(&bare.sets).all(|(masked, bare)| masked != bare));
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
        (|c| c.sets[0].truncate(100), "the length of a set is 100"),
        (|c| c.sets[0].fill(255), "set 0 holds a residue that is not below its prime"),
    ];
    for (change, fragment) in cases {
        let mut bad = input.clone();
        change(&mut bad);
        let error = executor.compute(&bad, None, Masks::Deterministic, Watch::default()).unwrap_err().to_string();
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
    let layout = program.content.relin.unwrap();
    let other = RelinLayout { level: layout.level - 1, ..layout };
    let other = client.secret.relin_key(other, &mut client.rng).unwrap();
    let refuse = |key: Option<&RelinKey>| {
        executor.compute(&input, key, Masks::Deterministic, Watch::default()).unwrap_err().to_string()
    };
    assert!(refuse(None).contains("but the evaluation key is empty"));
    assert!(refuse(Some(&other)).contains("but got a relinearisation key for level"));
}
