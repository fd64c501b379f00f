"""`numinit.keras`, each backend of Keras in a process of its own, with Keras' own tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import numinit

pytest.importorskip("keras", reason="needs Keras 3")

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(numinit.__file__).parents[1]), str(HERE)]),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}


#: What each backend needs. NumPy's stands for those that numinit does not know.
BACKENDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "numpy": "jax"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A process of each backend, all at once, because each imports for many seconds."""
    suite = Path(importlib.util.find_spec("keras").origin).parent / "src" / "initializers"
    processes = {}
    for backend, package in BACKENDS.items():
        if importlib.util.find_spec(package) is None:
            continue
        folder = tmp_path_factory.mktemp(backend)
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "keras_suite", "-p", "no:cacheprovider", "--noconftest",
            "-c", os.devnull, "--rootdir", str(folder), "--import-mode=importlib", str(HERE / "keras_backend.py"),
            *map(str, sorted(suite.glob("*_test.py"))),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            processes[backend] = (
                folder / "log",
                subprocess.Popen(
                    command,
                    env=ENVIRONMENT | {"KERAS_BACKEND": backend},
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                ),
            )
    yield processes
    for _, process in processes.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend, runs):
    if backend not in runs:
        pytest.skip(f"{BACKENDS[backend]} is not installed")
    log, process = runs[backend]
    code = process.wait(timeout=600)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0, text
    assert " passed" in text


def test_shards_on_gpus_by_the_simulator():
    from numinit.engines.cuda_driver import lacking

    pytest.importorskip("jax", reason="needs JAX")
    if what := lacking():
        pytest.skip(what)
    run = subprocess.run(
        [sys.executable, str(HERE / "keras_simulator.py")],
        env=ENVIRONMENT
        | {
            "KERAS_BACKEND": "jax",
            "NUMBA_ENABLE_CUDASIM": "1",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "OK"
