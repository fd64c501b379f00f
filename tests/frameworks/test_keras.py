"""`numinit.keras`, each backend of Keras in a process of its own, beside Keras' own tests."""

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


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_backend(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    suite = Path(importlib.util.find_spec("keras").origin).parent / "src" / "initializers"
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "keras_suite", "-p", "no:cacheprovider", "--noconftest",
        "-c", os.devnull, "--rootdir", str(tmp_path), "--import-mode=importlib", str(HERE / "keras_backend.py"),
        *map(str, sorted(suite.glob("*_test.py"))),
    ]  # fmt: skip
    run = subprocess.run(
        command,
        env=ENVIRONMENT | {"KERAS_BACKEND": backend},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
