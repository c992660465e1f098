#!/usr/bin/env bash
# Shows that the tests catch broken shaders: plants one fault at a time in the source that the driver is given, runs the test of
# a kernel that has it (tests/kernels), and prints a Markdown table. Fails if a fault is not caught. Not part of the default
# tests: it takes a few minutes. Needs an adapter, as those do.
#
#   shaders/tests/mutants.sh [BINARY]      BINARY: the compiled test [default: it is built]
#
# A fault is one changed constant or operator: file, test, what is there (its first occurrence), what is planted.
set -euo pipefail
cd "$(dirname "$0")/../.."

faults() {
    cat <<'END'
kernels/accumulate_key :: accumulate_key :: let key1 = key[index(params.key, limb.source, 0u, 1u, id.x)] :: let key1 = key[index(params.key, limb.source, 0u, 0u, id.x)]
kernels/accumulate_key :: accumulate_key :: add_mod(acc[at1], :: add_mod(acc[at0],
kernels/accumulate :: accumulate :: index(params.y, limb.source, value :: index(params.y, id.z, value
kernels/accumulate :: accumulate :: x[at] = canonical(x[at] + term, limb.q) :: x[at] = subtract_once(x[at] + term, limb.q)
kernels/accumulate :: accumulate :: let component = row % params.components :: let component = row / params.components
kernels/add :: add :: add_mod(x[at], y[ :: add_mod(y[at], y[
kernels/add_constant :: add_constant :: table_index(id.z, value, :: table_index(id.z, row + 1u,
kernels/automorphism :: automorphism :: params.element / 4u :: params.element / 2u
kernels/automorphism :: automorphism :: 32u - params.log_n :: 31u - params.log_n
kernels/prime_digit :: prime_digit :: residue > params.q / 2u :: residue >= params.q / 2u
kernels/prime_digit :: prime_digit :: params.last == 0u :: params.last == 1u
kernels/prime_digit :: prime_digit :: - base / 2u :: - base
kernels/convert_basis :: convert_basis :: digit > limb.q / 2u :: digit >= limb.q / 2u
kernels/convert_basis :: convert_basis :: const OFFSET = 1u << 30u :: const OFFSET = 1u << 29u
kernels/copy :: copy :: let component = row % params.components :: let component = row / params.components
kernels/expand :: expand :: let mask = (1u << limb.bits) - 1u :: let mask = (1u << limb.bits) - 2u
kernels/expand :: expand :: limb.index, t) :: limb.index, t + 1u)
kernels/horner :: horner :: u1 = two_products(u0, z1, u1, z0, limb); :: u1 = two_products(u0, z0, u1, z1, limb);
kernels/horner :: horner :: constant = c.z :: constant = c.w
kernels/horner :: horner :: table_index(id.z, value, :: table_index(id.z, 0u,
kernels/horner :: horner :: params.negate != 0u :: params.negate > 1u
kernels/linear :: linear :: value + group * params.group_stride :: value + group
kernels/linear :: linear :: let constant = constants[ :: let constant = 1u + constants[
kernels/linear :: linear :: min(place.component, 1u) :: min(place.component, 0u)
kernels/multiply :: multiply :: i + 1u < end :: i + 2u < end
kernels/ntt_forward_columns :: ntt_forward :: v + 2u * q - multiply :: v + q - multiply
kernels/ntt_forward_columns :: ntt_forward :: round_at(start, 1u) :: round_at(start, 2u)
kernels/ntt_forward_rows :: ntt_forward :: node(origin + second, 4u) :: node(origin, 4u)
kernels/ntt_inverse_rows :: ntt_inverse :: node(origin + second, 4u) :: node(origin, 4u)
kernels/ntt_inverse_columns :: ntt_inverse :: start, 0u, limb.q); :: start, 1u, limb.q);
kernels/pack :: pack :: start; at < 32 :: start; at < 31
kernels/scale :: scale :: multiply_lazy(x[at], factor, q), q) :: multiply_lazy(x[at], factor + vec2(0u, 2u), q), q)
kernels/subtract_scale :: subtract_scale :: + limb.q - x[at] :: + limb.q + x[at]
kernels/unpack :: unpack :: residue >= limb.q :: residue > limb.q
kernels/unpack :: unpack :: shift + limb.bits > 32u :: shift + limb.bits > 33u
kernels/ceiling_copy :: ceiling_copy :: i += group_count.x * THREADS :: i += group_count.x * THREADS + 1u
kernels/ceiling_multiply_add :: ceiling_multiply_add :: x.d * f + g :: x.d * f
kernels/ceiling_dot :: ceiling_dot :: dot4I8Packed(x.w, f) :: dot4I8Packed(x.z, f)
shared/ceiling :: ceiling_multiply_add :: sums.z + sums.w :: sums.z
shared/chacha :: expand :: rotate(s.b ^ c, 12u) :: rotate(s.b ^ c, 11u)
shared/dot_integer :: linear :: const START = 0x40000000u :: const START = 0x20000000u
shared/dot_integer :: linear :: const CHUNK = 64u :: const CHUNK = 128u
shared/dot_packed :: linear :: 0x80808080u :: 0x80800080u
shared/dot_packed :: linear :: limb.planes > 3u :: limb.planes > 4u
shared/elementwise :: scale :: override THREADS: u32 = 256 :: override THREADS: u32 = 128
shared/multiply_portable :: multiply Portable :: (cross >> 16u) + :: (cross >> 15u) +
shared/multiply_portable :: multiply Portable :: u32(low < x.low) :: u32(low < 0u)
shared/multiply_u64 :: multiply U64 :: >> 32u) :: >> 31u)
shared/ntt :: ntt_forward :: let n8 = start + 8u * node :: let n8 = start + 7u * node
shared/ntt :: ntt_inverse :: multiply_lazy_4(x + 2u * q - y, w, q) :: multiply_lazy_4(x + q - y, w, q)
shared/ntt :: ntt_forward :: if skip < 2 { :: if skip < 1 {
shared/ntt_columns :: ntt_forward :: vec4(l.b.w, l.c.xyz) :: vec4(l.b.z, l.c.xyz)
shared/ntt_rows :: ntt_forward :: (place >> LOG_N) < params.polynomials :: (place >> LOG_N) <= params.polynomials
shared/ntt_rows :: ntt_forward :: return 8 + i32(log_step) :: return 9 + i32(log_step)
shared/packing :: pack :: value * (params.lanes / 32u * limb.bits) :: value * (params.lanes / 32u * limb.bits + 1u)
shared/reduction :: multiply :: limb.bits - 1u :: limb.bits
shared/residues :: scale :: min(x, x - q) :: min(x, x - q - 1u)
shared/residues :: multiply :: 2u * q), q) :: 2u * q), 2u * q)
shared/tensor :: scale :: return limb * channels + channel :: return limb + channel
shared/tensor :: add_constant :: if channels > 1u { :: if channels > 2u {
shared/tensor :: copy :: view.base + limb * view.limb :: limb * view.limb
END
}

binary=${1:-$(cargo test -p cryptodl-shaders --test kernels --no-run --message-format=json 2>/dev/null |
    sed -nE 's/.*"executable":"([^"]*kernels-[^"]*)".*/\1/p')}
export CRYPTODL_REQUIRE_ADAPTER=1
"$binary" --quiet >/dev/null || { echo "the tests fail without a fault" >&2; exit 2; }

echo "| file | fault | caught by |"
echo "|---|---|---|"
survivors=0
while IFS= read -r fault; do
    IFS=$'\t' read -r file test from to <<<"${fault// :: /$'\t'}"
    # Only a wrong result counts: an invalid shader says something else.
    output=$(CRYPTODL_FAULT_FROM=$from CRYPTODL_FAULT_TO=$to "$binary" "$test" 2>&1) && status=0 || status=$?
    caught="\`$test\`"
    if [ "$status" -eq 0 ] || ! grep -qE "expected|left:|refused" <<<"$output"; then
        caught="**nothing**"
        survivors=$((survivors + 1))
    fi
    echo "| $file | \`$from\` to \`$to\` | $caught |"
done < <(faults)
[ "$survivors" -eq 0 ] || { echo "$survivors faults were not caught" >&2; exit 1; }
