//! What predictions rest on, measured image by image on the network as the planner folds it.
//!
//! Noise is small, so an image's scores answer to it linearly. One backward pass per class gives the derivative of every score by
//! every value at every place at once; the sum of their squares is the variance that independent noise of unit variance there
//! makes. Forward passes of random signs tell how noise grows from place to place, which is needed only for the headroom.

use cryptodl_models::network::{Calibration, Network, SourceGains};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::arrangement::Arrangement;
use super::fold::fold;
use super::gains::{Element, SplitMix, elements};
use super::normalise::{Activation, normalise};
use super::{PlanError, RealMap};

/// Images whose gains are stored.
pub const MEASURED: usize = 1000;
/// Most images that are stored for measuring weight rounding.
const STORED: usize = 256;
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
    let (elements, places) = elements(&stages);
    let stored = stored(&elements);

    let (low, high) = (network.input.range[0], network.input.range[1]);
    let byte = |v: f32| ((f64::from(v) - low) / (high - low) * 255.0).round().clamp(0.0, 255.0) as u8;
    let chosen = spread(images, stored);
    let pixels = Array2::from_shape_fn((chosen.nrows(), chosen.ncols()), |at| byte(chosen[at]));
    let (means, scores) = follow(&elements, &values(&pixels, network.input.range));

    let measured = spread(images, MEASURED);
    let chunks: Vec<ArrayView2<'_, f32>> = measured.axis_chunks_iter(Axis(0), CHUNK).collect();
    let mut found: Vec<ImageGains> =
        chunks.into_par_iter().flat_map_iter(|chunk| backward(&elements, &lanes(chunk))).collect();
    found.sort_by(|a, b| a.margin.total_cmp(&b.margin));
    let sources: Vec<&String> = found[0].gains.iter().map(|(name, _)| name).collect();
    let gains = sources.iter().enumerate().map(|(i, &name)| {
        let part = |part: usize| found.iter().map(|image| image.gains[i].1[part] as f32).collect();
        (name.clone(), SourceGains { margin: part(0), score: part(1) })
    });
    let gains = gains.collect();

    let probed = lanes(spread(images, PROBED).view());
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
        places,
        growth,
    })
}

/// How many images are stored, so that a planner can follow them within seconds.
pub fn stored(elements: &[Element<'_>]) -> usize {
    let work: u64 = elements.iter().map(Element::multiply_adds).sum();
    (STORED_WORK / work.max(1)).clamp(FEWEST_STORED as u64, STORED as u64) as usize
}

/// At most `count` rows at equal distances.
fn spread(images: ArrayView2<'_, f32>, count: usize) -> Array2<f32> {
    let taken = count.min(images.nrows());
    let rows: Vec<usize> = (0..taken).map(|i| i * images.nrows() / taken).collect();
    images.select(Axis(0), &rows)
}

/// Values that follow each other by image: `[value][image]`.
pub struct Lanes {
    pub values: Vec<f64>,
    pub images: usize,
}

fn lanes(images: ArrayView2<'_, f32>) -> Lanes {
    Lanes { values: images.t().iter().map(|&v| v.into()).collect(), images: images.nrows() }
}

/// What stored pixels stand for, in tasks of some images each.
pub fn values(pixels: &Array2<u8>, [low, high]: [f64; 2]) -> Vec<Lanes> {
    let task = |chunk: ArrayView2<'_, u8>| Lanes {
        values: chunk.t().iter().map(|&p| low + f64::from(p) / 255.0 * (high - low)).collect(),
        images: chunk.nrows(),
    };
    pixels.axis_chunks_iter(Axis(0), 32).map(task).collect()
}

