//! Bodies of the fuzz targets of `cryptodl_data`; `models/data/tests/fuzz_bodies.rs` runs them on stable Rust.

use cryptodl_data::images::{Pixels, RawImages, parse_idx_images, parse_idx_labels, parse_npy, parse_picture};

/// Images and labels in IDX, plain or compressed.
pub fn idx(data: &[u8]) {
    let _ = parse_idx_images(data).map(check);
    let _ = parse_idx_labels(data);
}

/// Images in npy, of known and of unknown shape.
pub fn npy(data: &[u8]) {
    for shape in [None, Some([1, 2, 2])] {
        let _ = parse_npy(data, shape).map(check);
    }
}

/// One image in PNG or JPEG.
pub fn picture(data: &[u8]) {
    let _ = parse_picture(data).map(check);
}

fn check(images: RawImages) {
    let pixels = match &images.pixels {
        Pixels::U8(pixels) => pixels.len(),
        Pixels::F32(values) => values.len(),
    };
    assert!(pixels > 0 && pixels == images.count * images.shape.iter().product::<usize>());
}
