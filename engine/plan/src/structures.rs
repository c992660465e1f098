//! Which discrete shapes a schedule may have: the factorisation of each branch, and the maintenance
//! of each product.

use std::collections::HashSet;

use cryptodl_core::backend::Maintenance;
use cryptodl_core::ckks::MAX_COMPONENTS;

use super::lowered::Lowered;
use super::options::{PlanOptions, ScheduleKind};
use super::schedule::Structure;
use super::steps::Steps;
use cryptodl_program::Arrangement;

/// Structures beyond this number are searched activation by activation instead of all together.
const MAX_STRUCTURES: usize = 2048;
/// Pairs of choices for neighbouring activations that are tried together.
const MAX_PAIRS: usize = 64;
/// Choices for one activation that are all tried; of more, the search goes from one to those that differ in two neighbouring
/// products.
const MAX_CHOICES: usize = 1024;
/// Primes that a product may be divided by at once. A square doubles the bits of the scale, weights
/// add to it, and by one prime a product a deep network would only bear small scales from its first
/// step on.
const MOST_DROPPED: usize = 2;
/// The same where noise is hidden: scales that leave room for a flood are several primes large.
const PRIVATE_DROP: usize = 4;

/// Primes that a product may be divided by at once.
pub fn most_dropped(options: &PlanOptions) -> usize {
    if options.circuit_privacy.is_some() { PRIVATE_DROP } else { MOST_DROPPED }
}

/// What may follow one product.
fn product_maintenance(most_dropped: usize) -> Vec<Maintenance> {
    let with = |relinearise| (0..=most_dropped).map(move |drop| Maintenance { relinearise, drop });
    with(false).chain(with(true)).collect()
}

/// What may follow the products of an activation. Horner's rule with more products than the other arrangement is worth its while
/// only where it stays slot-wise.
fn activation_maintenance(degree: usize, most_dropped: usize) -> Vec<Vec<Maintenance>> {
    let all =
        |arrangement: Arrangement| combinations(vec![product_maintenance(most_dropped); arrangement.products(degree)]);
    match Arrangement::of_degree(degree) {
        [only] => all(*only),
        [horner, rest @ ..] => {
            let lazy = vec![Maintenance::default(); horner.products(degree)];
            std::iter::once(lazy).chain(rest.iter().flat_map(|&arrangement| all(arrangement))).collect()
        }
        [] => unreachable!("every degree has an arrangement"),
    }
}

/// What follows the products of an activation (or of every activation alike).
#[derive(Clone, PartialEq)]
struct Choice<M = Vec<Maintenance>> {
    maintenance: M,
    /// Whether the last of it waits until after the next maps.
    deferred: bool,
}

fn activation_choices(degree: usize, most_dropped: usize) -> Vec<Choice> {
    choices(activation_maintenance(degree, most_dropped))
}

fn choices(all: Vec<Vec<Maintenance>>) -> Vec<Choice> {
    let acts = |maintenance: &Vec<Maintenance>| maintenance.last().is_some_and(|last| last.acts());
    also_deferred(all.into_iter(), acts).collect()
}

/// Number of [`activation_choices`].
fn count_choices(degree: usize, most_dropped: usize) -> usize {
    let each = product_maintenance(most_dropped).len();
    // All, and again those whose last product has something to defer.
    let all = |arrangement: &Arrangement| {
        let products = arrangement.products(degree) as u32;
        let at_once = each.saturating_pow(products);
        at_once.saturating_add(at_once - each.saturating_pow(products - 1))
    };
    match Arrangement::of_degree(degree) {
        [only] => all(only),
        [_, rest @ ..] => rest.iter().map(all).fold(1, usize::saturating_add),
        [] => 0,
    }
}