/// Means of each channel of `[value][image]` values that lie in tasks.
pub fn channel_means(tasks: &[Lanes], channels: usize) -> Vec<f64> {
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
pub fn scores_of(tasks: &[Lanes]) -> Array2<f64> {
    let classes = tasks[0].values.len() / tasks[0].images;
    let rows: Vec<f64> = tasks
        .iter()
        .flat_map(|task| (0..task.images).map(move |image| (task, image)))
        .flat_map(|(task, image)| (0..classes).map(move |class| task.values[class * task.images + image]))
        .collect();
    Array2::from_shape_vec((rows.len() / classes, classes), rows).expect("a row for every image")
}

/// Channel means at every place, and the scores.
fn follow(elements: &[Element<'_>], input: &[Lanes]) -> (Vec<Vec<f64>>, Array2<f64>) {
    let copy = |task: &Lanes| Lanes { values: task.values.clone(), images: task.images };
    let mut tasks: Vec<Lanes> = input.iter().map(copy).collect();
    let first = match elements.first() {
        Some(Element::Map(map)) => map.geometry.input[0],
        _ => unreachable!("a network starts with a map"),
    };
    let mut means = vec![channel_means(&tasks, first)];
    let mut channels = first;
    for element in elements {
        tasks.par_iter_mut().for_each(|task| task.values = element.apply(&task.values, task.images, true));
        if let Element::Map(map) = element {
            channels = map.geometry.channels;
        }
        means.push(channel_means(&tasks, channels));
    }
    (means, scores_of(&tasks))
}

impl Element<'_> {
    fn multiply_adds(&self) -> u64 {
        match self {
            Element::Map(map) => map.geometry.multiply_adds(),
            Element::Activation(_) => 0,
        }
    }

    /// Of values `[value][lane]`.
    fn apply(&self, values: &[f64], lanes: usize, with_bias: bool) -> Vec<f64> {
        match self {
            Element::Map(RealMap { geometry, weights, bias, .. }) => {
                geometry.apply(weights, with_bias.then_some(bias), values, lanes)
            }
            Element::Activation(activation) => values.iter().map(|&z| activation.value(z)).collect(),
        }
    }
}

/// The gains of one image: `[margin, score]` for every source.
struct ImageGains {
    margin: f64,
    gains: Vec<(String, [f64; 2])>,
}

/// Follows images forward, and the derivatives of their margins and scores back.
fn backward(elements: &[Element<'_>], input: &Lanes) -> Vec<ImageGains> {
    let images = input.images;
    let mut before: Vec<Vec<f64>> = vec![input.values.clone()];
    for element in elements {
        let values = element.apply(before.last().expect("the input"), images, true);
        before.push(values);
    }
    let scores = before.pop().expect("the scores");
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

    // Lane 0 of an image is its margin, the others are scores, or mixtures of them with random signs.
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
    for (place, element) in elements.iter().enumerate().rev() {
        enter(element.name().into(), gain(&slope, &|_| 1.0));
        let inputs = &before[place];
        match element {
            Element::Map(map) => slope = map.geometry.apply_transposed(&map.weights, &slope, images * per_image),
            Element::Activation(activation) => {
                for &arrangement in Arrangement::of_degree(activation.degree()) {
                    let sensitivities: Vec<Vec<f64>> =
                        inputs.iter().map(|&z| activation.sensitivities(arrangement, z)).collect();
                    (0..arrangement.products(activation.degree()) - 1).for_each(|product| {
                        let name = activation.product_name(arrangement, product);
                        enter(name, gain(&slope, &|at| sensitivities[at][product]));
                    });
                }
                for (row, &z) in slope.chunks_exact_mut(per_image).zip(inputs) {
                    let derivative = activation.derivative(z);
                    row.iter_mut().for_each(|v| *v *= derivative);
                }
            }
        }
    }
    enter(super::gains::INPUT.into(), gain(&slope, &|_| 1.0));
    found
}

/// Root mean square at every place of random signs that start at place `from` and follow the linearised network.
fn probe(elements: &[Element<'_>], images: &Lanes, from: usize) -> Vec<f64> {
    let mut values = images.values.clone();
    let mut noise: Option<Vec<f64>> = None;
    let mut random = SplitMix(from as u64);
    let mut growth = vec![0.0; elements.len() + 1];
    for (place, growth) in growth.iter_mut().enumerate() {
        if place == from {
            noise = Some(values.iter().map(|_| random.sign()).collect());
        }
        if let Some(noise) = &noise {
            *growth = (noise.iter().map(|v| v * v).sum::<f64>() / noise.len() as f64).sqrt();
        }
        let Some(element) = elements.get(place) else { break };
        noise = noise.map(|noise| match element {
            Element::Map(_) => element.apply(&noise, images.images, false),
            Element::Activation(activation) => {
                noise.iter().zip(&values).map(|(noise, &z)| noise * activation.derivative(z)).collect()
            }
        });
        values = element.apply(&values, images.images, true);
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
