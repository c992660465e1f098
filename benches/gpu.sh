#!/usr/bin/env bash
# Measures the GPU of this machine, in slices that take less than ten minutes each on a hardware GPU.
#
#   benches/gpu.sh SLICE...          one or more of the slices below, or `all`
#
#   devices     adapters and limits, the measured choice of kernels, and what it costs to compile each kernel
#   verify      every operation in every variant against the reference, bit for bit
#   kernels     every kernel against ceilings that are measured in the same run
#   mnist-1     8192 images in both schedules with accuracy and rooflines, then 65,536, so that transfers overlap with compute
#   mnist-2     the same for six activations
#
# It runs in a checkout after `cargo build --release`, and in the bundle that benches/gpu-bundle.sh makes for a machine that has
# neither. It needs the GPU's driver, bash, coreutils, sed, tar and gzip, and no network. A step that fails is
# reported, and the rest goes on; the script then ends with status 1.
#
# Writes at most four files to $OUT [default: a new folder results/ beside this script, or benches/results/ in a checkout]:
# report-SLICES.json (everything), table-SLICES.md, log-SLICES.txt and, where there are drawings, plots-SLICES.tar.gz.
# Environment:
#
#   QUICK=1              small benchmarks, one dimension to verify, few images: to try the script itself
#   ADAPTER=llvmpipe     another adapter than the first hardware GPU
#   LIMIT=540            seconds that one step may take
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

slices=(devices verify kernels mnist-1 mnist-2)
usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
}
[ $# -gt 0 ] || usage
[ "$*" != all ] || set -- "${slices[@]}"
for slice; do
    [[ " ${slices[*]} " == *" $slice "* ]] || { echo "no slice $slice; there are: ${slices[*]}, all" >&2; exit 2; }
done

if [ -x "$here/cryptodl" ]; then
    binary=$here/cryptodl commit=$(cat "$here/commit") default_out=$here/results
    export CRYPTODL_CACHE=$here/data
    # The driver brings no loader; this one serves only where the machine has none.
    [ -e /usr/lib/x86_64-linux-gnu/libvulkan.so.1 ] || export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    binary=$here/../target/release/cryptodl commit=$(git -C "$here" describe --always --dirty)
    default_out=$here/results
    [ -x "$binary" ] || { echo "no binary $binary: cargo build --release" >&2; exit 2; }
fi
# Where containers find NVIDIA's driver, which the loader does not search.
nvidia=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
if [ -z "${VK_DRIVER_FILES-}" ] && [ -e "$nvidia" ]; then export VK_DRIVER_FILES=$nvidia; fi

name=$(IFS=-; echo "$*")
out=${OUT:-$default_out/gpu-$(date -u +%Y-%m-%d-%H%M%S)}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Graphics drivers complain where it is not set.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$work}
log=$out/log-$name.txt table=$work/table.md
: >"$log"
mkdir "$work/plots"

place=(--backend gpu)
[ -z "${ADAPTER-}" ] || place+=(--adapter "$ADAPTER")
dimensions=1024,4096,8192 bench=() repeat=3 many=65536
[ -z "${QUICK-}" ] || { dimensions=1024 bench=(--quick) repeat=1 many=4160; }

parts=() failures=()
# Runs a step; its output goes to the log. PART COMMAND...: the command writes $work/PART.json.
step() {
    local part=$1 status
    shift
    echo "$(date -u +%H:%M:%S) $part" | tee -a "$log" >&2
    echo "\$ ${*//$work/WORK}" >>"$log"
    timeout "${LIMIT:-540}" "$@" >"$work/$part.txt" 2>"$work/$part.err"
    status=$?
    cat "$work/$part.txt" "$work/$part.err" >>"$log"
    if [ $status -eq 0 ]; then
        parts+=("$part")
        return 0
    fi
    [ $status -ne 124 ] || echo "stopped after ${LIMIT:-540} s" >>"$work/$part.err"
    failures+=("$part: exit status $status: $(tail -n 1 "$work/$part.err" | tr -d '"\\\n' | cut -c 1-300)")
    echo "  ${failures[-1]}" >&2
    return 1
}

# The test images and their labels over and over, as files in $work.
many_images() {
    local images=$work/images labels=$work/labels source
    [ ! -e "$images" ] || return 0
    source=$("$binary" data path mnist)
    local count
    count=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((many >> 24)) $((many >> 16 & 255)) $((many >> 8 & 255)) $((many & 255)))
    { printf "\\x00\\x00\\x08\\x03$count\\x00\\x00\\x00\\x1c\\x00\\x00\\x00\\x1c"
      for _ in 1 2 3 4 5 6 7; do tail -c +17 "$source/t10k-images-idx3-ubyte"; done | head -c $((784 * many)); } >"$images"
    { printf "\\x00\\x00\\x08\\x01$count"
      for _ in 1 2 3 4 5 6 7; do tail -c +9 "$source/t10k-labels-idx1-ubyte"; done | head -c "$many"; } >"$labels"
}

