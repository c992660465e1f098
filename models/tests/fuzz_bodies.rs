//! The fuzz targets' bodies (`fuzz/src/models.rs`) on stable Rust: mutated valid files and plain noise never panic.

#[path = "../../fuzz/src/models.rs"]
mod bodies;

use cryptodl_models::images::{parse_idx_images, parse_idx_labels, parse_npy, parse_png};

/// A cheap sequence of numbers below `bound`.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % bound
    }
}

/// Runs `body` on `rounds` damaged copies of `file` and on as many files of noise after its first bytes.
fn smoke(body: fn(&[u8]), file: &[u8], rounds: usize) {
    let mut numbers = Numbers(1);
    body(file);
    for _ in 0..rounds {
        let mut damaged = file.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(damaged.len().min(4096));
            damaged[at] = [0, 1, 255, b'9', numbers.below(256) as u8][numbers.below(5)];
        }
        body(&damaged);
        body(&damaged[..numbers.below(damaged.len())]);
        let head = file.len().min(numbers.below(24));
        let noise: Vec<u8> = (0..numbers.below(200)).map(|_| numbers.below(256) as u8).collect();
        body(&[&file[..head], &noise].concat());
    }
}

fn png() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 5, 4);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("a valid header");
    writer.write_image_data(&[7; 20]).expect("20 pixels");
    writer.finish().expect("written");
    file
}

#[test]
fn networks() {
    smoke(bodies::network, include_bytes!("../zoo/mnist-1-square.toml"), 30);
    smoke(bodies::network, include_bytes!("../zoo/mnist-1-square.safetensors"), 30);
    let (graph, weights) = bodies::graph();
    cryptodl_models::Network::parse("graph.toml", graph, &weights, None).expect("a valid graph");
    smoke(bodies::network, graph.as_bytes(), 300);
    smoke(bodies::network, &weights, 30);
}

#[test]
fn images() {
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2][..], &[9; 8]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 4, 7];
    let header = b"\x93NUMPY\x01\x00\x47\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), }        \n";
    let npy = [&header[..], &[1; 4]].concat();
    parse_idx_images(&idx).expect("valid images");
    parse_idx_labels(&labels).expect("valid labels");
    parse_npy(&npy, None).expect("a valid array");
    parse_png(&png()).expect("a valid image");

    smoke(bodies::idx, &idx, 2000);
    smoke(bodies::idx, &labels, 2000);
    smoke(bodies::npy, &npy, 2000);
    smoke(bodies::png, &png(), 500);
}
