#!/usr/bin/env python3
"""What workers and leases cost, and what they bring: docs/scale.md.

Usage: scale.py BINARY FOLDER [--model NAME]... [--sets K] [--workers N]... [--sleepers N] [--seconds T] [--json FILE]

For each model: the seconds of `infer` with one thread, and of the same request through a service whose workers have one thread
each; the bytes that each worker took per second, and those that one core of the service receives and sends. Then sleeping workers,
which take leases, fetch their sets, and publish recorded results after T seconds, give or take a half: how much longer than that a set takes. Nothing else should run on the machine.
"""

import argparse
import importlib.util
import json
import math
import os
import random
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("binary", type=Path)
parser.add_argument("folder", type=Path)
parser.add_argument("--model", action="append", help="[mnist-2]; `none` for the sleeping workers only")
parser.add_argument("--sets", type=int, default=4, help="sets of a request [4]")
parser.add_argument("--workers", action="append", type=int, help="[1 and 2]")
parser.add_argument("--sleepers", action="append", type=int, help="[1, 8 and 64]")
parser.add_argument("--seconds", type=float, default=6.9, help="that a sleeping worker computes: those of mnist-2 [6.9]")
parser.add_argument("--rounds", type=int, default=3, help="sets of each sleeping worker [3]")
parser.add_argument("--json", type=Path)
asked = parser.parse_args()

# The client and the processes are those of the tests.
sys.argv = [sys.argv[0], str(asked.binary), str(asked.folder)]
path = Path(__file__).resolve().parents[1] / "engine/service/tests/scale.py"
found = importlib.util.spec_from_file_location("scale_tests", path)
tests = importlib.util.module_from_spec(found)
found.loader.exec_module(tests)
FOLDER = tests.FOLDER


def serve(name, *arguments):
    shutil.rmtree(FOLDER / "state-bench", ignore_errors=True)
    served = tests.Process(
        tests.BINARY, "serve", "--program", f"{name}.program", "--state", "state-bench", "--listen", "127.0.0.1:0",
        "--workers-only", "--insecure-deterministic", "--disk-per-tenant", "256GiB", *arguments, line="serving ")
    return served, tests.Service(served.line.rsplit(" ", 1)[1])


