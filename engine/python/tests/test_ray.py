"""`cryptodl.ray`: what can be decided without a cluster. `tests/long.sh scale` runs clusters."""

import json

import pytest
from cryptodl import CryptoDLError
from cryptodl.ray import (
    IDLE,
    Adapter,
    FleetError,
    Limits,
    adapter_of,
    check_address,
    check_authentication,
    node_command,
    own_addresses,
    read_adapters,
    read_cuda_devices,
    wanted,
)

# As nvidia-smi and `cryptodl devices --json -` write them. The order of the two differs, as it may: nvidia-smi goes by the bus,
# and the Vulkan loader as it likes.
SMI = """\
0, GPU-5b2c8e1a-0d5f-6a0e-9a67-31e5a0a6cf10, 00000000:17:00.0
1, GPU-5b2c9f00-1111-2222-3333-444455556666, 00000000:65:00.0
2, GPU-c0ffee00-aaaa-bbbb-cccc-ddddeeeeffff, 00000000:CA:00.0
3, GPU-0badcafe-0000-1111-2222-333344445555, 00000001:17:00.0
"""


def adapter(index, bus, kind="hardware", name="NVIDIA A100-SXM4-80GB"):
    return {"index": index, "name": name, "kind": kind, "backend": "vulkan", "pci_bus": bus}


VULKAN = [
    adapter(0, "0000:ca:00.0"),
    adapter(1, "0000:17:00.0"),
    adapter(2, "0001:17:00.0"),
    adapter(3, "0000:65:00.0"),
    adapter(4, None, "software", "llvmpipe (LLVM 19.1.7, 256 bits)"),
]


def tables(adapters=VULKAN, smi=SMI):
    return read_cuda_devices(smi), read_adapters(json.dumps({"auto": 0, "adapters": adapters}))


@pytest.mark.parametrize(
    ("asked", "index"),
    [("0", 1), (1, 3), ("2", 0), (3, 2), ("GPU-c0ffee00-aaaa-bbbb-cccc-ddddeeeeffff", 0), ("GPU-5b2c8", 1)],
)
def test_a_gpu_is_found_by_its_place_on_the_bus(asked, index):
    assert adapter_of([asked], *tables()) == index


@pytest.mark.parametrize(
    ("asked", "adapters", "words"),
    [
        ([], VULKAN, "declare num_gpus=1"),
        (["0", "1"], VULKAN, "given it 2"),
        (["MIG-5b2c8e1a-0d5f-6a0e-9a67-31e5a0a6cf10"], VULKAN, "part of a GPU"),
        (["4"], VULKAN, "0 GPUs of nvidia-smi are 4"),
        (["GPU-5b2c"], VULKAN, "2 GPUs of nvidia-smi"),
        (["Tesla"], VULKAN, "0 GPUs of nvidia-smi are Tesla"),
        # A container that shows Vulkan fewer cards than CUDA.
        (["0"], [VULKAN[0], VULKAN[4]], "0 hardware adapters are at 0000:17:00.0"),
        (["0"], [], "lists none"),
        # A driver that does not say where its cards are.
        (["0"], [adapter(0, None), adapter(1, None)], "0 hardware adapters"),
        # Two drivers show the same card.
        (["0"], [*VULKAN, adapter(5, "0000:17:00.0", name="NVK")], "2 hardware adapters"),
        # A software adapter is no card, wherever it claims to be.
        (["0"], [adapter(0, "0000:17:00.0", "software")], "0 hardware adapters"),
    ],
)
def test_an_ambiguous_gpu_is_refused(asked, adapters, words):
    with pytest.raises(FleetError, match=words):
        adapter_of(asked, *tables(adapters))


@pytest.mark.parametrize("text", ["0, GPU-1", "a, GPU-1, 00000000:17:00.0", "0, GPU-1, 17:00", "No devices were found"])
def test_other_tables_of_nvidia_smi_are_refused(text):
    with pytest.raises(FleetError, match="no table"):
        read_cuda_devices(text)
    assert read_cuda_devices("") == []


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"adapters": [{}]}', '{"adapters": [7]}', '{"adapters": 1}'])
def test_other_reports_of_devices_are_refused(report):
    with pytest.raises(FleetError, match="no report"):
        read_adapters(report)


def test_an_adapter_without_a_place_is_read():
    report = json.dumps({"adapters": [VULKAN[4]]})
    assert read_adapters(report) == [Adapter(4, "llvmpipe (LLVM 19.1.7, 256 bits)", False, None)]


