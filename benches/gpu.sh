#!/usr/bin/env bash
# Measures the GPU backend on this machine: devices, verify, then kernels against their ceilings and every shipped model end to
# end (`cryptodl bench`).
#
#   benches/gpu.sh [BINARY]          BINARY: a release build [default: target/release/cryptodl]
#
# Needs a hardware GPU with its driver, the binary, and the models' data sets in the cache (`cryptodl data path`) or npm to
# fetch them; no toolchain. Plaintext PyTorch on the CPU stands beside it where $PYTHON has it. Writes report.json (everything),
# table.md and plots to a new folder under $OUT, or under benches/results/ where OUT is not set. Environment:
#
#   IMAGES=8192 REPEAT=9             images per computation, computations per model (the median counts)
#   MODELS="mnist-1 mnist-1-square"  these models only, benchmarks of kernels too [default: all]
#   QUICK=1                          small benchmarks and one dimension to verify, to try the script itself
#   ADAPTER=llvmpipe                 another adapter than the first hardware GPU, likewise
#   PYTHON=python3                   a Python with models/train/requirements.txt
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/common.sh

binary=${1:-target/release/cryptodl}
place=(--backend gpu)
[ -z "${ADAPTER-}" ] || place+=(--adapter "$ADAPTER")
verify=() bench=(--python "${PYTHON:-python3}")
[ -z "${QUICK-}" ] || { verify+=(--n 1024) bench+=(--quick); }
[ -z "${IMAGES-}" ] || bench+=(--images "$IMAGES")
[ -z "${REPEAT-}" ] || bench+=(--repeat "$REPEAT")
[ -x "$binary" ] || { echo "no binary $binary: cargo build --release, or name one" >&2; exit 2; }
out=${OUT:-benches/results}/gpu-$(date -u +%Y-%m-%d-%H%M%S)
mkdir -p "$out"
parts=$(mktemp -d)
# Graphics drivers complain where it is not set.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$parts}
trap 'rm -rf "$parts"' EXIT

read -ra models <<<"${MODELS-}"
[ ${#models[@]} -gt 0 ] || all_models "$binary"
for model in "${models[@]}"; do bench+=(--model "$model"); done

echo "devices" >&2
"$binary" devices --json "$parts/devices" >&2
echo "verify" >&2
"$binary" verify "${place[@]}" ${verify[@]+"${verify[@]}"} --json "$parts/verify" >&2
echo "bench" >&2
"$binary" bench "${place[@]}" "${bench[@]}" --json "$parts/bench" --markdown "$parts/bench.md" --plots "$out" >&2

commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
{
    echo "$(date -u +%Y-%m-%d), $("$binary" --version), commit $commit"
    echo
    echo "verify: $(field "$parts/verify" comparisons) comparisons with the reference, all equal bit for bit (seed $(field "$parts/verify" seed))"
    echo
    cat "$parts/bench.md"
} >"$out/table.md"
{
    printf '{ "commit": "%s", "devices": ' "$commit"
    cat "$parts/devices"
    printf ', "verify": '
    cat "$parts/verify"
    printf ', "bench": '
    cat "$parts/bench"
    printf '}\n'
} >"$out/report.json"
cat "$out/table.md"
echo "written to $out"
