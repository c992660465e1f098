#!/usr/bin/env bash
# Builds the submission in the folder that the harness names: a program for every stage, in its build/.
# Needs a Rust toolchain (https://rustup.rs).
set -euo pipefail
task=$(cd "${1:?the folder of a submission}" && pwd)
cargo build --release --locked --manifest-path "$task/cryptodl/Cargo.toml" -p cryptodl-neutral
"$task/cryptodl/target/release/cryptodl-neutral" install "$task/build"
