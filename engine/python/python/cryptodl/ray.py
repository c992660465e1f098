"""Workers of a service, which Ray places, restarts and scales (docs/scale.md).

    python -m cryptodl.ray node --head --address 10.0.0.1        # on one machine
    python -m cryptodl.ray node --join 10.0.0.1:6379 --address 10.0.0.2
    python -m cryptodl.ray fleet --server https://10.0.0.1:8750 --program mnist-2.program \\
        --token-file gpu-1.token --gpus 1 --least 1 --most 8

Each worker is an actor that runs `cryptodl work`, which must be on the path of every node. Ray gives
it a group of cores or a GPU, and starts it again wherever there is room when it, its process or its
node dies. There is no dispatcher here: workers pull sets from the service under leases, and the
service decides what is computed and whose result counts. Ray carries no image, key or result.

The adapter of a GPU is found by its place on the PCI bus, because Vulkan ignores
CUDA_VISIBLE_DEVICES. That was tested on recorded tables only, and not yet on machines with several
GPUs.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import io
import ipaddress
import json
import math
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._native import CryptoDLError

NAMESPACE = "cryptodl"

# A node that computes answers late. Ray's defaults declare it dead after 15 seconds without an
# answer, and end what it computes. A minute is as long as a lease.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "10000",
    "RAY_health_check_period_ms": "10000",
    "RAY_health_check_timeout_ms": "30000",
    "RAY_health_check_failure_threshold": "6",
}
# How long the command may take to end before it is killed.
GRACE = 40
# Seconds before a worker that ended by itself is begun again.
PAUSE = 5
# Seconds between two looks at the service's queue.
LOOK = 2.0
# Seconds without work after which a worker above the least number ends.
IDLE = 60.0


class FleetError(CryptoDLError):
    """The fleet cannot be run like this, and what to do."""


# Who may speak to the cluster


def check_authentication(environment: Mapping[str, str]) -> None:
    """Refuses a Ray that runs code for whoever reaches it.

    FleetError: token authentication is off, or there is no token.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        raise FleetError(
            "without authentication Ray runs the code of whoever reaches one of its ports: set RAY_AUTH_MODE=token on every "
            "machine, and give all of them the same token (`ray get-auth-token --generate`, then copy ~/.ray/auth_token)"
        )
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return
    home = environment.get("HOME") or str(Path.home())
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path(home) / ".ray" / "auth_token")
    try:
        found = bool(path.read_text().strip())
    except OSError:
        found = False
    if not found:
        raise FleetError(
            f"RAY_AUTH_MODE is token, and {path} holds none: make one with `ray get-auth-token --generate` on one machine, and "
            "copy it to the others"
        )


def check_address(address: str, own: Iterable[str]) -> None:
    """Refuses a node that strangers could reach: Ray's servers listen on all addresses of a machine.

    address: the one by which other nodes reach this one. own: all addresses of this machine.

    FleetError: `address` is none of a private network, or is not this machine's, or another one is open to the world.
    """
    try:
        asked = ipaddress.ip_address(address)
    except ValueError:
        raise FleetError(f"{address!r} is no address: give this machine's in the private network, such as 10.0.0.1") from None
    if asked.is_unspecified or asked.is_multicast or not asked.is_private:
        raise FleetError(f"{address} is no address of a private network: Ray must not be reached by strangers")
    found = [ipaddress.ip_address(other) for other in own]
    if asked not in found:
        shown = ", ".join(str(other) for other in found)
        raise FleetError(f"{address} is no address of this machine, which has {shown}")
    public = [str(other) for other in found if other.is_global]
    if public:
        raise FleetError(
            f"this machine has the address {', '.join(public)} of a public network, and Ray's servers listen on it too: run the node "
            "in a network namespace or a container that has the private network only, or on a machine without such an address"
        )


def own_addresses(fib: str, if_inet6: str) -> list[str]:
    """All addresses of this machine, from the contents of /proc/net/fib_trie and /proc/net/if_inet6."""
    found = []
    last = None
    for line in fib.splitlines():
        node = re.match(r"\s*\|-- (\S+)", line)
        if node:
            last = node[1]
        elif last and "/32 host LOCAL" in line and last not in found:
            found.append(last)
    for line in if_inet6.splitlines():
        digits = line.split()[:1]
        if digits and len(digits[0]) == 32:
            found.append(str(ipaddress.IPv6Address(int(digits[0], 16))))
    return found