# The models' slice.
model() {
    local model=$1 part=$1 schedule
    step "$part" "$binary" bench "${place[@]}" --only models --model "$model" "${bench[@]}" --json "$work/$part.json" \
        --markdown "$work/$part.md" --plots "$work/plots/$part" && cat "$work/$part.md" >>"$table"
    many_images
    printf '\n%s images, the test images over and over, whole computations:\n\n' "$many" >>"$table"
    echo '| network, schedule | compute, s | images/s | accuracy encrypted | plain | labels agree | upload, bytes |' >>"$table"
    echo '|---|---|---|---|---|---|---|' >>"$table"
    shift
    for schedule; do
        part=$model-$schedule-$many
        step "$part" "$binary" run "${place[@]}" --model "$model" --schedule "$schedule" --data "$work/images" \
            --labels "$work/labels" --images "$many" --repeat "$repeat" --json "$work/$part.json" || continue
        local json=$work/$part.json
        echo "| $model $schedule | $(field "$json" compute) | $(field "$json" images_per_second)" \
            "| $(field "$json" accuracy) | $(field "$json" accuracy 2) | $(field "$json" agreement) | $(field "$json" upload) |" >>"$table"
    done
}

echo "$(date -u +%Y-%m-%d), $("$binary" --version), commit $commit, $(uname -sm)" >"$table"
for slice; do
    printf '\n## %s\n\n' "$slice" >>"$table"
    case $slice in
    devices)
        step devices "$binary" devices --compile 4096 --json "$work/devices.json" &&
            { echo '```'; cat "$work/devices.txt"; echo '```'; } >>"$table"
        ;;
    verify)
        step verify "$binary" verify "${place[@]}" --n "$dimensions" --json "$work/verify.json" &&
            { echo '```'; cat "$work/verify.txt"; echo '```'; } >>"$table"
        ;;
    kernels)
        step kernels "$binary" bench "${place[@]}" --only kernels --model mnist-1 --model mnist-2 "${bench[@]}" \
            --json "$work/kernels.json" --markdown "$work/kernels.md" --plots "$work/plots/kernels" &&
            cat "$work/kernels.md" >>"$table"
        ;;
    mnist-1) model mnist-1 auto layered ;;
    mnist-2) model mnist-2 auto ;;
    esac
done

if [ ${#failures[@]} -gt 0 ]; then
    printf '\n## Failed steps\n\n' >>"$table"
    printf -- '- %s\n' "${failures[@]}" >>"$table"
fi
{
    printf '{\n"commit": "%s",\n"date": "%s",\n"failures": [' "$commit" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    comma=
    for failure in ${failures[@]+"${failures[@]}"}; do printf '%s\n  "%s"' "$comma" "$failure"; comma=,; done
    printf ']'
    for part in ${parts[@]+"${parts[@]}"}; do printf ',\n"%s": ' "$part"; cat "$work/$part.json"; done
    printf '}\n'
} >"$out/report-$name.json"
cp "$table" "$out/table-$name.md"
[ -z "$(find "$work/plots" -type f)" ] || tar -czf "$out/plots-$name.tar.gz" -C "$work/plots" .
cat "$table"
echo "written to $out" >&2
[ ${#failures[@]} -eq 0 ]
