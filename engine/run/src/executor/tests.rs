//! Noise of what is unpacked.

use cryptodl_client::{EncryptionKey, SecretKey, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::ckks::{Randomness, noise};
use cryptodl_cpu::Cpu;
use cryptodl_plan::{PlanOptions, plan};
use cryptodl_program::SplitMix;
use cryptodl_zoo as zoo;

use super::*;

/// What rotations make of a few packed images has the noise by which plans are judged, and all
/// other slots hold pixels of the same images.
fn check_leaves(model: &str) {
    let batch = 1;
    let options = PlanOptions { batch, ..PlanOptions::default() };
    let program = plan(&zoo::load(model).unwrap(), &options).unwrap().program;
    let spec = program.client_spec().check().unwrap();
    let params = spec.params();
    let mut rng = Randomness::insecure_from_seed_for_tests(5, "leaves");
    let secret = SecretKey::generate(params, &mut rng);
    let keys = secret.eval_keys(&spec.evaluation_keys, &mut rng).unwrap();

    let (n, pixels) = (params.n(), program.inputs());
    let [low, high] = program.content.input.range;
    let leaves = program.content.input.packing.of_images(n, batch);
    assert!(!leaves.is_spread(), "{model}");
    let count = leaves.capacity(n);
    let mut random = SplitMix(9);
    let images: Vec<f32> = (0..count * pixels).map(|_| (low + (high - low) * random.unit()) as f32).collect();
    let key = EncryptionKey::Secret(&secret);
    let input = encrypt(&spec, key, &images, count, &mut rng, Watch::default()).unwrap();

    let cpu = Cpu::new(params.basis().clone());
    let executor = Executor::new(&program, params, cpu, 8 << 30).unwrap();
    let keys = executor.expand_keys(&keys).unwrap();
    let info = input.info();
    let computation = executor.begin(&info, &keys, Rerandomisation::Omitted, Watch::default()).unwrap();
    let x = computation.load(&input.sets[0]).unwrap().x;

    let set = (0..2).flat_map(|component| executor.backend.pack(&x, component).unwrap()).collect();
    let spread = CiphertextsInfo { values: pixels, leaves: Leaves::default(), seed: None, ..info };
    let scale = spec.input.encoding().scale;
    let slots =
        decrypt_slots_raw_do_not_return_to_server(params, &secret, &Ciphertexts::new(&spread, vec![set]), scale);
    let slots = &slots.unwrap()[0];
    // Slot `places[image 2^log + r]` of leaf `t` holds leaf `t + r` of the image.
    let (places, many, width) = (leaves.slots(n), 1 << leaves.log, leaves.ciphertexts(pixels));
    let mut power = 0.0;
    for (value, slots) in slots.chunks_exact(n).enumerate() {
        let (leaf, of) = (value / width, value % width);
        for (i, &place) in places.iter().enumerate() {
            let (image, moved) = (i / many, (i + leaf) % many);
            let pixel = moved * width + of;
            let expected =
                if pixel < pixels { images[image * pixels + pixel] } else { 0f32.clamp(low as f32, high as f32) };
            power += (slots[place as usize] - f64::from(expected)).powi(2);
        }
    }
    let measured = (power / slots.len() as f64).sqrt() * scale.value();
    let steps: Vec<usize> = executor.rotations.iter().map(|&(step, _)| step).collect();
    let digits = executor.rotations[0].1.digits();
    let log_digit = digits.log_digit(digits.level, params.basis().modulus(0).bits());
    let log_p = params.special().iter().map(|&limb| f64::from(params.basis().modulus(limb).value()).log2()).sum();
    let rotations =
        noise::rotations(n, leaves.mean_depth(pixels, &steps), digits.digits(digits.level), log_digit, log_p);
    let predicted = noise::fresh_secret(n).plus(rotations).rms;
    let bits = (measured / predicted).log2();
    assert!(bits.abs() < 0.3, "{model}, {count} images: {bits:.2} bits of {predicted:.1}");
}
#[test]
fn leaves_have_the_predicted_noise() {
    ["mnist-1", "secureml"].into_iter().for_each(check_leaves);
}

#[test]
#[ignore = "a minute long"]
fn leaves_of_larger_networks_have_the_predicted_noise() {
    ["mnist-1-square", "cryptonets", "mnist-2"].into_iter().for_each(check_leaves);
}
