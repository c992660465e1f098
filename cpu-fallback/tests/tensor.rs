//! Memory, which both CPU backends share, against its definition residue by residue.

use cryptodl_core::backend::{Shape, Window};
use cryptodl_cpu::{CpuTensor, Place};
use proptest::prelude::*;

/// Two ranges of one length within two axes.
fn ranges(from: usize, to: usize) -> impl Strategy<Value = (std::ops::Range<usize>, std::ops::Range<usize>)> {
    (0..=from.min(to))
        .prop_flat_map(move |len| (0..=from - len, 0..=to - len).prop_map(move |(a, b)| (a..a + len, b..b + len)))
}

/// The residue at one index of the four axes.
fn at(x: &CpuTensor, [limb, value, component, lane]: [usize; 4]) -> u32 {
    x.row(Place { limb, value, component })[lane]
}

fn counting(shape: Shape, first: u32) -> CpuTensor {
    let residues: Vec<u32> = (first..).take(shape.len()).collect();
    CpuTensor::from_residues(shape, &residues).expect("memory is enough")
}

proptest! {
    #[test]
    fn copies_move_windows_and_nothing_else(
        (limbs, to_limbs) in ranges(3, 2),
        (values, to_values) in ranges(4, 5),
        (components, to_components) in ranges(2, 3),
        (lanes, to_lanes) in ranges(7, 6),
    ) {
        let x = counting(Shape { limbs: vec![4, 1, 2], values: 4, components: 2, lanes: 7 }, 0);
        let before = counting(Shape { limbs: vec![0, 3], values: 5, components: 3, lanes: 6 }, 1000);
        let from = Window { limbs, values, components, lanes };
        let to = Window { limbs: to_limbs, values: to_values, components: to_components, lanes: to_lanes };
        let mut after = before.clone();
        x.copy(&from, &mut after, &to);
        let starts = |w: &Window| [w.limbs.start, w.values.start, w.components.start, w.lanes.start];
        for index in 0..before.residues().len() {
            let place = [index / 90, index / 18 % 5, index / 6 % 3, index % 6];
            let offset: [Option<usize>; 4] = std::array::from_fn(|axis| {
                place[axis].checked_sub(starts(&to)[axis]).filter(|offset| *offset < to.extents()[axis])
            });
            let expected = match offset {
                [Some(a), Some(b), Some(c), Some(d)] => {
                    let [e, f, g, h] = starts(&from);
                    at(&x, [a + e, b + f, c + g, d + h])
                }
                _ => at(&before, place),
            };
            prop_assert_eq!(at(&after, place), expected, "at {:?}", place);
        }
    }
}

#[test]
fn absurd_sizes_are_refused_without_an_abort() {
    let shape = Shape { limbs: vec![0; 64], values: 1 << 30, components: 4, lanes: 1 << 16 };
    let refusal = CpuTensor::zeros(shape).expect_err("more memory than any machine has").to_string();
    assert!(refusal.contains("main memory has no room for"), "{refusal}");
}

#[test]
#[should_panic(expected = "windows of a copy")]
fn windows_of_different_extents_panic() {
    let x = counting(Shape { limbs: vec![0], values: 2, components: 1, lanes: 4 }, 0);
    let whole = x.shape().window();
    x.clone().copy(&whole.clone().with_values(0..1), &mut x.clone(), &whole);
}
