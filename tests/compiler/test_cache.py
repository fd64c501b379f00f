"""The cache of compiled kernels: it saves time, and never changes a value or stops a program."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import numinit as ni
from numinit.compiler import cache as sealed
from numinit.compiler import cpu as jit
from numinit.compiler import machine
from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import pointer_to

REPORT = """
import json, sys
import numinit as ni
from numinit.compiler import cache

values = ni.Uniform()(5, seed=0).tolist()
where = cache.directory()
print(json.dumps([values, "numba" not in sys.modules, where and str(where)]))
"""
#: Of a process that fills one array: how Python calls kernels, the driver, and the kernel.
FILES = ["calls", "drive_1x4", "uniform_float32"]
VALUES = ni.Uniform()(5, seed=0).tolist()
#: The folder that a user has for kernels in a folder of Numba's.
OWN = f"numinit-{os.geteuid()}" if hasattr(os, "geteuid") else "numinit"
VARIABLES = "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT"


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
    return {file: file.stat().st_mtime_ns for file in Path(folder).rglob("*.o")}


def copy_package(source, folder, *without):
    shutil.copytree(source, folder / "numinit", ignore=shutil.ignore_patterns(*without))
    return folder


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder with the package and a cache, made by one process."""
    package = Path(ni.__file__).parent
    folder = copy_package(package, tmp_path_factory.mktemp("warm"), "__pycache__")
    assert report(folder) == [
        VALUES,
        False,
        str(folder / "numinit" / "compiler" / "__pycache__" / OWN),
    ]
    return folder


def test_a_second_process_compiles_and_writes_nothing(warm):
    before = kernels(warm)
    assert [file.name.rpartition("-")[0] for file in sorted(before)] == FILES
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
    assert len(kernels(folder)) == len(FILES)  # edits leave no files behind


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
    files = kernels(tmp_path)
    assert {file.parent for file in files} == {Path(place)}
    assert {*Path(place).iterdir()} == {*files}  # no drafts
    assert len(files) == len(FILES)
    assert report(warm, NUMBA_CACHE_DIR=str(tmp_path)) == [VALUES, True, place]


ALL_KERNELS = """
import hashlib, json, os, sys
import numpy as np
from numinit.engines.cpu import Fill
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

TYPES = [DTYPES[name] for name in ("float32", "bfloat16")]
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
print(json.dumps([digests, "numba" not in sys.modules]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kernels_of_different_processes_keep_their_own_helpers(warm, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    alone = json.loads(finish(start(warm, ALL_KERNELS + ONE_KERNEL_A_PROCESS, **environment)))
    assert len(set(alone)) == len(alone) == len(kernels(tmp_path)) - 3  # calls and two drivers
    together, cached = json.loads(finish(start(warm, ALL_KERNELS + TOGETHER, **environment)))
    assert together == alone
    assert cached


def test_a_disabled_compiler_is_named(tmp_path):
    own = {"NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    process = start(Path(ni.__file__).parents[1], REPORT, **own)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("RuntimeError:") and "NUMBA_DISABLE_JIT" in err


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this process's own."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    sealed._warn.cache_clear()  # what is said once is said in each test
    assert sealed.directory().is_relative_to(tmp_path)
    return sealed.directory()


def plus(number, name="plus"):
    """A kernel that adds `number`, and whether it came from the cache."""
    made = []

    def kernel(x):
        return x + number

    def compiled(*arguments):
        made.append(None)
        return jit_compiled(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "compiled", compiled)
        place = jit.address(kernel, name)
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(place)(40), not made


jit_compiled = jit.compiled


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
    "no machine code": lambda data: b"cbuiltins\nexec\n(Vraise SystemExit\ntR.",
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
    assert plus(5, "mine") == (45, False)
    monkeypatch.setattr(numba, "__version__", "0")
    assert plus(5, "mine") == (45, False)


def test_a_user_without_a_home(monkeypatch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", home)
    nowhere = tmp_path / "file"
    nowhere.write_bytes(b"")
    monkeypatch.setattr(sealed, "__file__", str(nowhere / "cache.py"))
    assert sealed.directory() is None


def test_a_frozen_program(monkeypatch, tmp_path):
    """It has packages without their metadata, and may be unpacked anew each time."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert tmp_path in sealed.directory().parents
    script = """
from importlib import metadata
def version(package):
    raise metadata.PackageNotFoundError(package)
metadata.version = version
from numinit.compiler import cache
print(cache.file_of("a", ".o").name)
"""
    folder, own = Path(ni.__file__).parents[1], {"NUMBA_CACHE_DIR": str(tmp_path)}
    same = 'from numinit.compiler import cache\nprint(cache.file_of("a", ".o").name)'
    assert finish(start(folder, script, **own)) == finish(start(folder, same, **own))


def test_systems_that_share_a_home_share_no_code(cache, monkeypatch):
    def named(system):
        monkeypatch.setattr(machine, "triple", lambda: system)
        return sealed.file_of("a", ".o", machine.host())

    assert named("x86_64-unknown-linux-gnu") != named("x86_64-apple-darwin")


