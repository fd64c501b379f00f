"""The measurements of a GPU, rehearsed on the host, whose memory takes the GPU's place."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import oracle
import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "__init__.py").is_file():
    pytest.skip("the tests run without the benchmarks", allow_module_level=True)
pytest.importorskip("ml_dtypes")
sys.path.insert(0, str(ROOT))

from benchmarks import cuda, device  # noqa: E402
from benchmarks.cuda import KEY, SMALL, Case  # noqa: E402
from numinit.stream.dtypes import DTYPES  # noqa: E402

KILLS = (
    "#include <signal.h>\n#include <unistd.h>\nint main(void) { return kill(getppid(), SIGKILL); }"
)
RATES = """#include <stdio.h>
int main(int argc, char **argv) { return printf("stores median 1.00 GB/s, %s\\n", argv[1]) < 0; }"""


def has_torch():
    return pytest.importorskip("torch")


@pytest.fixture
def gpu():
    has_torch()
    return cuda.Rehearsal()


def rehearse(report, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.device", "--report", report, "--rehearse", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    return done.returncode, report.read_text(encoding="utf-8"), done.stderr


@pytest.fixture
def program(tmp_path):
    """A function that writes the source of the program of `--limit`."""
    if sys.platform == "win32" or shutil.which("cc") is None:
        pytest.skip("no C compiler")

    def write(text):
        path = tmp_path / "uniform.c"
        path.write_text(text)
        return str(path)

    return write


def test_the_rehearsal_runs_to_its_end(tmp_path, program):
    has_torch()
    arguments = "--minutes", "60", "--limit", program(RATES)
    code, text, errors = rehearse(tmp_path / "report.md", *arguments)
    assert code == 0, text[-3000:] + errors[-3000:]
    assert re.findall("^## (.*)$", text, re.M) == list(device.PARTS)
    listed = device.items(device.options_of(["--report", "x", "--rehearse"]))
    cases = [item.case for item in listed if item.case]
    assert len(cases) > 90
    assert {case.dtype for case in cases} == {*DTYPES}
    assert {case.name for case in cases} == {*cuda.INITIALIZERS}
    assert all(f"\n{case}: the CPU's bits [" in text for case in cases)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    who = [row[1] for row in rows if "float" in row[0]]
    assert who == ["cudaMemset", "numinit", "torch.cuda"] * 9
    assert text.count("cuRAND's [") == 2
    assert "stores median 1.00 GB/s, 1" in text
    assert "a graph replays the same bits" in text
    assert "not run" not in text.lower()
    assert text.endswith("0 results differ, 0 failed\n")


def test_a_result_that_ends_the_process_is_passed_over(tmp_path, program):
    has_torch()
    arguments = "--limit", program(KILLS), "--parts", "limit", "shapes"
    code, text, _ = rehearse(tmp_path / "report.md", *arguments)
    assert code == 1
    assert "FAILED: the program's rates: the process ended with -9" in text
    assert "a new process goes on" in text
    assert text.count("threads x blocks") == 9
    assert not [*tmp_path.glob("report.md.*")]
    assert text.endswith("0 results differ, 1 failed\n")


def run(tmp_path, *arguments):
    """One process's part of a run, in this process."""
    report = tmp_path / "report.md"
    end = str(time.time() + 60)
    code = device.main(["--report", str(report), "--end", end, "--rehearse", *arguments])
    return code, report.read_text(encoding="utf-8")


def test_an_error_ends_one_result(tmp_path, gpu, monkeypatch):
    def fails(gpu, sizes):
        raise RuntimeError("an illegal address")

    monkeypatch.setattr(device, "first_call", lambda bench: "left out")
    monkeypatch.setattr(cuda, "host_times", fails)
    code, text = run(tmp_path, "--parts", "launches")
    assert code == 0
    assert "FAILED: launches, host: RuntimeError: an illegal address (test_device.py, line" in text
    assert "a graph replays" in text
    monkeypatch.setattr(cuda.Rehearsal, "broken", lambda gpu: True)
    code, text = run(tmp_path, "--parts", "launches")
    assert code == device.LOST
    assert text.count("a graph replays") == 1  # of the first run
    code, text = run(tmp_path, "--parts", "launches", "--start", "1")
    assert code == 0
    assert text.count("a graph replays") == 2


