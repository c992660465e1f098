//! Body of the fuzz target of the planner; `engine/plan/tests/fuzz_bodies.rs` runs it on stable Rust.

use std::fmt::Write as _;

use cryptodl_models::Network;
use cryptodl_plan::{PlanOptions, plan};
use cryptodl_program::PrivacyGoal;

/// Most layers of a network made of bytes.
const LAYERS: usize = 48;

/// Numbers that calibrations and weights take: usual ones, and those at which sums overflow or vanish.
const NUMBERS: [f32; 16] =
    [0.5, -0.25, 0.1, 1.0, -1.0, 0.02, 3.0, -0.7, 0.3, 20.0, 0.0, 1e-30, 3e38, -3e38, 1e12, -1e-12];

/// Plans the network that the bytes describe. It is planned or refused; what is planned, clients accept.
pub fn plan_network(data: &[u8]) {
    let (toml, weights) = describe(data);
    let Ok(network) = Network::parse("fuzz", &toml, &weights, None) else { return };
    // The search is another one where noise is hidden.
    let hides = data.first().is_some_and(|&byte| byte >= 224);
    let circuit_privacy = hides.then_some(PrivacyGoal { sets: 1, bits: 40 });
    if let Ok(plan) = plan(&network, &PlanOptions { circuit_privacy, ..PlanOptions::default() }) {
        plan.program.client_spec().check().expect("a client accepts what was planned");
    }
}

