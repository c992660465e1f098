//! The GPU backend against the reference, bit for bit, on any adapter that this machine has.
//!
//! Without an adapter these tests show as ignored; with `CRYPTODL_REQUIRE_ADAPTER=1` they fail instead.

use std::process::ExitCode;
use std::sync::Arc;

use cryptodl_core::backend::conformance::compare;
use cryptodl_core::backend::{Backend, BackendError, Horner, Shape, SlotwiseOp, slotwise_shape};
use cryptodl_core::ckks::{EvalKeys, params_for_tests};
use cryptodl_core::ring::{MAX_DIMENSION, RnsBasis, ntt_primes};
use cryptodl_core::watch::Watch;
use cryptodl_cpu::{Cpu, Reference};
use cryptodl_gpu::{Adapter, AdapterKind, AdapterRequest, Dot, Gpu, GpuError, GpuOptions, Multiply, adapters, choose};
use cryptodl_plan::{PlanOptions, plan};
use cryptodl_program::Step;
use cryptodl_run::{Executor, Rerandomisation, RunError};
use cryptodl_tests::{Client, cut_down, execute, mnist, random_graph, random_images};
use cryptodl_zoo as zoo;
use libtest_mimic::{Arguments, Failed, Trial};

const BUDGET: u64 = 4 << 30;

