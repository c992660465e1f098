//! The encoder against its definition.

use std::f64::consts::PI;

use cryptodl_core::ckks::{Encoder, Scale};

fn slots(n: usize) -> Vec<f64> {
    (0..n as u32).map(|i| f64::from(i.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX) - 0.5).collect()
}

/// `v_k = a_0 + 2 sum_(0<j<N) a_j cos(pi j (2k+1) / (2N))`.
fn decode_naively(coefficients: &[f64], scale: f64) -> Vec<f64> {
    let n = coefficients.len();
    let slot = |k: usize| {
        let angle = |j: usize| PI * (j * (2 * k + 1) % (4 * n)) as f64 / (2 * n) as f64;
        let series: f64 = (1..n).map(|j| coefficients[j] * angle(j).cos()).sum();
        (coefficients[0] + 2.0 * series) / scale
    };
    (0..n).map(slot).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn decode_is_the_cosine_series() {
    let (n, scale) = (256, Scale::new(1000.0).unwrap());
    let coefficients: Vec<f64> = slots(n).iter().map(|v| (v * 1e6).round()).collect();
    let mut decoded = coefficients.clone();
    Encoder::new(n).decode(&mut decoded, scale);
    assert!(largest_difference(&decoded, &decode_naively(&coefficients, 1000.0)) < 1e-8);
}

#[test]
fn encode_then_decode_leaves_only_the_rounding() {
    for n in [16, 1024, 8192] {
        for log2 in [14.0, 30.0] {
            let (scale, values) = (Scale::from_log2(log2), slots(n));
            let mut encoded = values.clone();
            let encoder = Encoder::new(n);
            encoder.encode(&mut encoded, scale);
            assert!(encoded.iter().all(|c| c.fract() == 0.0), "integers");
            encoder.decode(&mut encoded, scale);
            // A rounding of variance 1/12 per coefficient is one of N/6 per slot; six deviations.
            let bound = 6.0 * (n as f64 / 6.0).sqrt() / scale.value() + 1e-12;
            let error = largest_difference(&encoded, &values);
            assert!(error < bound, "N = {n}, scale 2^{log2}: {error} > {bound}");
        }
    }
}

#[test]
fn a_product_of_elements_is_the_product_of_slots() {
    // X^i + X^-i times X^j + X^-j is X^(i+j) + X^-(i+j) + X^(i-j) + X^-(i-j): cosines multiply in the same way.
    let (n, one) = (64, Scale::new(1.0).unwrap());
    let basis = |j: usize| {
        let mut element = vec![0.0; n];
        element[j] = 1.0;
        Encoder::new(n).decode(&mut element, one);
        element
    };
    let product: Vec<f64> = basis(5).iter().zip(basis(9)).map(|(a, b)| a * b).collect();
    let sum: Vec<f64> = basis(14).iter().zip(basis(4)).map(|(a, b)| a + b).collect();
    assert!(largest_difference(&product, &sum) < 1e-12);
}
