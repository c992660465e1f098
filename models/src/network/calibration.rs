//! Per-image calibration: what the planner's predictions rest on beyond ranges and histograms.
//!
//! It lies in a safetensors file of its own beside the weights, named by `calibration` in the
//! description. Everything in [`Calibration`] is keyed by *place*: a point between two linear maps
//! or activations of the network as the planner folds it, named after the layers that end there.
//!
//! The same file holds the histograms of single channels before activations with coefficients per
//! channel ([`Inputs::channels`](super::Inputs::channels)), which are too long for the description.
//! For the layer `NAME` they are two tensors: `histograms/NAME/ranges`, F64 `[channels, 2]`, the
//! lower end of the first and the upper end of the last bin, and `histograms/NAME/counts`, U64
//! `[channels, 64]`, the values in each bin.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ndarray::{Array1, Array2};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::error::{Problem, numbers};
use super::fields::checked_histogram;
use super::tensors::open;
use super::{Histogram, LayerOp, MAX_VALUES, Network};
use crate::text;

/// Most images that are stored for measuring weight rounding.
pub const MAX_STORED_IMAGES: usize = 256;
/// Most images whose margins and gains are stored.
pub const MAX_MARGINS: usize = 1000;
/// Most places, and most sources.
const MAX_NAMES: usize = 4096;
/// Largest calibration file that is read, in bytes: the most images of the largest size, and 16 MiB for all else.
pub const MAX_CALIBRATION_BYTES: u64 = (MAX_STORED_IMAGES * MAX_VALUES) as u64 + (1 << 24);

/// Bins of the histogram of one channel before an activation with coefficients per channel.
pub const CHANNEL_BINS: usize = 64;

/// What a calibration measured, image by image, on the network as the planner folds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Pixels of the images that weight rounding is measured on, `[image][pixel]`: `p` means `p / 255` of the input's range.
    pub images: Array2<u8>,
    /// Scores of the network in the clear for these images, `[image][class]`.
    pub scores: Array2<f32>,
    /// By place, the mean of every channel over these images and over positions.
    pub means: BTreeMap<String, Array1<f32>>,
    /// Largest minus second largest score of the images that gains are known of, ascending.
    pub margins: Vec<f32>,
    /// By source of noise, how far unit noise there moves the scores of those images.
    pub gains: BTreeMap<String, SourceGains>,
    /// Places in order, the input first.
    pub places: Vec<String>,
    /// `[from][to]`: root mean square, over images and values, of the noise at one place per unit noise at another; zero before it.
    pub growth: Array2<f32>,
}

/// How far independent noise of unit variance on every value at a source moves an image's scores; one entry per image, in the
/// order of [`Calibration::margins`].
#[derive(Debug, Clone, PartialEq)]
pub struct SourceGains {
    /// Standard deviation of the difference of the two largest scores.
    pub margin: Vec<f32>,
    /// Root mean square over classes of a score's deviation.
    pub score: Vec<f32>,
}

/// Text of a calibration file, in its metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    /// The network that was measured.
    network: String,
    places: Vec<String>,
    sources: Vec<String>,
    /// Layers whose channels have histograms, in the order of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    histograms: Vec<String>,
}

const FORMAT: u32 = 1;
const HEADER: &str = "cryptodl-calibration";
/// All tensors but the means, which have one for every place.
const TENSORS: [&str; 6] = ["growth", "images", "margin_gains", "margins", "score_gains", "scores"];
/// Before the name of a place, the name of its means.
const MEANS: &str = "means/";

