//! What a request of few images costs: for each network named, 512 test images of its data set in groups as small as the
//! planner packs them, by one client with a server that has the client's keys.
//!
//! ```text
//! cargo run --release -- data fetch mnist
//! cargo run --release -p cryptodl --example few_images -- mnist-1 cryptonets
//! ```

use std::error::Error;
use std::time::Instant;

use cryptodl::{Client, Model, Placement, PlanOptions, Server, Watch};
use cryptodl_data::{FetchOptions, Split};
use ndarray::{Axis, Slice};

const IMAGES: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "| network | parameters | images | up, kB | down, kB | keys, MB | encrypt, ms | compute, ms | of it unpacking, ms | decrypt, ms | labels changed of {IMAGES} | promised |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    std::env::args().skip(1).try_for_each(|name| measure(&name))
}

/// Prints the row of a network.
fn measure(name: &str) -> Result<(), Box<dyn Error>> {
    let model = Model::load(name)?;
    let set = model.network().dataset.ok_or("a network with a data set")?;
    let set = cryptodl_data::load(set, Split::Test, &FetchOptions::default())?;
    let images = set.images.to_values(&model.network().input)?;
    let images = images.slice_axis(Axis(0), Slice::from(..IMAGES));

    let options = PlanOptions { batch: 1, ..PlanOptions::default() };
    let program = model.plan(&options, Watch::default())?.program;
    let service = Server::new(Placement::default())?.prepare(&program)?;
    let client = Client::from(service.spec().clone());
    let keys = client.generate_keys()?;
    let accepted = service.accept_keys(&keys.evaluation, &keys.public)?;
    let mut sent = Vec::new();
    client.write_evaluation_keys(&keys.evaluation, &mut sent)?;

    let params = client.spec().params();
    let group = params.n() >> client.spec().input.packing.log_leaves();
    let (mut request, mut response) = (Vec::new(), Vec::new());
    let (mut encrypt, mut compute, mut unpack, mut decrypt) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut labels = Vec::new();
    for images in images.axis_chunks_iter(Axis(0), group) {
        (request, response) = (Vec::new(), Vec::new());
        let pixels = images.as_slice().ok_or("images in order")?;
        let started = Instant::now();
        client.encrypt(&keys, pixels, &mut request, Watch::default())?;
        encrypt.push(started.elapsed().as_secs_f64());
        let report = service.infer(&accepted, &request[..], &mut response, Watch::default())?;
        compute.push(report.seconds);
        unpack.push(report.parts.rotate);
        let started = Instant::now();
        labels.extend(client.decrypt(&keys.secret, &response[..], Watch::default())?.labels);
        decrypt.push(started.elapsed().as_secs_f64());
    }

    let scores = model.plaintext_scores(images);
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
    let rows = scores.rows().into_iter().zip(&labels);
    let changed = rows.filter(|(row, label)| largest(row.view()) != Some(**label as usize)).count();
    let tolerance = options.tolerance_of(model.network())?;
    if !tolerance.explains(changed, IMAGES) {
        return Err(
            format!("{name}: {changed} of {IMAGES} labels changed, {} are promised", tolerance.percent()).into()
        );
    }
    let milliseconds = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        format!("{:.1}", 1e3 * seconds[seconds.len() / 2])
    };
    println!(
        "| {name} | N = {}, {} + {} primes | {group} | {:.1} | {:.1} | {:.2} | {} | {} | {} | {} | {changed} | {:.1} |",
        params.n(),
        params.chain_len(),
        params.special().len(),
        request.len() as f64 / 1e3,
        response.len() as f64 / 1e3,
        sent.len() as f64 / 1e6,
        milliseconds(encrypt),
        milliseconds(compute),
        milliseconds(unpack),
        milliseconds(decrypt),
        tolerance.total() * IMAGES as f64,
    );
    Ok(())
}
