#!/usr/bin/env bash
# Runs every shipped model encrypted on its whole test set and writes the accuracies as a table.
#
#   benches/accuracy.sh [MODEL...]   [default: every model of `cryptodl models`]
#
# One report per model, as `cryptodl run --json` writes it, and table.md go to a new folder under benches/results/ ($OUT, where
# it is set). A model that fails is named in the table, and the script ends with status 1. Environment:
#
#   BINARY=target/release/cryptodl   the release build to run
#   IMAGES=10000                     images per model
#   FLAGS="--schedule layered"       further flags of `cryptodl run`
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/common.sh

binary=${BINARY:-target/release/cryptodl}
images=${IMAGES:-10000}
read -ra flags <<<"${FLAGS-}"
[ -x "$binary" ] || { echo "no binary $binary: cargo build --release, or name one in BINARY" >&2; exit 2; }
models=("$@")
[ ${#models[@]} -gt 0 ] || all_models "$binary"
out=${OUT:-benches/results}/accuracy-$(date -u +%Y-%m-%d-%H%M%S)
mkdir -p "$out"

row() {
    # accuracy: of the encrypted labels, of the plaintext network, of the network with integer weights.
    awk -v name="$1" -v n="$(field "$2" n)" -v limbs="$(field "$2" limbs)" -v encrypted="$(field "$2" accuracy 1)" \
        -v plain="$(field "$2" accuracy 2)" -v rounded="$(field "$2" accuracy 3)" -v agree="$(field "$2" agreement)" \
        -v encrypt="$(field "$2" encrypt)" -v compute="$(field "$2" compute)" -v rate="$(field "$2" images_per_second)" \
        -v peak="$(field "$2" peak_rss_bytes)" 'BEGIN {
            printf "| `%s` | %d, %d | %.2f %% | %.2f %% | %.2f %% | %.2f %% | %.2f | %.2f | %.1f | %.0f |\n", name, n, limbs,
                100 * encrypted, 100 * plain, 100 * rounded, 100 * agree, encrypt, compute, rate, peak / 1e6
        }'
}

table=$out/table.md
{
    echo "$(date -u +%Y-%m-%d), $("$binary" --version), commit $(git describe --always --dirty 2>/dev/null || echo unknown), $images images${FLAGS:+, $FLAGS}"
    echo
    echo "| model | N, limbs | encrypted | plaintext | integer weights | labels agree | encrypt, s | compute, s | images/s | peak, MB |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
} >"$table"
failed=0
for model in "${models[@]}"; do
    if "$binary" run --model "$model" --images "$images" "${flags[@]}" --json "$out/$model.json"; then
        row "$model" "$out/$model.json" >>"$table"
    else
        echo "| \`$model\` | failed | | | | | | | | |" >>"$table"
        failed=1
    fi
done
cat "$table"
echo "written to $out"
exit "$failed"
