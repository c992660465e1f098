//! What predictions rest on, measured image by image on the network as the planner folds it.
//!
//! Noise is small, so an image's scores answer to it linearly. One backward pass per class gives the derivative of every score by
//! every value at every place at once; the sum of their squares is the variance that independent noise of unit variance there
//! makes. Forward passes of random signs tell how noise grows from place to place, which is needed only for the headroom.

use cryptodl_network::limits::{MAX_MARGINS as MEASURED, MAX_STORED_IMAGES as STORED};
use cryptodl_network::{Calibration, Network, SourceGains};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::fold::fold;
use super::gains::{Element, ElementKind, Elements};
use super::normalise::{Activation, normalise};
use super::{PlanError, RealMap};
use cryptodl_program::{Arrangement, SplitMix, sum};

/// Fewest of them, however large the network.
const FEWEST_STORED: usize = 32;
/// Multiply-adds that a planner may spend on the stored images.
const STORED_WORK: u64 = 1 << 31;
/// Images that random signs are sent along with.
const PROBED: usize = 64;
/// Images that one task follows forward and back.
const CHUNK: usize = 4;
/// Classes up to which every score has a backward pass of its own; more are met by so many random mixtures.
const EXACT_CLASSES: usize = 16;

/// Measures the per-image calibration of `network` on `images`, `[image][pixel]` in the input's range, of which it takes as many as
/// it needs at equal distances. Deterministic.
///
/// # Errors
/// What folding refuses.
///
/// # Panics
/// If there are no images, or rows of another length than the network's input.
pub fn calibrate(network: &Network, images: ArrayView2<'_, f32>) -> Result<Calibration, PlanError> {
    assert!(images.nrows() > 0, "images to measure on");
    let stages = normalise(fold(network)?)?;
    let elements = Elements::new(&stages);
    let places = elements.places().names();
    let stored = stored(&elements);

    let (low, high) = (network.input.range[0], network.input.range[1]);
    let byte = |v: f32| ((f64::from(v) - low) / (high - low) * 255.0).round().clamp(0.0, 255.0) as u8;
    let chosen = spread(images, stored);
    let pixels = Array2::from_shape_fn((chosen.nrows(), chosen.ncols()), |at| byte(chosen[at]));
    let Followed { means, scores } = follow(&elements, &values(&pixels, network.input.range));

    let measured = spread(images, MEASURED);
    let chunks: Vec<ArrayView2<'_, f32>> = measured.axis_chunks_iter(Axis(0), CHUNK).collect();
    let mut found: Vec<ImageGains> =
        chunks.into_par_iter().flat_map_iter(|chunk| backward(&elements, &batch_of(chunk))).collect();
    found.sort_by(|a, b| a.margin.total_cmp(&b.margin));
    let sources: Vec<&String> = found[0].gains.iter().map(|(name, _)| name).collect();
    let gains = sources.iter().enumerate().map(|(i, &name)| {
        let part = |part: usize| found.iter().map(|image| image.gains[i].1[part] as f32).collect();
        (name.clone(), SourceGains { margin: part(0), score: part(1) })
    });
    let gains = gains.collect();

    let probed = batch_of(spread(images, PROBED).view());
    let growth: Vec<Vec<f64>> = (0..places.len()).into_par_iter().map(|from| probe(&elements, &probed, from)).collect();
    let growth = Array2::from_shape_fn((places.len(), places.len()), |(from, to)| growth[from][to] as f32);
    Ok(Calibration {
        images: pixels,
        scores: scores.mapv(|score| score as f32),
        means: places
            .iter()
            .cloned()
            .zip(means.into_iter().map(|means| means.into_iter().map(|mean| mean as f32).collect()))
            .collect(),
        margins: found.iter().map(|image| image.margin as f32).collect(),
        gains,
        places: places.to_vec(),
        growth,
    })
}

/// How many images are stored, so that a planner can follow them within seconds.
pub fn stored(elements: &Elements<'_>) -> usize {
    let work: u64 = elements.all().iter().map(Element::multiply_adds).sum();
    (STORED_WORK / work.max(1)).clamp(FEWEST_STORED as u64, STORED as u64) as usize
}

/// At most `count` rows at equal distances.
fn spread(images: ArrayView2<'_, f32>, count: usize) -> Array2<f32> {
    let taken = count.min(images.nrows());
    let rows: Vec<usize> = (0..taken).map(|i| i * images.nrows() / taken).collect();
    images.select(Axis(0), &rows)
}

