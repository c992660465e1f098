//! Expansion of public seeds: known answers and random access.

use cryptodl_core::ckks::{Params, ParamsSpec, SecurityLevel, UniformPurpose};
use cryptodl_core::ring::UniformSource;

/// A prime with many rejected words (12289 of 2^14) and one with few; the parameters of `vectors/uniform.py`.
fn params() -> Params {
    let spec =
        ParamsSpec { n: 16, primes: vec![12289], special_primes: vec![1073738753], security: SecurityLevel::Bits128 };
    spec.build_insecure_for_tests().unwrap()
}

fn source(purpose: UniformPurpose) -> UniformSource {
    purpose.source(&params(), &std::array::from_fn(|i| i as u8))
}

fn fill(purpose: UniformPurpose, object: u32, limb: usize, first: usize, len: usize) -> Vec<u32> {
    let mut out = vec![0; len];
    source(purpose).fill(object, limb as u32, params().basis().modulus(limb), first, &mut out);
    out
}

/// Constants computed by `vectors/uniform.py` from the description alone.
#[test]
fn known_answers() {
    let hex: String = params().digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "0befaca16c08c44122458c92233345adc78c1d65d97c91ecf75bfccc5e12e721");
    assert_eq!(
        fill(UniformPurpose::Ciphertext, 7, 0, 0, 16),
        [9685, 295, 1001, 11044, 11044, 1926, 9089, 5550, 1062, 11766, 7795, 1291, 3101, 562, 1791, 4040]
    );
    assert_eq!(
        fill(UniformPurpose::PublicKey, 0, 1, 0, 16),
        [
            1004966118, 542521295, 986264608, 940158066, 7791619, 661262334, 451189733, 545420868, 1008387801,
            659949947, 935827412, 688067966, 166142225, 84970557, 532372000, 629214509
        ]
    );
    assert_eq!(
        fill(UniformPurpose::RelinKey, 2, 0, 0, 16),
        [2357, 8048, 7106, 10273, 289, 4748, 11238, 364, 10389, 1742, 2222, 3320, 9818, 10381, 8178, 6112]
    );
}

#[test]
fn any_part_equals_that_part_of_the_whole() {
    let whole = fill(UniformPurpose::Ciphertext, 3, 0, 0, 1000);
    assert!(whole.iter().all(|&residue| residue < 12289));
    for (first, len) in [(0, 1), (1, 1), (7, 9), (15, 2), (16, 16), (63, 65), (500, 500), (999, 1), (1000, 0)] {
        assert_eq!(fill(UniformPurpose::Ciphertext, 3, 0, first, len), whole[first..first + len], "from {first}");
    }
}
