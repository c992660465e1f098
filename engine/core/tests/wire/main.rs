//! Files: round trips, corrupted files, and the fuzz targets' bodies on stable Rust.

mod corrupted;
mod examples;
#[path = "../../../../fuzz/src/wire.rs"]
mod fuzz_bodies;
mod round_trips;
mod smoke;