/// The values of some images at a place.
pub struct ImageBatch {
    /// `[value][image]`.
    pub values: Vec<f64>,
    /// How many images.
    pub images: usize,
}

fn batch_of(images: ArrayView2<'_, f32>) -> ImageBatch {
    ImageBatch { values: images.t().iter().map(|&v| v.into()).collect(), images: images.nrows() }
}

/// What stored pixels stand for, in tasks of some images each.
pub fn values(pixels: &Array2<u8>, [low, high]: [f64; 2]) -> Vec<ImageBatch> {
    let task = |chunk: ArrayView2<'_, u8>| ImageBatch {
        values: chunk.t().iter().map(|&p| low + f64::from(p) / 255.0 * (high - low)).collect(),
        images: chunk.nrows(),
    };
    pixels.axis_chunks_iter(Axis(0), 32).map(task).collect()
}

/// Means of each channel of `[value][image]` values that lie in tasks.
pub fn channel_means(tasks: &[ImageBatch], channels: usize) -> Vec<f64> {
    let images: usize = tasks.iter().map(|task| task.images).sum();
    let per_channel = tasks[0].values.len() / tasks[0].images / channels;
    let mean = |channel: usize| {
        let sums = tasks.iter().map(|task| {
            let length = per_channel * task.images;
            task.values[channel * length..][..length].iter().sum::<f64>()
        });
        sums.sum::<f64>() / (images * per_channel) as f64
    };
    (0..channels).map(mean).collect()
}

/// Scores `[image][class]` from the values of the last place.
pub fn scores_of(tasks: &[ImageBatch]) -> Array2<f64> {
    let classes = tasks[0].values.len() / tasks[0].images;
    let rows: Vec<f64> = tasks
        .iter()
        .flat_map(|task| (0..task.images).map(move |image| (task, image)))
        .flat_map(|(task, image)| (0..classes).map(move |class| task.values[class * task.images + image]))
        .collect();
    Array2::from_shape_vec((rows.len() / classes, classes), rows).expect("a row for every image")
}

/// What stored images come to.
struct Followed {
    /// By place, the mean of every channel.
    means: Vec<Vec<f64>>,
    /// `[image][class]`.
    scores: Array2<f64>,
}

fn follow(elements: &Elements<'_>, input: &[ImageBatch]) -> Followed {
    let last = elements.last_readers();
    let copy = |tasks: &[ImageBatch]| -> Vec<ImageBatch> {
        tasks.iter().map(|task| ImageBatch { values: task.values.clone(), images: task.images }).collect()
    };
    let mut values: Vec<Option<Vec<ImageBatch>>> = vec![Some(copy(input))];
    let mut channels = vec![elements.input_channels()];
    let mut means = vec![channel_means(input, channels[0])];
    for (i, element) in elements.all().iter().enumerate() {
        let tasks: Vec<ImageBatch> = (0..input.len())
            .into_par_iter()
            .map(|task| {
                let images = input[task].images;
                let operands: Vec<&Vec<f64>> = element
                    .inputs
                    .iter()
                    .map(|&place| &values[place].as_ref().expect("kept for its last reader")[task].values)
                    .collect();
                ImageBatch { values: element.apply(&operands, images, true), images }
            })
            .collect();
        channels.push(match element.kind {
            ElementKind::Map(map) => map.geometry.channels,
            ElementKind::Join | ElementKind::Activation(_) => channels[element.inputs[0]],
        });
        means.push(channel_means(&tasks, channels[i + 1]));
        values.push(Some(tasks));
        element.inputs.iter().filter(|&&place| last[place] == Some(i)).for_each(|&place| values[place] = None);
    }
    let scores = values.pop().flatten().expect("a network has elements");
    Followed { means, scores: scores_of(&scores) }
}

impl Elements<'_> {
    fn input_channels(&self) -> usize {
        let first = self.all().iter().find_map(|element| match element.kind {
            ElementKind::Map(map) if element.inputs == [0] => Some(map.geometry.input[0]),
            _ => None,
        });
        first.expect("a network's input goes through a map")
    }

    /// The values at every place.
    fn forward(&self, input: &ImageBatch) -> Vec<Vec<f64>> {
        let mut values = vec![input.values.clone()];
        for element in self.all() {
            let operands: Vec<&Vec<f64>> = element.inputs.iter().map(|&place| &values[place]).collect();
            let result = element.apply(&operands, input.images, true);
            values.push(result);
        }
        values
    }
}

