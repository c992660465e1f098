//! A network of one's own, built in memory: a convolution, a skip, an activation, scores. It is calibrated on images, planned, and
//! run encrypted.
//!
//! ```text
//! cargo run --release -p cryptodl --example own_network
//! ```

use cryptodl::network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Source};
use cryptodl::{Client, Model, Placement, PlanOptions, Server, Watch};
use ndarray::{Array1, Array2, Array4};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Weights would come from training; these are waves.
    let wave = |i: usize| (i as f32 * 0.7).sin();
    let convolution = |[out, input]: [usize; 2]| LayerOp::Conv2d {
        weight: Array4::from_shape_fn((out, input, 3, 3), |(o, i, y, x)| 0.3 * wave(7 * o + 5 * i + 3 * y + x)),
        bias: None,
        stride: [1; 2],
        padding: Padding::even([1; 2]),
        dilation: [1; 2],
        groups: 1,
    };
    let square = || LayerOp::Polynomial { coefficients: vec![vec![0.1, 0.5, 0.2]], inputs: None };
    let layers = vec![
        Layer::new("stem", convolution([4, 1]), vec![Source::Input]),
        Layer::new("act1", square(), vec![Source::Layer(0)]),
        Layer::new("inner", convolution([4, 4]), vec![Source::Layer(1)]),
        Layer::new("skip", LayerOp::Add, vec![Source::Layer(2), Source::Layer(1)]),
        Layer::new("act2", square(), vec![Source::Layer(3)]),
        Layer::new("pool", LayerOp::GlobalAvgPool2d, vec![Source::Layer(4)]),
        Layer::new("flat", LayerOp::Flatten, vec![Source::Layer(5)]),
        Layer::new(
            "scores",
            LayerOp::Dense {
                weight: Array2::from_shape_fn((3, 4), |(o, i)| wave(11 * o + i)),
                bias: Some(Array1::from_vec(vec![0.1, 0.0, -0.1])),
            },
            vec![Source::Layer(6)],
        ),
    ];
    let input = InputSpec { shape: [1, 8, 8], range: [0.0, 1.0] };
    let network = Network::new(NetworkSpec::new("waves", "A network of one's own", input, layers))?;

    // What the planner must know of the values inside: measured on images such as will come.
    let images = Array4::from_shape_fn((256, 1, 8, 8), |(n, _, y, x)| 0.5 + 0.5 * wave(13 * n + n * y + 3 * x));
    let model = Model::from(network).calibrated(images.view())?;
    let plan = model.plan(&PlanOptions::default(), Watch::default())?;
    println!("{}", plan.report);

    let service = Server::new(Placement::default())?.prepare(&plan.program)?;
    let client = Client::from(service.spec().clone());
    let keys = client.generate_keys()?;
    let (mut request, mut response) = (Vec::new(), Vec::new());
    client.encrypt(&keys, images.as_slice().ok_or("images in order")?, &mut request, Watch::default())?;
    let accepted = service.accept_keys(&keys.evaluation, &keys.public)?;
    service.infer(&accepted, &request[..], &mut response, Watch::default())?;
    let labels = client.decrypt(&keys.secret, &response[..], Watch::default())?.labels;
    let scores = model.plaintext_scores(images.view());
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
    let same =
        scores.rows().into_iter().zip(&labels).filter(|(row, label)| largest(row.view()) == Some(**label as usize));
    println!("{} of {} labels are those of the network in the clear", same.count(), labels.len());
    Ok(())
}
