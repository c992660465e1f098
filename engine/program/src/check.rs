//! Whether a Program can be executed: a file may say anything.

use cryptodl_core::backend::{CiphertextShape, LinearMapError, MAX_TAPS, Maintenance};
use cryptodl_core::ckks::flood::MAX_DOUBLINGS;
use cryptodl_core::ckks::{CheckedSpec, MAX_COMPONENTS, Packing, Params, RelinLayout, SpecError};
use cryptodl_core::wire::WireError;

use crate::{ActivationStep, CircuitPrivacy, Geometry, MAX_PRIVACY_BITS, MAX_PRIVACY_SETS, Polynomial};
use crate::{Program, ScorePacking, Step, Term, TermMap};

/// Highest degree of an activation polynomial.
pub const MAX_DEGREE: usize = 8;
/// Most values of an operand or a result, as in a network.
const MAX_VALUES: usize = 1 << 18;
/// Most values that all windows of a map take together, as in a network.
const MAX_WINDOW_VALUES: usize = 1 << 24;
/// The same of all maps of a Program.
const MAX_ALL_WINDOW_VALUES: usize = 1 << 27;
/// Most steps.
pub const MAX_STEPS: usize = 2048;
/// Most terms of a sum.
pub const MAX_TERMS: usize = 256;

/// Why a Program is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file is damaged, or is something else.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The bytes are no Program.
    #[error("not a Program: {0}; it must be planned and saved again")]
    Malformed(String),
    /// What clients would be told is refused.
    #[error("not a Program that clients accept: {0}")]
    Spec(#[from] SpecError),
    /// A step contradicts itself or those before it.
    #[error("not a Program: step {step}: {problem}; it must be planned and saved again")]
    Step {
        /// Index of the step, from 0; the number of steps for the result.
        step: usize,
        /// What is wrong.
        problem: String,
    },
    /// A map beyond the exactness bounds of the kernels.
    #[error("not a Program: step {step}: {source}; it must be planned and saved again")]
    Map {
        /// Index of the step, from 0.
        step: usize,
        /// What the kernels refuse.
        source: LinearMapError,
    },
}

/// What is wrong with a step.
enum Problem {
    Contradiction(String),
    Map(LinearMapError),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Problem::Contradiction(problem)
    }
}

impl From<LinearMapError> for Problem {
    fn from(error: LinearMapError) -> Self {
        Problem::Map(error)
    }
}

/// What is known of a tensor.
#[derive(Clone, Copy)]
struct TensorShape {
    values: usize,
    /// Of each channel.
    positions: usize,
    ciphertext: CiphertextShape,
}

impl Program {
    /// Checks that every step can be executed on what the steps before it leave, and that the whole is what its input and output say.
    /// Programs of the planner pass. Returns what clients must know, checked likewise.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<CheckedSpec, ProgramError> {
        let content = &self.content;
        let spec = self.client_spec().check()?;
        let params = spec.params();
        let [_, height, width] = content.input.shape;
        let mut windows = 0;
        let wrong = |step: usize| move |problem: String| ProgramError::Step { step, problem };
        let ciphertext = CiphertextShape { level: content.input.level, components: 2 };
        let mut tensors = vec![TensorShape { values: self.inputs(), positions: height * width, ciphertext }];
        let mut read = vec![false];
        for (i, step) in content.steps.iter().enumerate() {
            let operands = step.operands();
            if let Some(operand) = operands.iter().find(|&&operand| operand >= tensors.len()) {
                return Err(wrong(i)(format!("it takes tensor {operand}, but there are {} before it", tensors.len())));
            }
            operands.iter().for_each(|&operand| read[operand] = true);
            windows += window_values(step).map_err(wrong(i))?;
            if windows > MAX_ALL_WINDOW_VALUES {
                return Err(wrong(i)(format!("the windows of its maps take more than {MAX_ALL_WINDOW_VALUES} values")));
            }
            let tensor = check_step(step, &tensors, params, content.relin()).map_err(|problem| match problem {
                Problem::Contradiction(problem) => ProgramError::Step { step: i, problem },
                Problem::Map(source) => ProgramError::Map { step: i, source },
            })?;
            tensors.push(tensor);
            read.push(false);
        }
        let last = tensors.len() - 1;
        let problem = |found: String| Err(wrong(last)(found));
        if last == 0 || self.names.len() != last {
            return problem(format!("{last} steps have {} names", self.names.len()));
        }
        if let Some(unread) = read[..last].iter().position(|read| !read) {
            return problem(format!("nothing takes tensor {unread}"));
        }
        let drop = content.circuit_privacy.map_or(Ok(0), check_privacy).map_err(wrong(last))?;
        let (mut result, output) = (tensors[last], &content.output);
        if let Some(packing) = content.score_packing {
            result.ciphertext = self.check_score_packing(packing, result.ciphertext).map_err(wrong(last))?;
        } else if output.packing != Packing::Spread {
            return problem(format!("nothing packs scores, which are {}", output.packing));
        }
        let found = [result.values, result.ciphertext.components, result.ciphertext.level];
        let stated = [output.classes, output.components, output.level + drop];
        if found != stated {
            return problem(format!("values, components and limbs of the result are {found:?}, and stated {stated:?}"));
        }
        Ok(spec)
    }
}

