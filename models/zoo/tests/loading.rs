//! Networks by name and from files.

use cryptodl_network::Network;
use cryptodl_zoo as zoo;

#[test]
fn an_unknown_model_is_met_with_the_nearest_or_with_all() {
    let error = zoo::load("Mnist1").unwrap_err().to_string();
    assert!(error.starts_with("unknown model `Mnist1`; did you mean `mnist-1`? For a model"), "{error}");
    let error = zoo::load("alexnet").unwrap_err().to_string();
    assert!(error.contains("unknown model `alexnet`. Shipped models are mnist-1, mnist-1-square"), "{error}");
}

#[test]
fn files_are_read_and_named_in_errors() {
    let net = zoo::load("mnist-1").unwrap();
    let (toml, weights) = (net.description("Written by a test.", None), net.weight_file());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let load = || zoo::load(path.to_str().unwrap());
    let refused = |fragment: &str| {
        let error = load().unwrap_err().to_string();
        assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
    };
    refused("cannot read");
    std::fs::write(&path, &toml).unwrap();
    refused("mnist-1.safetensors");
    std::fs::write(folder.path().join("mnist-1.safetensors"), &weights).unwrap();
    assert_eq!(load().unwrap().digest(), Network::parse("other", &toml, &weights, None).unwrap().digest());
    let calibrated = net.description("Written by a test.", Some("own.calibration.safetensors"));
    std::fs::write(&path, &calibrated).unwrap();
    refused("own.calibration.safetensors");
    let calibration = net.calibration.as_ref().unwrap().to_bytes(&net);
    std::fs::write(folder.path().join("own.calibration.safetensors"), calibration).unwrap();
    assert_eq!(load().unwrap().calibration, net.calibration);
    std::fs::write(&path, [0xff; 4]).unwrap();
    refused("own.toml: not UTF-8 text");
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    refused("larger than 1048576 bytes");
}
