"""The examples of `numinit.arrays`, each in a process of its own: some frameworks bear no others."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import numinit
import numinit.arrays

BLOCKS = re.findall(r"::\n\n((?:    .*\n|\n)+)", numinit.arrays.__doc__)
BEFORE = """
import sys
import numpy as np
import numinit as ni

key = ni.Key(0)
"""
#: What must hold after each example.
AFTER = {
    "cupy": """
assert (weight.get() == ni.KaimingUniform()((64, 32), seed=key.fold_in("layer.weight"))).all()
""",
    "paddle": """
expected = ni.KaimingUniform(in_axis=0, out_axis=1)((32, 64), seed=key.fold_in("layer.weight"))
assert (layer.weight.numpy() == expected).all()
""",
    "tensorflow": """
assert (weight.numpy() == ni.Normal(std=0.01)((1000, 64), seed=key.fold_in("table"))).all()
""",
    "tinygrad": """
expected = ni.KaimingUniform()((64, 32), seed=key.fold_in("layer.weight"))
assert (layer.weight.numpy() == expected).all()
""",
}
EXAMPLES = {re.search(r"(?:import|from) (\w+)", block)[1]: block for block in BLOCKS}


def test_every_example_is_checked():
    assert EXAMPLES.keys() == AFTER.keys()


@pytest.mark.parametrize("package", AFTER)
def test_example(package, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "cupy":
        cupy = pytest.importorskip("cupy")
        if not cupy.is_available():
            pytest.skip("there is no GPU")
    run = subprocess.run(
        [sys.executable, "-c", BEFORE + textwrap.dedent(EXAMPLES[package]) + AFTER[package]],
        env=os.environ
        | {
            "PYTHONPATH": str(Path(numinit.__file__).parents[1]),
            "DEV": "PYTHON",  # of tinygrad, which else wants a compiler
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