impl Program {
    /// The ciphertexts of packed scores.
    fn check_score_packing(&self, packing: ScorePacking, scores: CiphertextShape) -> Result<CiphertextShape, String> {
        let ScorePacking { drop } = packing;
        let CiphertextShape { level, components } = scores;
        let content = &self.content;
        require(drop < level, || format!("{drop} of {level} limbs of the scores are dropped"))?;
        require(content.circuit_privacy.is_none(), || "scores are packed, and their noise is hidden".into())?;
        let keys = content.powers(components);
        let serve = keys.len() + 2 == components && keys.iter().all(|key| key.digits().level >= level);
        require(serve, || {
            format!("{components} components at level {level} lack a key for every power of the secret")
        })?;
        Ok(CiphertextShape { level: level - drop, components: 2 })
    }
}

fn check_privacy(privacy: CircuitPrivacy) -> Result<usize, String> {
    let CircuitPrivacy { goal, doublings, drop } = privacy;
    let within = (1..=MAX_PRIVACY_SETS).contains(&goal.sets)
        && (1..=MAX_PRIVACY_BITS).contains(&goal.bits)
        && doublings <= MAX_DOUBLINGS;
    if within { Ok(drop) } else { Err(format!("its circuit privacy is out of range: {privacy:?}")) }
}

fn require(fits: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if fits { Ok(()) } else { Err(problem()) }
}

/// Integers of any size, as exact doubles.
fn require_integers(numbers: &[f64], what: &str) -> Result<(), String> {
    require(numbers.iter().all(|number| number.is_finite() && number.fract() == 0.0), || {
        format!("{what} must be integers")
    })
}

fn check_step(
    step: &Step,
    tensors: &[TensorShape],
    params: &Params,
    relin: Option<RelinLayout>,
) -> Result<TensorShape, Problem> {
    match step {
        Step::Linear { terms, constants, .. } => check_sum(terms, constants, tensors, params),
        Step::Activation { operand, activation } => Ok(check_activation(activation, tensors[*operand], relin)?),
        Step::Maintenance { operand, maintenance, .. } => {
            require(maintenance.acts(), || "it neither relinearises nor rescales".into())?;
            Ok(maintained(*maintenance, tensors[*operand], relin)?)
        }
    }
}

/// Values that the windows of a step's maps take, which are held as indices.
fn window_values(step: &Step) -> Result<usize, String> {
    let Step::Linear { terms, .. } = step else { return Ok(0) };
    let of_term = |term: &Term| match &term.map {
        TermMap::Dense(map) => map.geometry.check().map(|()| map.geometry.taps() * map.geometry.positions()),
        TermMap::Diagonal(_) => Ok(0),
    };
    terms.iter().map(of_term).sum()
}

fn check_sum(
    terms: &[Term],
    constants: &[f64],
    tensors: &[TensorShape],
    params: &Params,
) -> Result<TensorShape, Problem> {
    require(!terms.is_empty(), || "a sum of nothing".into())?;
    require(matches!(terms, [Term { map: TermMap::Dense(_), factor: 1.0, .. }] | [_, _, ..]), || {
        "a single term must be a map with the factor 1".into()
    })?;
    require_integers(constants, "constants")?;
    let mut sum: Option<TensorShape> = None;
    for Term { operand, map, factor } in terms {
        require_integers(&[*factor], "factors")?;
        let operand = tensors[*operand];
        let [inputs, channels, outputs, positions] = match map {
            TermMap::Dense(map) => {
                let g = &map.geometry;
                g.check()?;
                require(map.weights.len() as u64 == g.weights(), || format!("{} weights", map.weights.len()))?;
                require(map.weight_scale > 0.0, || format!("a scale of {} for weights", map.weight_scale))?;
                map.prepare(params.basis(), &[])?;
                [g.inputs(), g.channels, g.outputs(), g.positions()]
            }
            TermMap::Diagonal(map) => {
                require_integers(&map.factors, "factors")?;
                require(map.weight_scale > 0.0, || format!("a scale of {} for factors", map.weight_scale))?;
                let [_, height, width] = map.shape;
                let (count, positions) = (product(&map.shape)?, height * width);
                require(positions == operand.positions || positions == 1, || {
                    format!("a map of {positions} positions takes a tensor of {}", operand.positions)
                })?;
                [count, map.factors.len(), count, positions]
            }
        };
        require(channels == constants.len(), || format!("{} constants for {channels} channels", constants.len()))?;
        require(inputs == operand.values, || format!("a map of {inputs} values takes {}", operand.values))?;
        let before = sum.unwrap_or(TensorShape { values: outputs, positions, ..operand });
        let same = outputs == before.values && positions == before.positions;
        require(same, || format!("terms of {outputs} and {} values, or of other planes", before.values))?;
        let ciphertext = before.ciphertext.joined(operand.ciphertext);
        sum = Some(TensorShape { values: outputs, positions, ciphertext });
    }
    sum.ok_or_else(|| Problem::Contradiction("a sum of nothing".into()))
}

