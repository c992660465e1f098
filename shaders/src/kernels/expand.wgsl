// A seed to uniform residues of one component: residue `j` is the first of the words `W_0[j], W_1[j], ...`, masked, that is
// below the prime, where `W_t` is the keystream with nonce (object, limb, t).

struct Params {
    out: View,
    key: array<vec4<u32>, 2>,
    values: u32, lanes: u32, first_object: u32, padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

// A workgroup makes 64 blocks of 16 words. They pass through its memory so that it writes whole runs of lanes; the
// seventeenth column keeps the threads of a column on different banks.
const BLOCKS = 64u;
const LANES = 16u * BLOCKS;
const COLUMNS = 17u;
var<workgroup> words: array<u32, BLOCKS * COLUMNS>;

@compute @workgroup_size(BLOCKS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let limb = limbs[group.z];
    let mask = (1u << limb.bits) - 1u;
    for (var value = group.y; value < params.values; value += groups.y) {
        let object = params.first_object + value;
        let block = keystream(group.x * BLOCKS + thread, object, limb.index, 0u);
        for (var i = 0u; i < 4u; i++) {
            words[thread * COLUMNS + i] = block.a[i];
            words[thread * COLUMNS + 4u + i] = block.b[i];
            words[thread * COLUMNS + 8u + i] = block.c[i];
            words[thread * COLUMNS + 12u + i] = block.d[i];
        }
        workgroupBarrier();
        for (var j = thread; j < LANES; j += BLOCKS) {
            let lane = group.x * LANES + j;
            var word = words[j / 16u * COLUMNS + j % 16u] & mask;
            for (var t = 1u; word >= limb.q; t++) {
                word = word_of(keystream(lane / 16u, object, limb.index, t), lane % 16u) & mask;
            }
            out[index(params.out, group.z, value, 0u, lane)] = word;
        }
        workgroupBarrier();
    }
}

fn keystream(counter: u32, object: u32, limb: u32, t: u32) -> Block {
    return chacha20(params.key[0], params.key[1], vec4(counter, object, limb, t));
}

fn word_of(block: Block, i: u32) -> u32 {
    var row = block.a;
    row = select(row, block.b, i / 4u == 1u);
    row = select(row, block.c, i / 4u == 2u);
    row = select(row, block.d, i / 4u == 3u);
    let pair = select(row.xy, row.zw, (i & 2u) != 0u);
    return select(pair.x, pair.y, (i & 1u) != 0u);
}
