"""One digest of a table of 256 MiB, whatever makes it and on however many devices and processes."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import numinit

HERE = Path(__file__).parent
JAX = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
HALF = {**JAX, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(HERE / "one_table.py"), *arguments],
        env=os.environ
        | {
            "PYTHONPATH": str(Path(numinit.__file__).parents[1]),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def digests(process):
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, out + errors
    return re.findall(r"digest: (\w+)", out)


@pytest.fixture(scope="module")
def expected():
    (digest,) = digests(start("numpy"))
    return digest


@pytest.mark.parametrize(
    ("way", "needs", "count", "environment"),
    [
        ("torch", ["torch"], 1, {}),
        ("jax", ["jax"], 5, JAX),  # 1, 2, 4 and 8 devices, and jit
        ("keras", ["keras", "torch"], 1, {"KERAS_BACKEND": "torch"}),
        ("keras", ["keras", "jax"], 1, {"KERAS_BACKEND": "jax", **JAX}),
        ("keras", ["keras", "tensorflow"], 1, {"KERAS_BACKEND": "tensorflow"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_one_process(way, needs, count, environment, expected):
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    assert digests(start(way, **environment)) == [expected] * count


def test_two_processes(expected):
    pytest.importorskip("jax", reason="needs JAX")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = [start("jax", str(number), address, **HALF) for number in range(2)]
    assert [digests(process) for process in started] == [[expected]] * 2
