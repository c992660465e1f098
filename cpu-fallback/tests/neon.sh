#!/usr/bin/env bash
# Runs the tests of the CPU kernels as a 64-bit ARM program, NEON kernels among them, in an emulator where the machine is
# another. Installs what that needs (Debian or Ubuntu packages, and Rust's standard library for the target). Not part of the
# default tests: it builds for another machine. Takes two minutes.
#
#   cpu-fallback/tests/neon.sh [ARGUMENTS OF cargo test]
set -euo pipefail
cd "$(dirname "$0")/../.."

TARGET=aarch64-unknown-linux-gnu

if [ "$(uname -m)" != aarch64 ]; then
    if ! command -v qemu-aarch64 >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
        sudo=""
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        $sudo apt-get update -qq
        $sudo apt-get install -y -qq --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    fi
    rustup target add "$TARGET"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
fi

cargo test --package cryptodl-cpu --target "$TARGET" "$@"
