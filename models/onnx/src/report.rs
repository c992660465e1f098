//! What was seen in a file.

use std::fmt;

use cryptodl_network::{Layer, LayerOp, Network, Shape, Source, text};

/// What an ONNX file had, and what became of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The program that wrote the file, with its version, as the file says.
    pub producer: String,
    /// Version of the ONNX operators.
    pub opset: i64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Nodes that depend on no input, which were computed while the file was read.
    pub folded: usize,
    /// The layers of the network.
    pub layers: Vec<SeenLayer>,
    /// Multiply-adds per image of all layers, before any folding.
    pub multiply_adds: u64,
    /// Most products of ciphertexts that follow each other on a way through the network: an
    /// activation of degree `d` takes `log2 d`, rounded up.
    pub depth: u32,
    /// What was left out or added, in whole sentences.
    pub notes: Vec<String>,
}

/// A layer that a file became.
#[derive(Clone, Debug)]
pub struct SeenLayer {
    /// Its name in the network.
    pub name: String,
    /// Its kind, as in a description.
    pub kind: &'static str,
    /// Degree of an activation.
    pub degree: Option<usize>,
    /// What it leaves.
    pub output: Shape,
    /// Multiply-adds per image of a convolution or dense layer.
    pub multiply_adds: u64,
}

impl Seen {
    pub(crate) fn new(
        network: &Network,
        [producer, version]: [&str; 2],
        opset: i64,
        nodes: usize,
        folded: usize,
        notes: Vec<String>,
    ) -> Self {
        let layers = network
            .outputs()
            .map(|(layer, output)| SeenLayer {
                name: layer.name.clone(),
                kind: layer.op.kind(),
                degree: degree(layer),
                output,
                multiply_adds: layer.op.multiply_adds(output.len()),
            })
            .collect();
        let producer = text::name(format!("{producer} {version}").trim());
        let producer = if producer.is_empty() { "an unknown program".into() } else { producer };
        Self {
            producer,
            opset,
            nodes,
            folded,
            layers,
            multiply_adds: network.multiply_adds(),
            depth: depth(network),
            notes,
        }
    }
}

fn degree(layer: &Layer) -> Option<usize> {
    match &layer.op {
        LayerOp::Polynomial { coefficients, .. } => Some(coefficients[0].len() - 1),
        _ => None,
    }
}

fn depth(network: &Network) -> u32 {
    let mut depths = vec![0];
    for layer in &network.layers {
        let before = layer.inputs.iter().map(|source| depths[source.value()]).max().unwrap_or(0);
        let own = degree(layer).map_or(0, |degree| degree.next_power_of_two().ilog2());
        depths.push(before + own);
    }
    depths.last().copied().unwrap_or(0)
}

/// The layers that the last one needs, in their order.
pub(crate) fn used(layers: Vec<Layer>) -> Vec<Layer> {
    let mut used = vec![false; layers.len()];
    if let Some(last) = used.last_mut() {
        *last = true;
    }
    for at in (0..layers.len()).rev().collect::<Vec<_>>() {
        if used[at] {
            layers[at].inputs.iter().for_each(|source| {
                if let Source::Layer(source) = source {
                    used[*source] = true;
                }
            });
        }
    }
    let place = |at: usize| used[..at].iter().filter(|&&used| used).count();
    let mut kept = Vec::new();
    for (at, layer) in layers.into_iter().enumerate().filter(|(at, _)| used[*at]) {
        debug_assert!(used[at]);
        let inputs = layer.inputs.iter().map(|source| match source {
            Source::Input => Source::Input,
            Source::Layer(source) => Source::Layer(place(*source)),
        });
        kept.push(Layer { inputs: inputs.collect(), ..layer });
    }
    kept
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "made by {}; opset {}; {} nodes, of which {} are constants or shape arithmetic",
            self.producer, self.opset, self.nodes, self.folded
        )?;
        for layer in &self.layers {
            write!(f, "  {:<24} {:<18} {}", layer.name, layer.kind, layer.output)?;
            if let Some(degree) = layer.degree {
                write!(f, ", degree {degree}")?;
            }
            if layer.multiply_adds > 0 {
                write!(f, ", {} multiply-adds", layer.multiply_adds)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{} layers, {} multiply-adds per image, depth {}",
            self.layers.len(),
            self.multiply_adds,
            self.depth
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