/// What the search tries for an activation after `current`: everything where that is little, else what differs from it in up to
/// two neighbouring products.
fn choices_near(degree: usize, most_dropped: usize, current: &[Maintenance]) -> Vec<Choice> {
    if count_choices(degree, most_dropped) <= MAX_CHOICES {
        return activation_choices(degree, most_dropped);
    }
    let of_one = product_maintenance(most_dropped);
    let mut near = vec![current.to_vec()];
    // Without relinearisation or rescaling Horner's rule stays slot-wise, whatever is there now.
    let [horner, ..] = Arrangement::of_degree(degree) else { unreachable!("every degree has an arrangement") };
    near.push(vec![Maintenance::default(); horner.products(degree)]);
    for at in 0..current.len() {
        for &first in &of_one {
            for &second in of_one.iter().filter(|_| at + 1 < current.len()) {
                let mut next = current.to_vec();
                (next[at], next[at + 1]) = (first, second);
                near.push(next);
            }
            let mut next = current.to_vec();
            next[at] = first;
            near.push(next);
        }
    }
    choices(near)
}

/// Each at once, and again deferred where there is something to defer.
fn also_deferred<M: Clone>(all: impl Iterator<Item = M>, acts: impl Fn(&M) -> bool) -> impl Iterator<Item = Choice<M>> {
    all.flat_map(move |maintenance| {
        let later = acts(&maintenance).then(|| Choice { maintenance: maintenance.clone(), deferred: true });
        std::iter::once(Choice { maintenance, deferred: false }).chain(later)
    })
}

/// Whether relinearisations take three components, no step carries too many, and only what has one
/// reader is deferred.
fn consistent(network: &Lowered, structure: &Structure) -> bool {
    let activations = network.stages.iter().enumerate().filter(|(_, stage)| stage.activation.is_some());
    let shared = activations.zip(&structure.deferred).any(|((i, _), &deferred)| deferred && network.readers[i + 1] > 1);
    if shared {
        return false;
    }
    let mut fits = true;
    Steps::new(network, structure).ciphertext_shapes(network, structure.drops() + 1, |_, products, maintenance| {
        fits &= products.iter().zip(maintenance).all(|(product, maintenance)| {
            let components = product.shape().components;
            components <= MAX_COMPONENTS && (!maintenance.relinearise || components == 3)
        });
    });
    fits
}

pub fn degrees(network: &Lowered) -> Vec<usize> {
    network.stages.iter().filter_map(|stage| stage.activation.as_ref()).map(|a| a.degree()).collect()
}

pub fn too_many(network: &Lowered, most_dropped: usize) -> bool {
    let factorisations = (0..network.branches.len()).map(|branch| network.count_factorisations(branch));
    let choices = degrees(network).into_iter().map(|degree| count_choices(degree, most_dropped));
    factorisations
        .chain(choices)
        .try_fold(1usize, |product, n| product.checked_mul(n))
        .is_none_or(|n| n > MAX_STRUCTURES)
}

/// The structures to start from.
pub fn structures(network: &Lowered, kind: ScheduleKind, most_dropped: usize) -> Vec<Structure> {
    let finest: Vec<Vec<usize>> =
        (0..network.branches.len()).map(|branch| vec![1; network.maps(branch).len()]).collect();
    let degrees = degrees(network);
    // In the arrangement with the fewest products.
    let fewest = |degree| Arrangement::of_degree(degree).iter().map(|a| a.products(degree)).min().unwrap_or(0);
    let uniform = |each: Maintenance| degrees.iter().map(|&degree| vec![each; fewest(degree)]).collect::<Vec<_>>();
    let relinearised = Maintenance { relinearise: true, drop: 1 };
    if kind == ScheduleKind::Layered {
        let deferred = vec![false; degrees.len()];
        return vec![Structure { factors: finest, maintenance: uniform(relinearised), deferred }];
    }
    let all = if too_many(network, most_dropped) {
        let factors: Vec<_> =
            (0..network.branches.len()).map(|branch| network.cheapest_factorisation(branch)).collect();
        let structure = |maintenance, deferred| Structure {
            factors: factors.clone(),
            maintenance,
            deferred: vec![deferred; degrees.len()],
        };
        let alike = also_deferred(product_maintenance(most_dropped).into_iter(), |each| each.acts());
        let even = alike.map(|Choice { maintenance, deferred }| structure(uniform(maintenance), deferred));
        // Several primes at once are a coarse step, so the products share quarters of a prime as evenly as they go.
        let shared = |quarters: usize| {
            let mut ends = (0..).map(|product| product * quarters / 4);
            let mut before = ends.next().unwrap_or(0);
            let mut next = || {
                let end = ends.next().unwrap_or(before);
                Maintenance { relinearise: true, drop: end - std::mem::replace(&mut before, end) }
            };
            degrees.iter().map(|&degree| (0..fewest(degree)).map(|_| next()).collect()).collect()
        };
        let quarters = (5..4 * most_dropped).filter(|quarters| !quarters.is_multiple_of(4));
        even.chain(quarters.map(|quarters| structure(shared(quarters), true))).collect::<Vec<_>>()
    } else {
        let choices = combinations(degrees.iter().map(|&degree| activation_choices(degree, most_dropped)).collect());
        let factors = combinations((0..network.branches.len()).map(|branch| network.factorisations(branch)).collect());
        let pair = |factors: &Vec<Vec<usize>>| {
            let factors = factors.clone();
            let structure = move |choices: &Vec<Choice>| Structure {
                factors: factors.clone(),
                maintenance: choices.iter().map(|choice| choice.maintenance.clone()).collect(),
                deferred: choices.iter().map(|choice| choice.deferred).collect(),
            };
            choices.iter().map(structure).collect::<Vec<_>>()
        };
        factors.iter().flat_map(pair).collect::<Vec<_>>()
    };
    all.into_iter().filter(|structure| consistent(network, structure)).collect()
}

