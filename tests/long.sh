#!/usr/bin/env bash
# Checks that are too long, or need too much, for ./test.sh. Each tier installs what it needs and takes at most half an hour.
#
#   tests/long.sh TIER [FOLDER]
#
#   swiftshader   the GPU kernels on a second implementation of Vulkan, SwiftShader, which Debian's package chromium brings:
#                 every kernel's test, what it costs to compile each of them, the whole conformance suite
#   bundle        builds the bundle of benches/gpu-bundle.sh and runs it in a bare root without network, toolchain or Vulkan
#                 loader, on a software adapter (needs root for chroot); the report goes to FOLDER. All slices but mnist-2, which takes
#                 a software adapter an hour: of that one, that it is stopped in time and reported
#   mutants       shows that the tests of the shaders catch broken shaders
#   neon          the CPU kernels of 64-bit ARM, in an emulator
#   full          all 10,000 test images against the promised accuracy, and kernels at the full dimensions
#   resume        a computation that is killed ten times at random moments, and goes on with the same bytes
#   small [FOLDER]  few images of five networks: noise of what is unpacked, then 512 images in groups as small as they are
#                 packed, with labels, bytes and times; a table goes to FOLDER
#   neutral       the stages of the neutral benchmark with 10,000 images (benches/neutral)
#   python        the Python package: its wheel is built, installed where no Rust is, and tested; docs/your-network.md
#                 on Fashion-MNIST (needs 3 GB for PyTorch)
#   wasm          the library's client for WebAssembly
#   onnx          ONNX files: shipped networks from PyTorch and back, ONNX's reference cases, and the committed files
#                 made again (needs 6 GB for PyTorch and TensorFlow)
#   peers [FOLDER]  networks as other packages define them, trained on one thread, exported, imported and run encrypted on
#                 their test sets; reports go to FOLDER (needs 6 GB for PyTorch)
#   service       the service: 1,000 images over TLS and HTTP/2, docs/service.md as it stands there, kills, states of long sets, a crowd of clients,
#                 memory of large uploads, clients of tus and of OpenAPI that others wrote, the order of syncs, what promtool
#                 and testssl.sh say of it, and what it costs beside `infer`;
#                 `tests/long.sh service CHECK` runs one check of engine/service/tests/long.py
#   scale         a service and workers of it: one request of 20 sets over three of them, and two hosts (network namespaces, needs
#                 root) with Ray, whose workers, nodes, head and service are killed one after the other; and a request through an
#                 object store (moto);
#                 `tests/long.sh scale CHECK` runs one check of engine/service/tests/scale.py
#   data          data sets from their packages, and trained weights on whole test sets in plaintext
set -euo pipefail
cd "$(dirname "$0")/.."

