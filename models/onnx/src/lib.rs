//! Networks made of ONNX files, as PyTorch, TensorFlow and others export them.
//!
//! [`import`] reads a file and makes a [`Network`] of it, which can then be calibrated and planned
//! like any other. Files may come from strangers: sizes, shapes and numbers are checked, external
//! data is read from the model's folder only, and time and memory are bounded
//! ([`limits`]).
//!
//! - Constants, and all shape arithmetic, are computed while the file is read.
//! - Every other value is a polynomial of what a layer leaves, so that all spellings of a polynomial
//!   become one layer.
//! - Transpositions, slices, splits and reshapes become no layers where the weights behind them can
//!   be permuted.
//! - What cannot be computed under encryption is an error that names the node and says what to use
//!   instead.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;

mod error;
mod external;
mod fold;
mod import;
mod layers;
mod node;
mod operators;
mod polynomial;
mod proto;
mod rearrange;
mod refusals;
mod report;
mod scan;
mod tensor;
mod view;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use cryptodl_network::limits::{MAX_DIMENSION, MAX_VALUES};
use cryptodl_network::{InputSpec, Network, NetworkSpec, text};
use prost::Message;

pub use error::ImportError;
pub use report::{Seen, SeenLayer};

use external::Folder;
use import::{Importer, Input};
use limits::{MAX_BYTES, MAX_NODES, OPSETS};
use node::Node;
use polynomial::Polynomial;
use proto::{GraphProto, ModelProto, ValueInfoProto};
use view::View;

/// Where the channels of the images are in the input of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageLayout {
    /// Image, channel, row, column, as in PyTorch (NCHW).
    ChannelsFirst,
    /// Image, row, column, channel, as in TensorFlow (NHWC).
    ChannelsLast,
}

/// What an ONNX file does not say.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Name of the network: 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// What the pixels 0 and 255 are to the network: one pair for all channels, or one for each.
    /// Where channels differ, the pixels of the network are from 0 to 1, and its first layer brings
    /// each channel to its range.
    pub pixels: Vec<[f64; 2]>,
    /// The layout of the input; without it, channels are last where the file itself brings them to
    /// the front, and else first.
    pub layout: Option<ImageLayout>,
    /// Channels, rows and columns of an image, where the file leaves them open, or takes vectors.
    pub shape: Option<[usize; 3]>,
}

impl ImportOptions {
    /// A network of this name, whose pixels are from 0 to 1.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            title: format!("{name}, from ONNX"),
            pixels: vec![[0.0, 1.0]],
            layout: None,
            shape: None,
        }
    }
}

/// A network, and what was seen in the file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network. Nothing is known of its values yet: it must be calibrated to be planned.
    pub network: Network,
    /// What the file had.
    pub seen: Seen,
}

/// Reads the ONNX file at `path`, with the external data beside it.
///
/// # Errors
/// Names the file, the tensor or the node, what is wrong and what to do instead.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    import_model(&bytes, options, &Folder::of(folder.to_owned()))
}

/// Reads the bytes of an ONNX file that has no external data.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    import_model(bytes, options, &Folder::none())
}

fn import_model(bytes: &[u8], options: &ImportOptions, folder: &Folder) -> Result<Imported, ImportError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ImportError::TooLarge);
    }
    let malformed = |message: String| ImportError::Malformed { message };
    scan::check(bytes).map_err(malformed)?;
    let model = ModelProto::decode(bytes).map_err(|error| malformed(text::message(&error)))?;
    let graph =
        model.graph.as_ref().ok_or_else(|| malformed("it has no graph; the file is empty or damaged".into()))?;
    let opset = opset(&model)?;
    if graph.node.len() > MAX_NODES {
        return Err(malformed(format!("it has {} nodes; at most {MAX_NODES} are supported", graph.node.len())));
    }
    let output = one_output(graph)?;
    let nodes: Vec<Node<'_>> = graph.node.iter().map(Node::new).collect();
    let needed = needed(&nodes, output);
    let input = input(graph, &needed, options)?;
    let (shape, batch) = (input.image, input.batch);
    let (range, scaled) = pixels(&options.pixels, shape[0])?;
    let mut importer = Importer::new(graph, input, scaled, folder);
    importer.nodes(&needed)?;
    if batch > 1 {
        importer.notes.push(format!("the file computes {batch} images at once; the network takes any number"));
    }
    let scores = importer.output(output)?;
    let interface = |message: String| ImportError::Interface { message };
    importer.finish(scores).map_err(|problem| interface(format!("output `{}`: {problem}", text::name(output))))?;
    let folded = importer.folded;
    let mut notes = std::mem::take(&mut importer.notes);
    if needed.len() < nodes.len() {
        notes.push(format!("{} nodes were left out, which the output does not need", nodes.len() - needed.len()));
    }
    let layers = report::used(std::mem::take(&mut importer.layers.all));
    let input = InputSpec { shape, range };
    let network = Network::new(NetworkSpec::new(&options.name, &options.title, input, layers))?;
    let producer = [&model.producer_name, &model.producer_version].map(|text| text.as_deref().unwrap_or_default());
    let seen = Seen::new(&network, producer, opset, nodes.len(), folded, notes);
    Ok(Imported { network, seen })
}

