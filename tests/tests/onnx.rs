//! Shipped networks that PyTorch exported to ONNX and that were imported again: the same Program.
//!
//! `tests/long.sh onnx` makes the files and sets CRYPTODL_ONNX to their folder.

use std::path::PathBuf;

use cryptodl_network::{LayerOp, Network};
use cryptodl_onnx::{ImportOptions, import};
use cryptodl_plan::{PlanOptions, plan};

/// `network` with what is stated of the values of `calibrated`, whose layers have the same names.
fn with_calibration_of(network: &Network, calibrated: &Network) -> Network {
    let mut network = network
        .changed(|spec| {
            spec.name = calibrated.name.clone();
            spec.title = calibrated.title.clone();
            spec.input = calibrated.input;
            spec.tolerance = calibrated.tolerance;
            spec.output = calibrated.output.clone();
            for (layer, known) in spec.layers.iter_mut().zip(&calibrated.layers) {
                assert_eq!(layer.name, known.name);
                (layer.input_rms, layer.output_range) = (known.input_rms, known.output_range);
                if let (LayerOp::Polynomial { inputs, .. }, LayerOp::Polynomial { inputs: known, .. }) =
                    (&mut layer.op, &known.op)
                {
                    *inputs = known.clone();
                }
            }
        })
        .unwrap();
    network.calibration = calibrated.calibration.clone();
    network
}

#[test]
#[ignore = "tests/long.sh onnx makes the files"]
fn imported_networks_have_the_programs_of_the_shipped_ones() {
    let folder = PathBuf::from(std::env::var_os("CRYPTODL_ONNX").expect("CRYPTODL_ONNX is set by tests/long.sh onnx"))
        .join("zoo");
    let mut wrong = Vec::new();
    for name in cryptodl_zoo::names() {
        let shipped = cryptodl_zoo::load(name).unwrap();
        let imported = import(&folder.join(format!("{name}.onnx")), &ImportOptions::new(name)).unwrap().network;
        assert_eq!(imported.layers.len(), shipped.layers.len(), "{name}");
        let imported = with_calibration_of(&imported, &shipped);
        let digest = |network: &Network| plan(network, &PlanOptions::default()).unwrap().program.digest().to_string();
        let (found, expected) = (digest(&imported), digest(&shipped));
        println!("{name:<24} {found} {}", if found == expected { "same" } else { "DIFFERENT" });
        if found != expected {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
