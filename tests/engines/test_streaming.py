"""What is stored past the caches is what is stored otherwise."""

import itertools
import mmap
import sys

import numpy as np
import pytest
from helpers import spec_of

import numinit as ni
from numinit.engines import caches, cpu
from numinit.engines.layout import View, laid_out
from numinit.engines.pages import touched
from numinit.stream.dtypes import DTYPES

KEY = ni.Key(2**63 + 5, 2**64 - 3)


@pytest.mark.parametrize("name", ["float8_e5m2", "bfloat16", "float32", "complex64", "complex128"])
def test_rows_at_every_place_of_a_line(monkeypatch, name):
    dtype = DTYPES[name]
    monkeypatch.setattr(cpu, "touched", lambda *where: True)
    inits = [ni.Normal()]
    if name == "float32":
        inits += [ni.Constant(1.5), ni.Sparse(0.25)]
    # A row of 4096 bytes is the shortest.
    for init, (rows, columns) in itertools.product(inits, [(1, 7_001), (3, 4_200)]):
        pitch = columns * dtype.itemsize + 32 // dtype.itemsize * dtype.itemsize
        view = View((rows, columns), (pitch, dtype.itemsize), (columns, 1))
        spec, made = spec_of(init, (rows, columns), dtype.name), []
        for size in (1 << 40, 0):
            monkeypatch.setattr(cpu, "cache_size", lambda size=size: size)
            assert cpu.streamed(laid_out(view), dtype.itemsize) == (size == 0)
            made.append(cpu.Fill(view, dtype, spec))
            made[-1]._serial = False  # what one thread fills at once is small, and not streamed
        for shift in range(0, 64, max(4, dtype.itemsize)):
            found = []
            for fill in made:
                space = np.full(rows * pitch + 192, 0x5A, np.uint8)
                start = -space.ctypes.data % 64 + shift
                fill(space.ctypes.data + start, 3, 0, KEY.seed, KEY.stream)
                found.append(space[start : start + rows * pitch].tobytes())
                assert (space[:start] == 0x5A).all()
                assert (space[start + rows * pitch :] == 0x5A).all()
            assert found[0] == found[1]


def test_only_large_and_contiguous_fills_are_streamed(monkeypatch):
    monkeypatch.setattr(cpu, "cache_size", lambda: 1 << 20)
    large = 1 << 19
    for shape, strides, expected in [
        ((large,), (4,), True),
        ((1 << 18,), (4,), False),  # 1 MiB
        ((large,), (8,), False),
        ((512, 1024), (8192, 4), True),
        ((4096, 128), (1024, 4), False),  # short rows
        ((512, 1024), (4, 2048), False),  # transposed
    ]:
        steps = (shape[-1], 1)[-len(shape) :]
        layout = laid_out(View(shape, strides, steps))
        assert cpu.streamed(layout, 4) == expected, (shape, strides)


@pytest.mark.parametrize(
    ("sizes", "threads", "expected"),
    [
        (["48K", "2048K", "32M"], 4, 32 << 20),
        (["48K", "491520K"], 2, 32 << 20),  # shared with other machines
        ([], 64, caches.USUAL),
        (["?"], 64, caches.USUAL),
    ],
)
def test_the_size_of_the_caches(monkeypatch, tmp_path, sizes, threads, expected):
    for number, size in enumerate(sizes):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}/size").write_text(size + "\n", encoding="ascii")
    monkeypatch.setattr(caches, "_LINUX", tmp_path)
    monkeypatch.setattr(caches.os, "cpu_count", lambda: threads)
    assert caches.cache_size.__wrapped__() == expected


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system does not say")
def test_whether_memory_was_touched():
    space = mmap.mmap(-1, 64 << 20)
    array = np.frombuffer(space, np.uint8)
    assert not touched(array.ctypes.data, array.size)
    array[: array.size // 4] = 1
    assert not touched(array.ctypes.data, array.size)
    array[array.size // 4 :] = 1
    assert touched(array.ctypes.data + 1, array.size - 1)
    assert touched(array.ctypes.data + 17, 1)


@pytest.mark.parametrize("old", [True, False])
def test_new_memory_is_not_streamed(monkeypatch, old):
    monkeypatch.setattr(cpu, "cache_size", lambda: 0)
    asked, flags, size = [], [], 1 << 18
    monkeypatch.setattr(cpu, "touched", lambda *where: asked.append(where) or old)
    fill = cpu.Fill(
        View((size,), (4,), (1,)), DTYPES["float32"], spec_of(ni.Ones(), (size,), "float32")
    )
    fill._serial, fill._kernel = False, lambda *arguments: flags.append(arguments[-1])
    fill(64, 0, 0, 0, 0)
    assert asked == [(64, 4 * size)]
    assert set(flags) == {int(old)}
