// Integer linear maps: `out[row, position] = sum_k w[row][k] x[gather(row, position, k)]`, and a constant per row.
//
// A workgroup makes one position of `8 ROW_GROUPS` rows on 64 lanes. It brings 16 taps at a time into its memory, arranged as
// the sums want them, each residue once; a thread sums eight rows on one lane.

struct Params {
    x: View, out: View,
    components: u32, lanes: u32, positions: u32, quads: u32,
    rows: u32, blocks: u32, groups: u32, group_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
// `[group][block of rows][quad][row of the block]`: four taps as bytes.
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
// `[position][quad]`: values of group 0.
@group(0) @binding(5) var<storage, read> gather: array<vec4<u32>>;
// `[limb of the basis][0: component 0, 1: others][row]`.
@group(0) @binding(6) var<storage, read> constants: array<u32>;

override ROW_GROUPS: u32 = 1;

// Rows of a thread, lanes of a workgroup, quads of taps in its memory.
const ROWS = 8u;
const LANES = 64u;
const STAGE = 4u;
const PADDING = 0xffffffffu;

var<workgroup> tile: array<vec4<u32>, STAGE * LANES>;

// Four rows.
struct Sums { a: Sum, b: Sum, c: Sum, d: Sum }

struct Place { limb: u32, component: u32, lane: u32 }

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(
    @builtin(workgroup_id) group_id: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let place = Place(
        group_id.z / params.components,
        group_id.z % params.components,
        group_id.x * LANES + thread.x,
    );
    let limb = limbs[place.limb];
    let bands = (params.blocks + ROW_GROUPS - 1u) / ROW_GROUPS;
    for (var y = group_id.y; y < params.groups * params.positions * bands; y += group_count.y) {
        // The same for all threads of a row group; beyond the last row, they only help to fill the tile.
        let block = y % bands * ROW_GROUPS + thread.y;
        let row = ROWS * block;
        let position = y / bands % params.positions;
        let group = y / bands / params.positions;
        let at = (group * params.blocks + block) * params.quads;
        var low = vec4(0u);
        var high = vec4(0u);
        for (var chunk = 0u; chunk < params.quads; chunk += CHUNK) {
            var low_sums = Sums(start(), start(), start(), start());
            var high_sums = low_sums;
            let end = min(chunk + CHUNK, params.quads);
            for (var stage = chunk; stage < end; stage += STAGE) {
                for (var i = thread.y; i < STAGE && stage + i < end; i += ROW_GROUPS) {
                    let values = gather[position * params.quads + stage + i];
                    tile[i * LANES + thread.x] = arranged(vec4(
                        input(values.x, group, place),
                        input(values.y, group, place),
                        input(values.z, group, place),
                        input(values.w, group, place),
                    ));
                }
                workgroupBarrier();
                for (var i = 0u; i < STAGE && stage + i < end && row < params.rows; i++) {
                    let quad = tile[i * LANES + thread.x];
                    let w = 2u * (at + stage + i);
                    low_sums = with_quads(low_sums, weights[w], quad, limb.planes);
                    if row + 4u < params.rows {
                        high_sums = with_quads(high_sums, weights[w + 1u], quad, limb.planes);
                    }
                }
                workgroupBarrier();
            }
            low = add_residues(low, low_sums, limb);
            high = add_residues(high, high_sums, limb);
        }
        let kind = 2u * limb.index + min(place.component, 1u);
        for (var r = 0u; r < ROWS && row + r < params.rows && place.lane < params.lanes; r++) {
            let output = group * params.rows + row + r;
            let constant = constants[kind * params.groups * params.rows + output];
            let total = select(low[r & 3u], high[r & 3u], r > 3u);
            let to = index(params.out, place.limb, output * params.positions + position, place.component, place.lane);
            out[to] = add_mod(total, constant, limb.q);
        }
    }
}

// A residue of a value counted from the group's first, or zero.
fn input(value: u32, group: u32, place: Place) -> u32 {
    if value == PADDING || place.lane >= params.lanes {
        return 0u;
    }
    return x[index(params.x, place.limb, value + group * params.group_stride, place.component, place.lane)];
}

// Residues plus sums, canonical.
fn add_residues(total: vec4<u32>, s: Sums, limb: Limb) -> vec4<u32> {
    return vec4(
        add_mod(total.x, residue(s.a, limb), limb.q),
        add_mod(total.y, residue(s.b, limb), limb.q),
        add_mod(total.z, residue(s.c, limb), limb.q),
        add_mod(total.w, residue(s.d, limb), limb.q),
    );
}
