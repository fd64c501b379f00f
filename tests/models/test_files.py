"""Files: written whole or not at all, read by others, verified, and never trusted."""

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numinit import (
    Constant,
    FromIndex,
    Key,
    Normal,
    Ones,
    Orthogonal,
    Zeros,
    __version__,
    init_params,
)
from numinit.engines import driver
from numinit.engines.by_index import decoded
from numinit.initializers.base import Planned
from numinit.initializers.variance_scaling import FORMER
from numinit.models import files as mapped
from numinit.models import provenance
from numinit.models import tensors as planning
from numinit.models import untrusted as inputs
from numinit.models import verify as verifying
from numinit.models import write as writing
from numinit.models.formats import safetensors
from numinit.models.formats.safetensors import BITS, MAX_HEADER, Entry, layout, read_header
from numinit.models.integers import INTEGERS, check_integers, integers
from numinit.models.recipes import RecipeError, parse
from numinit.models.sources import TensorSpec, available, load_model, load_shapes
from numinit.models.tolerance import _bits
from numinit.models.untrusted import InputError
from numinit.models.verify import Mismatch, verify
from numinit.models.write import write
from numinit.stream.dtypes import DTYPES, as_dtype

# New processes find the package that is tested, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(writing.__file__).parents[2])}

RECIPE = parse(
    """
name = "small"
optional = true
[[rules]]
match = "*.bias"
init = "Zeros"
[[rules]]
match = "u*"
init = "Uniform"
low = -1.0
high = 1.0
[[rules]]
match = "*"
init = "Normal"
std = 0.5
"""
)
SHAPES = {"a.weight": (300, 70), "a.bias": (300,), "ü/层": (7, 3, 5), "empty": (0, 4), "scalar": ()}
MIXED = {
    "h": TensorSpec((3,), "float16"),
    "b": TensorSpec((5, 5), "bfloat16"),
    "d": TensorSpec((2, 2), "float64"),
    "s": TensorSpec((9,), "float32"),
}


def raw(init, name, shape, dtype, seed=0):
    """The bytes of one tensor in one pass."""
    out = np.empty(math.prod(shape) * as_dtype(dtype).itemsize, np.uint8)
    init.fill_flat(out, 0, shape, as_dtype(dtype), Key(seed).fold_in(name))
    return out.tobytes()


def tensor_bytes(path):
    _, entries, offset = read_header(path)
    data = path.read_bytes()[offset:]
    return {name: data[entry.start : entry.stop] for name, entry in entries.items()}


def end_of(tensors, starts):
    """Where the last of some tensors ends in the data."""
    return max(
        (start + math.prod(tensors[name][0]) * tensors[name][1].itemsize
         for name, start in starts.items()), default=0,
    )  # fmt: skip


def safetensors_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


# Writing


