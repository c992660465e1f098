#!/usr/bin/env bash
# Measures the GPU backend on this machine: devices, verify, kernels against their ceilings, and every shipped model end to end.
#
#   benches/gpu.sh [BINARY]          BINARY: a release build [default: target/release/cryptodl]
#
# Needs a hardware GPU with its driver, the binary, and the models' data sets in the cache (`cryptodl data path`) or npm to
# fetch them; no toolchain. Writes report.json (everything) and table.md to a new folder under $OUT, or under
# benches/results/ where OUT is not set. Environment:
#
#   IMAGES=8192 REPEAT=9             images per computation, computations per run (the median counts)
#   MODELS="mnist-1 mnist-1-square"  these models only, benchmarks of kernels too [default: all]
#   QUICK=1                          small benchmarks and one dimension to verify, to try the script itself
#   ADAPTER=llvmpipe                 another adapter than the first hardware GPU, likewise
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/common.sh

binary=${1:-target/release/cryptodl}
images=${IMAGES:-8192}
repeat=${REPEAT:-9}
place=(--backend gpu)
[ -z "${ADAPTER-}" ] || place+=(--adapter "$ADAPTER")
verify=() bench=()
[ -z "${QUICK-}" ] || { verify=(--n 1024) bench=(--quick); }
[ -x "$binary" ] || { echo "no binary $binary: cargo build --release, or name one" >&2; exit 2; }
out=${OUT:-benches/results}/gpu-$(date -u +%Y-%m-%d-%H%M%S)
mkdir -p "$out"
parts=$(mktemp -d)
# Graphics drivers complain where it is not set.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$parts}
trap 'rm -rf "$parts"' EXIT

read -ra models <<<"${MODELS-}"
for model in ${models[@]+"${models[@]}"}; do bench+=(--model "$model"); done
[ ${#models[@]} -gt 0 ] || all_models "$binary"

echo "devices" >&2
"$binary" devices --json "$parts/devices" >&2
echo "verify" >&2
"$binary" verify "${place[@]}" ${verify[@]+"${verify[@]}"} --json "$parts/verify" >&2
echo "bench" >&2
"$binary" bench "${place[@]}" ${bench[@]+"${bench[@]}"} --json "$parts/bench" --markdown "$parts/bench.md" >&2

table=$out/table.md
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
{
    echo "$(date -u +%Y-%m-%d), $("$binary" --version), commit $commit"
    echo
    echo "verify: $(field "$parts/verify" comparisons) comparisons with the reference, all equal bit for bit (seed $(field "$parts/verify" seed))"
    echo
    echo "| model | schedule | first, s | median, s | images/s | accuracy encrypted / plain | labels agree |"
    echo "|---|---|---|---|---|---|---|"
} >"$table"
runs=()
for model in "${models[@]}"; do
    for schedule in auto layered; do
        run=$parts/$model-$schedule
        echo "run $model $schedule" >&2
        if ! "$binary" plan --model "$model" --schedule "$schedule" >/dev/null 2>"$parts/refused"; then
            # A deep network may have no layered schedule; any other refusal is an error.
            grep -q "no schedule fits" "$parts/refused" || { cat "$parts/refused" >&2; exit 1; }
            echo "| \`$model\` | $schedule | the planner refuses: $(sed -n 's/.*security: //p' "$parts/refused" | head -1) | | | | |" >>"$table"
            continue
        fi
        "$binary" run --model "$model" --schedule "$schedule" --images "$images" --repeat "$repeat" "${place[@]}" --json "$run" >&2
        runs+=("$run")
        first=$(sed -n '/"compute_repetitions"/{n;s/[ ,]//g;p;}' "$run")
        # accuracy: of the encrypted labels, then of the plaintext network.
        awk -v first="$first" -v median="$(field "$run" compute)" -v rate="$(field "$run" images_per_second)" \
            -v encrypted="$(field "$run" accuracy 1)" -v plain="$(field "$run" accuracy 2)" \
            -v agree="$(field "$run" agreement)" -v name="| \`$model\` | $schedule |" 'BEGIN {
                printf "%s %.4f | %.4f | %.0f | %.2f / %.2f %% | %.2f %% |\n",
                    name, first, median, rate, 100 * encrypted, 100 * plain, 100 * agree
            }' >>"$table"
    done
done
{
    echo
    echo "$images images, $repeat computations in one process: the first one, and the median."
    echo
    cat "$parts/bench.md"
} >>"$table"

{
    printf '{ "commit": "%s", "devices": ' "$commit"
    cat "$parts/devices"
    printf ', "verify": '
    cat "$parts/verify"
    printf ', "bench": '
    cat "$parts/bench"
    printf ', "runs": [\n'
    for ((i = 0; i < ${#runs[@]}; i++)); do
        [ "$i" -eq 0 ] || printf ','
        cat "${runs[i]}"
    done
    printf '] }\n'
} >"$out/report.json"
cat "$table"
echo "written to $out"
