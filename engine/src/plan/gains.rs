//! How much a noise at one place of the network becomes at a later place.
//!
//! Gains belong to the real-valued network, not to a schedule: a schedule only decides which noises enter where. They are
//! measured by sending random signs through the linearised network: maps as they are (so correlations between
//! neighbouring values count), activations as their derivative at values drawn from the calibrated histogram.

use rayon::prelude::*;

use super::normalise::{Activation, Stage};

/// Places in the network, in order: the input, then each base map's output and each activation's output.
#[derive(Clone, Debug)]
pub struct Gains {
    /// `by[from][to]`, root mean square at `to` per unit of independent noise on every value at `from`; zero before.
    by: Vec<Vec<f64>>,
    /// Place of the last map of each stage, and of its activation (the same without one).
    stages: Vec<StagePlaces>,
    /// Of all places, in order.
    names: Vec<String>,
}

/// Where a stage's outputs are.
#[derive(Clone, Debug)]
struct StagePlaces {
    /// Place before the first map.
    input: usize,
    /// Place after the activation, or after the last map.
    output: usize,
}

/// Name of the place before everything; no layer can have it.
pub const INPUT: &str = "/input";

/// What lies between two places.
pub enum Element<'a> {
    /// A linear map.
    Map(&'a super::RealMap),
    /// An activation.
    Activation(&'a Activation),
}

impl Element<'_> {
    /// Name of the place after it.
    pub fn name(&self) -> &str {
        match self {
            Element::Map(map) => &map.name,
            Element::Activation(activation) => &activation.name,
        }
    }
}

/// Maps and activations in order, and the names of all places: one more.
pub fn elements(stages: &[Stage]) -> (Vec<Element<'_>>, Vec<String>) {
    let elements: Vec<Element<'_>> = stages
        .iter()
        .flat_map(|stage| stage.run.iter().map(Element::Map).chain(stage.activation.iter().map(Element::Activation)))
        .collect();
    let places = std::iter::once(INPUT).chain(elements.iter().map(Element::name)).map(String::from).collect();
    (elements, places)
}

impl Gains {
    /// Measures all gains with `probes` random vectors per source. Deterministic.
    pub fn measure(stages: &[Stage], probes: usize) -> Self {
        let (elements, names) = elements(stages);
        let places = stages.iter().scan(0, |input, stage| {
            let output = *input + stage.run.len() + usize::from(stage.activation.is_some());
            Some(StagePlaces { input: std::mem::replace(input, output), output })
        });
        let by = (0..=elements.len()).into_par_iter().map(|from| probe(&elements, from, probes)).collect();
        Gains { by, stages: places.collect(), names }
    }

    /// Names of all places, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Place of the network's input.
    pub fn input(&self) -> usize {
        0
    }

    /// Place after the first `maps` base maps of a stage.
    pub fn after_map(&self, stage: usize, maps: usize) -> usize {
        self.stages[stage].input + maps
    }

    /// Place after a stage's activation.
    pub fn after_activation(&self, stage: usize) -> usize {
        self.stages[stage].output
    }

    /// Place of the network's output.
    pub fn output(&self) -> usize {
        self.by.len() - 1
    }

    /// Root mean square at place `to` per unit noise at place `from`.
    pub fn between(&self, from: usize, to: usize) -> f64 {
        self.by[from][to]
    }
}

fn probe(elements: &[Element<'_>], from: usize, probes: usize) -> Vec<f64> {
    let mut gains = vec![0.0; elements.len() + 1];
    gains[from] = 1.0;
    let mut random = SplitMix(from as u64);
    let mut noise: Option<Vec<f64>> = None;
    for (i, element) in elements.iter().enumerate().skip(from) {
        let input = match (noise.take(), element) {
            (Some(noise), _) => noise,
            (None, Element::Map(map)) => random.signs(map.geometry.inputs() * probes),
            (None, Element::Activation(_)) => match &elements[i - 1] {
                Element::Map(map) => random.signs(map.geometry.outputs() * probes),
                Element::Activation(_) => unreachable!("a map comes before every activation"),
            },
        };
        let output = match element {
            Element::Map(map) => map.geometry.apply(&map.weights, None, &input, probes),
            Element::Activation(activation) => {
                let sampler = Sampler::new(activation);
                // One image per probe, so its values share nothing but the histogram.
                input.iter().map(|noise| noise * sampler.draw(&mut random)).collect()
            }
        };
        gains[i + 1] = (output.iter().map(|v| v * v).sum::<f64>() / output.len() as f64).sqrt();
        noise = Some(output);
    }
    gains
}

/// Draws derivatives of an activation at inputs distributed as its histogram.
struct Sampler {
    cumulative: Vec<f64>,
    derivatives: Vec<f64>,
}

impl Sampler {
    fn new(activation: &Activation) -> Self {
        let cumulative = activation.histogram.iter().scan(0.0, |sum, (_, share)| {
            *sum += share;
            Some(*sum)
        });
        Sampler {
            cumulative: cumulative.collect(),
            derivatives: activation.histogram.iter().map(|&(z, _)| activation.derivative(z)).collect(),
        }
    }

    fn draw(&self, random: &mut SplitMix) -> f64 {
        let u = random.unit();
        let bin = self.cumulative.partition_point(|&c| c < u);
        self.derivatives[bin.min(self.derivatives.len() - 1)]
    }
}

/// A small generator for reproducible estimates; nothing secret comes near it.
pub(crate) struct SplitMix(pub u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 1 or -1.
    pub(crate) fn sign(&mut self) -> f64 {
        if self.next() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    fn signs(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.sign()).collect()
    }
}
