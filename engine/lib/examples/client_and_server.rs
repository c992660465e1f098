//! Client and server apart, with files between them, as they would be on two machines.
//!
//! ```text
//! cargo run --release -p cryptodl --example client_and_server
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use cryptodl::{Client, Model, Placement, PlanOptions, Program, Server, Watch};

fn main() -> Result<(), Box<dyn Error>> {
    // Only this user may look into it, and it goes at the end.
    let folder = tempfile::tempdir()?;
    publish(folder.path())?;
    request(folder.path())?;
    serve(folder.path())?;
    read(folder.path())
}

/// The server plans once, keeps the Program, and publishes what clients must know.
fn publish(folder: &Path) -> Result<(), Box<dyn Error>> {
    let program = Model::load("mnist-1")?.plan(&PlanOptions::default(), Watch::default())?.program;
    program.write(File::create(folder.join("mnist-1.program"))?)?;
    Client::new(program.client_spec())?.write_spec(File::create(folder.join("client.spec"))?)?;
    Ok(())
}

/// The client makes keys, keeps the secret one, and encrypts.
fn request(folder: &Path) -> Result<(), Box<dyn Error>> {
    let client = Client::read_spec(File::open(folder.join("client.spec"))?)?;
    let keys = client.generate_keys()?;
    client.write_secret_key(&keys.secret, File::create(folder.join("secret.key"))?)?;
    client.write_public_key(&keys.public, File::create(folder.join("public.key"))?)?;
    client.write_evaluation_keys(&keys.evaluation, File::create(folder.join("eval.key"))?)?;
    let images = vec![0.5; 3 * client.pixels()];
    let file = BufWriter::new(File::create(folder.join("images.enc"))?);
    client.encrypt(&keys, &images, file, Watch::default())?;
    Ok(())
}

/// The server sees public keys and ciphertexts. Keys are expanded once, for any number of requests.
fn serve(folder: &Path) -> Result<(), Box<dyn Error>> {
    let program = Program::read(File::open(folder.join("mnist-1.program"))?)?;
    let service = Server::new(Placement::default())?.prepare(&program)?;
    let keys = service.read_keys(File::open(folder.join("eval.key"))?, File::open(folder.join("public.key"))?)?;
    let request = BufReader::new(File::open(folder.join("images.enc"))?);
    let response = BufWriter::new(File::create(folder.join("result.enc"))?);
    let report = service.infer(&keys, request, response, Watch::default())?;
    println!("computed in {:.3} s on {}", report.seconds, service.machine().device);
    Ok(())
}

/// The client decrypts the labels.
fn read(folder: &Path) -> Result<(), Box<dyn Error>> {
    let client = Client::read_spec(File::open(folder.join("client.spec"))?)?;
    let secret = client.read_secret_key(File::open(folder.join("secret.key"))?)?;
    let result = BufReader::new(File::open(folder.join("result.enc"))?);
    println!("labels {:?}", client.decrypt(&secret, result, Watch::default())?.labels);
    Ok(())
}