def test_a_process_without_docstrings_replaces_no_kernels(warm, tmp_path):
    folder = copy_package(warm / "numinit", tmp_path)
    assert report(folder, PYTHONOPTIMIZE="1")[:2] == [VALUES, True]
    assert report(folder, PYTHONOPTIMIZE="2")[:2] == [VALUES, False]
    assert report(folder, PYTHONOPTIMIZE="2")[:2] == [VALUES, True]
    assert report(folder)[:2] == [VALUES, True]


def function(text="return x + A", name="f", file="a.py", **names):
    """A function made of text, with these globals."""
    scope = dict(names)
    exec(compile(f"# {file}\ndef {name}(x, y=1):\n    {text}", file, "exec"), scope)
    return scope[name]


def digest(*arguments, **keywords):
    return sealed.made_from("f", function(*arguments, **keywords))


def test_a_digest_is_of_what_is_compiled():
    one = function(A=1)
    alike = [digest(A=1), digest(A=1, file="b.py"), digest("return x + A  # this", A=1, unused=2)]
    assert set(alike) == {sealed.made_from("f", one)}
    late, inner = function(A=1), digest("return A(x)", A=inline(one))
    late.__defaults__ = (2,)
    outer, other = [inline(function("return B(x)", B=f)) for f in (one, function(A=2))]
    assert digest("return A(x)", A=inline(function(A=1))) == inner
    values = [
        2,
        True,
        1.0,
        0.0,
        -0.0,
        (1,),
        [1],
        None,
        "1",
        np.float32(1),
        np.float64(1),
        np.ones(1),
    ]
    different = [
        alike[0], inner, sealed.made_from("f", late), digest("return x - A", A=1),
        digest("return A(x)", A=outer), digest("return A(x)", A=other),  # a helper's helper
        digest("return A(x)", A=pointer_to("int64")),
        digest("return A(x)", A=pointer_to("int32")),  # a closure
        digest("return [A for _ in x]", A=1), digest("return [A for _ in x]", A=2),
        *(digest(A=value) for value in values),
    ]  # fmt: skip
    assert None not in different
    assert len(set(different)) == len(different)


def test_a_digest_is_the_same_in_every_process(tmp_path):
    script = """
import numinit
from numinit.compiler import cache
from tests_made import f
print(cache.made_from("f", f).hex())
"""
    package = str(Path(ni.__file__).parents[1])
    text = "def f(x):\n    return x in {'a', 'b', 'c', 1.5} or [y for y in {2, 'd', 'e'}]\n"
    (tmp_path / "tests_made.py").write_text(text)
    found = [
        finish(start(tmp_path, script, PYTHONHASHSEED=str(n), PYTHONDONTWRITEBYTECODE="",
                     PYTHONPATH=os.pathsep.join([str(tmp_path), package])))
        for n in range(3)
    ]  # fmt: skip
    assert list(tmp_path.rglob("tests_made*.pyc"))  # from which all but the first were read
    assert len(set(found)) == 1


def test_what_nothing_can_be_said_of_is_not_cached(cache):
    sealed._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"f is compiled again .* builtins\.object"):
        assert digest(A=object()) is None