impl Calibration {
    /// Reads a calibration of `network`, whose activations get the histograms of their channels.
    ///
    /// # Errors
    /// A file that is not one, that belongs to another network, or whose tensors do not fit each
    /// other or the network.
    pub(super) fn parse(bytes: &[u8], network: &mut Network) -> Result<Self, Problem> {
        let invalid = |message: String| Problem::Calibration { message };
        let file = open(bytes).map_err(invalid)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| invalid(text::message(&error)))?;
        let header = metadata.metadata().as_ref().and_then(|texts| texts.get(HEADER));
        let header = header.ok_or_else(|| invalid(format!("its metadata have no `{HEADER}`")))?;
        let header: Header = serde_json::from_str(header).map_err(|error| invalid(text::message(&error)))?;
        if header.format != FORMAT {
            return Err(invalid(format!("format {} is not supported; this version reads {FORMAT}", header.format)));
        }
        if header.network != hex(&network.fingerprint) {
            return Err(invalid("it was measured on other weights or layers".into()));
        }
        check_names("places", &header.places)?;
        check_names("sources", &header.sources)?;
        // Every name is there once, so that a file with more tensors has some that nobody reads.
        if file.len() > TENSORS.len() + header.places.len() + 2 * header.histograms.len() {
            let means = header.places.iter().map(|place| format!("{MEANS}{place}"));
            let histograms = header.histograms.iter().flat_map(|layer| [ranges_of(layer), counts_of(layer)]);
            let read: BTreeSet<String> = means.chain(histograms).collect();
            let unread = |name: &&str| !TENSORS.contains(name) && !read.contains(*name);
            let names: Vec<&str> = file.iter().map(|(name, _)| name).filter(unread).collect();
            return Err(invalid(format!("it has tensors that mean nothing: {}", text::names(names.into_iter()))));
        }
        let [count, pixels] = shape(&file, "images")?;
        let images = tensor(&file, "images", Dtype::U8, &[count, pixels])?.to_vec();
        let [_, classes] = shape(&file, "scores")?;
        let scores = floats(&file, "scores", &[count, classes])?;
        let [measured] = shape(&file, "margins")?;
        let margins = floats(&file, "margins", &[measured])?;
        for (what, found, most) in [("images", count, MAX_STORED_IMAGES), ("margins", measured, MAX_MARGINS)] {
            if found > most {
                return Err(invalid(format!("it has {found} {what}; at most {most} are read")));
            }
        }
        if count == 0 || measured == 0 || margins.iter().any(|&margin| margin < 0.0) || !margins.is_sorted() {
            return Err(invalid("it needs images, and their margins in ascending order".into()));
        }
        let sources = header.sources.len();
        let [margin, score] = ["margin_gains", "score_gains"].map(|name| floats(&file, name, &[sources, measured]));
        let (margin, score) = (margin?, score?);
        let growth = floats(&file, "growth", &[header.places.len(); 2])?;
        if [&margin, &score, &growth].iter().any(|gains| gains.iter().any(|&gain| gain < 0.0)) {
            return Err(invalid("a gain is negative".into()));
        }
        let rows = margin.chunks_exact(measured).zip(score.chunks_exact(measured));
        let gains = rows.map(|(margin, score)| SourceGains { margin: margin.to_vec(), score: score.to_vec() });
        let mean = |place: &String| {
            let name = format!("{MEANS}{place}");
            let [channels] = shape(&file, &name)?;
            Ok((place.clone(), floats(&file, &name, &[channels])?.into()))
        };
        read_histograms(&file, &header.histograms, network)?;
        Ok(Calibration {
            images: array(images, [count, pixels]),
            scores: array(scores, [count, classes]),
            means: header.places.iter().map(mean).collect::<Result<_, Problem>>()?,
            margins,
            gains: header.sources.into_iter().zip(gains).collect(),
            growth: array(growth, [header.places.len(); 2]),
            places: header.places,
        })
    }

    /// The calibration file of `network`: this, and the histograms of single channels that the
    /// network's activations have. Equal calibrations of equal networks give equal bytes.
    ///
    /// # Panics
    /// If the parts do not fit each other.
    pub fn to_bytes(&self, network: &Network) -> Vec<u8> {
        let histograms: Vec<(&str, &[Histogram])> =
            network.layers.iter().filter_map(|layer| Some((layer.name.as_str(), channels(&layer.op)?))).collect();
        let header = Header {
            format: FORMAT,
            network: hex(&network.fingerprint),
            histograms: histograms.iter().map(|(name, _)| (*name).to_owned()).collect(),
            places: self.places.clone(),
            sources: self.gains.keys().cloned().collect(),
        };
        let header = serde_json::to_string(&header).expect("plain text always encodes");
        let measured = self.margins.len();
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut add = |name: &str, shape: &[usize], values: &mut dyn Iterator<Item = f32>| {
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            tensors.push((name.into(), Dtype::F32, shape.to_vec(), bytes));
        };
        add("scores", self.scores.shape(), &mut self.scores.iter().copied());
        add("margins", &[measured], &mut self.margins.iter().copied());
        let shape = [self.gains.len(), measured];
        add("margin_gains", &shape, &mut self.gains.values().flat_map(|gains| gains.margin.iter().copied()));
        add("score_gains", &shape, &mut self.gains.values().flat_map(|gains| gains.score.iter().copied()));
        add("growth", self.growth.shape(), &mut self.growth.iter().copied());
        for (place, means) in &self.means {
            add(&format!("{MEANS}{place}"), &[means.len()], &mut means.iter().copied());
        }
        let pixels = self.images.iter().copied().collect();
        tensors.push(("images".into(), Dtype::U8, self.images.shape().to_vec(), pixels));
        for (name, channels) in histograms {
            let ranges = channels.iter().flat_map(|channel| [channel.low, channel.high]);
            let ranges = ranges.flat_map(f64::to_le_bytes).collect();
            tensors.push((ranges_of(name), Dtype::F64, vec![channels.len(), 2], ranges));
            let counts = channels.iter().flat_map(|channel| &channel.counts);
            let counts = counts.flat_map(|count| count.to_le_bytes()).collect();
            tensors.push((counts_of(name), Dtype::U64, vec![channels.len(), CHANNEL_BINS], counts));
        }
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("shapes fit the values"))
        });
        safetensors::serialize(views, Some(HashMap::from([(HEADER.into(), header)]))).expect("valid tensors")
    }
}

