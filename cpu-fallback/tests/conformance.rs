//! The CPU backends against each other, and the suite against backends that are wrong.

use cryptodl_core::backend::conformance::{Cause, Check, Failure, Place, compare};
use cryptodl_core::ckks::params_for_tests;
use cryptodl_cpu::{Cpu, Kernels, Reference};
use cryptodl_test_backends::{Fault, Faulty};

fn agrees(kernels: Kernels, n: usize, seed: u64) -> Vec<Check> {
    let params = params_for_tests(n).expect("a supported dimension");
    let (reference, cpu) = (Reference::new(params.basis().clone()), Cpu::with_kernels(params.basis().clone(), kernels));
    compare(&reference, &cpu, seed, &mut |_| ()).unwrap_or_else(|failure| panic!("{}: {failure}", kernels.name()))
}

#[test]
fn all_kernels_return_the_bits_of_the_reference() {
    for kernels in Kernels::available() {
        for (n, seed) in [(16, 1), (64, 2), (1024, 3)] {
            agrees(kernels, n, seed);
        }
    }
}

#[test]
#[ignore = "slow: the full dimensions"]
fn all_kernels_return_the_bits_of_the_reference_at_full_size() {
    for kernels in Kernels::available() {
        for n in [4096, 8192, 65536] {
            agrees(kernels, n, 4);
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| agrees(Kernels::best(), 64, 5));
    }
}

#[test]
fn every_operation_is_compared() {
    let checks = agrees(Kernels::best(), 16, 6);
    let operations = [
        "zeros",
        "upload",
        "copy",
        "unpack",
        "pack",
        "expand",
        "linear",
        "multiply",
        "add_constant",
        "scale",
        "add",
        "accumulate",
        "subtract_scale",
        "accumulate_key",
        "forward_ntt",
        "inverse_ntt",
        "convert_basis",
        "prime_digit",
        "automorphism",
        "slotwise",
        "mod_down",
        "relinearise",
        "rotate",
        "activation",
        "paterson_stockmeyer",
    ];
    for operation in operations {
        assert!(checks.iter().any(|check| check.operation == operation), "{operation} is never compared");
    }
    for check in &checks {
        assert!(operations.contains(&check.operation), "{check} is not in this test's list");
    }
}

/// The failure that the suite reports for a backend with one fault.
fn failure_of(fault: Fault) -> Failure {
    let params = params_for_tests(16).expect("a supported dimension");
    let reference = Reference::new(params.basis().clone());
    let faulty = Faulty { inner: Cpu::new(params.basis().clone()), fault };
    compare(&reference, &faulty, 7, &mut |_| ()).expect_err("the suite passed a wrong backend")
}

#[test]
fn one_wrong_residue_is_found_and_named() {
    let at = Place::Residue { limb: 1, value: 0, component: 1, lane: 0 };
    for (fault, operation) in [
        (Fault::Linear, "linear"),
        (Fault::ForwardNtt, "forward_ntt"),
        (Fault::Slotwise, "slotwise"),
        (Fault::Accumulate, "accumulate"),
    ] {
        let failure = failure_of(fault);
        assert_eq!(failure.check.operation, operation, "{failure}");
        let Cause::Difference { place, expected, actual } = failure.cause else { panic!("{failure}") };
        assert_eq!((place, actual), (at.clone(), expected ^ 1));
    }
}

#[test]
fn accepting_a_residue_beyond_its_prime_is_found() {
    let failure = failure_of(Fault::Unpack);
    assert_eq!(failure.check.operation, "unpack", "{failure}");
    assert_eq!(failure.cause, Cause::Difference { place: Place::Answer, expected: 0, actual: 1 });
}

#[test]
fn a_backend_that_knows_one_channel_only_is_found() {
    let failure = failure_of(Fault::FirstChannel);
    assert_eq!(failure.check.operation, "add_constant", "{failure}");
    assert!(failure.check.case.contains("2 channels"), "{failure}");
    // The first channel has the values 0 to 2 of six.
    assert!(matches!(failure.cause, Cause::Difference { place: Place::Residue { value: 3, .. }, .. }), "{failure}");
}

#[test]
fn a_backend_that_gives_up_is_named() {
    let failure = failure_of(Fault::OutOfMemory);
    assert_eq!(failure.check.operation, "multiply", "{failure}");
    assert!(failure.to_string().contains("no room for 8 more bytes"), "{failure}");
}
