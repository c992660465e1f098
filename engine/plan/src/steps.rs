//! The steps of a schedule with their operands. Every pass over a schedule follows this one list: levels and components, scales and
//! noise, operations, and the Program.

use cryptodl_core::backend::{CiphertextShape, Maintenance};

use super::lowered::{Factor, Lowered};
use super::normalise::BranchId;
use super::schedule::Structure;
use cryptodl_program::{Arrangement, Product, ProductTrace};

/// Steps in an order in which each comes after what it takes. Tensor 0 is the input, and tensor
/// `i + 1` is the result of step `i`.
#[derive(Clone, Debug)]
pub struct Steps(pub Vec<Step>);

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Tensors that it takes, one for every term of a linear step, else one.
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
    /// Maintenance that was deferred until after the stage's maps.
    Maintenance(Maintenance),
    /// The stage's activation, and what follows each of its products at once.
    Activation(Vec<Maintenance>),
}

/// One map of a linear step: merged base maps of a branch.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The branch.
    pub branch: usize,
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
        network.factor(self.branch, self.first, self.count).expect("structures use factors that exist")
    }
}

/// What later stages take of a variable.
#[derive(Clone, Copy)]
struct Variable {
    tensor: usize,
    deferred: Option<Maintenance>,
}

impl Steps {
    /// Of a structure.
    pub fn new(network: &Lowered, structure: &Structure) -> Self {
        let places = network.gains.places();
        let mut steps: Vec<Step> = Vec::new();
        let mut variables = vec![Variable { tensor: 0, deferred: None }];
        let (mut branch, mut factor, mut activation) = (0, 0, 0);
        for (i, stage) in network.stages.iter().enumerate() {
            let (mut terms, mut operands) = (Vec::new(), Vec::new());
            let mut deferred: Option<Maintenance> = None;
            for (index, taken) in stage.branches.iter().enumerate() {
                let Variable { mut tensor, deferred: of_operand } = variables[taken.variable];
                deferred = match (deferred, of_operand) {
                    (Some(a), Some(b)) => {
                        let relinearise = a.relinearise || b.relinearise;
                        Some(Maintenance { relinearise, drop: a.drop.max(b.drop) })
                    }
                    (a, b) => a.or(b),
                };
                let mut first = 0;
                let counts = &structure.factors[branch];
                for (at, &count) in counts.iter().enumerate() {
                    let place = places.after_map(BranchId { stage: i, index }, first + count);
                    let term = Term { branch, first, count, factor, place };
                    (first, factor) = (first + count, factor + 1);
                    if at + 1 == counts.len() {
                        terms.push(term);
                        operands.push(tensor);
                    } else {
                        let kind = StepKind::Linear(vec![term]);
                        steps.push(Step { kind, operands: vec![tensor], stage: i, place, makes_scores: false });
                        tensor = steps.len();
                    }
                }
                branch += 1;
            }
            let (place, makes_scores) = (places.sum(i), i + 1 == network.stages.len());
            steps.push(Step { kind: StepKind::Linear(terms), operands, stage: i, place, makes_scores });
            if let Some(maintenance) = deferred {
                let (kind, operands) = (StepKind::Maintenance(maintenance), vec![steps.len()]);
                steps.push(Step { kind, operands, stage: i, place, makes_scores: false });
            }
            let mut deferred = None;
            if stage.activation.is_some() {
                let planned = structure.activation(activation);
                (deferred, activation) = (planned.deferred, activation + 1);
                let (kind, operands) = (StepKind::Activation(planned.at_once), vec![steps.len()]);
                let place = places.variable(i + 1);
                steps.push(Step { kind, operands, stage: i, place, makes_scores: false });
            }
            variables.push(Variable { tensor: steps.len(), deferred });
        }
        Steps(steps)
    }

    /// The factors, by their numbers.
    pub fn factors<'a>(&self, network: &'a Lowered) -> Vec<&'a Factor> {
        let terms = self.0.iter().filter_map(|step| match &step.kind {
            StepKind::Linear(terms) => Some(terms),
            _ => None,
        });
        let mut terms: Vec<&Term> = terms.flatten().collect();
        terms.sort_by_key(|term| term.factor);
        terms.into_iter().map(|term| term.of(network)).collect()
    }

    /// Limbs and components of every tensor's ciphertexts, from the input's limbs; the products of
    /// activations on the way are shown to `products`, with what follows each.
    pub fn ciphertext_shapes(
        &self,
        network: &Lowered,
        level: usize,
        mut products: impl FnMut(usize, &[Product], &[Maintenance]),
    ) -> Vec<CiphertextShape> {
        let mut shapes = vec![CiphertextShape { level, components: 2 }];
        for (i, step) in self.0.iter().enumerate() {
            let before = self.operand_shape(i, &shapes);
            shapes.push(match &step.kind {
                StepKind::Linear(_) => before,
                StepKind::Maintenance(maintenance) => {
                    products(i, &[Product { level: before.level, operands: [before.components, 1] }], &[*maintenance]);
                    maintenance.result(before)
                }
                StepKind::Activation(maintenance) => {
                    let degree = network.stages[step.stage].activation.as_ref().map_or(0, |a| a.degree());
                    let arrangement = Arrangement::with_products(degree, maintenance.len());
                    let ProductTrace { products: all, result } = arrangement.trace(degree, maintenance, before);
                    products(i, &all, maintenance);
                    result
                }
            });
        }
        shapes
    }

    /// What the operands of a step have in common: a branch with more limbs drops the last ones, and missing components are zero.
    fn operand_shape(&self, step: usize, shapes: &[CiphertextShape]) -> CiphertextShape {
        let operands = self.0[step].operands.iter().map(|&tensor| shapes[tensor]);
        operands.reduce(CiphertextShape::joined).expect("a step has an operand")
    }
}