def _addresses_here() -> list[str]:
    def read(name: str) -> str:
        try:
            return Path("/proc/net", name).read_text()
        except OSError:
            return ""

    found = own_addresses(read("fib_trie"), read("if_inet6"))
    if not found:
        raise FleetError("the addresses of this machine cannot be listed: nodes are run on Linux")
    return found


def node_command(
    address: str, head: int | None, join: str | None, cpus: int | None, gpus: int | None, ray: str = "ray"
) -> list[str]:
    """`ray start` as a process that stays, for a supervisor such as systemd.

    address: of this machine. head: the port of a new cluster; or join: address and port of one that is there.
    """
    if (head is None) == (join is None):
        raise FleetError("a node either begins a cluster (--head) or joins one (--join ADDRESS:PORT)")
    command = [ray, "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}"]
    if head is not None:
        # The dashboard runs jobs for whoever reaches it, and nobody needs it.
        command += ["--head", f"--port={head}", "--include-dashboard=false"]
    else:
        command += [f"--address={join}"]
    command += [] if cpus is None else [f"--num-cpus={cpus}"]
    command += [] if gpus is None else [f"--num-gpus={gpus}"]
    return command


# Which adapter belongs to the GPU that Ray gives


@dataclass(frozen=True)
class CudaDevice:
    """A GPU as nvidia-smi lists it."""

    index: int
    uuid: str
    bus: str


@dataclass(frozen=True)
class Adapter:
    """An adapter as `cryptodl devices` lists it."""

    index: int
    name: str
    hardware: bool
    bus: str | None