fn check_activation(
    step: &ActivationStep,
    operand: TensorShape,
    relin: Option<RelinLayout>,
) -> Result<TensorShape, String> {
    let channels = step.channels.len();
    let planes = operand.values / operand.positions;
    require(channels == 1 || (channels > 0 && planes.is_multiple_of(channels)), || {
        format!("{channels} polynomials for {planes} channels")
    })?;
    for channel in &step.channels {
        match channel {
            Polynomial::Horner(constants) => require_integers(constants, "constants")?,
            Polynomial::PatersonStockmeyer { shift, constants, multiples } => {
                [std::slice::from_ref(shift), constants, multiples]
                    .iter()
                    .try_for_each(|numbers| require_integers(numbers, "constants"))?;
            }
        }
    }
    let mut result = Ok(operand);
    step.arrangement().follow(step.degree, operand, |i, a: &TensorShape, b: &TensorShape| {
        let (a, b) = (a.ciphertext, b.ciphertext);
        let components = a.components + b.components - 1;
        let ciphertext = CiphertextShape { level: a.level.min(b.level), components };
        let product = TensorShape { ciphertext, ..operand };
        let after = require(components <= MAX_COMPONENTS, || format!("a product of {components} components"))
            .and_then(|()| maintained(step.maintenance[i], product, relin));
        let after = if result.is_ok() { after } else { result.clone() };
        result = after.clone();
        after.unwrap_or(operand)
    });
    result
}

/// What a product is after its maintenance.
fn maintained(
    maintenance: Maintenance,
    product: TensorShape,
    relin: Option<RelinLayout>,
) -> Result<TensorShape, String> {
    let CiphertextShape { level, components } = product.ciphertext;
    require(maintenance.drop < level, || format!("{} of {level} limbs are dropped", maintenance.drop))?;
    if maintenance.relinearise {
        let key = relin.ok_or("it relinearises without an evaluation key")?;
        require(components == 3 && level <= key.level, || {
            format!(
                "{components} components at level {level} are relinearised with a key for 3 up to level {}",
                key.level
            )
        })?;
    }
    Ok(TensorShape { ciphertext: maintenance.result(product.ciphertext), ..product })
}

fn product(factors: &[usize]) -> Result<usize, String> {
    let product = factors.iter().try_fold(1usize, |product, &factor| product.checked_mul(factor));
    product.filter(|count| (1..=MAX_VALUES).contains(count)).ok_or_else(|| format!("{factors:?} values"))
}

impl Geometry {
    /// Whether it is a map at all, of a size that can be executed.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let Geometry { input, channels, kernel, stride, padding, padding_after, dilation, groups } = self;
        let small = [*stride, *padding, *padding_after, *dilation, *kernel];
        require(small.as_flattened().iter().all(|&n| n <= 1 << 16), || format!("{self:?} is out of range"))?;
        product(input)?;
        product(&[*channels])?;
        product(kernel)?;
        product(stride)?;
        product(dilation)?;
        let fits = |axis: usize| self.extent(axis) <= input[axis + 1] + padding[axis] + padding_after[axis];
        require(fits(0) && fits(1), || "a kernel larger than its padded input".into())?;
        let divides = *groups > 0 && input[0].is_multiple_of(*groups) && channels.is_multiple_of(*groups);
        require(divides, || format!("{groups} groups of {} and {channels} channels", input[0]))?;
        require(self.taps() <= MAX_TAPS, || format!("{} taps, at most {MAX_TAPS}", self.taps()))?;
        product(&self.output())?;
        // Neither overflows: taps, positions and groups are bounded by now.
        let windows = self.taps().saturating_mul(self.positions()).saturating_mul(self.groups);
        require(windows <= MAX_WINDOW_VALUES, || format!("windows of {windows} values, at most {MAX_WINDOW_VALUES}"))?;
        let weights = self.weights();
        require(weights <= MAX_WINDOW_VALUES as u64, || format!("{weights} weights, at most {MAX_WINDOW_VALUES}"))
    }
}