/// Description and weights of a network: every layer takes a few bytes.
pub fn describe(data: &[u8]) -> (String, Vec<u8>) {
    let mut bytes = Bytes(data);
    let mut image = [bytes.one_of(3), bytes.one_of(9), bytes.one_of(9)];
    let mut flat = None;
    let mut tensors = Vec::new();
    // Names and shapes of the layers whose outputs are images.
    let mut images: Vec<(String, [usize; 3])> = Vec::new();
    let [low, high] = bytes.range();
    let margin = bytes.number().abs();
    let mut toml = format!(
        "format = 1\nname = \"fuzz\"\ntitle = \"fuzz\"\nweights = \"w\"\n[input]\nshape = {image:?}\nrange = [0.0, 1.0]\n\
         [output]\nrange = [{low:e}, {high:e}]\nmargins = {{ low = {margin:e}, high = {:e}, counts = [1, 1] }}\n",
        2.0 * margin + f64::from(f32::MIN_POSITIVE),
    );
    for layer in 0.. {
        // Whatever was described, a network ends with a dense layer.
        let last = bytes.0.is_empty() || layer >= LAYERS;
        let name = format!("l{layer}");
        let mut open = |kind: &str, bytes: &mut Bytes| {
            let ([low, high], rms) = (bytes.range(), bytes.number().abs().max(1e-30));
            let _ = write!(
                toml,
                "[[layer]]\nname = \"{name}\"\nkind = \"{kind}\"\ninput_rms = {rms:e}\noutput_range = [{low:e}, {high:e}]\n"
            );
        };
        let [channels, height, width] = image;
        match (bytes.one_of(10), flat) {
            (_, Some(inputs)) if last => {
                open("dense", &mut bytes);
                let _ = writeln!(toml, "out_features = 3");
                tensors.push((format!("{name}.weight"), vec![3, inputs], bytes.numbers(3 * inputs)));
                break;
            }
            (_, None) if last => {
                open("flatten", &mut bytes);
                flat = Some(channels * height * width);
            }
            (1..=3, None) => {
                let (out, padding, stride) = (bytes.one_of(4), bytes.byte() % 2, bytes.one_of(2));
                let kernel = bytes.one_of(4).min(height.min(width));
                let _ =
                    (open("conv2d", &mut bytes), writeln!(toml, "out_channels = {out}\nkernel = [{kernel}, {kernel}]"));
                let _ = writeln!(toml, "stride = [{stride}, {stride}]\npadding = [{padding}, {padding}]");
                tensors.push((format!("{name}.weight"), vec![out, channels, kernel, kernel], {
                    bytes.numbers(out * channels * kernel * kernel)
                }));
                let along = |size: usize| (size + 2 * usize::from(padding) - kernel) / stride + 1;
                image = [out, along(height), along(width)];
            }
            (4, None) => {
                let kernel = bytes.one_of(9).min(height.min(width));
                let stride = bytes.one_of(kernel);
                open(["avg_pool2d", "sum_pool2d"][usize::from(bytes.byte() % 2)], &mut bytes);
                let _ = writeln!(toml, "kernel = [{kernel}, {kernel}]\nstride = [{stride}, {stride}]");
                image = [channels, (height - kernel) / stride + 1, (width - kernel) / stride + 1];
            }
            (5, _) => {
                open("batch_norm", &mut bytes);
                let values = flat.unwrap_or(channels);
                for part in ["weight", "bias", "running_mean", "running_var"] {
                    let mut numbers = bytes.numbers(values);
                    if part == "running_var" {
                        numbers.iter_mut().for_each(|number| *number = number.abs());
                    }
                    tensors.push((format!("{name}.{part}"), vec![values], numbers));
                }
            }
            (6 | 7, _) => {
                open("polynomial", &mut bytes);
                let mut coefficients: Vec<f64> = (0..=bytes.one_of(4)).map(|_| bytes.number()).collect();
                coefficients.push(0.3);
                let [low, high] = bytes.range();
                let _ = writeln!(toml, "coefficients = {coefficients:?}\nrange = [{low:e}, {high:e}]");
                let _ = writeln!(toml, "histogram = {{ low = {low:e}, high = {high:e}, counts = [1, 3, 1] }}");
            }
            (kind @ (9 | 10), None) if !images.is_empty() => {
                let (earlier, shape) = images[bytes.one_of(images.len()) - 1].clone();
                let (before, _) = images.last().cloned().unwrap_or_default();
                let adds = kind == 9 && shape == image;
                let concatenates = shape[1..] == image[1..] && channels + shape[0] <= 16;
                open(
                    if adds {
                        "add"
                    } else if concatenates {
                        "concat"
                    } else {
                        "identity"
                    },
                    &mut bytes,
                );
                if adds || concatenates {
                    let _ = writeln!(toml, "inputs = [\"{before}\", \"{earlier}\"]");
                }
                if !adds && concatenates {
                    image[0] += shape[0];
                }
            }
            (_, Some(inputs)) => {
                open("dense", &mut bytes);
                let out = bytes.one_of(6);
                let _ = writeln!(toml, "out_features = {out}");
                tensors.push((format!("{name}.weight"), vec![out, inputs], bytes.numbers(out * inputs)));
                flat = Some(out);
            }
            _ => open("identity", &mut bytes),
        }
        if flat.is_none() {
            images.push((name.clone(), image));
        }
    }
    (toml, safetensors(&tensors))
}

/// A weight file of these tensors: names, shapes, values.
fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, shape, values)| {
        let start = end;
        end += 4 * values.len();
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
    });
    let mut header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let values = tensors.iter().flat_map(|(.., values)| values).flat_map(|value| value.to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(values).collect()
}

/// Bytes taken one by one; zeros after the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// From 1 to `most`.
    fn one_of(&mut self, most: usize) -> usize {
        1 + usize::from(self.byte()) % most
    }

    /// A usual number for most bytes.
    fn number(&mut self) -> f64 {
        let byte = usize::from(self.byte());
        f64::from(NUMBERS[if byte < 224 { byte % 10 } else { byte % NUMBERS.len() }])
    }

    fn range(&mut self) -> [f64; 2] {
        let bound = self.number().abs().max(1e-30);
        [-bound, bound]
    }

    /// Two bytes decide any number of weights.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let (first, second) = (self.number() as f32, self.number() as f32);
        (0..count).map(|i| if i % 3 == 0 { first } else { second }).collect()
    }
}