/// At most [`MAX_NAMES`], each once, without control characters.
fn check_names(what: &str, names: &[String]) -> Result<(), Problem> {
    let invalid = |message| Err(Problem::Calibration { message });
    if names.len() > MAX_NAMES {
        return invalid(format!("it has {} {what}; at most {MAX_NAMES} are read", names.len()));
    }
    if let Some(name) = names.iter().find(|name| name.contains(char::is_control)) {
        return invalid(format!("a name of its {what}, `{}`, has control characters", text::name(name)));
    }
    let mut known = BTreeSet::new();
    match names.iter().find(|name| !known.insert(*name)) {
        Some(name) => invalid(format!("it has two {what} named `{}`", text::name(name))),
        None => Ok(()),
    }
}

/// Histograms of the channels before an activation, if there are any.
fn channels(op: &LayerOp) -> Option<&[Histogram]> {
    match op {
        LayerOp::Polynomial { inputs: Some(inputs), .. } => {
            Some(inputs.channels.as_slice()).filter(|channels| !channels.is_empty())
        }
        _ => None,
    }
}

/// Gives the activations of `network` the histograms of their channels; `named` are those that have
/// some.
fn read_histograms(file: &SafeTensors<'_>, named: &[String], network: &mut Network) -> Result<(), Problem> {
    let mut named = named.iter().peekable();
    for layer in &mut network.layers {
        if named.peek() != Some(&&layer.name) {
            continue;
        }
        named.next();
        let (coefficients, inputs) = match &mut layer.op {
            LayerOp::Polynomial { coefficients, inputs: Some(inputs) } if coefficients.len() > 1 => {
                (coefficients, inputs)
            }
            _ => {
                let message = format!(
                    "it has histograms of the channels before layer `{}`, which has no coefficients per channel or \
                     states no histogram of its own",
                    layer.name
                );
                return Err(Problem::Calibration { message });
            }
        };
        let shape = |columns: usize| [coefficients.len(), columns];
        let ranges = tensor(file, &ranges_of(&layer.name), Dtype::F64, &shape(2))?;
        let counts = tensor(file, &counts_of(&layer.name), Dtype::U64, &shape(CHANNEL_BINS))?;
        let number = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes);
        for (ends, counts) in ranges.as_chunks().0.chunks_exact(2).zip(counts.chunks_exact(8 * CHANNEL_BINS)) {
            let counts = counts.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
            let channel = Histogram { low: number(&ends[0]), high: number(&ends[1]), counts };
            checked_histogram("histogram of a channel", &channel).map_err(|problem| {
                let message = format!("channel {} before layer `{}`: {problem}", inputs.channels.len(), layer.name);
                Problem::Calibration { message }
            })?;
            inputs.channels.push(channel);
        }
    }
    match named.next() {
        None => Ok(()),
        Some(name) => {
            let message = format!("it has histograms before `{name}`, which is no layer or not in the network's order");
            Err(Problem::Calibration { message })
        }
    }
}

fn ranges_of(layer: &str) -> String {
    format!("histograms/{layer}/ranges")
}

fn counts_of(layer: &str) -> String {
    format!("histograms/{layer}/counts")
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn array<T>(values: Vec<T>, shape: [usize; 2]) -> Array2<T> {
    Array2::from_shape_vec(shape, values).expect("lengths were compared with shapes")
}

fn view<'a>(file: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>, Problem> {
    file.tensor(name).map_err(|_| Problem::Calibration { message: format!("it has no tensor `{}`", text::name(name)) })
}

/// Shape of a tensor of so many axes.
fn shape<const K: usize>(file: &SafeTensors<'_>, name: &str) -> Result<[usize; K], Problem> {
    let found = view(file, name)?.shape().to_vec();
    let message = format!("tensor `{}` has shape {}; {K} axes are needed", text::name(name), numbers(&found));
    found.try_into().map_err(|_| Problem::Calibration { message })
}

fn tensor<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [u8], Problem> {
    let view = view(file, name)?;
    if view.dtype() == dtype && view.shape() == shape {
        return Ok(view.data());
    }
    let message = format!(
        "tensor `{}` is {:?} of shape {}; {dtype:?} of shape {shape:?} is needed",
        text::name(name),
        view.dtype(),
        numbers(view.shape())
    );
    Err(Problem::Calibration { message })
}

/// Finite values of a tensor.
fn floats(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, Problem> {
    let bytes = tensor(file, name, Dtype::F32, shape)?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => {
            let message = format!("tensor `{}` holds {} at position {index}", text::name(name), values[index]);
            Err(Problem::Calibration { message })
        }
    }
}
