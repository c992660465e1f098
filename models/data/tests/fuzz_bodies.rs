//! The fuzz targets' bodies (`fuzz/src/images.rs`) on stable Rust: mutated valid files and plain noise never panic.

#[path = "../../../fuzz/src/images.rs"]
mod bodies;
#[path = "../../../fuzz/src/smoke.rs"]
mod smoke;

use cryptodl_data::images::{parse_idx_images, parse_idx_labels, parse_npy, parse_picture};
use smoke::smoke;

fn png() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 5, 4);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("a valid header");
    writer.write_image_data(&[7; 20]).expect("20 pixels");
    writer.finish().expect("written");
    file
}

fn jpeg() -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.encode(&[7; 60], 5, 4, jpeg_encoder::ColorType::Rgb).expect("20 pixels");
    file
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
    parse_picture(&png()).expect("a valid image");
    parse_picture(&jpeg()).expect("a valid image");

    smoke(bodies::idx, &idx, 2000);
    smoke(bodies::idx, &labels, 2000);
    smoke(bodies::npy, &npy, 2000);
    smoke(bodies::picture, &png(), 500);
    smoke(bodies::picture, &jpeg(), 500);
}
