//! Compact packings: where automorphisms take the leaves of images, and in which order they are made.

use cryptodl_core::ckks::{Encoder, Leaves, Packing, Scale, ScoreLeaves};

/// Slots of integer coefficients.
fn slots(coefficients: &[f64]) -> Vec<f64> {
    let mut slots = coefficients.to_vec();
    Encoder::new(slots.len()).decode(&mut slots, Scale::new(1.0).unwrap());
    slots
}

/// Coefficients that differ from each other.
fn element(n: usize) -> Vec<f64> {
    (0..n as u32).map(|j| f64::from(j.wrapping_mul(0x9e37_79b9) >> 22)).collect()
}

#[test]
fn leaves_of_all_images_have_every_slot_once() {
    for (n, logs) in [(16, 0..=4), (1024, 0..=10)] {
        for log in logs {
            let mut slots = Leaves { log }.slots(n);
            assert_eq!(slots.len(), n);
            slots.sort_unstable();
            assert!(slots.into_iter().eq(0..n as u32), "N = {n}, 2^{log} leaves");
        }
    }
}

/// Leaf `t` of image `b` lies where the automorphisms of the bits of `t` take it to slot `b`.
#[test]
fn automorphisms_bring_every_leaf_to_its_image() {
    let n = 64;
    for log in 1..=6 {
        let leaves = Leaves { log };
        let places = leaves.slots(n);
        let before = element(n);
        for leaf in 0..1 << log {
            let mut after = before.clone();
            for automorphism in (0..log).map(|i| 1 << i).filter(|bit| leaf & bit > 0).map(|bit| leaves.rotation(n, bit))
            {
                let mut image = vec![0.0; n];
                for (j, &a) in after.iter().enumerate() {
                    let (to, negative) = automorphism.coefficient(j);
                    image[to] = if negative { -a } else { a };
                }
                after = image;
            }
            let (before, after) = (slots(&before), slots(&after));
            for image in 0..leaves.capacity(n) {
                let place = places[(image << log) + leaf] as usize;
                let difference = (after[image] - before[place]).abs();
                assert!(difference < 1e-6, "2^{log} leaves, leaf {leaf} of image {image}");
            }
        }
    }
}

/// A packing with fewer leaves takes some of the automorphisms of one with more.
#[test]
fn smaller_packings_share_automorphisms() {
    let most = Leaves { log: 7 };
    let steps = most.steps(100, 4);
    assert_eq!(steps, [1, 2, 4, 8, 16, 32, 48, 64, 80, 96]);
    for log in 0..=7 {
        let leaves = Leaves { log };
        let (own, shift) = (leaves.steps_of(7, &steps), 7 - log);
        assert!((0..log).all(|i| own.contains(&(1 << i))));
        for step in own {
            assert!(steps.contains(&(step << shift)));
            assert_eq!(leaves.rotation(1024, step), most.rotation(1024, step << shift));
        }
    }
    assert_eq!(Packing::Compact(3).automorphisms(1024), [1, 2, 4].map(|step| Leaves { log: 3 }.rotation(1024, step)));
    assert!(Packing::Spread.automorphisms(1024).is_empty());
}

#[test]
fn images_are_packed_as_tightly_as_all_of_them_fit() {
    let packing = Packing::Compact(5);
    for (images, log) in [(1, 5), (32, 5), (33, 4), (64, 4), (65, 3), (512, 1), (513, 0), (1 << 20, 0)] {
        assert_eq!(packing.of_images(1024, images), Leaves { log }, "{images} images");
        assert_eq!(Packing::Spread.of_images(1024, images), Leaves { log: 0 });
    }
}