/// Structures that differ from `structure` in one stage, or in the activations of two neighbouring stages.
pub fn neighbours(network: &Lowered, structure: &Structure, most_dropped: usize) -> Vec<Structure> {
    let mut all = vec![structure.clone()];
    for branch in 0..network.branches.len() {
        for counts in network.factorisations_near(branch, &structure.factors[branch]) {
            let mut next = structure.clone();
            next.factors[branch] = counts;
            all.push(next);
        }
    }
    let degrees = degrees(network);
    let near = |(&degree, current): (&usize, &Vec<Maintenance>)| choices_near(degree, most_dropped, current);
    let choices: Vec<_> = degrees.iter().zip(&structure.maintenance).map(near).collect();
    for (i, first) in choices.iter().enumerate() {
        let second = choices.get(i + 1).map_or(&[][..], Vec::as_slice);
        for choice in first {
            let with = |mut structure: Structure, i: usize, choice: &Choice| {
                structure.maintenance[i].clone_from(&choice.maintenance);
                structure.deferred[i] = choice.deferred;
                structure
            };
            let next = with(structure.clone(), i, choice);
            // Both at once only where that is few.
            let pairs = if first.len() * second.len() <= MAX_PAIRS { second } else { &[] };
            for other in pairs {
                all.push(with(next.clone(), i + 1, other));
            }
            all.push(next);
        }
    }
    all.retain(|structure| consistent(network, structure));
    let mut met = HashSet::new();
    all.retain(|structure| met.insert(structure.clone()));
    all
}

/// Every way to take one element of each list.
fn combinations<T: Clone>(lists: Vec<Vec<T>>) -> Vec<Vec<T>> {
    lists.into_iter().fold(vec![Vec::new()], |prefixes, list| {
        let extend = |prefix: &Vec<T>| {
            let prefix = prefix.clone();
            list.iter().map(move |item| [&prefix[..], std::slice::from_ref(item)].concat()).collect::<Vec<_>>()
        };
        prefixes.iter().flat_map(extend).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_counted_without_listing_them() {
        for (degree, most_dropped) in [(2, 1), (3, 1), (4, 1), (5, 1), (8, 1), (2, 4), (3, 4), (6, 4)] {
            let listed = activation_choices(degree, most_dropped).len();
            assert_eq!(count_choices(degree, most_dropped), listed, "degree {degree}, up to {most_dropped} primes");
        }
        assert!(count_choices(8, 4) > MAX_CHOICES);
        let current = vec![Maintenance { relinearise: true, drop: 1 }; 4];
        let near = choices_near(8, 4, &current);
        assert!(
            near.len() <= MAX_CHOICES && near.contains(&Choice { maintenance: current, deferred: false }),
            "{}",
            near.len()
        );
    }
}
