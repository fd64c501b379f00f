"""The cache of compiled kernels: it saves time, and never changes a value or stops a program."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

import numinit as ni
from numinit.compiler import cache as sealed
from numinit.compiler import cpu as jit

REPORT = """
import json
import numinit as ni
from numinit.compiler import cache
from numinit.engines.cpu_kernel import fill_kernel
from numinit.stream.dtypes import DTYPES
from numinit.stream.uniform import UNIFORM

values = ni.Uniform()(5, seed=0).tolist()
hits = fill_kernel(UNIFORM, DTYPES["float32"], None).stats.cache_hits
where = cache.directory()
print(json.dumps([values, sum(hits.values()) == 1, where and str(where)]))
"""
VALUES = ni.Uniform()(5, seed=0).tolist()
VARIABLES = "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DISABLE_JIT"


def start(folder, script=REPORT, **environment):
    """A process that runs the package in `folder`."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    # Python's own .pyc files would hide an edit that keeps a file's time and size.
    kept |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, env=kept | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def report(folder, **environment):
    """The values, whether their kernel came from the cache, and where that is."""
    return json.loads(finish(start(folder, **environment)))


def kernels(folder):
    return {file: file.stat().st_mtime_ns for file in Path(folder).rglob("*.nbc")}


def copy_package(source, folder, *without):
    shutil.copytree(source, folder / "numinit", ignore=shutil.ignore_patterns(*without))
    return folder


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder with the package and a cache, made by one process."""
    package = Path(ni.__file__).parent
    folder = copy_package(package, tmp_path_factory.mktemp("warm"), "__pycache__")
    assert report(folder) == [VALUES, False, str(folder / "numinit" / "compiler" / "__pycache__")]
    return folder


def test_a_second_process_compiles_and_writes_nothing(warm):
    before = kernels(warm)
    assert len(before) == 1
    assert report(warm)[:2] == [VALUES, True]
    assert kernels(warm) == before


def test_an_edit_that_keeps_time_and_size_is_seen(warm, tmp_path):
    folder = copy_package(warm / "numinit", tmp_path)
    file = folder / "numinit" / "stream" / "uniform.py"
    text, status = file.read_bytes(), file.stat()

    def write(content):
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_mtime_ns == status.st_mtime_ns
        assert file.stat().st_size == status.st_size

    shift = b"word0 >> np.uint32(8)"  # of every other element
    assert text.count(shift) == 1
    write(text.replace(shift, b"word0 >> np.uint32(9)"))
    values, cached, _ = report(folder)
    assert not cached
    np.testing.assert_allclose(values, np.multiply(VALUES, [0.5, 1, 0.5, 1, 0.5]), atol=2**-24)
    assert report(folder)[:2] == [values, True]
    write(text)
    assert report(folder)[:2] == [VALUES, False]
    assert len(kernels(folder)) == 1  # edits leave no files behind


@pytest.mark.skipif(os.name == "nt", reason="no variable moves Windows' user cache directory")
def test_works_where_nothing_can_be_written(warm, tmp_path):
    folder = copy_package(warm / "numinit", tmp_path, "__pycache__")
    # Regular files in place of directories stop even a superuser.
    file = folder / "numinit" / "compiler" / "__pycache__"
    file.write_bytes(b"")
    nowhere = dict.fromkeys(["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"], str(file / "below"))
    assert report(folder, HOME=os.devnull, **nowhere) == [VALUES, False, None]


def test_numba_cache_dir_is_honoured_by_processes_that_start_at_once(warm, tmp_path):
    for process in [start(warm, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(4)]:
        values, _, place = json.loads(finish(process))
        assert values == VALUES
    (file,) = kernels(tmp_path)
    assert file.parent == Path(place)
    assert list(file.parent.iterdir()) == [file]  # no drafts
    assert report(warm, NUMBA_CACHE_DIR=str(tmp_path)) == [VALUES, True, place]


ALL_KERNELS = """
import hashlib, json, os
import numpy as np
from numinit.engines.cpu import Fill
from numinit.engines.cpu_kernel import fill_kernel
from numinit.engines.layout import View
from numinit.engines.spec import Spec
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DTYPES
from numinit.stream.normal import NORMAL
from numinit.stream.uniform import UNIFORM