/// Every value is made once, from values that have been made before, and by the rotation that its step says.
#[test]
fn stages_make_every_value_from_those_before() {
    for (values, log) in [(784, 10), (784, 3), (784, 9), (1, 1), (5, 2), (36, 4), (3072, 6), (3072, 12)] {
        let leaves = Leaves { log };
        let width = leaves.ciphertexts(values);
        for log_giant in 0..=log {
            // The steps of a packing with twice as many leaves serve as well.
            let larger = Leaves { log: log + 1 };
            let shared = leaves.steps_of(log + 1, &larger.steps(values, log_giant));
            for steps in [leaves.steps(values, log_giant), shared] {
                let mut made: Vec<bool> = (0..values).map(|value| value < width).collect();
                let mut rotations = 0;
                let what = format!("{values} values, 2^{log} leaves, steps {steps:?}");
                for stage in leaves.stages(values, &steps) {
                    assert!(made[stage.from.clone()].iter().all(|&made| made), "{what}");
                    for (step, to) in stage.to {
                        assert!(steps.contains(&step) && !to.is_empty() && to.len() <= stage.from.len());
                        for (value, from) in to.zip(stage.from.clone()) {
                            assert_eq!((value % width, value / width), (from % width, from / width + step));
                            assert!(!std::mem::replace(&mut made[value], true), "{what}: {value} is made twice");
                            rotations += 1;
                        }
                    }
                }
                assert!(made.iter().all(|&made| made), "{what}");
                assert_eq!(rotations, values - width);
            }
        }
    }
    assert!(Leaves { log: 0 }.stages(10, &[]).is_empty());
    // With powers of two alone 784 leaves have 4.65 bits on average, and 272 are read. With multiples of 128 fewer are.
    let leaves = Leaves { log: 10 };
    let read = |steps: &[usize]| leaves.stages(784, steps).iter().map(|stage| stage.from.len()).sum::<usize>();
    let (powers, giant) = (leaves.steps(784, 10), leaves.steps(784, 7));
    assert_eq!((powers.len(), read(&powers)), (10, 272));
    assert_eq!((giant.len(), read(&giant)), (13, 128));
    let depth = leaves.mean_depth(784, &powers);
    assert!((depth - 4.65).abs() < 0.01, "{depth}");
    assert!(leaves.mean_depth(784, &giant) < depth);
    assert_eq!(Leaves { log: 0 }.mean_depth(784, &[]), 0.0);
}

/// What sums of several scores have in the slots of an image's copies gives each of them back, whatever other slots hold.
#[test]
fn sums_of_scores_come_apart() {
    let n = 64;
    for log in 0..=4 {
        let leaves = ScoreLeaves { log };
        let factors: Vec<Vec<f64>> = (0..1 << log)
            .map(|part| slots(&leaves.factor(n, part).into_iter().map(f64::from).collect::<Vec<f64>>()))
            .collect();
        let score = |image: usize, part: usize| ((image * 31 + part * 7) as f64).sin();
        let image_of = |slot: usize| slot >> log;
        let sum: Vec<f64> = (0..n)
            .map(|slot| factors.iter().enumerate().map(|(part, f)| f[slot] * score(image_of(slot), part)).sum())
            .collect();
        for image in 0..n >> log {
            for part in 0..1 << log {
                let found = leaves.part(image, part, &sum[leaves.slots(image)]);
                assert!((found - score(image, part)).abs() < 1e-9, "2^{log} parts: part {part} of image {image}");
            }
        }
        // The mean squares of factors in the slots of copies: 1 and 2.
        for (part, factor) in factors.iter().enumerate() {
            let square: f64 = factor[leaves.slots(1)].iter().map(|x| x * x).sum::<f64>() / (1 << log) as f64;
            assert!((square - if part == 0 { 1.0 } else { 2.0 }).abs() < 1e-9);
        }
    }
}

#[test]
fn images_are_sent_as_often_as_there_is_room() {
    let packing = Packing::Compact(2);
    for (log, images, copies) in [(10, 1, 2), (10, 2, 1), (10, 3, 0), (10, 4, 0), (9, 5, 0), (8, 4, 2), (0, 3, 0)] {
        assert_eq!(packing.of_scores(4096, Leaves { log }, images).log, copies, "{images} images, 2^{log} leaves");
        assert_eq!(Packing::Spread.of_scores(4096, Leaves { log }, images).log, 0);
    }
    assert_eq!([0, 1, 2, 4].map(|log| ScoreLeaves { log }.ciphertexts(10)), [10, 5, 3, 1]);
}
