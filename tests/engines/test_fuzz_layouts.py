"""The fuzzer of layouts, in its quick form, and that it finds what it is for."""

import sys
from pathlib import Path

import pytest

import numinit as ni

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks" / "__init__.py").is_file():
    pytest.skip("the tests run without the benchmarks", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import fuzz_layouts  # noqa: E402


def test_random_layouts():
    done = fuzz_layouts.fuzz(20261126, cases=1500, dtypes=["float32", "float16"])
    assert done.total() == 1500 and {*fuzz_layouts.KINDS, "refused"} >= {*done}
    assert all(done[way] > 100 for way in fuzz_layouts.KINDS)


def test_the_fuzzer_finds_a_byte_beside(monkeypatch):
    """A fill that also writes the byte after the last element."""
    fill = ni.Initializer.fill_

    def careless(self, array, **given):
        fill(self, array, **given)
        memory = array
        while memory.base is not None:
            memory = memory.base
        memory[-1] = 0
        return array

    monkeypatch.setattr(ni.Initializer, "fill_", careless)
    with pytest.raises(AssertionError, match="beside the elements"):
        fuzz_layouts.fuzz(1, cases=50, dtypes=["float32"])
