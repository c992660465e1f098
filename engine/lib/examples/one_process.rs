//! Client and server in one process: MNIST's test images, classified under encryption and compared with plaintext.
//!
//! ```text
//! cargo run --release -- data fetch mnist
//! cargo run --release -p cryptodl --example one_process
//! ```

use cryptodl::{Client, Model, Placement, PlanOptions, Server, Watch};
use cryptodl_data::{DatasetId, FetchOptions, Split};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::load("mnist-1")?;
    let set = cryptodl_data::load(DatasetId::Mnist, Split::Test, &FetchOptions::default())?;
    let images = set.images.to_values(&model.network().input)?;

    let program = model.plan(&PlanOptions::default(), Watch::default())?.program;
    let service = Server::new(Placement::default())?.prepare(&program)?;
    let client = Client::from(service.spec().clone());
    let keys = client.generate_keys()?;

    let (mut request, mut response) = (Vec::new(), Vec::new());
    client.encrypt(&keys, images.as_slice().ok_or("images in order")?, &mut request, Watch::default())?;
    let accepted = service.accept_keys(&keys.evaluation, &keys.public)?;
    let report = service.infer(&accepted, &request[..], &mut response, Watch::default())?;
    let labels = client.decrypt(&keys.secret, &response[..], Watch::default())?.labels;

    let right = labels.iter().zip(&set.labels).filter(|&(label, truth)| *label == u32::from(*truth)).count();
    println!("{right} of {} labels are right; computed in {:.3} s", labels.len(), report.seconds);
    let scores = model.plaintext_scores(images.view());
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
    let same =
        scores.rows().into_iter().zip(&labels).filter(|(row, label)| largest(row.view()) == Some(**label as usize));
    println!("{} are those of the network in the clear", same.count());
    println!("request {:.1} MB, response {:.2} MB", request.len() as f64 / 1e6, response.len() as f64 / 1e6);
    Ok(())
}