impl Element<'_> {
    fn multiply_adds(&self) -> u64 {
        match self.kind {
            ElementKind::Map(map) => map.geometry.multiply_adds(),
            ElementKind::Join | ElementKind::Activation(_) => 0,
        }
    }

    /// Of values `[value][image]`.
    fn apply(&self, operands: &[&Vec<f64>], images: usize, with_bias: bool) -> Vec<f64> {
        match self.kind {
            ElementKind::Map(RealMap { geometry, weights, bias, .. }) => {
                geometry.apply(weights, with_bias.then_some(bias), operands[0], images)
            }
            ElementKind::Join => sum(operands.iter().copied()),
            ElementKind::Activation(activation) => {
                let count = operands[0].len() / images;
                let rows = operands[0].chunks_exact(images).enumerate();
                rows.flat_map(|(value, row)| {
                    let channel = activation.of(value, count);
                    row.iter().map(|&z| channel.value(z))
                })
                .collect()
            }
        }
    }
}

/// The gains of one image: `[margin, score]` for every source.
struct ImageGains {
    margin: f64,
    gains: Vec<(String, [f64; 2])>,
}

/// Follows images forward, and the derivatives of their margins and scores back.
fn backward(elements: &Elements<'_>, input: &ImageBatch) -> Vec<ImageGains> {
    let images = input.images;
    let values = elements.forward(input);
    let scores = values.last().expect("the scores");
    let classes = scores.len() / images;
    let best = |image: usize, except: Option<usize>| {
        let others = (0..classes).filter(|&class| Some(class) != except);
        let score = |class: usize| scores[class * images + image];
        others.reduce(|best, class| if score(class) > score(best) { class } else { best }).expect("two classes")
    };
    let top: Vec<(usize, usize)> = (0..images)
        .map(|image| {
            let first = best(image, None);
            (first, best(image, Some(first)))
        })
        .collect();

    // Column 0 of an image is its margin, the others are scores, or mixtures of them with random
    // signs.
    let exact = classes <= EXACT_CLASSES;
    let mixtures = if exact { classes } else { EXACT_CLASSES };
    let per_image = 1 + mixtures;
    let mut random = SplitMix(classes as u64);
    let signs: Vec<f64> = (0..mixtures * classes).map(|_| random.sign()).collect();
    let mut slope = vec![0.0; classes * images * per_image];
    for class in 0..classes {
        for (image, &(first, second)) in top.iter().enumerate() {
            let row = &mut slope[(class * images + image) * per_image..][..per_image];
            row[0] = f64::from(u8::from(class == first)) - f64::from(u8::from(class == second));
            for (mixture, entry) in row[1..].iter_mut().enumerate() {
                *entry = match exact {
                    true => f64::from(u8::from(class == mixture)),
                    false => signs[mixture * classes + class],
                };
            }
        }
    }
    // Mean over classes of the squared derivative.
    let share = 1.0 / if exact { classes } else { classes * mixtures } as f64;
    let gain = |slope: &[f64], weight: &dyn Fn(usize) -> f64| {
        let mut gains = vec![[0.0f64; 2]; images];
        for (at, row) in slope.chunks_exact(per_image).enumerate() {
            let weight = weight(at);
            let power = weight * weight;
            let [margin, score] = &mut gains[at % images];
            *margin += power * row[0] * row[0];
            *score += power * share * row[1..].iter().map(|v| v * v).sum::<f64>();
        }
        gains.into_iter().map(|[margin, score]| [margin.sqrt(), score.sqrt()]).collect::<Vec<_>>()
    };
    let margin = |image: usize| {
        let (first, second) = top[image];
        scores[first * images + image] - scores[second * images + image]
    };
    let mut found: Vec<ImageGains> =
        (0..images).map(|image| ImageGains { margin: margin(image), gains: Vec::new() }).collect();
    let mut enter = |name: String, gains: Vec<[f64; 2]>| {
        found.iter_mut().zip(gains).for_each(|(image, gains)| image.gains.push((name.clone(), gains)));
    };
    // By place, the derivatives that have come back so far.
    let mut slopes: Vec<Option<Vec<f64>>> = vec![None; values.len()];
    *slopes.last_mut().expect("the scores") = Some(slope);
    for (i, element) in elements.all().iter().enumerate().rev() {
        // What nothing reads changes no score.
        let Some(slope) = slopes[i + 1].take() else { continue };
        enter(elements.places().names()[i + 1].clone(), gain(&slope, &|_| 1.0));
        let mut back = |place: usize, slope: Vec<f64>| match &mut slopes[place] {
            None => slopes[place] = Some(slope),
            Some(sum) => sum.iter_mut().zip(slope).for_each(|(sum, v)| *sum += v),
        };
        match element.kind {
            ElementKind::Map(map) => {
                let slope = map.geometry.apply_transposed(&map.weights, &slope, images * per_image);
                back(element.inputs[0], slope);
            }
            ElementKind::Join => element.inputs.iter().for_each(|&place| back(place, slope.clone())),
            ElementKind::Activation(activation) => {
                let inputs = &values[element.inputs[0]];
                let count = inputs.len() / images;
                let channel = |at: usize| activation.of(at / images, count);
                for &arrangement in Arrangement::of_degree(activation.degree()) {
                    let sensitivities: Vec<Vec<f64>> =
                        inputs.iter().enumerate().map(|(at, &z)| channel(at).sensitivities(arrangement, z)).collect();
                    (0..arrangement.products(activation.degree()) - 1).for_each(|product| {
                        let name = activation.product_name(arrangement, product);
                        enter(name, gain(&slope, &|at| sensitivities[at][product]));
                    });
                }
                let mut slope = slope;
                for (at, (row, &z)) in slope.chunks_exact_mut(per_image).zip(inputs).enumerate() {
                    let derivative = channel(at).derivative(z);
                    row.iter_mut().for_each(|v| *v *= derivative);
                }
                back(element.inputs[0], slope);
            }
        }
    }
    let slope = slopes[0].take().expect("the input reaches the scores");
    enter(super::gains::INPUT.into(), gain(&slope, &|_| 1.0));
    found
}

