#!/usr/bin/env bash
# Puts CryptoDL into a checkout of the benchmark (fhe-benchmarking/ml-inference) as a submission.
#
#   benches/neutral/submission.sh BENCHMARK [NAME]     NAME: mnist, as the harness's --model says
#   cd BENCHMARK && python3 harness/run_submission.py 3 --model NAME --num_runs 3
#
# What is committed is packed, and nothing else.
set -euo pipefail
benchmark=$(cd "${1:?a checkout of the benchmark}" && pwd)
name=${2:-mnist}
cd "$(dirname "$0")/../.."
[ -d "$benchmark/harness" ] || { echo "$benchmark has no folder harness: is it the benchmark?" >&2; exit 2; }
task=$benchmark/submissions/$name
rm -rf "$task"
mkdir -p "$task/cryptodl" "$benchmark/scripts"
git archive HEAD | tar -x -C "$task/cryptodl"
cp benches/neutral/README.md "$task/README.md"
cp LICENSE-MIT LICENSE-APACHE "$task"
install -m 755 benches/neutral/submission/build_task.sh benches/neutral/submission/get_openfhe.sh "$benchmark/scripts"
echo "wrote $task and two scripts; next, in $benchmark: scripts/build_task.sh submissions/$name"
