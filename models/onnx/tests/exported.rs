//! Files that PyTorch, TensorFlow and ONNX itself made, against the scores of onnxruntime.
//!
//! `generate.py` beside this file makes them. Those of small networks are in `fixtures`; the others
//! are made by `tests/long.sh onnx`, which sets CRYPTODL_ONNX to their folder.

use std::fs;
use std::path::{Path, PathBuf};

use cryptodl_network::{LayerOp, Network, plain};
use cryptodl_onnx::{ImportError, ImportOptions, Imported, import};
use ndarray::{Array2, Array4};

fn load(path: &Path) -> Result<Imported, ImportError> {
    import(path, &ImportOptions::new("imported"))
}

fn floats(path: PathBuf) -> Option<Vec<f32>> {
    let bytes = fs::read(path).ok()?;
    Some(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// The file of the same name with this extension.
fn beside(stem: &Path, extension: &str) -> PathBuf {
    let name = stem.file_name().unwrap_or_default().to_string_lossy();
    stem.with_file_name(format!("{name}.{extension}"))
}

/// The largest difference between the network's scores and those in the file, in terms of the
/// largest score; none where their numbers differ.
fn difference(network: &Network, stem: &Path) -> Option<f32> {
    let (images, expected) = (floats(beside(stem, "images"))?, floats(beside(stem, "scores"))?);
    let [c, h, w] = network.input.shape;
    let images = Array4::from_shape_vec((images.len() / (c * h * w), c, h, w), images).ok()?;
    let expected = Array2::from_shape_vec((images.dim().0, network.classes()), expected).ok()?;
    let largest = expected.iter().fold(1.0f32, |largest, score| largest.max(score.abs()));
    let found = plain::logits(network, images.view());
    Some((found - expected).iter().fold(0.0f32, |most, v| most.max(v.abs())) / largest)
}

/// A small network: as it is committed, or as the exporters of today write it.
fn fixture(name: &str) -> PathBuf {
    match std::env::var_os("CRYPTODL_ONNX") {
        Some(folder) => PathBuf::from(folder).join("fixtures").join(name),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name),
    }
}

/// The folder that the long tests made.
fn made(what: &str) -> PathBuf {
    let folder = std::env::var_os("CRYPTODL_ONNX").expect("CRYPTODL_ONNX is set by tests/long.sh onnx");
    PathBuf::from(folder).join(what)
}

/// What the layers compute of what. Biases and coefficients that exporters computed may differ in
/// their last bits.
fn operations(network: &Network) -> Vec<(&'static str, Vec<f32>, String)> {
    let one = |layer: &cryptodl_network::Layer| {
        let numbers = match &layer.op {
            LayerOp::Conv2d { weight, bias, .. } => weight.iter().chain(bias.iter().flatten()).copied().collect(),
            LayerOp::Dense { weight, bias } => weight.iter().chain(bias.iter().flatten()).copied().collect(),
            LayerOp::Polynomial { coefficients, .. } => coefficients.iter().flatten().map(|&c| c as f32).collect(),
            LayerOp::BatchNorm { gamma, beta, mean, var, .. } => {
                [gamma, beta, mean, var].into_iter().flatten().copied().collect()
            }
            _ => Vec::new(),
        };
        let geometry = match &layer.op {
            LayerOp::Conv2d { stride, padding, dilation, groups, .. } => {
                format!("{stride:?} {padding} {dilation:?} {groups}")
            }
            LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
                format!("{kernel:?} {stride:?}")
            }
            _ => String::new(),
        };
        let mut inputs = layer.inputs.clone();
        inputs.sort_by_key(|source| source.value());
        (layer.op.kind(), numbers, format!("{geometry} of {inputs:?}"))
    };
    network.layers.iter().map(one).collect()
}

#[test]
fn small_networks_score_as_onnxruntime_does() {
    for (name, exporters) in [
        ("line", &["legacy", "dynamo", "tensorflow"][..]),
        ("residual", &["legacy", "dynamo", "tensorflow"]),
        ("spelled", &["legacy", "dynamo"]),
        ("colour", &["legacy", "dynamo"]),
    ] {
        for exporter in exporters {
            let network = load(&fixture(&format!("{name}.{exporter}.onnx")))
                .unwrap_or_else(|error| panic!("{name}.{exporter}: {error}"));
            let difference = difference(&network.network, &fixture(name)).expect("as many scores");
            assert!(difference < 1e-5, "{name}.{exporter} differs by {difference}");
        }
    }
}

/// The same layers with the same numbers, and so the same plan.
#[test]
fn both_exporters_of_pytorch_and_tensorflow_give_the_same_network() {
    for name in ["line", "residual", "spelled", "colour"] {
        let network = |exporter: &str| load(&fixture(&format!("{name}.{exporter}.onnx"))).unwrap().network;
        let legacy = network("legacy");
        assert_eq!(operations(&legacy), operations(&network("dynamo")), "{name}");
        if ["line", "residual"].contains(&name) {
            assert_eq!(operations(&legacy), operations(&network("tensorflow")), "{name}");
        }
    }
    // Layers are called as the modules are.
    let line = load(&fixture("line.dynamo.onnx")).unwrap().network;
    let names: Vec<&str> = line.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert!(
        names.contains(&"conv") && names.contains(&"pool") && names.contains(&"act") && names.contains(&"fc2"),
        "{names:?}"
    );
}

#[test]
fn what_cannot_be_computed_is_named() {
    for exporter in ["legacy", "dynamo"] {
        let error = load(&fixture(&format!("relu.{exporter}.onnx"))).unwrap_err().to_string();
        assert!(error.contains("(Relu)") && error.contains("polynomial activation"), "{error}");
    }
}

#[test]
#[ignore = "tests/long.sh onnx makes the files"]
fn shipped_networks_score_as_onnxruntime_does() {
    let mut seen = 0;
    for entry in fs::read_dir(made("zoo")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            let network = load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).network;
            let difference = difference(&network, &path.with_extension("")).expect("as many scores");
            assert!(difference < 1e-4, "{} differs by {difference}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 22);
}

/// Cases with one image, series or vector, one output, and operators that are computed: every other
/// one must be refused.
const SUPPORTED: usize = 44;

#[test]
#[ignore = "tests/long.sh onnx makes the files"]
fn reference_cases_match_or_are_refused_by_name() {
    let mut paths: Vec<PathBuf> = fs::read_dir(made("reference")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    paths.sort();
    let (mut matching, mut wrong) = (0, Vec::new());
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let found = match load(path) {
            Ok(imported) => match difference(&imported.network, &path.with_extension("")) {
                Some(difference) if difference < 1e-5 => {
                    matching += 1;
                    "matches".to_string()
                }
                other => {
                    wrong.push(format!("{name}: {other:?}"));
                    format!("differs by {other:?}")
                }
            },
            Err(error) => format!("refused: {error}"),
        };
        println!("{name:<50} {found}");
    }
    println!("{} cases: {matching} match, {} are refused", paths.len(), paths.len() - matching - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((paths.len(), matching), (140, SUPPORTED));
}