def test_code_of_a_stale_pyc_is_not_taken_for_its_source(warm, tmp_path):
    """The kernel of old code, which Python has from a .pyc, is none of the file's new source."""
    folder = copy_package(warm / "numinit", tmp_path, "__pycache__")
    file = folder / "numinit" / "stream" / "uniform.py"
    text, status = file.read_bytes(), file.stat()
    assert report(folder, PYTHONDONTWRITEBYTECODE="")[:2] == [VALUES, False]
    for kernel in kernels(folder):
        kernel.unlink()
    file.write_bytes(text.replace(b"word0 >> np.uint32(8)", b"word0 >> np.uint32(9)"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert report(folder, PYTHONDONTWRITEBYTECODE="")[:2] == [VALUES, False]  # of the .pyc
    for pyc in folder.rglob("uniform*.pyc"):
        pyc.unlink()
    values, cached, _ = report(folder)
    assert not cached
    np.testing.assert_allclose(values, np.multiply(VALUES, [0.5, 1, 0.5, 1, 0.5]), atol=2**-24)


@pytest.mark.parametrize("name", sealed.SETTINGS)
def test_what_changes_generated_code_names_the_file(cache, monkeypatch, name):
    before = [sealed.file_of("a", suffix) for suffix in (".o", ".cubin")]
    monkeypatch.setattr(numba.config, name, "another", raising=False)
    assert not {*before} & {sealed.file_of("a", suffix) for suffix in (".o", ".cubin")}


@pytest.mark.parametrize(
    "setting", ["LOOP_VECTORIZE=0", "SLP_VECTORIZE=1", "OPT=1", "ENABLE_AVX=0", "CPU_NAME=generic",
                "DEBUGINFO=1", "BOUNDSCHECK=1"],
)  # fmt: skip
def test_settings_in_the_environment_have_kernels_of_their_own(setting, tmp_path):
    script = (
        "import numinit\nfrom numinit.compiler import cache\nprint(cache.file_of('a', '.o').name)"
    )
    name, value = setting.split("=")
    folder = Path(ni.__file__).parents[1]
    own = {"NUMBA_CACHE_DIR": str(tmp_path)}
    changed = finish(start(folder, script, **own, **{f"NUMBA_{name}": value}))
    assert changed != finish(start(folder, script, **own))
    late = f"import os, numba\nos.environ['NUMBA_{name}'] = '{value}'\n{script}"
    assert finish(start(folder, late, **own)) not in (changed, "")


#: Numba's settings beside the code that it makes: what it prints, watches, or how it is loaded.
ASIDE = {
    "DUMP_ASSEMBLY", "DUMP_FUNC_OPT", "DUMP_LLVM", "DUMP_OPTIMIZED", "ENABLE_PROFILING",
    "HIGHLIGHT_DUMPS", "IS_32BITS", "IS_WIN32", "USE_LLVMLITE_MEMORY_MANAGER", "USING_SVML",
}  # fmt: skip


def test_no_setting_of_the_code_generator_is_forgotten():
    from numba.core import base, callconv, cgutils, codegen, cpu, debuginfo, lowering

    for module in base, callconv, cgutils, codegen, cpu, debuginfo, lowering:
        text = Path(module.__file__).read_text(encoding="utf-8")
        used = set(re.findall(r"(?<!\w)_?config\.([A-Z][A-Z0-9_]+)", text))
        assert used <= ASIDE | {*sealed.SETTINGS}, module.__name__


posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX's")


@posix
def test_folder_and_files_are_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    before = os.umask(0)
    try:
        assert plus(2) == (42, False)
    finally:
        os.umask(before)
    (file,) = kernels(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


def given_away(path, monkeypatch):
    """Let a path belong to somebody else, or seem so to who may not do that."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        return
    fstat, there = os.fstat, path.stat()

    def other(descriptor):
        status = fstat(descriptor)
        owner = 12345 if os.path.samestat(status, there) else status.st_uid
        return os.stat_result([*status[:4], owner, *status[5:]])

    monkeypatch.setattr(os, "fstat", other)


OPEN = {
    "of another owner": given_away,
    "written by all": lambda path, _: path.chmod(path.stat().st_mode | 0o002),
    "written by a group": lambda path, _: path.chmod(path.stat().st_mode | 0o020),
}


@posix
@pytest.mark.parametrize("let_in", OPEN.values(), ids=OPEN)
def test_a_folder_that_others_may_write_is_not_used(cache, monkeypatch, let_in):
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
    before = kernels(cache)
    let_in(cache, monkeypatch)
    with pytest.warns(RuntimeWarning, match="not used.*To mend it") as said:
        assert [plus(2), plus(2), plus(3)] == [(42, False), (42, False), (43, False)]
    assert len(said) == 1 and str(cache) in str(said[0].message)
    assert sealed.directory() is None
    assert kernels(cache) == before


@posix
@pytest.mark.parametrize("let_in", OPEN.values(), ids=OPEN)
def test_a_file_that_others_may_write_is_replaced(cache, monkeypatch, let_in):
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
    (file,) = kernels(cache)
    let_in(file, monkeypatch)
    with pytest.warns(RuntimeWarning, match="not used.*To mend it") as said:
        assert plus(2) == (42, False)
    assert len(said) == 1 and str(file) in str(said[0].message)
    assert plus(2) == (42, True)


@posix
def test_links_are_not_followed(cache):
    assert plus(2) == (42, False)
    (file,) = kernels(cache)
    elsewhere = file.rename(cache.parent / "elsewhere")
    file.symlink_to(elsewhere)
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
    assert not file.is_symlink()
    cache.rename(cache.parent / "moved")
    cache.symlink_to(cache.parent / "moved")
    assert [plus(2), sealed.directory()] == [(42, False), None]


@posix
def test_a_folder_that_is_changed_after_it_was_found_is_not_used(cache):
    file, source = sealed.file_of("a", ".o"), b"source"
    sealed.save(file, source, b"code")
    assert [sealed.load(file, source), sealed.load(file, b"other")] == [b"code", None]
    cache.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="not used"):
        assert sealed.load(file, source) is None
    file.unlink()
    sealed.save(file, source, b"code")
    assert not file.exists()


@pytest.mark.parametrize(("owner", "name"), [(os, "replace"), (os, "open")])
def test_a_full_disk_stops_nothing(cache, monkeypatch, owner, name):
    def full(*arguments, **keywords):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        assert [plus(2), plus(2)] == [(42, False)] * 2
    assert not list(cache.iterdir())
    assert [plus(2), plus(2)] == [(42, False), (42, True)]
