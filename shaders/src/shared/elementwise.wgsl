// The lanes of one or two tensors, one after the other: a thread takes a lane, and every so many rows of the limb.

struct Params {
    x: View, y: View,
    values: u32, components: u32, lanes: u32, channels: u32,
    positions: u32, padding_0: u32, padding_1: u32, padding_2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<u32>;

override THREADS: u32 = 256;
