//! How much a noise at one place of the network becomes at a later place.
//!
//! Gains belong to the real-valued network, not to a schedule: a schedule only decides which noises enter where. They are
//! measured by sending random signs through the linearised network: maps as they are (so correlations between
//! neighbouring values count), activations as their derivative at values drawn from the calibrated histogram.

use std::collections::HashMap;

use cryptodl_program::{SplitMix, sum};
use rayon::prelude::*;

use super::RealMap;
use super::normalise::{Activation, BranchId, Monic, Stage};

/// Name of the place before everything; no layer can have it.
pub const INPUT: &str = "/input";

/// The network as a graph of elements, in an order in which each comes after what it takes. Place 0 is the input, and place `i + 1`
/// is what the `i`-th element leaves.
pub struct Elements<'a> {
    all: Vec<Element<'a>>,
    places: Places,
}

/// What lies before a place.
pub struct Element<'a> {
    /// What it does.
    pub kind: ElementKind<'a>,
    /// Places that it takes.
    pub inputs: Vec<usize>,
}

/// What an element does.
#[derive(Clone, Copy)]
pub enum ElementKind<'a> {
    /// A linear map.
    Map(&'a RealMap),
    /// The sum of a stage's branches.
    Join,
    /// An activation.
    Activation(&'a Activation),
}

/// Where places are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    names: Vec<String>,
    /// By stage and branch, the place after its first map.
    branches: Vec<Vec<usize>>,
    /// By stage, the place of the sum.
    sums: Vec<usize>,
    /// By variable.
    variables: Vec<usize>,
}

impl Places {
    /// Names of all places, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Place after the first `maps` base maps of a branch, at least one. The sum of all branches is
    /// another place.
    pub fn after_map(&self, branch: BranchId, maps: usize) -> usize {
        self.branches[branch.stage][branch.index] + maps - 1
    }

    /// Place of the sum of a stage's branches.
    pub fn sum(&self, stage: usize) -> usize {
        self.sums[stage]
    }

    /// Place of a variable.
    pub fn variable(&self, variable: usize) -> usize {
        self.variables[variable]
    }

    /// Place of the network's output.
    pub fn output(&self) -> usize {
        self.names.len() - 1
    }
}

impl<'a> Elements<'a> {
    /// Of normalised stages.
    pub fn new(stages: &'a [Stage]) -> Self {
        let mut all: Vec<Element<'a>> = Vec::new();
        let mut places = Places { names: vec![INPUT.into()], variables: vec![0], ..Places::default() };
        // Calibrations are keyed by place, and a layer may act on several parts or lie on both sides of a place.
        let mut met: HashMap<String, usize> = HashMap::new();
        let mut push = |kind, inputs, name: String, names: &mut Vec<String>| {
            all.push(Element { kind, inputs });
            let times = met.entry(name.clone()).and_modify(|times| *times += 1).or_insert(1);
            names.push(if *times == 1 { name } else { format!("{name}#{times}") });
            all.len()
        };
        for stage in stages {
            let mut ends = Vec::new();
            let mut starts = Vec::new();
            for branch in &stage.branches {
                let mut at = places.variables[branch.variable];
                for (i, map) in branch.maps.iter().enumerate() {
                    at = push(ElementKind::Map(map), vec![at], map.name.clone(), &mut places.names);
                    if i == 0 {
                        starts.push(at);
                    }
                }
                ends.push(at);
            }
            let mut at = ends[0];
            if stage.joins() {
                at = push(ElementKind::Join, ends, format!("/sum/{}", stage.name), &mut places.names);
            }
            places.branches.push(starts);
            places.sums.push(at);
            if let Some(activation) = &stage.activation {
                at = push(ElementKind::Activation(activation), vec![at], activation.name.clone(), &mut places.names);
            }
            places.variables.push(at);
        }
        Elements { all, places }
    }

    /// All of them.
    pub fn all(&self) -> &[Element<'a>] {
        &self.all
    }

