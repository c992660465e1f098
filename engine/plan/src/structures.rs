//! Which discrete shapes a schedule may have: the factorisation of each linear run, and what follows each product.

use std::collections::HashSet;

use cryptodl_core::backend::ProductPlan;
use cryptodl_core::ckks::MAX_COMPONENTS;

use super::lowered::Lowered;
use super::options::{PlanOptions, ScheduleKind};
use super::schedule::Structure;
use super::steps::Steps;
use cryptodl_program::Arrangement;

/// Structures beyond this number are searched activation by activation instead of all together.
const MAX_STRUCTURES: usize = 2048;
/// Pairs of plans of neighbouring activations that are tried together.
const MAX_PAIRS: usize = 64;
/// Choices for one activation that are all tried; of more, the search goes from one to those that differ in two neighbouring
/// products.
const MAX_CHOICES: usize = 1024;
/// Primes that a product may be divided by at once where noise is hidden.
const PRIVATE_DROP: usize = 4;

/// Primes that a product may be divided by at once.
pub fn most_dropped(options: &PlanOptions) -> usize {
    // Scales that leave room for a flood are several primes large.
    if options.circuit_privacy.is_some() { PRIVATE_DROP } else { 1 }
}

/// What may follow one product.
fn product_plans(most_dropped: usize) -> Vec<ProductPlan> {
    let plans = |relinearise| (0..=most_dropped).map(move |drop| ProductPlan { relinearise, drop });
    plans(false).chain(plans(true)).collect()
}

/// What may follow the products of an activation. Horner's rule with more products than the other arrangement is worth its while
/// only where it stays slot-wise.
fn activation_plans(degree: usize, most_dropped: usize) -> Vec<Vec<ProductPlan>> {
    let all = |arrangement: Arrangement| combinations(vec![product_plans(most_dropped); arrangement.products(degree)]);
    match Arrangement::of_degree(degree) {
        [only] => all(*only),
        [horner, rest @ ..] => {
            let lazy = vec![ProductPlan::default(); horner.products(degree)];
            std::iter::once(lazy).chain(rest.iter().flat_map(|&arrangement| all(arrangement))).collect()
        }
        [] => unreachable!("every degree has an arrangement"),
    }
}

/// What follows the products of an activation, and whether the last of it waits until after the next maps.
type Choice = (Vec<ProductPlan>, bool);

fn activation_choices(degree: usize, most_dropped: usize) -> Vec<Choice> {
    choices(activation_plans(degree, most_dropped))
}

fn choices(plans: Vec<Vec<ProductPlan>>) -> Vec<Choice> {
    let acts = |plans: &Vec<ProductPlan>| plans.last().is_some_and(|plan| plan.acts());
    waits(plans.into_iter(), acts).collect()
}

/// Number of [`activation_choices`].
fn count_choices(degree: usize, most_dropped: usize) -> usize {
    let each = product_plans(most_dropped).len();
    // Every plan, and again those whose last product has something to wait.
    let all = |arrangement: &Arrangement| {
        let products = arrangement.products(degree) as u32;
        let plans = each.saturating_pow(products);
        plans.saturating_add(plans - each.saturating_pow(products - 1))
    };
    match Arrangement::of_degree(degree) {
        [only] => all(only),
        [_, rest @ ..] => rest.iter().map(all).fold(1, usize::saturating_add),
        [] => 0,
    }
}

/// What the search tries for an activation after `current`: everything where that is little, else what differs from it in up to
/// two neighbouring products.
fn choices_near(degree: usize, most_dropped: usize, current: &[ProductPlan]) -> Vec<Choice> {
    if count_choices(degree, most_dropped) <= MAX_CHOICES {
        return activation_choices(degree, most_dropped);
    }
    let of_one = product_plans(most_dropped);
    let mut plans = vec![current.to_vec()];
    // Without relinearisation or rescaling Horner's rule stays slot-wise, whatever is there now.
    let [horner, ..] = Arrangement::of_degree(degree) else { unreachable!("every degree has an arrangement") };
    plans.push(vec![ProductPlan::default(); horner.products(degree)]);
    for at in 0..current.len() {
        for &first in &of_one {
            for &second in of_one.iter().filter(|_| at + 1 < current.len()) {
                let mut next = current.to_vec();
                (next[at], next[at + 1]) = (first, second);
                plans.push(next);
            }
            let mut next = current.to_vec();
            next[at] = first;
            plans.push(next);
        }
    }
    choices(plans)
}

/// Each plan at once, and again waiting where there is something to wait.
fn waits<P: Clone>(plans: impl Iterator<Item = P>, acts: impl Fn(&P) -> bool) -> impl Iterator<Item = (P, bool)> {
    plans.flat_map(move |plan| {
        let later = acts(&plan).then(|| (plan.clone(), true));
        std::iter::once((plan, false)).chain(later)
    })
}