SPECS = [
    Spec(CONSTANT, CONSTANT.Parameters(0.5, 0.25)),
    Spec(UNIFORM, UNIFORM.Parameters(0.5, 0.25, -100.0, 100.0)),
    Spec(NORMAL, NORMAL.Parameters(0.5, 0.25, -100.0)),
]

def digest(spec, dtype):
    out = np.zeros(1000)
    Fill(View((999,), (8,), (1,)), dtype, spec)(out.ctypes.data, 3, 0, 1, 2)
    return hashlib.sha256(out.tobytes()).hexdigest()

TYPES = [DTYPES[name] for name in ("float32", "float64", "float16", "bfloat16")]
KERNELS = [(spec, dtype) for spec in SPECS for dtype in TYPES]
"""
# Forked children number what they compile alike, as do processes that ask for one kernel each.
ONE_KERNEL_A_PROCESS = """
pipes = []
for kernel in KERNELS:
    if len(pipes) >= 2:
        os.wait()
    read, write = os.pipe()
    if not os.fork():
        os.write(write, digest(*kernel).encode())
        os._exit(0)
    os.close(write)
    pipes.append(read)
print(json.dumps([os.read(read, 100).decode() for read in pipes]))
"""
TOGETHER = """
digests = [digest(*kernel) for kernel in KERNELS]
used = [fill_kernel(spec.transform, dtype, None) for spec, dtype in KERNELS]
print(json.dumps([digests, [sum(kernel.stats.cache_hits.values()) for kernel in used]]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kernels_of_different_processes_keep_their_own_helpers(warm, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    alone = json.loads(finish(start(warm, ALL_KERNELS + ONE_KERNEL_A_PROCESS, **environment)))
    assert len(set(alone)) == len(alone) == len(kernels(tmp_path))
    together, hits = json.loads(finish(start(warm, ALL_KERNELS + TOGETHER, **environment)))
    assert together == alone
    assert hits == [1] * len(alone)


def test_a_disabled_compiler_is_named():
    process = start(Path(ni.__file__).parents[1], REPORT, NUMBA_DISABLE_JIT="1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("RuntimeError:") and "NUMBA_DISABLE_JIT" in err


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this process's own."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert sealed.directory().parent == tmp_path
    return sealed.directory()


def plus(number, name="plus"):
    """A kernel that adds `number`, and whether it came from the cache."""

    @jit.kernel(name, types.int64(types.int64))
    def kernel(x):
        return x + number

    return kernel(40), sum(kernel.stats.cache_hits.values()) == 1


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "emptied": lambda data: b"",
    "cut in the seal": lambda data: data[:20],
    "cut after the seal": lambda data: data[:32],
    "cut in the code": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "garbage": lambda data: bytes(range(256)) * 8,
    "a bit of the seal": lambda data: flipped(data, 5),
    "a bit of the code": lambda data: flipped(data, len(data) // 2),
    "a pickle that raises": lambda data: b"cbuiltins\nexec\n(Vraise SystemExit\ntR.",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_replaced(cache, damage):
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
    (file,) = kernels(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert [plus(2), plus(2)] == [(42, False), (42, True)]


def test_a_file_serves_only_its_own_kernel_sources_and_versions(cache, monkeypatch):
    assert plus(2, "mine") == (42, False)
    (mine,) = kernels(cache)
    assert plus(3, "other") == (43, False)
    (other,) = kernels(cache).keys() - {mine}
    shutil.copy(other, mine)
    assert plus(2, "mine") == (42, False)
    monkeypatch.setattr(sealed, "_SOURCES", b"edited")
    assert plus(5, "mine") == (45, False)
    monkeypatch.setattr(numba, "__version__", "0")
    assert plus(6, "mine") == (46, False)
    monkeypatch.setattr(sealed, "_SOURCES", None)  # as in a frozen program
    assert [plus(7, "mine"), sealed.directory()] == [(47, False), None]


@pytest.mark.parametrize(("owner", "name"), [(os, "replace"), (Path, "write_bytes")])
def test_a_full_disk_stops_nothing(cache, monkeypatch, owner, name):
    def full(*arguments):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        assert [plus(2), plus(2)] == [(42, False)] * 2
    assert not list(cache.iterdir())
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
