//! Networks: read, made, checked, written, measured and computed in the clear.

mod calibration;
mod channels;
mod common;
mod description;
mod fuzz_bodies;
mod graph_description;
mod in_memory;
mod measuring;
mod plain;
mod random_graphs;