/// Whether relinearisations take three components, no step carries too many, and only what has one reader waits.
fn consistent(network: &Lowered, structure: &Structure) -> bool {
    let activations = network.stages.iter().enumerate().filter(|(_, stage)| stage.activation.is_some());
    let shared = activations.zip(&structure.deferred).any(|((i, _), &waits)| waits && network.readers[i + 1] > 1);
    if shared {
        return false;
    }
    let mut fits = true;
    Steps::new(network, structure).extents(network, structure.drops() + 1, |_, products, plans| {
        fits &= products.iter().zip(plans).all(|(product, plan)| {
            product.components() <= MAX_COMPONENTS && (!plan.relinearise || product.components() == 3)
        });
    });
    fits
}

pub fn degrees(network: &Lowered) -> Vec<usize> {
    network.stages.iter().filter_map(|stage| stage.activation.as_ref()).map(|a| a.degree()).collect()
}

pub fn too_many(network: &Lowered, most_dropped: usize) -> bool {
    let factorisations = (0..network.runs.len()).map(|run| network.count_factorisations(run));
    let plans = degrees(network).into_iter().map(|degree| count_choices(degree, most_dropped));
    factorisations.chain(plans).try_fold(1usize, |product, n| product.checked_mul(n)).is_none_or(|n| n > MAX_STRUCTURES)
}

/// The structures to start from.
pub fn structures(network: &Lowered, kind: ScheduleKind, most_dropped: usize) -> Vec<Structure> {
    let finest: Vec<Vec<usize>> = (0..network.runs.len()).map(|run| vec![1; network.run(run).len()]).collect();
    let degrees = degrees(network);
    // In the arrangement with the fewest products.
    let fewest = |degree| Arrangement::of_degree(degree).iter().map(|a| a.products(degree)).min().unwrap_or(0);
    let uniform = |plan: ProductPlan| degrees.iter().map(|&degree| vec![plan; fewest(degree)]).collect::<Vec<_>>();
    let relinearised = ProductPlan { relinearise: true, drop: 1 };
    if kind == ScheduleKind::Layered {
        let deferred = vec![false; degrees.len()];
        return vec![Structure { factors: finest, products: uniform(relinearised), deferred }];
    }
    let all = if too_many(network, most_dropped) {
        let factors: Vec<_> = (0..network.runs.len()).map(|run| network.cheapest_factorisation(run)).collect();
        let structure = |products, deferred| Structure {
            factors: factors.clone(),
            products,
            deferred: vec![deferred; degrees.len()],
        };
        let plans = waits(product_plans(most_dropped).into_iter(), |plan| plan.acts());
        let even = plans.map(|(plan, deferred)| structure(uniform(plan), deferred));
        // Several primes at once are a coarse step, so the products share quarters of a prime as evenly as they go.
        let shared = |quarters: usize| {
            let mut ends = (0..).map(|product| product * quarters / 4);
            let mut before = ends.next().unwrap_or(0);
            let mut next = || {
                let end = ends.next().unwrap_or(before);
                ProductPlan { relinearise: true, drop: end - std::mem::replace(&mut before, end) }
            };
            degrees.iter().map(|&degree| (0..fewest(degree)).map(|_| next()).collect()).collect()
        };
        let quarters = (5..4 * most_dropped).filter(|quarters| !quarters.is_multiple_of(4));
        even.chain(quarters.map(|quarters| structure(shared(quarters), true))).collect::<Vec<_>>()
    } else {
        let choices = combinations(degrees.iter().map(|&degree| activation_choices(degree, most_dropped)).collect());
        let factors = combinations((0..network.runs.len()).map(|run| network.factorisations(run)).collect());
        let pair = |factors: &Vec<Vec<usize>>| {
            let factors = factors.clone();
            let structure = move |choices: &Vec<Choice>| {
                let (products, deferred) = choices.iter().cloned().unzip();
                Structure { factors: factors.clone(), products, deferred }
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
    for run in 0..network.runs.len() {
        for counts in network.factorisations_near(run, &structure.factors[run]) {
            let mut next = structure.clone();
            next.factors[run] = counts;
            all.push(next);
        }
    }
    let degrees = degrees(network);
    let near = |(&degree, current): (&usize, &Vec<ProductPlan>)| choices_near(degree, most_dropped, current);
    let plans: Vec<_> = degrees.iter().zip(&structure.products).map(near).collect();
    for (i, first) in plans.iter().enumerate() {
        let second = plans.get(i + 1).map_or(&[][..], Vec::as_slice);
        for plan in first {
            let with = |mut structure: Structure, i: usize, (plans, deferred): &Choice| {
                structure.products[i].clone_from(plans);
                structure.deferred[i] = *deferred;
                structure
            };
            let next = with(structure.clone(), i, plan);
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
        let current = vec![ProductPlan { relinearise: true, drop: 1 }; 4];
        let near = choices_near(8, 4, &current);
        assert!(near.len() <= MAX_CHOICES && near.contains(&(current, false)), "{}", near.len());
    }
}