    /// Where places are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The element before a place.
    pub fn before(&self, place: usize) -> Option<&Element<'a>> {
        self.all.get(place.checked_sub(1)?)
    }

    /// Number of values at a place.
    pub fn values(&self, place: usize) -> usize {
        match self.before(place).map(|element| (element.kind, &element.inputs)) {
            Some((ElementKind::Map(map), _)) => map.geometry.outputs(),
            Some((_, inputs)) => self.values(inputs[0]),
            None => match self.all.iter().find_map(|element| match element.kind {
                ElementKind::Map(map) if element.inputs == [0] => Some(map.geometry.inputs()),
                _ => None,
            }) {
                Some(inputs) => inputs,
                None => unreachable!("a network's input goes through a map"),
            },
        }
    }

    /// By place, the last element that takes it.
    pub fn last_readers(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.all.len() + 1];
        for (i, element) in self.all.iter().enumerate() {
            element.inputs.iter().for_each(|&place| last[place] = Some(i));
        }
        last
    }
}

/// How noise grows between places.
#[derive(Clone, Debug)]
pub struct Gains {
    /// `by[from][to]`, root mean square at `to` per unit of independent noise on every value at `from`; zero where none arrives.
    by: Vec<Vec<f64>>,
    places: Places,
}

impl Gains {
    /// Measures all gains with `probes` random vectors per source. Deterministic.
    pub fn measure(stages: &[Stage], probes: usize) -> Self {
        let elements = Elements::new(stages);
        let by = (0..=elements.all.len()).into_par_iter().map(|from| probe(&elements, from, probes)).collect();
        Gains { by, places: elements.places }
    }

    /// Where places are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Root mean square at place `to` per unit noise at place `from`.
    pub fn between(&self, from: usize, to: usize) -> f64 {
        self.by[from][to]
    }
}

fn probe(elements: &Elements<'_>, from: usize, probes: usize) -> Vec<f64> {
    let last = elements.last_readers();
    let mut gains = vec![0.0; elements.all.len() + 1];
    gains[from] = 1.0;
    let mut random = SplitMix(from as u64);
    let mut noise: Vec<Option<Vec<f64>>> = vec![None; elements.all.len() + 1];
    if last[from].is_some() {
        noise[from] = Some(random.signs(elements.values(from) * probes));
    }
    for (i, element) in elements.all.iter().enumerate().skip(from) {
        let arrives = element.inputs.iter().any(|&place| noise[place].is_some());
        if arrives {
            let output = match element.kind {
                ElementKind::Map(map) => {
                    let input = noise[element.inputs[0]].as_ref().expect("it arrives");
                    map.geometry.apply(&map.weights, None, input, probes)
                }
                ElementKind::Join => sum(element.inputs.iter().filter_map(|&place| noise[place].as_ref())),
                ElementKind::Activation(activation) => {
                    let input = noise[element.inputs[0]].as_ref().expect("it arrives");
                    let values = input.len() / probes;
                    let samplers: Vec<Sampler> = activation.channels.iter().map(Sampler::new).collect();
                    let per_channel = values / samplers.len() * probes;
                    // One image per probe, so its values share nothing but the histogram.
                    let each = |(at, noise): (usize, &f64)| noise * samplers[at / per_channel].draw(&mut random);
                    input.iter().enumerate().map(each).collect()
                }
            };
            gains[i + 1] = (output.iter().map(|v| v * v).sum::<f64>() / output.len() as f64).sqrt();
            noise[i + 1] = Some(output);
        }
        for &place in &element.inputs {
            if last[place] == Some(i) {
                noise[place] = None;
            }
        }
    }
    gains
}

/// Draws derivatives of an activation at inputs distributed as its histogram.
struct Sampler {
    cumulative: Vec<f64>,
    derivatives: Vec<f64>,
}

impl Sampler {
    fn new(channel: &Monic) -> Self {
        let cumulative = channel.histogram.iter().scan(0.0, |sum, (_, share)| {
            *sum += share;
            Some(*sum)
        });
        Sampler {
            cumulative: cumulative.collect(),
            derivatives: channel.histogram.iter().map(|&(z, _)| channel.derivative(z)).collect(),
        }
    }

    fn draw(&self, random: &mut SplitMix) -> f64 {
        let u = random.unit();
        let bin = self.cumulative.partition_point(|&c| c < u);
        self.derivatives[bin.min(self.derivatives.len() - 1)]
    }
}