def test_what_does_not_fit_the_time_is_named(tmp_path, gpu):
    code, text = run(tmp_path, "--parts", "cache", "--end", "0")
    assert code == 0
    assert "Not run for lack of time: cache: uniform, float32; cache: uniform, bfloat16" in text


def test_without_a_gpu_what_needs_none_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "lacking", lambda: "numinit needs a thing")
    monkeypatch.setattr(device, "Sizes", lambda: SMALL)
    report = tmp_path / "report.md"
    arguments = ["--report", str(report), "--end", str(time.time() + 60)]
    assert device.main(arguments) == device.NO_GPU
    text = report.read_text(encoding="utf-8")
    assert "no GPU to measure: NoGPU: numinit needs a thing" in text
    assert re.findall("^## (.*)$", text, re.M) == ["machine", "cpu", "limit"]
    assert re.search(r"^\| 1 \| [\d.]+ \| ", text, re.M)
    assert "skipped: no --limit uniform.c" in text


@pytest.mark.parametrize("layout", ["whole", "rows", "transposed", "every other column"])
@pytest.mark.parametrize("dtype", ["float16", "complex64"])
def test_a_wrong_element_is_found(gpu, monkeypatch, dtype, layout):
    case = Case("normal", dtype, layout)
    assert cuda.difference(gpu, case, SMALL) == ""
    fill = cuda.fill

    def wrong(*what):
        array = fill(*what)
        flat = gpu.flat(array)
        flat[1321] = int(flat[1321]) ^ 1
        return array

    monkeypatch.setattr(cuda, "fill", wrong)
    found = cuda.difference(gpu, case, SMALL)
    index = 1321 // np.dtype(dtype).itemsize
    assert found.startswith(f"element {index} is 0x")
    assert " 1 of " in found
    words = " ".join(f"{w:08x}" for w in oracle.block_words(index // 4, 0, KEY.seed, KEY.stream))
    assert (f"word {index % 4} of {words}" in found) == (layout in ("whole", "rows"))


def test_what_lies_between_the_elements_of_a_view_is_compared(gpu, monkeypatch):
    case = Case("normal", "float32", "every other column")
    fill = cuda.fill

    def wrong(*what):
        array = fill(*what)
        array[3, 1] = 0.0
        return array

    monkeypatch.setattr(cuda, "fill", wrong)
    assert cuda.difference(gpu, case, SMALL).startswith(f"element {3 * 26 + 1} is 0x00000000 and")


def test_words_that_are_not_curands_are_found(gpu, monkeypatch):
    def other(first, *rest):
        words = cuda.stream_words(KEY, 5, SMALL.blocks)
        words[7, 2] ^= 1
        return words

    monkeypatch.setattr(gpu, "curand_words", other)
    assert cuda.curand_difference(gpu, 5, SMALL).startswith("word 2 of block 12 is ")


def test_the_stand_in_has_the_names_of_torch(gpu):
    with pytest.raises(AttributeError):
        _ = gpu.torch.cuda.no_such_thing


COMPILES = """
import sys
from benchmarks.cuda import Case, prepare
for layout in sys.argv[1:]:
    prepare(Case("constant", "float8_e5m2", layout), (9, 0))
"""


def test_kernels_are_compiled_ahead(tmp_path):
    """One kernel for whole arrays, windows and one step, one for rows, and one transposed."""
    has_torch()
    found = device.toolkit(None)
    if "an empty kernel has" not in found:
        pytest.skip(found)
    layouts = ["whole", "rows", "window at row 0", "every other column", "transposed"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", COMPILES, *layouts], env=environment, check=True)
    names = sorted(path.name.partition("-")[0] for path in tmp_path.rglob("*.cubin"))
    assert len(names) == 3
    assert all(name.startswith("fill_constant_float8_e5m2") for name in names)