install_packages() {
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

export CRYPTODL_REQUIRE_ADAPTER=1
if [ -z "${XDG_RUNTIME_DIR-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
fi

swiftshader() {
    local driver=/usr/lib/chromium/vk_swiftshader_icd.json
    [ -e "$driver" ] || install_packages chromium libvulkan1
    export VK_DRIVER_FILES=$driver
    echo "SwiftShader of Debian's chromium $(dpkg-query -W -f '${Version}' chromium)"
    cargo build --release -p cryptodl-cli
    target/release/cryptodl devices --compile 4096 --compile-timeout 60
    cargo test -p cryptodl-shaders
    # Where the tests of the default run choose the adapter themselves, it is the only one.
    target/release/cryptodl verify --adapter SwiftShader --n 1024,4096
}

bundle() {
    local results=${1:-target/gpu-rehearsal} root
    [ "$(id -u)" -eq 0 ] || { echo "the bare root needs root" >&2; exit 2; }
    command -v debootstrap >/dev/null || install_packages debootstrap
    benches/gpu-bundle.sh
    root=$(mktemp -d)
    # Mesa stands in for a GPU's driver. Such a machine may have no loader, so that goes again.
    debootstrap --variant=minbase --include=mesa-vulkan-drivers "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" \
        "$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)" >/dev/null
    rm "$root"/usr/lib/x86_64-linux-gnu/libvulkan.so*
    cp -r target/gpu-bundle "$root/bundle"
    slice() {
        unshare --net --pid --mount --fork chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root QUICK=1 ADAPTER=llvmpipe \
            OUT=/results LIMIT="$1" /bin/bash -c 'mount -t proc proc /proc && shift && /bundle/gpu.sh "$@"' bundle "$@"
    }
    ! chroot "$root" /bin/bash -c 'command -v cargo npm || ls /usr/lib/x86_64-linux-gnu/libvulkan.so*' 2>/dev/null ||
        { echo "the bare root is not bare" >&2; exit 1; }
    slice 900 devices verify kernels mnist-1
    if slice 5 mnist-2; then
        echo "mnist-2 was to be stopped" >&2
        exit 1
    fi
    grep -q 'stopped after 5 s' "$root/results/report-mnist-2.json"
    mkdir -p "$results"
    cp "$root"/results/* "$results"
    rm -rf "$root"
    echo "reports in $results: $(find "$results" -type f | wc -l) files, $(find "$results" -type f -size +16M | wc -l) above 16 MiB"
}

full() {
    cargo test --release -p cryptodl-cli --test full
    cargo test -p cryptodl-cpu -- --ignored
}

small() {
    local results=${1:-target/small}
    mkdir -p "$results"
    cargo test --release -p cryptodl-run --lib -- --include-ignored leaves
    cargo run --release -p cryptodl-cli -- data fetch mnist
    cargo run --release -p cryptodl --example few_images -- mnist-1 mnist-1-square cryptonets secureml mnist-2 |
        tee "$results/few-images.md"
}

python() {
    local work binary mnist fashion
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3-venv
    cargo build --release -p cryptodl-cli
    binary=$PWD/target/release/cryptodl
    mnist=$("$binary" data fetch mnist)
    fashion=$("$binary" data fetch fashion-mnist)
    work=$(mktemp -d)
    python3 -m venv "$work/build"
    "$work/build/bin/pip" install --quiet 'maturin>=1.16,<2'
    (cd engine/python && cargo fmt --check && cargo clippy --all-targets --quiet -- -D warnings)
    "$work/build/bin/maturin" build --release -m engine/python/Cargo.toml --out "$work/dist"
    python3 -m venv "$work/user"
    # A user's machine: neither cargo nor rustc is on its path.
    user() {
        env -i HOME="$work" PATH="$work/user/bin:/usr/bin:/bin" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" \
            CRYPTODL_MNIST="$mnist" CRYPTODL_BINARY="$binary" "$@"
    }
    ! user sh -c 'command -v cargo || command -v rustc' || { echo "the user's machine has Rust" >&2; exit 1; }
    "$work/user/bin/pip" install --quiet "$work"/dist/*.whl pytest mypy tqdm
    user pytest -q engine/python/tests -p no:cacheprovider
    user python -m mypy.stubtest cryptodl._native
    user python -m mypy --ignore-missing-imports -p cryptodl
    user python engine/python/tests/against_binary.py "$binary" "$mnist" "$work/against-binary.json"
    "$work/user/bin/pip" install --quiet --retries 0 torch --index-url https://download.pytorch.org/whl/cpu ||
        "$work/user/bin/pip" install --quiet torch
    "$work/user/bin/pip" install --quiet onnx
    user pytest -q engine/python/tests/test_torch.py -p no:cacheprovider
    user python engine/python/tests/documented.py "$fashion" "$work/your-network.json"
    mkdir -p target/python
    cp "$work"/*.json "$work"/dist/*.whl target/python
    rm -rf "$work"
}

neutral() {
    cargo test --release -p cryptodl-neutral -- --ignored
}

resume() {
    cargo test --release -p cryptodl-cli --test cli -- --ignored ten_kills
}

# A Python with PyTorch and these packages, in target/onnx/venv.
python=target/onnx/venv/bin/python
install_pytorch() {
    mkdir -p target/onnx
    [ -x "$python" ] || python3 -m venv target/onnx/venv
    # Without CUDA where PyTorch's own index can be reached.
    "$python" -m pip install --quiet --retries 0 torch torchvision --index-url https://download.pytorch.org/whl/cpu ||
        "$python" -m pip install --quiet torch torchvision
    "$python" -m pip install --quiet onnx onnxscript "$@"
}

onnx() {
    local folder=$PWD/target/onnx
    install_pytorch onnxruntime safetensors tensorflow-cpu tf2onnx
    for task in fixtures zoo reference; do
        "$python" models/onnx/tests/generate.py "$task" "$folder/$task"
    done
    # The exporters of today write the networks that are committed.
    for file in models/onnx/tests/fixtures/*.onnx; do
        [ -e "$folder/fixtures/${file##*/}" ] || { echo "$file was not made" >&2; exit 1; }
    done
    export CRYPTODL_ONNX=$folder
    cargo test -p cryptodl-onnx --test exported -- --include-ignored --nocapture
    cargo test -p cryptodl-tests --test onnx -- --include-ignored --nocapture
}

peers() {
    local results=${1:-target/peers} flags name set
    install_pytorch
    cargo build --release -p cryptodl-cli
    mkdir -p "$results"
    # npm, which fetches data sets, may read standard input.
    while read -r name set <&3; do
        target/release/cryptodl data fetch "$set"
        "$python" models/onnx/tests/peers.py "$name" target/peers | tee "$results/$name.training.txt"
        read -ra flags <"target/peers/$name.flags"
        target/release/cryptodl import "target/peers/$name.onnx" --calibration "target/peers/$name.held-out.npy" \
            --out "target/peers/$name" "${flags[@]}" | tee "$results/$name.import.txt"
        # Where more labels change than was promised, `run` warns.
        target/release/cryptodl run --model "target/peers/$name" --data "$set" \
            --json "$results/$name.json" 2>&1 | tee "$results/$name.run.txt"
        ! grep '^warning' "$results/$name.run.txt" || exit 1
    done 3<<<$'lola mnist\nresnet fashion-mnist'
}

service() {
    local folder=$PWD/target/service python
    python=$folder/venv/bin/python
    for program in curl jq openssl strace testssl; do
        command -v "$program" >/dev/null || install_packages curl jq openssl strace testssl.sh
    done
    mkdir -p "$folder"
    [ -x "$python" ] || python3 -m venv "$folder/venv"
    "$python" -m pip install --quiet tuspy schemathesis
    [ -d "$folder/tus-js/node_modules/tus-js-client" ] || npm install --silent --prefix "$folder/tus-js" tus-js-client@4
    # Installed, the package would begin to run.
    if ! command -v promtool >/dev/null && [ ! -x "$folder/prometheus/usr/bin/promtool" ]; then
        mkdir -p "$folder/prometheus"
        (cd "$folder/prometheus" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
    fi
    cargo build --release -p cryptodl-cli
    # States of earlier runs have jobs that this one does not know.
    rm -rf "$folder"/state-*
    "$python" engine/service/tests/long.py target/release/cryptodl "$folder" "$@"
}

scale() {
    local folder=$PWD/target/scale
    command -v openssl >/dev/null && command -v ip >/dev/null || install_packages openssl iproute2
    mkdir -p "$folder"
    [ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
    cargo build --release -p cryptodl-cli
    "$folder/venv/bin/pip" install --quiet 'moto[server]>=5.2' blake3
    # Only the hosts need Ray.
    case " ${*:-hosts} " in
    *" hosts "*)
        "$folder/venv/bin/pip" install --quiet 'maturin>=1.16,<2' pytest
        "$folder/venv/bin/maturin" build --release -m engine/python/Cargo.toml --out "$folder/dist"
        "$folder/venv/bin/pip" install --quiet --force-reinstall --no-deps "$folder"/dist/*.whl
        "$folder/venv/bin/pip" install --quiet numpy 'ray>=2.60'
        "$folder/venv/bin/python" -m pytest -q --noconftest -p no:cacheprovider engine/python/tests/test_ray.py
        ;;
    esac
    "$folder/venv/bin/python" engine/service/tests/scale.py target/release/cryptodl "$folder" "$@"
}

case ${1-} in
service | scale)
    tier=$1
    shift
    "$tier" "$@"
    ;;
swiftshader | full | onnx | resume | neutral | python) "$1" ;;
bundle | peers | small) "$1" "${2-}" ;;
mutants) shaders/tests/mutants.sh ;;
neon) cpu-fallback/tests/neon.sh ;;
wasm)
    rustup target add wasm32-unknown-unknown
    cargo check -p cryptodl --no-default-features --target wasm32-unknown-unknown
    ;;
data) cargo test -p cryptodl-data -p cryptodl-zoo -- --ignored ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