/// The smallest ring of the kernels.
const N: usize = 1024;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let adapter = any_adapter();
    let required = std::env::var_os("CRYPTODL_REQUIRE_ADAPTER").is_some_and(|value| value == "1");
    let ignored = adapter.is_none() && !required;
    let trials = tests().into_iter().map(|(name, test)| {
        let adapter = adapter.clone();
        let run = move || {
            test(&adapter.ok_or("no usable adapter: install mesa-vulkan-drivers, or a GPU's driver")?);
            Ok::<(), Failed>(())
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Hardware if there is any, otherwise software.
fn any_adapter() -> Option<Adapter> {
    let usable = |info: &&cryptodl_gpu::AdapterInfo| info.usable.is_ok();
    let software = || choose(&AdapterRequest::Index(adapters().iter().find(usable)?.index)).ok();
    choose(&AdapterRequest::HardwareOnly).ok().or_else(software)
}

type Test = Box<dyn FnOnce(&Adapter) + Send>;

fn tests() -> Vec<(String, Test)> {
    let mut tests: Vec<(String, Test)> = vec![
        ("an_unknown_adapter_is_named".into(), Box::new(|_| unknown_adapters())),
        ("software_is_never_chosen_silently".into(), Box::new(|_| software_adapters())),
        ("the_budget_is_kept_and_freed_memory_used_again".into(), Box::new(budget)),
        ("a_refused_allocation_leaves_the_rest_usable".into(), Box::new(refused_allocation)),
        ("a_limb_beyond_the_largest_binding_is_refused".into(), Box::new(small_pages)),
        ("transforms_of_every_dimension".into(), Box::new(transforms)),
        ("tensors_of_many_pages".into(), Box::new(pages)),
        ("kernels_are_timed".into(), Box::new(timings)),
        ("a_lost_device_is_an_error".into(), Box::new(lost_device)),
        ("conversions_across_pages".into(), Box::new(conversions_across_pages)),
        ("sums_over_limbs_of_several_pages".into(), Box::new(sums_across_pages)),
        ("tables_too_large_for_a_command".into(), Box::new(large_tables)),
        ("divisions_by_more_primes_than_a_kernel_takes".into(), Box::new(long_divisions)),
        ("a_ring_too_small_for_the_kernels_is_refused".into(), Box::new(small_ring)),
        ("a_lesser_adapter_is_refused_or_used_as_it_is".into(), Box::new(lesser_adapters)),
        ("memory_that_runs_out_during_a_computation".into(), Box::new(out_of_memory)),
        ("a_device_lost_during_a_computation".into(), Box::new(lost_during_a_computation)),
        ("end_to_end".into(), Box::new(end_to_end)),
        ("graphs_end_to_end".into(), Box::new(graphs_end_to_end)),
        ("a_deep_network_end_to_end".into(), Box::new(deep_end_to_end)),
    ];
    // Each way to multiply and each way to sum; the tests of the shaders have all combinations.
    for (multiply, dot) in [(Multiply::U64, Dot::Packed), (Multiply::Portable, Dot::Integer)] {
        let name = format!("conformance::{multiply:?}::{dot:?}").to_lowercase();
        tests.push((name, Box::new(move |adapter| conformance(adapter, multiply, dot))));
    }
    tests
}

fn options() -> GpuOptions {
    GpuOptions::new(BUDGET)
}

fn gpu(adapter: &Adapter, basis: &Arc<RnsBasis>, options: GpuOptions) -> Gpu {
    Gpu::new(adapter, Arc::clone(basis), options).unwrap_or_else(|error| panic!("{error}"))
}

/// The whole suite; a variant that the adapter lacks must say so.
fn conformance(adapter: &Adapter, multiply: Multiply, dot: Dot) {
    let params = params_for_tests(N).expect("a supported dimension");
    let gpu = match Gpu::new(adapter, params.basis().clone(), GpuOptions { multiply, dot, ..options() }) {
        Err(GpuError::MissingFeature { .. }) if multiply == Multiply::U64 && !adapter.info().features.int64 => return,
        gpu => gpu.unwrap_or_else(|error| panic!("{error}")),
    };
    compare(&Reference::new(params.basis().clone()), &gpu, 8, &mut |_| ())
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Pages of one or two limbs, as large tensors have them.
fn pages(adapter: &Adapter) {
    let params = params_for_tests(N).expect("a supported dimension");
    // The suite's largest limb has 35 values of 5 components.
    let gpu = gpu(adapter, params.basis(), GpuOptions { page_bytes: Some(4 * N as u64 * 35 * 5), ..options() });
    compare(&Reference::new(params.basis().clone()), &gpu, 9, &mut |_| ())
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Both transforms for every dimension, since kernels differ by size, with small, large and extreme residues.
fn transforms(adapter: &Adapter) {
    let sizes = (N.trailing_zeros()..=MAX_DIMENSION.trailing_zeros()).map(|log_n| 1usize << log_n);
    for n in sizes {
        let primes = [ntt_primes(n, 30, 2).unwrap(), ntt_primes(n, 24, 1).unwrap_or_default()].concat();
        let basis = Arc::new(RnsBasis::new(n, &primes).unwrap());
        let (gpu, portable) = (gpu(adapter, &basis, options()), Cpu::new(basis.clone()));
        let shape = Shape { limbs: (0..basis.len()).rev().collect(), values: 3, components: 1, lanes: n };
        let residue = |i: usize| {
            let q = basis.modulus(shape.limbs[i / shape.limb_len()]).value();
            match i / n % 3 {
                0 => q - 1,
                1 => (i as u32).wrapping_mul(0x9e37_79b9) % q,
                _ => [0, q - 1, q / 2][i % 3],
            }
        };
        let residues: Vec<u32> = (0..shape.len()).map(residue).collect();
        let transformed = |backend: &dyn Fn(bool) -> Vec<u32>| [backend(true), backend(false)];
        let expected = transformed(&|forward| transform(&portable, &shape, &residues, forward));
        let actual = transformed(&|forward| transform(&gpu, &shape, &residues, forward));
        assert!(expected == actual, "dimension {n}");
    }
}

fn transform<B: Backend>(backend: &B, shape: &Shape, residues: &[u32], forward: bool) -> Vec<u32> {
    let mut x = backend.upload(shape.clone(), residues).unwrap();
    if forward { backend.forward_ntt(&mut x) } else { backend.inverse_ntt(&mut x) }.unwrap();
    backend.download(&x).unwrap()
}

/// Real images at full parameters: the result's bytes are those of the CPU. The tests of the binary have the other model, in
/// both schedules.
fn end_to_end(adapter: &Adapter) {
    let network = zoo::load("mnist-1").unwrap();
    let program = plan(&network, &PlanOptions::default()).unwrap().program;
    let (images, _) = mnist(&network, 100);
    let client = Client::new(&program, 21);
    let input = client.encrypt(images.view());
    let basis = client.params().basis();
    let (expected, _) = execute(&program, &client, Cpu::new(basis.clone()), &input, false, BUDGET);
    let (actual, _) = execute(&program, &client, gpu(adapter, basis, options()), &input, false, BUDGET / 2);
    assert!(expected == actual, "the results differ");
}

/// A network with joins and coefficients per channel, whole and in bands.
fn graphs_end_to_end(adapter: &Adapter) {
    let network = random_graph(1);
    let program = plan(&network, &PlanOptions::default()).unwrap().program;
    let images = random_images(&network, 16, 2);
    let rows = images.view().into_shape_with_order((16, images.len() / 16)).unwrap();
    let client = Client::new(&program, 22);
    let input = client.encrypt(rows);
    let basis = client.params().basis();
    let (expected, _) = execute(&program, &client, Cpu::new(basis.clone()), &input, false, BUDGET);
    let Err(RunError::Budget { needed, .. }) = Executor::new(&program, client.params(), Cpu::new(basis.clone()), 1)
    else {
        panic!("a budget of one byte");
    };
    for budget in [BUDGET / 2, 2 * needed] {
        let (actual, _) = execute(&program, &client, gpu(adapter, basis, options()), &input, false, budget);
        assert!(expected == actual, "the results differ within {budget} bytes");
    }
}

/// The first four convolutions of `cifar-10`, two channels of each: products that drop two primes.
fn deep_end_to_end(adapter: &Adapter) {
    let network = cut_down(&zoo::load("cifar-10").unwrap(), "act4", 2, 8);
    let options_8 = PlanOptions { weight_bits: Some(8.0), ..PlanOptions::default() };
    let program = plan(&network, &options_8).unwrap().program;
    let two_primes = program.content.steps.iter().any(|step| match step {
        Step::Linear { .. } => false,
        Step::Activation { activation, .. } => activation.maintenance.iter().any(|product| product.drop == 2),
        Step::Maintenance { maintenance, .. } => maintenance.drop == 2,
    });
    assert!(two_primes, "no product drops two primes");
    let images = random_images(&network, 16, 2);
    let rows = images.view().into_shape_with_order((16, images.len() / 16)).unwrap();
    let client = Client::new(&program, 23);
    let input = client.encrypt(rows);
    let basis = client.params().basis();
    let (expected, _) = execute(&program, &client, Cpu::new(basis.clone()), &input, false, BUDGET);
    let (oracle, _) = execute(&program, &client, Reference::new(basis.clone()), &input, false, BUDGET);
    assert!(expected == oracle, "the CPU's results differ from the reference's");
    let (actual, _) = execute(&program, &client, gpu(adapter, basis, options()), &input, false, BUDGET);
    assert!(expected == actual, "the results differ");
}

fn small_basis() -> Arc<RnsBasis> {
    params_for_tests(N).expect("a supported dimension").basis().clone()
}

fn shape_of(bytes: u64) -> Shape {
    Shape { limbs: vec![0], values: bytes as usize / 4 / N, components: 1, lanes: N }
}

fn budget(adapter: &Adapter) {
    let gpu = gpu(adapter, &small_basis(), GpuOptions { memory_budget: 3 << 20, ..options() });
    let before = gpu.memory();
    let [a, b] = [(); 2].map(|()| gpu.zeros(shape_of(1 << 20)).unwrap());
    assert_eq!(gpu.memory().held, before.held + (2 << 20));
    let refused = gpu.zeros(shape_of(2 << 20)).unwrap_err();
    assert!(matches!(refused, BackendError::OutOfMemory { bytes, .. } if bytes == 2 << 20), "{refused}");
    drop((a, b));
    assert_eq!(gpu.memory().held, before.held);
    for _ in 0..10 {
        let kept = gpu.zeros(shape_of(2 << 20)).unwrap();
        assert!(gpu.memory().allocated <= 3 << 20);
        assert_eq!(gpu.download(&kept).unwrap(), vec![0; (2 << 20) / 4]);
    }
}

fn refused_allocation(adapter: &Adapter) {
    let gpu = gpu(adapter, &small_basis(), options());
    let residues: Vec<u32> = (0..shape_of(1 << 16).len() as u32).map(|i| i % 1000).collect();
    let x = gpu.upload(shape_of(1 << 16), &residues).unwrap();
    let absurd = Shape { limbs: (0..6).collect(), values: 1 << 13, components: 4, lanes: N };
    let refused = gpu.zeros(Shape { values: absurd.values << 10, ..absurd.clone() }).unwrap_err();
    assert!(matches!(refused, BackendError::OutOfMemory { .. } | BackendError::Unsupported { .. }), "{refused}");
    let mut held = Vec::new();
    let refused = loop {
        match gpu.zeros(absurd.clone()) {
            Ok(tensor) => held.push(tensor),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, BackendError::OutOfMemory { .. }), "{refused}");
    drop(held);
    assert_eq!(gpu.download(&x).unwrap(), residues);
}

fn small_pages(adapter: &Adapter) {
    let gpu = gpu(adapter, &small_basis(), GpuOptions { page_bytes: Some(1 << 16), ..options() });
    let refused = gpu.zeros(shape_of(1 << 17)).unwrap_err();
    assert!(matches!(refused, BackendError::Unsupported { .. }), "{refused}");
    assert!(refused.to_string().contains("131072") && refused.to_string().contains("65536"), "{refused}");
    gpu.zeros(shape_of(1 << 16)).unwrap();
}

fn unknown_adapters() {
    let error = choose(&AdapterRequest::Index(1000)).unwrap_err();
    assert!(matches!(&error, GpuError::UnknownAdapter { adapters, .. } if !adapters.is_empty()), "{error}");
    let error = choose(&AdapterRequest::Name("no such adapter".into())).unwrap_err();
    assert!(error.to_string().contains("\"no such adapter\"; there are: 0: "), "{error}");
    if adapters().len() > 1 {
        let error = choose(&AdapterRequest::Name(String::new())).unwrap_err();
        assert!(matches!(error, GpuError::AmbiguousAdapter { .. }), "{error}");
    }
    let first = &adapters()[0];
    let upper = AdapterRequest::Name(first.name.to_uppercase());
    if adapters().iter().filter(|other| other.name == first.name).count() == 1 && first.usable.is_ok() {
        assert_eq!(choose(&upper).unwrap().info(), first);
    }
}

fn software_adapters() {
    match choose(&AdapterRequest::HardwareOnly) {
        Ok(adapter) => assert_eq!(adapter.info().kind, AdapterKind::Hardware),
        Err(GpuError::NoHardware { software }) => assert_eq!(software.len(), adapters().len()),
        Err(other) => panic!("{other}"),
    }
}

fn timings(adapter: &Adapter) {
    let basis = small_basis();
    let gpu = gpu(adapter, &basis, GpuOptions { timings: true, ..options() });
    let mut x = gpu.upload(shape_of(1 << 16), &vec![1; 1 << 14]).unwrap();
    gpu.forward_ntt(&mut x).unwrap();
    gpu.synchronise().unwrap();
    assert_eq!(gpu.timings().is_empty(), !adapter.info().features.timestamps);
    assert!(gpu.timings().iter().all(|time| time.dispatches > 0 && time.seconds >= 0.0));
}

fn lost_device(adapter: &Adapter) {
    let lost = gpu(adapter, &small_basis(), options());
    let x = lost.upload(shape_of(1 << 16), &vec![1; 1 << 14]).unwrap();
    lost.lose_device_for_tests();
    let errors =
        [lost.download(&x).unwrap_err(), lost.synchronise().unwrap_err(), lost.zeros(shape_of(64)).unwrap_err()];
    for error in errors {
        assert!(matches!(error, BackendError::DeviceLost { .. }), "{error}");
    }
    // The process can go on with a fresh device.
    let fresh = gpu(adapter, &small_basis(), options());
    assert_eq!(fresh.download(&fresh.zeros(shape_of(1 << 12)).unwrap()).unwrap(), vec![0; 1 << 10]);
}

/// A conversion reads all limbs of a value at once, also when they lie in different pages.
fn conversions_across_pages(adapter: &Adapter) {
    let basis = small_basis();
    let gpu = gpu(adapter, &basis, GpuOptions { page_bytes: Some(4 * 4 * N as u64), ..options() });
    let reference = Reference::new(basis.clone());
    let shape = Shape { limbs: vec![0, 2, 3], values: 3, components: 1, lanes: N };
    let residue =
        |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) % basis.modulus(shape.limbs[i / shape.limb_len()]).value();
    let residues: Vec<u32> = (0..shape.len()).map(residue).collect();
    let to = [0, 1, 4, 5];
    let expected = reference.convert_basis(&reference.upload(shape.clone(), &residues).unwrap(), &to).unwrap();
    let actual = gpu.convert_basis(&gpu.upload(shape.clone(), &residues).unwrap(), &to).unwrap();
    assert!(gpu.download(&actual).unwrap() == expected.residues());
}

/// Residues of every size that follow from their places.
fn any_residues(basis: &RnsBasis, shape: &Shape) -> Vec<u32> {
    let q = |i: usize| basis.modulus(shape.limbs[i / shape.limb_len()]).value();
    (0..shape.len()).map(|i| (i as u32).wrapping_mul(0x9e37_79b9) % q(i)).collect()
}

/// What is added has its limbs in another order, and in other pages, than the sum.
fn sums_across_pages(adapter: &Adapter) {
    let basis = small_basis();
    let gpu = gpu(adapter, &basis, GpuOptions { page_bytes: Some(4 * 12 * N as u64), ..options() });
    let reference = Reference::new(basis.clone());
    // Two limbs in a page, and one or two of the sum.
    let from = Shape { limbs: vec![5, 0, 3, 1, 2], values: 3, components: 2, lanes: N };
    let residues = any_residues(&basis, &from);
    for (components, channels) in [(2, 1), (3, 3)] {
        let to = Shape { limbs: vec![0, 1, 2, 3, 5], components, ..from.clone() };
        let factors = any_residues(&basis, &Shape { values: channels, components: 1, lanes: 1, ..to.clone() });
        let sums = any_residues(&basis, &to);
        let mut expected = reference.upload(to.clone(), &sums).unwrap();
        reference.accumulate(&mut expected, &reference.upload(from.clone(), &residues).unwrap(), &factors).unwrap();
        let mut actual = gpu.upload(to.clone(), &sums).unwrap();
        gpu.accumulate(&mut actual, &gpu.upload(from.clone(), &residues).unwrap(), &factors).unwrap();
        assert!(gpu.download(&actual).unwrap() == expected.residues(), "{components} components");
    }
}

/// So many channels that their constants do not travel with a command.
fn large_tables(adapter: &Adapter) {
    fn per_channel<B: Backend>(backend: &B, shape: &Shape, residues: &[u32], factors: &[u32]) -> [Vec<u32>; 2] {
        let mut x = backend.upload(shape.clone(), residues).unwrap();
        let constants: Vec<f64> = (0..2 * shape.values).map(|i| 1e4 * i as f64).collect();
        let square = Horner::per_channel(backend.basis(), true, shape.values, &constants);
        let ops = [SlotwiseOp::Polynomial(&square)];
        let mut squared = backend.zeros(slotwise_shape(&ops, shape)).unwrap();
        backend.slotwise(&ops, &x, 0..shape.lanes, &mut squared).unwrap();
        // Each waits in the queue while the next takes its table to the device.
        let y = backend.upload(shape.clone(), residues).unwrap();
        backend.scale(&mut x, factors).unwrap();
        backend.add_constant(&mut x, factors).unwrap();
        backend.accumulate(&mut x, &y, factors).unwrap();
        [x, squared].map(|x| backend.download(&x).unwrap())
    }
    let basis = small_basis();
    let shape = Shape { limbs: vec![1, 4], values: 9000, components: 2, lanes: 3 };
    let factors = any_residues(&basis, &Shape { components: 1, lanes: 1, ..shape.clone() });
    let residues = any_residues(&basis, &shape);
    let expected = per_channel(&Reference::new(basis.clone()), &shape, &residues, &factors);
    let actual = per_channel(&gpu(adapter, &basis, options()), &shape, &residues, &factors);
    assert!(actual == expected);
}

fn long_divisions(adapter: &Adapter) {
    let basis = Arc::new(RnsBasis::new(N, &ntt_primes(N, 30, 12).unwrap()).unwrap());
    let (gpu, reference) = (gpu(adapter, &basis, options()), Reference::new(basis.clone()));
    let shape = Shape { limbs: (0..12).collect(), values: 1, components: 2, lanes: N };
    let residues: Vec<u32> = (0..shape.len() as u32).map(|i| i.wrapping_mul(0x9e37_79b9) >> 3).collect();
    let dropped: Vec<usize> = (2..12).collect();
    let expected = reference.mod_down(&reference.upload(shape.clone(), &residues).unwrap(), &dropped).unwrap();
    let x = gpu.upload(shape, &residues).unwrap();
    assert!(gpu.download(&gpu.mod_down(&x, &dropped).unwrap()).unwrap() == expected.residues());
    let refused = gpu.convert_basis(&x, &[0]).unwrap_err();
    assert!(matches!(refused, BackendError::Unsupported { .. }), "{refused}");
}

/// Without features, and with less than the kernels need.
fn lesser_adapters(adapter: &Adapter) {
    let without = |adapter: &Adapter| {
        adapter.clone().reduced_for_tests(|_, features| (features.int64, features.timestamps) = (false, false)).unwrap()
    };
    let basis = small_basis();
    let plain = without(adapter);
    let refused = Gpu::new(&plain, basis.clone(), GpuOptions { multiply: Multiply::U64, ..options() }).map(|_| ());
    let Err(GpuError::MissingFeature { feature, .. }) = refused else { panic!("{refused:?}") };
    assert!(feature.contains("64-bit"), "{feature}");
    let gpu = gpu(&plain, &basis, GpuOptions { timings: true, ..options() });
    assert!(gpu.kernels().contains("16-bit products"), "{}", gpu.kernels());
    gpu.zeros(shape_of(1 << 12)).unwrap();
    gpu.synchronise().unwrap();
    assert!(gpu.timings().is_empty());

    let refused = adapter.clone().reduced_for_tests(|limits, _| limits.workgroup_bytes = 8192).map(|_| ()).unwrap_err();
    let GpuError::Unusable { adapter: name, reason } = &refused else { panic!("{refused}") };
    assert!(*name == adapter.info().title() && reason.contains("8192 bytes of workgroup memory"), "{refused}");
}

/// A computation with `after` once its segments are done. Whatever comes of it, no tensor remains.
fn interrupted(adapter: &Adapter, budget: u64, after: impl Fn(&Gpu) + Sync) -> Result<(), RunError> {
    let network = zoo::load("mnist-1-square").unwrap();
    // The smallest ring has no room for key switching.
    let program = plan(&network, &PlanOptions { n: Some(2048), ..PlanOptions::default() }).unwrap().program;
    let client = Client::new(&program, 23);
    let (images, _) = mnist(&network, 100);
    let input = client.encrypt(images.view());
    let gpu = gpu(adapter, client.params().basis(), GpuOptions { memory_budget: budget, ..options() });
    let held = gpu.memory().held;
    let executor = Executor::new(&program, client.params(), gpu, BUDGET).unwrap();
    let watch = |_| after(executor.backend());
    let result = executor.compute(&input, &EvalKeys::default(), Rerandomisation::Omitted, Watch::new(&watch));
    // Linear maps stay for the next computation.
    assert!(executor.backend().memory().held <= held + (4 << 20), "{:?}", executor.backend().memory());
    result.map(|_| ())
}

fn out_of_memory(adapter: &Adapter) {
    let error = interrupted(adapter, 30 << 20, |_| ()).unwrap_err();
    assert!(matches!(error, RunError::Backend(BackendError::OutOfMemory { .. })), "{error}");
}

fn lost_during_a_computation(adapter: &Adapter) {
    let error = interrupted(adapter, BUDGET, Gpu::lose_device_for_tests).unwrap_err();
    assert!(matches!(error, RunError::Backend(BackendError::DeviceLost { .. })), "{error}");
}

fn small_ring(adapter: &Adapter) {
    let params = params_for_tests(N / 2).expect("a supported dimension");
    let refused = Gpu::new(adapter, params.basis().clone(), options()).map(|_| ()).unwrap_err();
    assert_eq!(refused, GpuError::Dimension { n: N / 2, least: N });
}