def test_sizes_by_numpy_are_sizes(tmp_path):
    shape = np.array([3, 5])
    for name, specs in ("a", {"w": tuple(shape)}), ("b", {"w": shape.tolist()}):
        write(tmp_path / f"{name}.safetensors", specs, {"*": Normal()}, seed=1)
    a, b = (tmp_path / f"{name}.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("dtype", [name for name, d in DTYPES.items() if d.safetensors])
def test_values_are_those_of_the_initializers(tmp_path, dtype):
    path = tmp_path / "m.safetensors"
    summary = write(path, SHAPES, RECIPE, seed=5, dtype=dtype)
    found = tensor_bytes(path)
    assert found.keys() == SHAPES.keys()
    for name, plan in RECIPE.plan(SHAPES).items():
        assert found[name] == raw(Planned(plan), name, SHAPES[name], dtype, 5)
    assert summary == (5, sum(map(len, found.values())), ()) == verify(path)


def test_the_safetensors_library_reads_it(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    path = tmp_path / "m.safetensors"
    write(path, SHAPES, RECIPE, dtype="float64")
    for name, array in library.load_file(path).items():
        assert array.shape == SHAPES[name]
        assert array.tobytes() == tensor_bytes(path)[name]


def test_what_the_safetensors_library_writes_is_a_source(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    path = tmp_path / "source.safetensors"
    library.save_file({"x": np.zeros((2, 3), np.float16), "y": np.zeros(4, np.float64)}, path)
    specs = load_shapes(path)
    assert specs == {"y": ((4,), "float64"), "x": ((2, 3), "float16")}
    write(tmp_path / "m.safetensors", specs, RECIPE)
    assert load_shapes(tmp_path / "m.safetensors") == specs


def test_every_tensor_is_aligned_and_dtypes_are_kept(tmp_path):
    path = tmp_path / "m.safetensors"
    write(path, MIXED, RECIPE)
    metadata, entries, offset = read_header(path)
    assert load_shapes(path) == MIXED
    assert offset % 8 == 0
    for entry in entries.values():
        assert (offset + entry.start) % (BITS[entry.dtype] // 8) == 0
    assert metadata["format"] == "pt"
    assert metadata["numinit.seed"] == "0"
    assert metadata["numinit.stream_version"] == "1"
    assert metadata["numinit.version"] == __version__
    assert metadata["numinit.recipe"] == "small"
    assert metadata["numinit.recipe_text"] == RECIPE.text


def test_windows_do_not_show(tmp_path, monkeypatch):
    write(tmp_path / "one.safetensors", SHAPES | MIXED, RECIPE)
    monkeypatch.setattr(writing, "WINDOW", 1000)
    monkeypatch.setattr(verifying, "BUFFER", 999)
    seen = []
    write(tmp_path / "many.safetensors", SHAPES | MIXED, RECIPE, progress=lambda *a: seen.append(a))
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "many.safetensors"
    ).read_bytes()
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] and len(seen) > 80
    verify(tmp_path / "many.safetensors")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npy(tmp_path, dtype):
    path = tmp_path / "w.npy"
    write(path, SHAPES, RECIPE, dtype=dtype, tensor="a.weight")
    array = np.load(path, mmap_mode="r")
    assert array.shape == (300, 70) and array.dtype == dtype and array.flags.c_contiguous
    assert array.tobytes() == raw(Normal(0, 0.5), "a.weight", (300, 70), dtype)
    with pytest.raises(InputError, match="npy records no seed"):
        verify(path)


def test_npy_of_no_elements_and_of_one(tmp_path):
    for name in ("empty", "scalar"):
        write(tmp_path / f"{name}.npy", {name: SHAPES[name]}, RECIPE)
        assert np.load(tmp_path / f"{name}.npy").shape == SHAPES[name]


def test_resident_memory_is_bounded(tmp_path):
    resource = pytest.importorskip("resource", reason="needs getrusage")
    del resource
    code = (
        "import resource, sys; from numinit.models.verify import verify; from numinit.models.write import write\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def both(rows):\n"
        "    write(sys.argv[1], {'w': (rows, 1 << 20)}, 'gpt2_like.toml', overwrite=True)\n"
        "    verify(sys.argv[1])\n"
        "both(1); before = peak(); both(96); print(peak() - before)"
    )
    (tmp_path / "gpt2_like.toml").write_text(RECIPE.text)
    done = run_python(code, str(tmp_path / "m.safetensors"), cwd=tmp_path)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 200e6  # for a file of 400 MB


# Refused before anything is created


@pytest.mark.parametrize(
    ("specs", "kwargs", "message"),
    [
        ({}, {}, "no tensors"),
        ([("w", (1,))], {}, r"mapped to shapes, got \[\('w'"),
        (None, {}, "mapped to shapes, got None"),
        ({"w": (2**40, 2**40)}, {}, r"'w'.*more than 2\*\*63"),
        ({"w": (2**62,)}, {}, r"'w'.*beyond 2\*\*63 bytes"),
        ({"v": (2**60,), "w": (2**60,)}, {"dtype": "float64"}, r"'v'.*beyond 2\*\*63 bytes"),
        ({"w": (-1,)}, {}, "'w'.*dimension -1"),
        ({"w": (2.5,)}, {}, "'w'.*dimension 2.5"),
        ({"w": (True,)}, {}, "'w'.*dimension True"),
        ({"w": (1,) * 65}, {}, "'w'.*65 dimensions"),
        ({3: (1,)}, {}, "names must be strings"),
        ({"\ud800": (1,)}, {}, "not valid Unicode"),
        ({"__metadata__": (1,)}, {}, "not a legal tensor name"),
        ({"n" * MAX_HEADER: (1,)}, {}, "at most 4096"),
        ({"w": (0, 2**61)}, {}, r"'w'.*beyond 2\*\*63 bytes"),  # which NumPy would not read
        ({"w": TensorSpec((1,), "F4")}, {"dtype": "float32"}, "'w' is F4; only float32"),
        ({"w": TensorSpec((1,), "int64")}, {"dtype": "float32"}, "'w' is int64.*constant.*Normal"),
        ({"w": (1,)}, {"tensor": "w"}, "for .npy only"),
    ],
)
def test_refused_specs(tmp_path, specs, kwargs, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "m.safetensors", specs, RECIPE, **kwargs)
    assert not list(tmp_path.iterdir())


def test_a_header_beyond_the_format_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "MAX_HEADER", 2000)
    with pytest.raises(InputError, match="the format allows 2000"):
        write(tmp_path / "m.safetensors", {"n" * 2000: (1,)}, RECIPE)
    assert not list(tmp_path.iterdir())


def test_refused_requests(tmp_path):
    one = {"w": (2,)}
    for path, specs, kwargs, message in [
        ("m.bin", one, {}, "must end in"),
        ("no/m.safetensors", one, {}, "no does not exist"),
        ("m.npy", {"v": (1,), "w": (1,)}, {}, "choose one with --tensor"),
        ("m.npy", one, {"tensor": "v"}, "no tensor 'v'"),
        ("m.npy", one, {"dtype": "bfloat16"}, "no bfloat16"),
        ("m.npy", {"w": (2**62,)}, {}, "beyond"),
        ("m.npy", {"w": (2**61, 0)}, {}, "beyond"),
    ]:
        with pytest.raises(InputError, match=message):
            write(tmp_path / path, specs, RECIPE, **kwargs)
    with pytest.raises(RecipeError, match=r"rule 1: FromIndex.*no form in TOML"):
        write(tmp_path / "m.safetensors", one, {"*": FromIndex(lambda i: i)})
    with pytest.raises(RecipeError, match="no rule for tensor 'w'"):
        write(tmp_path / "m.safetensors", one, "gpt2")
    wide = parse(
        'name = "wide"\n[[rules]]\nmatch = "*"\ninit = "Uniform"\nlow = -1e300\nhigh = 1e300'
    )
    with pytest.raises(InputError, match=r"'w': .*too wide"):
        write(tmp_path / "m.safetensors", one, wide)
    with pytest.raises(ValueError, match="seed"):
        write(tmp_path / "m.safetensors", one, RECIPE, seed=-1)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("precious")
    with pytest.raises(InputError, match="exists; pass --force"):
        write(path, {"w": (2,)}, RECIPE)
    assert path.read_text() == "precious"
    write(path, {"w": (2,)}, RECIPE, overwrite=True)
    verify(path)
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        write(tmp_path / "d.safetensors", {"w": (2,)}, RECIPE, overwrite=True)


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_run_is_kept(tmp_path, monkeypatch, links):
    path = tmp_path / "m.safetensors"
    if not links:

        def fail(*_):
            raise PermissionError(errno.EPERM, "")

        monkeypatch.setattr(mapped.os, "link", fail)
    write(path, SHAPES, RECIPE)
    verify(path)
    path.unlink()
    with pytest.raises(InputError, match=r"m.safetensors: exists; pass --force"):
        write(path, SHAPES, RECIPE, progress=lambda *_: path.write_text("precious"))
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "m.safetensors"
    for mode in (0o600, 0o664):
        path.touch()
        path.chmod(mode)
        write(path, {"w": (2,)}, RECIPE, overwrite=True)
        assert path.stat().st_mode & 0o777 == mode
        verify(path)


# Nothing half-written


def test_errors_name_the_file_that_was_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    for name in ("open", "replace"):

        def fail(first, *_):
            raise PermissionError(errno.EACCES, "no", str(first))

        with monkeypatch.context() as patch:
            patch.setattr(mapped.os, name, fail)
            with pytest.raises(PermissionError) as caught:
                write(path, {"w": (2,)}, RECIPE, overwrite=True)
        assert caught.value.filename == str(path)
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
@pytest.mark.parametrize("unsupported", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, unsupported):
    def fail(*_):
        raise OSError(errno.EOPNOTSUPP if unsupported else errno.ENOSPC, "")

    monkeypatch.setattr(mapped.os, "posix_fallocate", fail)
    with pytest.raises(OSError, match=f"Errno {errno.ENOSPC}.*m.safetensors"):
        write(tmp_path / "m.safetensors", {"w": (2**58 if unsupported else 2,)}, RECIPE)
    assert not list(tmp_path.iterdir())
    if unsupported:
        write(tmp_path / "m.safetensors", SHAPES, RECIPE)  # it is only asked whether it would fit
        verify(tmp_path / "m.safetensors")


def test_a_disk_that_fails_late_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(mapped.os, "fsync", fail)
    with pytest.raises(OSError, match=r"quota.*m\.safetensors"):
        write(tmp_path / "m.safetensors", SHAPES, RECIPE)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(mapped.fcntl is None, reason="needs fcntl")
@pytest.mark.parametrize("able", [True, False])
def test_macos_is_asked_to_empty_the_disks_cache(tmp_path, monkeypatch, able):
    asked = []

    def control(fd, command):
        asked.append(command)
        if not able:
            raise OSError(errno.EINVAL, "")

    fcntl = types.SimpleNamespace(fcntl=control, F_FULLFSYNC=51)
    monkeypatch.setattr(mapped, "fcntl", fcntl)
    monkeypatch.setattr(mapped, "_hold", lambda fd: True)
    monkeypatch.setattr(mapped, "_remove_abandoned", lambda target: None)
    synced, fsync = [], os.fsync
    monkeypatch.setattr(mapped.os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    write(tmp_path / "m.safetensors", SHAPES, RECIPE)
    verify(tmp_path / "m.safetensors")
    assert (asked, len(synced)) == ([51], 2 - able)  # also of the directory


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    def stop(done, total):
        assert len(list(tmp_path.iterdir())) == 1
        raise error

    with pytest.raises(error):
        write(tmp_path / "m.safetensors", SHAPES, RECIPE, progress=stop)
    assert not list(tmp_path.iterdir())


def test_everything_is_compiled_before_the_file_is_there(tmp_path):
    """So that a compiler that dies for want of memory leaves no temporary."""
    code = (
        "from numinit.engines import cpu\n"
        "from numinit.models import write as writing\n"
        "from numinit.models.sources import TensorSpec\n"
        "new_file, misses = writing.new_file, lambda: len(cpu._kernels)\n"
        "def counted(*arguments):\n"
        "    global before\n"
        "    before = misses()\n"
        "    return new_file(*arguments)\n"
        "writing.new_file = counted\n"
        "specs = {'n': (2, 3), 'u': TensorSpec((5,), 'float16'), 'eye': (200, 200), 's': (9, 9),\n"
        "    'q': (4, 4), 'p': (3, 2), 'qd': TensorSpec((3, 3), 'float64')}\n"
        "writing.write('m.safetensors', specs, 'r.toml')\n"
        "print(before, misses())"
    )
    rules = {"u": "Uniform", "eye": "Eye", "s": "Sparse", "q*": "Orthogonal", "*": "Normal"}
    (tmp_path / "r.toml").write_text(
        "".join(
            f'[[rules]]\nmatch = "{glob}"\ninit = "{init}"\n'
            + ("sparsity = 0.5\n" if init == "Sparse" else "")
            for glob, init in rules.items()
        )
    )
    before, after = map(int, run_python(code, cwd=tmp_path).stdout.split())
    assert before == after >= 5


def test_each_fill_is_prepared_once(tmp_path, monkeypatch):
    """A model's layers are alike; and what is equal may differ, for -0.0 == 0.0."""
    prepared = []

    def counted(transform):
        def noted(law, dtype):
            prepared.append(f"{law} {dtype.name}")
            return transform(law, dtype)

        return noted

    for law in (Constant, Normal):
        monkeypatch.setattr(law, "transform", counted(law.transform))
    rules = {"*.p": "Constant\"\nvalue = 0.0", "*.m": "Constant\"\nvalue = -0.0",
             "a.*": "Normal\"", "*": "Normal\""}  # fmt: skip
    recipe = parse("".join(f'[[rules]]\nmatch = "{g}"\ninit = "{i}\n' for g, i in rules.items()))
    specs = {f"{layer}.{name}": (2, 3) for layer in "abc" for name in "pmvw"}
    specs |= {"b.half": TensorSpec((2, 3), "float16"), "b.turned": (3, 2)}
    path = tmp_path / "m.safetensors"
    expected = [
        "Constant(value=-0.0) float32", "Constant(value=0.0) float32",
        "Normal(mean=0.0, std=1.0) float16", *["Normal(mean=0.0, std=1.0) float32"] * 2,
    ]  # fmt: skip
    planning._planned.cache_clear()
    write(path, specs, recipe)
    assert sorted(prepared) == expected
    verify(path)
    assert sorted(prepared) == expected  # nothing anew
    for name, data in tensor_bytes(path).items():
        if name.endswith(("p", "m")):
            assert data == np.full(6, -0.0 if name.endswith("m") else 0.0, np.float32).tobytes()


def test_fills_that_are_prepared_again_are_the_same(tmp_path, monkeypatch):
    write(tmp_path / "m.safetensors", SHAPES | MIXED, RECIPE)
    monkeypatch.setattr(planning, "KEPT", 1)
    write(tmp_path / "n.safetensors", SHAPES | MIXED, RECIPE)
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()
    verify(tmp_path / "n.safetensors")


locks = pytest.mark.skipif(mapped.fcntl is None, reason="files are not locked on this system")
WRITER = (
    "import sys; from numinit.models.write import write\n"
    "write('m.safetensors', {'w': (3, 1 << 20)}, 'r.toml', overwrite=True,\n"
    "    progress=lambda *_: (print('in', flush=True), sys.stdin.readline()))"
)


@contextlib.contextmanager
def at_work(folder):
    """A process in the middle of writing m.safetensors; it goes on when it reads a line."""
    command = [sys.executable, "-c", WRITER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stdin=pipe) as process:
        try:
            assert process.stdout.readline() == b"in\n"
            yield process
        finally:
            process.kill()


@locks
def test_temporaries_of_killed_processes_are_removed_and_no_others(tmp_path):
    path = tmp_path / "m.safetensors"
    others = [
        f".m.safetensors.{'0' * 15}.tmp", f".m.safetensors.{'G' * 16}.tmp", f"m.{'0' * 16}.tmp",
        f".n.safetensors.{'0' * 16}.tmp", f".m.safetensors.{'0' * 16}.tmp.txt", "r.toml",
    ]  # fmt: skip
    for name in others:
        (tmp_path / name).write_text(RECIPE.text)
    special = [tmp_path / f".m.safetensors.{digit * 16}.tmp" for digit in "123"]
    special[0].symlink_to(tmp_path / "r.toml")
    special[1].mkdir()
    os.mkfifo(special[2])
    kept = {*others, *(entry.name for entry in special)}

    def new():
        return {entry.name for entry in tmp_path.iterdir()} - kept

    with at_work(tmp_path) as running:
        for _ in range(3):
            with at_work(tmp_path):
                pass
            assert len(new()) == 2  # one is in use
        write(path, SHAPES, RECIPE, overwrite=True)
        assert len(new()) == 2  # the target, and what is in use
        running.communicate(b"\n")
        assert running.returncode == 0
    assert new() == {"m.safetensors"}
    assert read_header(path)[1].keys() == {"w"}
    verify(path)


@locks
def test_a_temporary_that_is_taken_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    flock, taken = mapped.fcntl.flock, []

    def late(fd, how):
        if not how & mapped.fcntl.LOCK_NB and len(taken) < 3:
            taken.extend(tmp_path.iterdir())
            mapped._remove_abandoned(tmp_path / "m.safetensors")
        flock(fd, how)

    monkeypatch.setattr(mapped.fcntl, "flock", late)
    write(tmp_path / "m.safetensors", SHAPES, RECIPE)
    assert len(set(taken)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
    verify(tmp_path / "m.safetensors")


def test_two_runs_at_once_have_their_own_temporaries(tmp_path):
    path, inner = tmp_path / "m.safetensors", []

    def again(done, total):
        if not inner:
            inner.append(write(path, SHAPES, RECIPE, seed=1, overwrite=True))

    write(path, SHAPES, RECIPE, seed=2, overwrite=True, progress=again)
    assert inner and read_header(path)[0]["numinit.seed"] == "2"
    verify(path)
    assert list(tmp_path.iterdir()) == [path]


# Verifying


@pytest.mark.parametrize("tensor", ["a.weight", "a.bias", "ü/层", "scalar"])
def test_one_flipped_bit_is_named(tmp_path, monkeypatch, tensor):
    monkeypatch.setattr(verifying, "BUFFER", 4096)
    path = tmp_path / "m.safetensors"
    write(path, SHAPES, RECIPE, dtype="bfloat16")
    _, entries, offset = read_header(path)
    count = math.prod(SHAPES[tensor])
    data = bytearray(path.read_bytes())
    data[offset + entries[tensor].stop - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match=r"differs, first at element .* expected .* found") as caught:
        verify(path)
    last = tuple(int(i) for i in np.unravel_index(count - 1, SHAPES[tensor]))
    assert (caught.value.tensor, caught.value.index) == (tensor, last)


def rewritten(path, change, seal):
    """Apply `change` to a file's header and data, and write it whole; sealed as by `write`, or not."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    body = change(header, body) or body
    if seal and "__metadata__" in header:
        header["__metadata__"]["numinit.header"] = provenance.UNSEALED
        text = json.dumps(header, separators=(",", ":")).encode()
        path.write_bytes(provenance.sealed(len(text).to_bytes(8, "little") + text) + body)
        return path
    return safetensors_file(path, header, body)


def test_other_damage_is_told_apart(tmp_path):
    def drop_last(header, body):
        name = max(header, key=lambda n: header[n].get("data_offsets", [0])[0])
        start = header.pop(name)["data_offsets"][0]
        return body[:start]

    def metadata(**changes):
        return lambda header, body: header["__metadata__"].update(
            {f"numinit.{key}": value for key, value in changes.items()}
        )

    def forget(header, body):
        del header["__metadata__"]

    shapes = {"a.weight": (30, 7), "a.bias": (30,)}
    for change, error, message in [
        (lambda h, b: h["a.bias"].update(dtype="F4", shape=[240]), InputError, "writes no F4"),
        (metadata(seed="1"), Mismatch, "'a.weight' differs, first at element"),
        (metadata(stream_version="2"), InputError, "stream version '2'; this numinit .* has 1"),
        (metadata(seed="-1"), InputError, "damaged numinit metadata: '-1' is not a seed"),
        (metadata(seed="9" * 5000), InputError, "damaged numinit metadata"),
        (metadata(recipe_text="]"), InputError, "damaged numinit metadata: .*TOML"),
        (metadata(recipe_text=RECIPE.text.replace('"*"', '"z"')), InputError, "no rule for tensor"),
        (forget, InputError, "not written by numinit"),
        (lambda h, b: b[:-1], InputError, "truncated"),
        (lambda h, b: b + b"x", InputError, "bytes after the last tensor"),
    ]:
        path = tmp_path / "m.safetensors"
        write(path, shapes, RECIPE, overwrite=True)
        with pytest.raises(error, match=message):
            verify(rewritten(path, change, seal=True))
    for change in (
        drop_last,
        lambda h, b: h.update(x=h.pop("a.bias")),
        lambda h, b: h["a.weight"].update(shape=[7, 30]),
        lambda h, b: h["a.bias"].update(dtype="I32"),
        metadata(seed="1"),
        metadata(header="\ud800"),
        lambda h, b: None,  # nothing but white space
    ):
        path = tmp_path / "m.safetensors"
        write(path, shapes, RECIPE, overwrite=True)
        with pytest.raises(Mismatch, match="the header differs"):
            verify(rewritten(path, change, seal=False))


KINDS = {"float32": 1e-6, "float64": 1e-14, "complex64": 1e-6, "float16": 1e-6, "bfloat16": 1e-6,
         "float8_e4m3fn": 1e-6, "float8_e5m2": 1e-6}  # fmt: skip


def law_file(folder, init, shape, dtype, *fields):
    path = folder / "m.safetensors"
    recipe = "\n".join(["[[rules]]", 'match = "*"', f'init = "{init}"', *fields, ""])
    write(path, {"w": TensorSpec(shape, dtype)}, parse(recipe), overwrite=True)
    offset = read_header(path)[2]
    return path, offset, path.read_bytes()


@pytest.mark.parametrize("dtype", KINDS)
def test_a_flipped_bit_of_an_orthogonal_tensor_is_found_unless_rounding_explains_it(
    tmp_path, dtype
):
    path, offset, data = law_file(tmp_path, "Orthogonal", (17, 24), dtype, "gain = 0.75")
    kind = DTYPES[dtype]
    key = Key(0).fold_in("w")
    work, exact = (
        driver.matrix(Orthogonal(0.75).plan((17, 24), k), k, key.seed, key.stream)
        for k in (kind, DTYPES["float64"])
    )
    assert kind.complex or np.abs(work - exact).max() < 1e-6
    part = DTYPES["float32"] if kind.complex else kind
    parts = np.ascontiguousarray(work).reshape(-1).view(work.real.dtype).astype(np.float64)
    tolerance = 0.75 * KINDS[dtype]

    def place(value):  # in the order of numbers and their zeros
        return float(value), not np.signbit(value)

    found, allowed = 0, 0
    for at in range(0, parts.size, 59):
        low, high = (_bits(parts[at : at + 1] + t, part) for t in (-tolerance, tolerance))
        least, most = (place(decoded(b.view(np.uint8), part)[0]) for b in (low, high))
        for bit in range(8 * part.itemsize):
            changed = bytearray(data)
            begin = offset + at * part.itemsize
            changed[begin + bit // 8] ^= 1 << bit % 8
            element = np.frombuffer(changed, np.uint8, part.itemsize, begin)
            path.write_bytes(changed)
            if least <= place(decoded(element, part)[0]) <= most:
                allowed += 1
                verify(path)
                continue
            found += 1
            with pytest.raises(Mismatch, match="'w' differs") as caught:
                verify(path)
            assert caught.value.index == np.unravel_index(at // (1 + kind.complex), (17, 24))
    assert found > 5 * part.itemsize
    assert allowed <= (0 if part.itemsize == 1 else found // 20 if part.itemsize == 2 else found)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_zeros_around_a_delta_are_exact(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(verifying, "BUFFER", 64)  # pieces that begin anywhere
    path, offset, data = law_file(tmp_path, "DeltaOrthogonal", (5, 4, 3, 2), dtype)
    size = DTYPES[dtype].itemsize
    bits = np.frombuffer(data[offset:], f"<u{size}")
    inside = np.zeros((5, 4, 3, 2), bool)
    inside[:, :, 1, 0] = True
    inside = inside.reshape(-1)
    assert (bits[~inside] == 0).all() and (bits[inside] != 0).all()
    verify(path)
    for at in np.flatnonzero(~inside):
        for wrong in (1, 1 << (8 * size - 1)):  # the least number, and -0.0
            changed = bits.copy()
            changed[at] = wrong
            path.write_bytes(data[:offset] + changed.tobytes())
            with pytest.raises(Mismatch) as caught:
                verify(path)
            assert caught.value.index == np.unravel_index(at, (5, 4, 3, 2))
    if size >= 4:
        path.write_bytes(data[:offset] + (bits + inside.astype(bits.dtype)).tobytes())
        verify(path)  # one rounding in the centre


@pytest.mark.parametrize("init", ["Orthogonal", "DeltaOrthogonal"])
def test_a_gain_of_zero_is_exact(tmp_path, init):
    shape = (3, 2, 1)
    path, offset, data = law_file(tmp_path, init, shape, "float16", "gain = 0.0")
    assert not any(data[offset:])
    path.write_bytes(data[:-1] + b"\x80")
    with pytest.raises(Mismatch):
        verify(path)


@pytest.mark.parametrize("name", FORMER)
def test_files_with_a_former_name_verify_and_new_recipes_have_none(tmp_path, name):
    path, text = (
        tmp_path / "w.safetensors",
        f'[[rules]]\nmatch = "*"\ninit = "{name}"\nin_axis = 0\nout_axis = 1\n',
    )
    write(path, {"w": TensorSpec((9, 40), "float32")}, parse(text, former=True))
    assert verify(path).tensors == 1
    with pytest.raises(
        RecipeError, match=rf"key 'init': got '{name}' \(numinit.{name}: .*numinit.jax"
    ):
        parse(text)


def test_verify_says_what_it_compared_to_rounding(tmp_path):
    rules = {"q": "Orthogonal", "d": "DeltaOrthogonal", "*": "Ones"}
    recipe = parse("".join(f'[[rules]]\nmatch = "{g}*"\ninit = "{i}"\n' for g, i in rules.items()))
    specs = {
        "q1": TensorSpec((2, 3), "float16"), "q2": TensorSpec((2, 2), "float64"),
        "q3": TensorSpec((2, 2)), "d": TensorSpec((2, 2, 3)), "a": TensorSpec((2,)),
    }  # fmt: skip
    write(tmp_path / "m.safetensors", specs, recipe)
    assert verify(tmp_path / "m.safetensors").within == (
        ("DeltaOrthogonal", 1e-6, 1), ("Orthogonal", 1e-14, 1), ("Orthogonal", 1e-6, 2),
    )  # fmt: skip


def test_verifying_a_whole_matrix_takes_its_memory_once(tmp_path):
    pytest.importorskip("resource", reason="needs getrusage")
    code = (
        "import resource, sys; from numinit.models.verify import verify; from numinit.models.write import write\n"
        "from numinit.models.recipes import parse\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        'recipe = parse(\'[[rules]]\\nmatch = "*"\\ninit = "Orthogonal"\')\n'
        "def made(rows):\n"
        "    write(f'{rows}.safetensors', {'w': (64, rows)}, recipe, dtype=sys.argv[2])\n"
        "if sys.argv[1] == 'write': made(1000), made(500_000)\n"
        "else:\n"
        "    verify('1000.safetensors'); before = peak()\n"
        "    verify('500000.safetensors'); print(peak() - before)"
    )
    unit = 1 if sys.platform == "darwin" else 1024
    for dtype in ("float32", "bfloat16"):
        run_python(code, "write", dtype, cwd=tmp_path)
        done = run_python(code, "verify", dtype, cwd=tmp_path)
        assert int(done.stdout) * unit < 128e6 + 100e6  # of a matrix of 128 MB
        for path in tmp_path.glob("*.safetensors"):
            path.unlink()


def test_a_file_of_many_pieces_is_compared_piece_by_piece(tmp_path, monkeypatch):
    path, size = tmp_path / "m.safetensors", 1 << 40
    write(path, {"w": (2,)}, RECIPE)

    def large(header, body):
        header["w"].update(shape=[size // 4], data_offsets=[0, size])

    rewritten(path, large, seal=True)
    try:
        os.truncate(path, path.stat().st_size - 8 + size)
    except OSError:
        pytest.skip("the file system has no files of 1 TB with holes")
    monkeypatch.setattr(verifying, "BUFFER", 64)
    begin = time.process_time()
    with pytest.raises(Mismatch, match=r"'w' differs, first at element \[2\]"):
        verify(path)
    assert time.process_time() - begin < 5


def test_verify_without_a_second_thread(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    write(path, SHAPES, RECIPE)
    monkeypatch.setattr(verifying, "BUFFER", 4096)

    def fail(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert verify(path).tensors == len(SHAPES)


# Integer tensors

COUNTERS = """
[[rules]]
match = "*.count"
init = "Ones"
[[rules]]
match = "*.mask"
init = "Zeros"
[[rules]]
match = "*.weight"
init = "Normal"
[[rules]]
match = "*.seven"
init = "Constant"
value = 7
"""


@pytest.fixture
def counted(tmp_path):
    """A file of another program, with integers in it, and its recipe."""
    tensors = {
        "a.weight": TensorSpec((3, 4), "float16"),
        "a.count": TensorSpec((), "int64"),
        "b.count": TensorSpec((300,), "uint8"),
        "a.mask": TensorSpec((5,), "bool"),
        "a.seven": TensorSpec((2, 2), "int16"),
    }
    kinds = {name: (INTEGERS | DTYPES)[spec.dtype] for name, spec in tensors.items()}
    laid = {name: (tensors[name].shape, kinds[name]) for name in tensors}
    header, starts = layout(laid, {})
    path = tmp_path / "source.safetensors"
    path.write_bytes(header + bytes(end_of(laid, starts)))
    assert load_shapes(path) == tensors
    return path, parse(COUNTERS)


def test_integer_tensors_keep_their_dtypes(tmp_path, counted, monkeypatch):
    source, recipe = counted
    monkeypatch.setattr(writing, "WINDOW", 100)
    monkeypatch.setattr(verifying, "BUFFER", 100)
    path = tmp_path / "m.safetensors"
    assert write(path, source, recipe, dtype="float32") == verify(path)
    _, entries, offset = read_header(path)
    found = {
        "a.count": np.ones((), np.int64),
        "b.count": np.ones(300, np.uint8),
        "a.mask": np.zeros(5, bool),
        "a.seven": np.full((2, 2), 7, np.int16),
    }
    data = tensor_bytes(path)
    assert {name: array.tobytes() for name, array in found.items()}.items() < data.items()
    assert entries["a.weight"].dtype == "F32"
    params = init_params(source, recipe, dtype="float64")
    assert params.keys() == data.keys()
    assert params["a.weight"].dtype == np.float64
    for name, array in found.items():
        assert (params[name].dtype, params[name].shape) == (array.dtype, array.shape)
        assert (params[name] == array).all() and params[name].flags.writeable
    assert init_params(source, recipe, dtype={"a.weight": "float16"}).keys() == data.keys()
    broken = bytearray(path.read_bytes())
    broken[offset + entries["a.mask"].start + 3] = 2
    path.write_bytes(broken)
    with pytest.raises(Mismatch, match=r"'a.mask' .* \[3\]: expected False \(0x00\), found True"):
        verify(path)


def test_npy_needs_the_dtype_of_one_tensor(tmp_path, counted):
    source, recipe = counted
    write(tmp_path / "w.npy", source, recipe, dtype="float64", tensor="a.weight")
    assert np.load(tmp_path / "w.npy").dtype == np.float64
    write(tmp_path / "s.npy", source, recipe, dtype="float64", tensor="a.seven")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), np.full((2, 2), 7, np.int16))
    specs = {"a.weight": (3, 4), "b.weight": TensorSpec((1,), "F4")}
    write(tmp_path / "v.npy", specs, parse("optional = true" + COUNTERS), tensor="a.weight")


@pytest.mark.parametrize(
    ("law", "dtype", "fits"),
    [
        (Zeros(), "bool", True),
        (Ones(), "bool", True),
        (Constant(2), "bool", False),
        (Constant(-128), "int8", True),
        (Constant(128), "int8", False),
        (Constant(2.0**63), "uint64", True),
        (Constant(2.0**63), "int64", False),
        (Constant(2.0**64), "uint64", False),
        (Constant(-1), "uint16", False),
        (Constant(0.5), "int32", False),
        (Constant(math.inf), "int32", False),
        (Constant(math.nan), "int32", False),
        (Constant(1j), "int32", False),
        (Normal(std=0), "int32", False),
    ],
)
def test_what_an_integer_tensor_can_be(law, dtype, fits):
    plan = law.plan((), DTYPES["float32"])
    if fits:
        check_integers("n", plan, (), INTEGERS[dtype])
        value = integers("n", plan, (), INTEGERS[dtype])
        assert (value.dtype, value.item()) == (dtype, law.value)
    else:
        with pytest.raises(InputError, match=f"'n' is {dtype}.*constant integer from"):
            check_integers("n", plan, (), INTEGERS[dtype])


# Reading what others wrote


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


HOSTILE = {
    "empty": (b"", "cut off"),
    "short": (b"\x02\0\0\0\0\0\0", "cut off"),
    "length beyond the file": (b"\xff" * 8 + b"{}", "cut off"),
    "not UTF-8": (b"\x03" + b"\0" * 7 + b'"\xff"', "not usable JSON"),
    "not JSON": (b"\x02" + b"\0" * 7 + b"{]", "not usable JSON"),
}
HOSTILE_HEADERS = {
    "not an object": ([], "needs a JSON object"),
    "nesting": (b'{"a":' + b"[" * 1_000_000, "nested too deep"),
    "many values": (b"[" + b"{}," * 2_000_001, "more than 4000000 values"),
    "duplicate": (b'{"w":1,"w":2}', "'w' occurs twice"),
    "NaN": (b'{"w":NaN}', "NaN is not JSON"),
    "long integer": (b'{"w":' + b"9" * 5000 + b"}", "not usable JSON"),
    "metadata": ({"__metadata__": {"a": 1}}, "strings to strings"),
    "metadata list": ({"__metadata__": []}, "strings to strings"),
    "entry": ({"w": 3}, "'w': needs dtype"),
    "missing": ({"w": {"dtype": "F32", "shape": []}}, "'w': needs dtype"),
    "extra": ({"w": entry(more=1)}, "'w': needs dtype"),
    "dtype": ({"w": entry(dtype="F31")}, "'w': unknown dtype 'F31'"),
    "dtype type": ({"w": entry(dtype=["F32"])}, "'w': unknown dtype"),
    "shape type": ({"w": entry(shape="22")}, "'w': the shape must be a list"),
    "negative": ({"w": entry(shape=[-2])}, "'w': got a dimension -2"),
    "bool": ({"w": entry(shape=[2, True])}, "'w': got a dimension True"),
    "float": ({"w": entry(shape=[2.0])}, "'w': got a dimension 2.0"),
    "huge": ({"w": entry(shape=[2**70])}, "'w': got a dimension"),
    "product": ({"w": entry(shape=[2**62, 4, 0])}, r"'w'.*more than 2\*\*63"),
    "rank": ({"w": entry(shape=[1] * 100_000)}, "'w': 100000 dimensions"),
    "offsets": ({"w": entry(data_offsets=[8])}, "'w': data_offsets"),
    "offset types": ({"w": entry(data_offsets=[False, 8])}, "'w': data_offsets"),
    "negative offset": ({"w": entry(data_offsets=[-8, 0])}, "'w': data_offsets"),
    "backward": ({"w": entry(data_offsets=[8, 0])}, "'w': data_offsets"),
    "size": ({"w": entry(data_offsets=[0, 7])}, "'w': F32 of shape"),
    "beyond": ({"w": entry(shape=[4], data_offsets=[0, 16])}, "truncated"),
    "hole": ({"w": entry(data_offsets=[4, 12])}, "'w' at 4:12 leaves a hole"),
    "overlap": (
        {"v": entry(shape=[1], data_offsets=[0, 4]), "w": entry(data_offsets=[0, 8])},
        "'w' at 0:8 overlaps",
    ),
    "trailing": ({"w": entry(shape=[1], data_offsets=[0, 4])}, "bytes after the last"),
    "half a byte": ({"w": entry(dtype="F4", shape=[3], data_offsets=[0, 1])}, "'w': F4"),
    "a name without end": ({"n" * 5000: entry()}, "has 5000 characters; at most 4096"),
    "wide and deep": ({"w": [[[["x" * 999] * 9] * 9] * 9] * 9}, "'w': needs dtype"),
    "surrogate": (b'{"\\ud800":{}}', "not valid Unicode"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bytes(tmp_path, case):
    data, message = HOSTILE[case]
    path = tmp_path / "h.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"h.safetensors.*{message}"):
        read_header(path)


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_hostile_headers(tmp_path, case):
    header, message = HOSTILE_HEADERS[case]
    path = safetensors_file(tmp_path / "h.safetensors", header, b"\0" * 8)
    begin = time.process_time()
    with pytest.raises(InputError, match=f"h.safetensors.*{message}") as caught:
        read_header(path)
    assert time.process_time() - begin < 5
    assert len(str(caught.value)) < len(str(path)) + 1000


def test_a_header_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "h.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER + 100)  # sparse
    with pytest.raises(InputError, match="the format allows 100000000"):
        read_header(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_large_header_is_refused_in_little_memory(tmp_path):
    text = b"{" + b'"w":{},' * 13_000_000 + b"}"
    path = safetensors_file(tmp_path / "h.safetensors", text)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from numinit.models.formats.safetensors import read_header\n"
        "def status(key): return int(re.search(key + r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = status('RssAnon')\n"
        "try: read_header(sys.argv[1])\n"
        "except ValueError as error: assert 'more than 4000000 values' in str(error)\n"
        "print(status('VmHWM') - before)"
    )
    assert int(run_python(code, str(path), cwd=tmp_path).stdout) < 250_000


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_what_is_not_a_file_is_refused_without_blocking(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(InputError, match="cannot be read"):
        load_model(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_model(f"a\0b{suffix}")
    path.mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        load_model(path)
    if hasattr(os, "mkfifo"):
        path.rmdir()
        os.mkfifo(path)
        with pytest.raises(InputError, match="not a regular file"):
            load_model(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not usable JSON"),
        (b"[]", "needs a JSON object"),
        (b"{}", "'tensors' must map"),
        (b'{"tensors": {}}', "'tensors' must map"),
        (b'{"tensors": [1]}', "'tensors' must map"),
        (b'{"tensors": {"w": 3}}', "'w': the shape must be a list"),
        (b'{"tensors": {"w": [1.5]}}', "'w': got a dimension 1.5"),
        (b'{"tensors": {"w": [null]}}', "'w': got a dimension None"),
        (b'{"tensors": {"w": [4294967296, 4294967296]}}', "'w': the shape .* more than"),
        (b'{"tensors": {"w": [1], "w": [2]}}', "'w' occurs twice"),
        (b'{"model": 3, "tensors": {"w": [1]}}', "'model' must be a string"),
        (b'{"recipe": "' + b"x" * 9999 + b'", "tensors": {"w": [1]}}', "at most 4096 characters"),
        (b'{"recipe": [], "tensors": {"w": [1]}}', "'recipe' must be a string"),
        (b'{"tensors": ' + b'{"a":' * 100_000, "nested too deep"),
        (b'{"tensors": {"w{3-1}": [1]}}', r"got the range '3-1'; accepted: two numbers"),
        (b'{"tensors": {"w{0-01}": [1]}}', "got the range '0-01'"),
        (b'{"tensors": {"w{0-1}": [1], "w1": [1]}}', "'w1' occurs twice, by its ranges"),
        (b'{"tensors": {"w{0-262144}": [1]}}', "more than 262144 names"),
        (b'{"tensors": {"w{0-999}{0-999}": [1]}}', "more than 262144 names"),
        (b'{"tensors": {"w{0-' + b"9" * 4000 + b'}": [1]}}', "at most 9 digits"),
        (b'{"tensors": {"' + b"w" * 4000 + b'{0-9999}": [1]}}', "33554432 characters"),
        (b'{"tensors": {"' + b"{0-0}" * 9 + b'": [1]}}', "9 ranges; at most 8"),
    ],
)
def test_hostile_models(tmp_path, text, message):
    path = tmp_path / "m.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=f"m.json.*{message}"):
        load_model(path)


def test_sources(tmp_path, monkeypatch):
    assert "gpt2-small" in available()
    for name in available():
        model = load_model(name)
        parsed = json.loads(
            (Path(inputs.__file__).parent / f"data/models/{name}.json").read_bytes()
        )
        assert model.recipe == parsed["recipe"]
        assert sum(math.prod(spec.shape) for spec in model.tensors.values()) == parsed["parameters"]
    (tmp_path / "mine.json").write_text('{"tensors": {"w": [2, 3]}}')
    assert load_model(tmp_path / "mine.json") == ("mine", None, {"w": ((2, 3), None)})
    with pytest.raises(InputError, match="did you mean 'gpt2-small'"):
        load_model("gpt2-smal")


def test_ranges_in_names(tmp_path):
    """A range is a loop, around all entries that follow one another and begin alike."""
    path = tmp_path / "m.json"
    given = {
        "a": [1], "h.{9-10}.e.{0-1}.w": [2, 3], "h.{9-10}.e.{0-1}.b": [2], "h.{9-10}.n": [3],
        "h.11.n": [4], "{x-1}{}": {"shape": [5], "dtype": "float16"},
    }  # fmt: skip
    path.write_text(json.dumps({"tensors": given}))
    experts = {"e.0.w": (2, 3), "e.0.b": (2,), "e.1.w": (2, 3), "e.1.b": (2,), "n": (3,)}
    expected = {f"h.{layer}.{name}": shape for layer in (9, 10) for name, shape in experts.items()}
    expected = {"a": (1,)} | expected | {"h.11.n": (4,)}
    specs = {name: TensorSpec(shape) for name, shape in expected.items()}
    specs |= {"{x-1}{}": TensorSpec((5,), "float16")}
    assert list(load_shapes(path).items()) == list(specs.items())


def test_the_most_that_ranges_may_say(tmp_path):
    """As many names as are accepted take bounded time and memory."""
    path = tmp_path / "m.json"
    path.write_text('{"tensors": {"' + "x" * 113 + '{0-511}.{0-511}": [1]}}')
    begin = time.process_time()
    tracemalloc.start()
    try:
        assert len(load_shapes(path)) == 1 << 18
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(BITS)) | json_values,
        "shape": st.lists(st.integers(-1, 2**64) | st.integers(0, 3), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(st.text(max_size=3), entries | json_values, max_size=4)


@given(
    header=st.binary(max_size=60) | (headers | json_values).map(lambda v: json.dumps(v).encode()),
    length=st.none() | st.integers(0, 2**64 - 1),
    body=st.binary(max_size=40),
)
def test_fuzz(tmp_path_factory, header, length, body):
    """Whatever the bytes: a header that describes the file exactly, or InputError."""
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + body)
    try:
        _, found, offset = read_header(path)
    except InputError as error:
        assert "fuzz.safetensors" in str(error)
        return
    assert offset + max((e.stop for e in found.values()), default=0) == path.stat().st_size


@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8")).filter("__metadata__".__ne__),
        st.tuples(
            st.lists(st.integers(0, 4), max_size=3).map(tuple),
            st.sampled_from([d for d in DTYPES.values() if d.safetensors]),
        ),
    ),
    metadata=st.dictionaries(*[st.text(st.characters(codec="utf-8"))] * 2),
)
def test_layout_round_trip(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.getbasetemp() / "layout.safetensors"
    header, laid = layout(tensors, metadata)
    path.write_bytes(header + bytes(end_of(tensors, laid)))
    entries = {
        name: Entry(dtype.safetensors, shape, laid[name], end_of(tensors, {name: laid[name]}))
        for name, (shape, dtype) in tensors.items()
    }
    assert read_header(path) == (metadata, entries, len(header))
    assert [*read_header(path)[1]] == [*laid]


def run_python(code, *arguments, cwd):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done