/// Root mean square at every place of random signs that start at place `from` and follow the linearised network.
fn probe(elements: &Elements<'_>, input: &ImageBatch, from: usize) -> Vec<f64> {
    let last = elements.last_readers();
    let images = input.images;
    let mut values: Vec<Option<Vec<f64>>> = vec![Some(input.values.clone())];
    let mut noise: Vec<Option<Vec<f64>>> = vec![None];
    let mut random = SplitMix(from as u64);
    let mut growth = vec![0.0; elements.all().len() + 1];
    for place in 0..growth.len() {
        if place > 0 {
            let element = &elements.all()[place - 1];
            let of = |at: usize| values[at].as_ref().expect("kept for its last reader");
            let operands: Vec<&Vec<f64>> = element.inputs.iter().map(|&at| of(at)).collect();
            let arriving: Vec<&Vec<f64>> = element.inputs.iter().filter_map(|&at| noise[at].as_ref()).collect();
            let arrives = (!arriving.is_empty()).then(|| match element.kind {
                ElementKind::Map(_) | ElementKind::Join => element.apply(&arriving, images, false),
                ElementKind::Activation(activation) => {
                    let count = operands[0].len() / images;
                    let each = arriving[0].iter().zip(operands[0]).enumerate();
                    each.map(|(at, (noise, &z))| noise * activation.of(at / images, count).derivative(z)).collect()
                }
            });
            let result = element.apply(&operands, images, true);
            noise.push(arrives);
            values.push(Some(result));
            for &at in element.inputs.iter().filter(|&&at| last[at] == Some(place - 1)) {
                (values[at], noise[at]) = (None, None);
            }
        }
        if place == from {
            let here = values[place].as_ref().expect("just made");
            noise[place] = Some(here.iter().map(|_| random.sign()).collect());
        }
        if let Some(noise) = &noise[place] {
            growth[place] = (noise.iter().map(|v| v * v).sum::<f64>() / noise.len() as f64).sqrt();
        }
    }
    growth
}

impl Activation {
    /// Name of the noise that enters after a product, before the last one.
    pub fn product_name(&self, arrangement: Arrangement, product: usize) -> String {
        let arrangement = match arrangement {
            Arrangement::Horner => "horner",
            Arrangement::PatersonStockmeyer => "squares",
        };
        format!("{}/{arrangement}/{product}", self.name)
    }
}