/// The range of the network's pixels, and what brings each channel to its own.
fn pixels(pixels: &[[f64; 2]], channels: usize) -> Result<([f64; 2], Polynomial), ImportError> {
    let wrong = |message: String| ImportError::Interface { message };
    let proper = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low < high;
    if !pixels.iter().all(proper) {
        return Err(wrong("the pixel 255 must be more than the pixel 0 to the network, and both finite".into()));
    }
    match pixels {
        [range] => Ok((*range, Polynomial::identity())),
        all if all.len() == channels && all.iter().all(|range| *range == all[0]) => {
            Ok((all[0], Polynomial::identity()))
        }
        all if all.len() == channels => Ok(([0.0, 1.0], Polynomial::affine(all))),
        all => Err(wrong(format!("pixels are described for {} channels, but the images have {channels}", all.len()))),
    }
}

/// The version of ONNX's own operators.
fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let own = |domain: &Option<String>| matches!(domain.as_deref().unwrap_or_default(), "" | "ai.onnx");
    let found = model.opset_import.iter().find(|set| own(&set.domain)).and_then(|set| set.version);
    match found {
        Some(version) if (OPSETS[0]..=OPSETS[1]).contains(&version) => Ok(version),
        Some(found) => Err(ImportError::Opset { found }),
        None => Err(ImportError::Malformed {
            message: "it does not say which version of the ONNX operators it uses".into(),
        }),
    }
}

fn one_output(graph: &GraphProto) -> Result<&str, ImportError> {
    match &graph.output[..] {
        [output] => Ok(output.name.as_deref().unwrap_or_default()),
        all => {
            let names = text::names(all.iter().map(|output| output.name.as_deref().unwrap_or_default()));
            Err(ImportError::Interface {
                message: format!(
                    "the model has {} outputs ({names}); a network has one, the scores: export it with these alone",
                    all.len()
                ),
            })
        }
    }
}

/// The nodes that `output` needs, in the file's order.
fn needed<'a>(nodes: &[Node<'a>], output: &'a str) -> Vec<Node<'a>> {
    let mut wanted = HashSet::from([output]);
    let mut needed: Vec<Node<'a>> = Vec::new();
    for node in nodes.iter().rev() {
        if node.outputs().iter().any(|name| wanted.contains(name.as_str())) {
            wanted.extend(node.inputs().iter().map(String::as_str).filter(|name| !name.is_empty()));
            needed.push(*node);
        }
    }
    needed.reverse();
    needed
}

