//! The steps of a schedule with their operands. Every pass over a schedule follows this one list: levels and components, scales and
//! noise, operations, and the Program.

use cryptodl_core::backend::ProductPlan;

use super::lowered::{Factor, Lowered};
use super::schedule::Structure;
use cryptodl_program::{Arrangement, Product};

/// Steps in an order in which each comes after what it takes. Value 0 is the input, and value `i + 1` is the result of step `i`.
#[derive(Clone, Debug)]
pub struct Steps(pub Vec<Step>);

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Values that it takes, one for every term of a linear step, else one.
    pub operands: Vec<usize>,
    /// The stage that it is part of.
    pub stage: usize,
    /// The place of its result.
    pub place: usize,
    /// Whether it is the network's last linear step.
    pub makes_scores: bool,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// The sum of linear maps of the operands.
    Linear(Vec<Term>),
    /// What waited until after the stage's maps.
    Reduction(ProductPlan),
    /// The stage's activation, and what follows each of its products at once.
    Activation(Vec<ProductPlan>),
}

/// One map of a linear step: merged base maps of a run.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The run.
    pub run: usize,
    /// First base map.
    pub first: usize,
    /// Number of base maps.
    pub count: usize,
    /// Its number among all factors.
    pub factor: usize,
    /// The place of its own result.
    pub place: usize,
}

impl Term {
    /// The merged map.
    pub fn of<'a>(&self, network: &'a Lowered) -> &'a Factor {
        network.factor(self.run, self.first, self.count).expect("structures use factors that exist")
    }
}

/// Limbs and components of a value.
pub type Extent = (usize, usize);

impl Steps {
    /// Of a structure.
    pub fn new(network: &Lowered, structure: &Structure) -> Self {
        let places = network.gains.places();
        let mut steps: Vec<Step> = Vec::new();
        // By variable, its value and what waits.
        let mut variables: Vec<(usize, Option<ProductPlan>)> = vec![(0, None)];
        let (mut run, mut factor, mut activation) = (0, 0, 0);
        for (i, stage) in network.stages.iter().enumerate() {
            let (mut terms, mut operands) = (Vec::new(), Vec::new());
            let mut waiting: Option<ProductPlan> = None;
            for (k, operand) in stage.operands.iter().enumerate() {
                let (mut value, later) = variables[operand.variable];
                waiting = match (waiting, later) {
                    (Some(a), Some(b)) => {
                        let relinearise = a.relinearise || b.relinearise;
                        Some(ProductPlan { relinearise, drop: a.drop.max(b.drop) })
                    }
                    (a, b) => a.or(b),
                };
                let mut first = 0;
                let counts = &structure.factors[run];
                for (at, &count) in counts.iter().enumerate() {
                    let place = places.after_map(i, k, first + count);
                    let term = Term { run, first, count, factor, place };
                    (first, factor) = (first + count, factor + 1);
                    if at + 1 == counts.len() {
                        terms.push(term);
                        operands.push(value);
                    } else {
                        let kind = StepKind::Linear(vec![term]);
                        steps.push(Step { kind, operands: vec![value], stage: i, place, makes_scores: false });
                        value = steps.len();
                    }
                }
                run += 1;
            }
            let (place, makes_scores) = (places.sum(i), i + 1 == network.stages.len());
            steps.push(Step { kind: StepKind::Linear(terms), operands, stage: i, place, makes_scores });
            if let Some(plan) = waiting {
                let (kind, operands) = (StepKind::Reduction(plan), vec![steps.len()]);
                steps.push(Step { kind, operands, stage: i, place, makes_scores: false });
            }
            let mut later = None;
            if stage.activation.is_some() {
                let (plans, waits) = structure.plans(activation);
                (later, activation) = (waits, activation + 1);
                let (kind, operands) = (StepKind::Activation(plans), vec![steps.len()]);
                let place = places.variable(i + 1);
                steps.push(Step { kind, operands, stage: i, place, makes_scores: false });
            }
            variables.push((steps.len(), later));
        }
        Steps(steps)
    }

    /// Limbs and components of every value, from the input's limbs; the products of activations on the way are shown to `products`,
    /// with what follows each.
    pub fn extents(
        &self,
        network: &Lowered,
        level: usize,
        mut products: impl FnMut(usize, &[Product], &[ProductPlan]),
    ) -> Vec<Extent> {
        let mut extents = vec![(level, 2)];
        for (i, step) in self.0.iter().enumerate() {
            let before = self.operand_extent(i, &extents);
            extents.push(match &step.kind {
                StepKind::Linear(_) => before,
                StepKind::Reduction(plan) => {
                    products(i, &[Product { level: before.0, operands: [before.1, 1] }], &[*plan]);
                    plan.result(before.0, before.1)
                }
                StepKind::Activation(plans) => {
                    let degree = network.stages[step.stage].activation.as_ref().map_or(0, |a| a.degree());
                    let arrangement = Arrangement::with_products(degree, plans.len());
                    let (all, after) = arrangement.trace(degree, plans, before.0, before.1);
                    products(i, &all, plans);
                    after
                }
            });
        }
        extents
    }

    /// What the operands of a step have in common: a branch with more limbs drops the last ones, and missing components are zero.
    pub fn operand_extent(&self, step: usize, extents: &[Extent]) -> Extent {
        let operands = self.0[step].operands.iter().map(|&value| extents[value]);
        let common = |a: Extent, b: Extent| (a.0.min(b.0), a.1.max(b.1));
        operands.reduce(common).expect("a step has an operand")
    }
}
