//! The binary, end to end, on real MNIST images. `cryptodl data fetch mnist` must be able to provide them.

mod approx;
mod bad_input;
mod bench;
mod calibrate;
mod checkpoint;
mod fleet;
mod images;
mod import;
mod large;
mod listings;
mod run;
mod service;
mod staged;
mod support;
mod usage;