/// The input that is no weight, and how its images lie.
fn input<'a>(graph: &'a GraphProto, nodes: &[Node<'a>], options: &ImportOptions) -> Result<Input<'a>, ImportError> {
    let wrong = |message: String| ImportError::Interface { message };
    let stored: HashSet<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    let name = |input: &'a ValueInfoProto| input.name.as_deref().unwrap_or_default();
    let inputs: Vec<&ValueInfoProto> = graph.input.iter().filter(|input| !stored.contains(name(input))).collect();
    let [input] = inputs[..] else {
        let names = text::names(inputs.iter().map(|input| name(input)));
        return Err(wrong(format!("the model has {} inputs ({names}); a network has one, the image", inputs.len())));
    };
    let name = name(input);
    let shown = text::name(name);
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| wrong(format!("the input `{shown}` is no tensor")))?;
    // Floating point numbers, or pixels.
    if !matches!(tensor.elem_type.unwrap_or(1), 1 | 2 | 10 | 11 | 16) {
        return Err(wrong(format!(
            "the input `{shown}` has numbers of type {}; images are floating point numbers",
            tensor.elem_type.unwrap_or(0)
        )));
    }
    let dims: Option<Vec<Option<i64>>> =
        tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| dim.dim_value.filter(|&size| size > 0)).collect());
    let dims = dims.ok_or_else(|| wrong(format!("the input `{shown}` has no shape; export the model with one")))?;
    if !(2..=4).contains(&dims.len()) {
        return Err(wrong(format!(
            "the input `{shown}` has {} axes; images (4 axes: image, channel, row, column), series (3) and vectors (2) are \
             supported",
            dims.len()
        )));
    }
    let batch = dims[0].unwrap_or(1);
    if !(1..=MAX_DIMENSION as i64).contains(&batch) {
        return Err(wrong(format!("the input `{shown}` has {batch} images; at most {MAX_DIMENSION} are supported")));
    }
    let last = match options.layout {
        Some(layout) => layout == ImageLayout::ChannelsLast,
        None => dims.len() == 4 && brought_to_front(nodes, name, dims[1] != Some(1) && dims[3] == Some(1)),
    };
    let order: &[usize] = match (dims.len(), last) {
        (4, true) => &[3, 1, 2],
        (4, false) => &[1, 2, 3],
        (3, true) => &[2, 1],
        (3, false) => &[1, 2],
        _ => &[1],
    };
    let found: Option<Vec<usize>> =
        order.iter().map(|&axis| dims[axis].and_then(|size| usize::try_from(size).ok())).collect();
    let image = match (found.as_deref(), options.shape) {
        (Some(&[c, h, w]), None) => [c, h, w],
        (Some(&[c, w]), None) => [c, 1, w],
        (Some(&[len]), None) => first_shape(nodes, name, len).unwrap_or([1, 1, len]),
        (_, None) => {
            return Err(wrong(format!(
                "the input `{shown}` leaves the size of its images open ({}); say which one it is",
                dims.iter()
                    .map(|size| size.map_or("?".into(), |size| size.to_string()))
                    .collect::<Vec<_>>()
                    .join(" x ")
            )));
        }
        (found, Some(shape)) => {
            let fits = match found {
                Some(&[len]) => shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)) == Some(len),
                Some(&[c, w]) => shape == [c, 1, w],
                Some(sizes) => sizes == shape,
                None => {
                    dims.len() == 4
                        && order
                            .iter()
                            .zip(shape)
                            .all(|(&axis, size)| dims[axis].is_none_or(|stated| stated == size as i64))
                }
            };
            if !fits {
                return Err(wrong(format!(
                    "the input `{shown}` cannot be images of {shape:?} (channels, rows, columns)"
                )));
            }
            shape
        }
    };
    let values = image.iter().fold(1u128, |product, &size| product * size as u128);
    if values > MAX_VALUES as u128 || image.contains(&0) {
        return Err(wrong(format!(
            "the input `{shown}` is {} x {} x {}; at most {MAX_VALUES} values per image are supported",
            image[0], image[1], image[2]
        )));
    }
    let [channels, height, width] = image;
    let view = match (dims.len(), last) {
        (4, false) => View::whole(vec![channels, height, width]),
        (3, false) => View::whole(vec![channels, width]),
        (2, _) => View::whole(vec![channels * height * width]),
        (rank, _) => {
            let of = channels * height * width;
            let at = |i: usize| ((i % channels) * (of / channels) + i / channels) as u32;
            let shape = if rank == 4 { vec![height, width, channels] } else { vec![width, channels] };
            View::new(shape, (0..of).map(at).collect(), of)
        }
    };
    Ok(Input { name, batch: batch as usize, image, view })
}

/// Operators that leave values where they are.
const IN_PLACE: [&str; 7] = ["Identity", "Cast", "Add", "Sub", "Mul", "Div", "Neg"];

/// Whether the file itself moves the channels of its input from the last place to the front, as
/// exports from TensorFlow do. A single channel, which `single` says that there may be, is moved by
/// a reshape.
fn brought_to_front(nodes: &[Node<'_>], input: &str, single: bool) -> bool {
    let mut names = HashSet::from([input]);
    for node in nodes {
        if !node.inputs().iter().any(|name| names.contains(name.as_str())) {
            continue;
        }
        match node.op() {
            "Transpose" => return node.ints("perm") == Some(&[0, 3, 1, 2]),
            "Reshape" => return single,
            op if IN_PLACE.contains(&op) => names.extend(node.outputs().iter().map(String::as_str)),
            _ => return false,
        }
    }
    false
}

/// The image that a vector of the input is made into first, where that is stated as a constant.
fn first_shape(nodes: &[Node<'_>], input: &str, len: usize) -> Option<[usize; 3]> {
    let reader = nodes.iter().find(|node| node.inputs().first().is_some_and(|name| name == input))?;
    let target = reader.inputs().get(1).filter(|_| reader.op() == "Reshape")?;
    let maker = nodes.iter().find(|node| node.op() == "Constant" && node.outputs().first() == Some(target))?;
    let dims = maker.tensor("value").and_then(|tensor| tensor::Tensor::read(tensor, &Folder::none()).ok())?;
    let list = dims.whole("").ok()?;
    match list[..] {
        [_, c, h, w] if [c, h, w].iter().all(|&size| (1..=len as i64).contains(&size)) => {
            let shape = [c as usize, h as usize, w as usize];
            (shape.iter().product::<usize>() == len).then_some(shape)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
