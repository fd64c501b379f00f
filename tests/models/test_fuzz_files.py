"""The quick form of the fuzzer of recipes, models, headers and files; see `benchmarks.fuzz_files`."""

from pathlib import Path

import pytest

if not (Path(__file__).parents[2] / "benchmarks" / "__init__.py").is_file():
    pytest.skip("the tests run without the benchmarks", allow_module_level=True)

from benchmarks import fuzz_files


@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_is_read_is_refused_or_right(seed):
    came = fuzz_files.run(30, seed, cases=400)
    assert sum(came.values()) >= 100
    for what in ("recipe: refused", "recipe: planned", "model: refused", "model: read",
                 "header: refused", "header: read", "damaged: found"):  # fmt: skip
        assert came[what], what
    assert came["damaged: a rounding"] < came["damaged: found"]
