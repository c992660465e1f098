// Sixteen independent chains per thread, so that latencies hide behind each other. Thread `t` starts its chains at `16 t`,
// `16 t + 1` and so on, and writes their sum.

struct Params { count: u32, factor: u32, addend: u32, padding: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const THREADS = 256u;

// Steps of every chain in one round, and chains.
const STEPS = 4u;
const CHAINS = 16u;

struct Chains { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

fn first(thread: u32) -> Chains {
    let a = vec4(CHAINS * thread) + vec4(0u, 1u, 2u, 3u);
    return Chains(a, a + vec4(4u), a + vec4(8u), a + vec4(12u));
}

fn total(chains: Chains) -> u32 {
    let sums = chains.a + chains.b + chains.c + chains.d;
    return sums.x + sums.y + sums.z + sums.w;
}