def test_ray_without_authentication_is_refused(tmp_path):
    token = tmp_path / ".ray" / "auth_token"
    home = {"HOME": str(tmp_path)}
    for environment in [{}, home, {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_MODE": ""}]:
        with pytest.raises(FleetError, match="RAY_AUTH_MODE=token"):
            check_authentication(environment)
    on = {"RAY_AUTH_MODE": "token", **home}
    for environment in [on, {**on, "RAY_AUTH_TOKEN": " "}, {**on, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")}]:
        with pytest.raises(CryptoDLError, match="holds none"):
            check_authentication(environment)
    check_authentication({**on, "RAY_AUTH_TOKEN": "secret"})
    token.parent.mkdir()
    token.write_text("\n")
    with pytest.raises(FleetError, match="holds none"):
        check_authentication(on)
    token.write_text("secret\n")
    check_authentication(on)
    check_authentication({"RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN_PATH": str(token)})


PRIVATE = ["127.0.0.1", "10.77.0.1", "::1", "fe80::1"]


def test_a_node_is_in_a_private_network():
    check_address("10.77.0.1", PRIVATE)
    check_address("127.0.0.1", PRIVATE)
    for address, own, words in [
        ("0.0.0.0", PRIVATE, "no address of a private network"),
        ("::", PRIVATE, "no address of a private network"),
        ("8.8.8.8", [*PRIVATE, "8.8.8.8"], "no address of a private network"),
        ("2001:4860:4860::8888", PRIVATE, "no address of a private network"),
        ("224.0.0.1", PRIVATE, "no address of a private network"),
        ("node-1", PRIVATE, "is no address"),
        ("10.77.0.2", PRIVATE, "no address of this machine"),
        ("10.77.0.1", [*PRIVATE, "8.8.8.8"], "8.8.8.8 of a public network"),
        ("10.77.0.1", [*PRIVATE, "2001:4860:4860::8888"], "public network"),
    ]:
        with pytest.raises(FleetError, match=words):
            check_address(address, own)


def test_addresses_are_read_as_linux_lists_them():
    fib = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.77.0.0/24 2 0 2
        +-- 10.77.0.0/30 2 0 2
           |-- 10.77.0.0
              /24 link UNICAST
           |-- 10.77.0.1
              /32 host LOCAL
        |-- 10.77.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
Local:
           |-- 10.77.0.1
              /32 host LOCAL
"""
    inet6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
"""
    assert own_addresses(fib, inet6) == ["10.77.0.1", "127.0.0.1", "::1", "fe80::1"]
    assert own_addresses("", "") == []


def test_a_node_begins_a_cluster_or_joins_one():
    head = node_command("10.0.0.1", 6379, None, 4, 0)
    assert head[:3] == ["ray", "start", "--block"]
    assert {"--head", "--port=6379", "--include-dashboard=false", "--node-ip-address=10.0.0.1"} <= set(head)
    assert {"--num-cpus=4", "--num-gpus=0"} <= set(head)
    other = node_command("10.0.0.2", None, "10.0.0.1:6379", None, None)
    assert "--address=10.0.0.1:6379" in other and "--head" not in other
    for both in [(None, None), (6379, "10.0.0.1:6379")]:
        with pytest.raises(FleetError):
            node_command("10.0.0.1", *both, None, None)


def test_as_many_workers_as_are_of_use():
    limits = Limits(least=1, most=4)
    for sets, running, idle, number in [
        (0, 0, 0, 1),
        (3, 1, 0, 3),
        (100, 4, 0, 4),
        (1, 4, IDLE - 1, 4),
        (1, 4, IDLE + 1, 1),
        (2, 4, IDLE + 1, 2),
        # A fleet that was begun with more.
        (0, 9, 0, 4),
    ]:
        assert wanted(limits, sets, running, idle) == number, (sets, running, idle)
    assert wanted(Limits(least=0, most=4), 0, 1, IDLE + 1) == 0
    assert wanted(Limits(least=2, most=2), 50, 2, 0) == 2


@pytest.mark.parametrize("wrong", [{"least": 3, "most": 2}, {"least": -1}, {"most": 0, "least": 0}, {"gpus": 2}, {"cpus": 0}])
def test_limits_are_checked(wrong):
    with pytest.raises(FleetError):
        Limits(**wrong)