def processor_seconds(served):
    """That a process has used: other processes of the machine hardly change it."""
    fields = Path(f"/proc/{served.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def images(name, count):
    """An encrypted request of random pixels."""
    shape = json.loads(tests.run("inspect", f"{name}.program", "--json", "-"))["input"]["shape"]
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {', '.join(map(str, shape))}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    size = count * math.prod(shape)
    with open(FOLDER / f"{name}.npy", "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        block = secrets.token_bytes(1 << 20)
        while size > 0:
            size -= file.write(block[:size])
    keys = FOLDER / f"{name}-keys"
    tests.run("encrypt", "--secret", keys / "secret/secret.key", "--spec", keys / "public/client.spec", "--input",
              f"{name}.npy", "--out", f"{name}.ct")
    (FOLDER / f"{name}.npy").unlink()
    return FOLDER / f"{name}.ct"


def prepare(name, *options):
    if not (FOLDER / f"{name}-keys").exists():
        model = name.split("@")[0]
        plan = json.loads(tests.run("plan", "--model", model, *options, "--out", f"{name}.program", "--json", "-"))
        (FOLDER / f"{name}.json").write_text(json.dumps(plan))
        tests.run("keygen", "--program", f"{name}.program", "--out", f"{name}-keys")
    return json.loads((FOLDER / f"{name}.json").read_text())


def computing(name):
    """A request through real workers, beside `infer`."""
    plan = prepare(name)
    n = plan["params"]["n"]
    request = images(name, n * asked.sets)
    keys = FOLDER / f"{name}-keys/public"
    infer = json.loads(tests.run(
        "infer", "--program", f"{name}.program", "--eval-key", keys / "eval.key", "--deterministic", "--input", request,
        "--out", f"{name}.result", "--threads", "1", "--json", "-"))["seconds"]["compute"]
    rows = []
    for number in asked.workers or [1, 2]:
        tests.MODEL = name
        served, service = serve(name, "--max-sets", asked.sets)
        fleet = [tests.Process(tests.BINARY, "work", "--server", service.url, "--program", f"{name}.program", "--threads", "1",
                               "--insecure-deterministic", "--json", f"bench-{i}.json") for i in range(number)]
        time.sleep(2)
        key = service.register(keys)
        began, before = time.monotonic(), processor_seconds(served)
        job = service.submit(key, request)
        uploaded, between = time.monotonic(), processor_seconds(served)
        result = service.result(job)
        took = time.monotonic() - uploaded
        assert result == (FOLDER / f"{name}.result").read_bytes(), "not what `infer` says"
        after, size = processor_seconds(served), request.stat().st_size
        for worker in fleet:
            worker.stop()
        served.stop()
        ideal = infer / min(number, asked.sets)
        rows.append({
            "model": name, "workers": number, "sets": asked.sets, "infer_seconds": infer, "seconds": took,
            "upload_seconds": uploaded - began, "over_ideal": took / ideal - 1,
            "bytes_per_second_and_worker": size / took / number,
            # What one core of the service takes in, and what it gives out, checksums included.
            "bytes_in_per_core_second": size / max(between - before, 0.01),
            "bytes_out_per_core_second": size / max(after - between, 0.01),
        })
        print(json.dumps(rows[-1]), flush=True)
    return rows


def sleeping():
    """Workers that compute nothing, on small requests: what placement and leases cost."""
    model = "mnist-1-square"
    name = f"{model}@4"
    prepare(name, "--batch", "4")
    request, keys = images(name, 1), FOLDER / f"{name}-keys/public"
    tests.run("infer", "--program", f"{name}.program", "--eval-key", keys / "eval.key", "--deterministic", "--input", request,
              "--out", f"{name}.result")
    result = (FOLDER / f"{name}.result").read_bytes()
    tests.MODEL = model
    rows = []
    for number in asked.sleepers or [1, 8, 64]:
        jobs = number * asked.rounds
        served, service = serve(name, "--max-jobs", jobs, "--jobs-per-tenant", jobs, "--max-connections", "512")
        key = service.register(keys)
        waiting = [service.submit(key, request) for _ in range(jobs)]
        program = service.json("GET", f"/v1/models/{model}")["program"]
        slept, spent, lock = [], [], threading.Lock()

        def work(seed, service=service, program=program, slept=slept, spent=spent, lock=lock):
            # Not all at the same moments.
            moments = random.Random(seed)
            for _ in range(asked.rounds):
                began, seconds = time.monotonic(), moments.uniform(0.5, 1.5) * asked.seconds
                lease = None
                while lease is None:
                    found = service.json("POST", "/v1/leases", {"programs": [program], "wait": 20})["leases"]
                    lease = found[0] if found else None
                at = f"/v1/leases/{lease['lease']}"
                service.call("GET", at + "/input")
                time.sleep(seconds)
                service.call("PUT", at + "/result", result, {"Content-Type": "application/vnd.cryptodl.ciphertexts"})
                with lock:
                    slept.append(seconds)
                    spent.append(time.monotonic() - began)

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(number)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for job in waiting:
            assert service.result(job) == result
        served.stop()
        rows.append({"sleepers": number, "sets": jobs, "seconds_of_a_set": sum(slept) / jobs,
                     "overhead": sum(spent) / sum(slept) - 1, "most_seconds_over": max(b - a for a, b in zip(slept, spent))})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        models = [name for name in asked.model or ["mnist-2"] if name != "none"]
        computed = [row for name in models for row in computing(name)]
        report = {"cores": os.cpu_count(), "computing": computed, "sleeping": sleeping()}
    finally:
        for process in tests.Process.all:
            process.kill()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    report["commit"] = commit.stdout.strip()
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