def read_cuda_devices(table: str) -> list[CudaDevice]:
    """What `nvidia-smi --query-gpu=index,uuid,pci.bus_id --format=csv,noheader` printed."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(table)) if row]
    try:
        return [CudaDevice(int(index), uuid, _bus(bus)) for index, uuid, bus in rows]
    except ValueError:
        raise FleetError(f"this is no table of nvidia-smi:\n{table}") from None


def read_adapters(report: str) -> list[Adapter]:
    """What `cryptodl devices --json -` printed."""
    try:
        adapters = json.loads(report)["adapters"]
        return [
            Adapter(found["index"], found["name"], found["kind"] == "hardware", found["pci_bus"] and _bus(found["pci_bus"]))
            for found in adapters
        ]
    except (ValueError, KeyError, TypeError):
        raise FleetError("this is no report of `cryptodl devices --json -`") from None


def _bus(text: str) -> str:
    """`00000000:17:00.0` and `0000:17:00.0` are the same place."""
    found = re.fullmatch(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])", text)
    if not found:
        raise ValueError(text)
    domain, bus, device, function = (int(part, 16) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"


def adapter_of(gpu_ids: Sequence[int | str], devices: Sequence[CudaDevice], adapters: Sequence[Adapter]) -> int:
    """The index of the adapter that is the GPU which Ray has given to a worker.

    gpu_ids: of `ray.get_gpu_ids()`, an index or a UUID of nvidia-smi's. Unverified on hardware.

    FleetError: not exactly one GPU, not exactly one adapter at its place, or a part of a GPU.
    """
    if len(gpu_ids) != 1:
        raise FleetError(f"a worker computes on one whole GPU, and Ray has given it {len(gpu_ids)}: declare num_gpus=1")
    asked = str(gpu_ids[0])
    if asked.startswith("MIG-"):
        raise FleetError(f"{asked} is a part of a GPU, which Vulkan does not show apart: give workers whole GPUs")
    if asked.isdigit():
        found = [device for device in devices if device.index == int(asked)]
    else:
        # CUDA takes any beginning of a UUID that only one GPU has.
        found = [device for device in devices if asked.startswith("GPU-") and device.uuid.startswith(asked)]
    if len(found) != 1:
        listed = ", ".join(f"{device.index} ({device.uuid})" for device in devices)
        raise FleetError(f"{len(found)} GPUs of nvidia-smi are {asked}; it lists {listed or 'none'}")
    bus = found[0].bus
    at = [adapter for adapter in adapters if adapter.hardware and adapter.bus == bus]
    if len(at) != 1:
        listed = ", ".join(f"{adapter.index}: {adapter.name} at {adapter.bus}" for adapter in adapters)
        raise FleetError(
            f"{len(at)} hardware adapters are at {bus}, where GPU {asked} is, and there must be one; `cryptodl devices` lists "
            f"{listed or 'none'}. In a container, all of the driver's libraries and devices must be visible"
        )
    return at[0].index


def _adapter_here(gpu_ids: Sequence[int | str], binary: str) -> int:
    query = ["nvidia-smi", "--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"]
    try:
        table = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise FleetError(f"nvidia-smi does not say which GPU is which: {error}") from None
    report = subprocess.run([binary, "devices", "--json", "-"], check=True, capture_output=True, text=True).stdout
    return adapter_of(gpu_ids, read_cuda_devices(table), read_adapters(report))


# How many workers there are


@dataclass(frozen=True)
class Limits:
    """How many workers there may be, and what each of them has.

    cpus, gpus and memory are what Ray reserves; a cluster that scales itself adds nodes for workers that find no room.
    """

    least: int = 1
    most: int = 1
    cpus: int = 1
    gpus: int = 0
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise FleetError(f"from {self.least} to {self.most} workers: the least must be 0 or more, and the most 1 or more")
        if self.gpus not in (0, 1):
            raise FleetError(f"{self.gpus} GPUs for a worker: it computes on one or none")
        if self.cpus < 1:
            raise FleetError(f"{self.cpus} cores for a worker: it needs one at least")


def wanted(limits: Limits, sets: int, running: int, idle: float) -> int:
    """How many workers there should be.

    sets: that wait or are computed, and cannot be more than workers that are of use. running: workers there are now.
    idle: seconds for which fewer workers would have done. Workers are added at once, and taken away after a while.
    """
    useful = max(limits.least, min(limits.most, sets))
    if useful < running and idle < IDLE:
        return min(running, limits.most)
    return useful


@dataclass(frozen=True)
class Job:
    """What every worker of a fleet does.

    server: the service's address. programs: contents of Programs. token: the worker's. authority: certificates in PEM that
    are trusted instead of the system's. binary: the command line. options: further ones of `cryptodl work`.
    """

    server: str
    programs: tuple[bytes, ...]
    token: str | None = None
    authority: bytes | None = None
    binary: str = "cryptodl"
    options: tuple[str, ...] = ()

    def queue(self) -> tuple[int, int]:
        """Sets that wait, and sets that somebody computes."""
        request = urllib.request.Request(f"{self.server.rstrip('/')}/v1/leases")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token.strip()}")
        context = None
        if self.server.startswith("https:"):
            trusted = self.authority.decode() if self.authority else None
            context = ssl.create_default_context(cadata=trusted)
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            counts = json.loads(answer.read(1 << 16))
        return int(counts["waiting"]), int(counts["leased"])


def _die_with_parent() -> None:
    """Ends the command when the actor's process is killed, which cannot end it any more."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Worker:
    """Runs `cryptodl work` until it is stopped. An actor of Ray; `start` makes it one.

    When the command ends by itself, so does this process, and Ray begins the worker again.
    """

    def __init__(self, job: Job, limits: Limits) -> None:
        import ray

        binary = shutil.which(job.binary)
        if binary is None:
            raise FleetError(f"{job.binary} is not on this node's path: install the command line on every node")
        self._folder = tempfile.TemporaryDirectory(prefix="cryptodl-worker-")
        folder = Path(self._folder.name)
        command = [binary, "work", "--server", job.server, "--threads", str(limits.cpus)]
        for i, program in enumerate(job.programs):
            path = folder / f"{i}.program"
            path.write_bytes(program)
            command += ["--program", str(path)]
        if job.authority is not None:
            (folder / "ca.pem").write_bytes(job.authority)
            command += ["--ca", str(folder / "ca.pem")]
        if limits.gpus:
            command += ["--adapter", str(_adapter_here(ray.get_gpu_ids(), binary))]
        else:
            command += ["--backend", "cpu"]
        environment = dict(os.environ)
        # Not in the list of processes, nor in a file.
        if job.token is not None:
            environment["CRYPTODL_TOKEN"] = job.token
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            environment.pop(name, None)
        self._stopping = False
        self._process = subprocess.Popen(
            [*command, *job.options], env=environment, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = self._process.wait()
        if not self._stopping:
            print(f"cryptodl work ended with status {status}: it is begun again", file=sys.stderr, flush=True)
            time.sleep(PAUSE)
            os._exit(1)

    def place(self) -> tuple[str, int, int]:
        """Node, and the processes of the actor and of the command."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid(), self._process.pid

    def stop(self) -> None:
        """Lets the set that is computed end, or gives it back."""
        self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._folder.cleanup()


class Supervisor:
    """Keeps as many workers as are of use. An actor of Ray; `start` makes it one."""

    def __init__(self, name: str, job: Job, limits: Limits) -> None:
        self._name, self._job, self._limits = name, job, limits
        self._busy = time.monotonic()
        self._error: str | None = None
        # Answers of workers that were begun, which say whether they could be.
        self._begun: dict[int, Any] = {}
        self._stopping = False
        self._lock = threading.Lock()
        threading.Thread(target=self._scale, daemon=True).start()

    def _workers(self) -> dict[int, Any]:
        """Those there are, also of an earlier life of this actor."""
        import ray
        from ray.util import list_named_actors

        found = {}
        for actor in list_named_actors(all_namespaces=True):
            number = re.fullmatch(re.escape(self._name) + r"-worker-(\d+)", actor["name"])
            if actor["namespace"] == NAMESPACE and number:
                try:
                    found[int(number[1])] = ray.get_actor(actor["name"], namespace=NAMESPACE)
                except ValueError:
                    # It ended since it was listed.
                    continue
        return found

    def _scale(self) -> None:
        while not self._stopping:
            try:
                with self._lock:
                    self._look()
                    self._error = self._trouble()
            except Exception as error:  # noqa: BLE001: the service may be away, and comes back
                self._error = f"{type(error).__name__}: {error}"
            time.sleep(LOOK)

    def _look(self) -> None:
        sets = sum(self._job.queue())
        workers = self._workers()
        now = time.monotonic()
        if max(sets, self._limits.least) >= len(workers):
            self._busy = now
        number = wanted(self._limits, sets, len(workers), now - self._busy)
        for i in range(self._limits.most):
            if len(workers) < number and i not in workers:
                workers[i] = _begin_worker(f"{self._name}-worker-{i}", self._job, self._limits)
                self._begun[i] = workers[i].place.remote()
        for i in sorted(workers)[number:]:
            _end_worker(workers[i])

    def _trouble(self) -> str | None:
        """Why a worker that was begun did not begin."""
        import ray

        for number, answer in sorted(self._begun.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            try:
                ray.get(answer)
            except Exception as error:  # noqa: BLE001: whatever it is, it is shown
                return f"worker {number}: {str(error).strip().splitlines()[-1]}"
        return None

    def status(self) -> dict[str, Any]:
        """Numbers of the workers, and the last trouble."""
        return {"workers": sorted(self._workers()), "error": self._error}

    def asked(self) -> tuple[Job, Limits]:
        """What this fleet was begun with."""
        return self._job, self._limits

    def stop(self) -> None:
        """Ends all workers in good order."""
        self._stopping = True
        with self._lock:
            for worker in self._workers().values():
                _end_worker(worker)


def _begin_worker(name: str, job: Job, limits: Limits) -> Any:
    import ray

    memory = {} if limits.memory is None else {"memory": limits.memory}
    actor = ray.remote(Worker).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=-1,
        num_cpus=limits.cpus,
        num_gpus=limits.gpus,
        **memory,
    )
    return actor.remote(job, limits)


def _end_worker(worker: Any) -> None:
    import ray

    try:
        ray.get(worker.stop.remote(), timeout=GRACE + 10)
    except Exception:  # noqa: BLE001: it has no place yet, or its node is gone
        pass
    ray.kill(worker, no_restart=True)


def start(name: str, job: Job, limits: Limits) -> Any:
    """Begins a fleet on the cluster that this process is connected to, or finds the one of this name.

    The fleet stays when this process ends, until `stop(name)`.

    FleetError: authentication is off; a fleet of this name does something else.
    """
    import ray

    check_authentication(os.environ)
    begun: Any = ray.remote(Supervisor).options(
        name=f"{name}-supervisor",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=4,
        num_cpus=0,
    )
    supervisor = begun.remote(name, job, limits)
    if ray.get(supervisor.asked.remote()) != (job, limits):
        raise FleetError(f"a fleet of the name {name} runs already, with another service, Program or limits: stop it first")
    return supervisor


def stop(name: str) -> None:
    """Ends a fleet in good order."""
    import ray

    supervisor = ray.get_actor(f"{name}-supervisor", namespace=NAMESPACE)
    ray.get(supervisor.stop.remote())
    ray.kill(supervisor, no_restart=True)


def connect(address: str = "auto") -> None:
    """Connects this process to a cluster that asks for tokens.

    FleetError: authentication is off.
    """
    import ray

    check_authentication(os.environ)
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cryptodl.ray", description="Workers of a service, on Ray (docs/scale.md)")
    commands = parser.add_subparsers(dest="command", required=True)
    node = commands.add_parser("node", help="run a node of the cluster on this machine, until SIGTERM")
    node.add_argument("--address", required=True, help="of this machine, in the private network")
    kind = node.add_mutually_exclusive_group(required=True)
    kind.add_argument("--head", type=int, nargs="?", const=6379, metavar="PORT", help="begin a cluster")
    kind.add_argument("--join", metavar="ADDRESS:PORT", help="join one")
    node.add_argument("--num-cpus", type=int, help="cores that workers may have [all]")
    node.add_argument("--num-gpus", type=int, help="GPUs that workers may have [all]")
    fleet = commands.add_parser("fleet", help="keep workers for a service, also after this command has ended")
    fleet.add_argument("--name", default="fleet")
    fleet.add_argument("--cluster", default="auto", metavar="ADDRESS:PORT")
    fleet.add_argument("--server", required=True, metavar="URL")
    fleet.add_argument("--program", required=True, action="append", type=Path, metavar="FILE")
    fleet.add_argument("--token-file", type=Path, metavar="FILE")
    fleet.add_argument("--ca", type=Path, metavar="FILE")
    fleet.add_argument("--binary", default="cryptodl", help="the command line, on every node's path")
    fleet.add_argument("--least", type=int, default=1, help="workers that are kept")
    fleet.add_argument("--most", type=int, required=True, help="workers there may be")
    fleet.add_argument("--cpus", type=int, default=1, help="cores of a worker")
    fleet.add_argument("--gpus", type=int, default=0, help="GPUs of a worker, 0 or 1")
    fleet.add_argument("--memory", type=int, metavar="BYTES", help="that Ray reserves for a worker")
    for name, text in (("stop", "end a fleet"), ("status", "say which workers there are")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--name", default="fleet")
        command.add_argument("--cluster", default="auto", metavar="ADDRESS:PORT")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    asked = _arguments().parse_args(arguments)
    try:
        check_authentication(os.environ)
        if asked.command == "node":
            check_address(asked.address, _addresses_here())
            command = node_command(asked.address, asked.head, asked.join, asked.num_cpus, asked.num_gpus)
            os.execvpe(command[0], command, {**HEALTH, **os.environ})
        connect(asked.cluster)
        if asked.command == "fleet":
            limits = Limits(asked.least, asked.most, asked.cpus, asked.gpus, asked.memory)
            job = Job(
                asked.server,
                tuple(path.read_bytes() for path in asked.program),
                asked.token_file and asked.token_file.read_text().strip(),
                asked.ca and asked.ca.read_bytes(),
                asked.binary,
            )
            import ray

            print(json.dumps(ray.get(start(asked.name, job, limits).status.remote())))
        elif asked.command == "stop":
            stop(asked.name)
        else:
            import ray

            supervisor = ray.get_actor(f"{asked.name}-supervisor", namespace=NAMESPACE)
            print(json.dumps(ray.get(supervisor.status.remote())))
    except (FleetError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Nodes find the classes by the module's name.
    from cryptodl.ray import main as _main

    sys.exit(_main())
