"""The words of the stream beside other implementations of the same generator, without a GPU.

* cuRAND's functions for kernels, compiled for the host.
  ``curand_init(seed, stream, 4 * block, &state)`` and ``curand4(&state)`` give the words of a block
  of plane 0: for every seed and every stream below 2**64, and for every block below 2**62, which is
  all that there is. With the offset `i`, ``curand(&state)`` gives the word of element `i`, for
  every `i` below 2**64.
* The C++ standard's ``philox4x32``, where the compiler's library has it, and NVIDIA's
  implementation of it (``cuda::std``). Its key is the seed's two words, and its counter, the least
  significant word last, is (stream high, stream low, block high and the plane, block low).

Both count the four words of the counter as one number. After the last block of a plane comes the
first of the next plane, and after plane 3 comes the next stream. A 64-bit offset of cuRAND's
reaches plane 0 only: the block that is 2**62 * plane blocks on is reached by `skipahead`.
"""

import functools
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import oracle
import pytest

import numinit as ni

SOURCE = Path(__file__).with_name("other_philox.cpp")
BY_BLOCK, BY_ELEMENT, IN_TURN = range(3)  # ways to ask for the words, as the source numbers them
MANY = 1 << 16
LAST = 2**62 - 1  # the last block of a plane
EDGES = (0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
BLOCKS = (0, 1, 2**31, 2**32 - 1, 2**32, 2**61 - 1, 2**61, LAST - 1, LAST)


class Task(NamedTuple):
    """What the program reads: the words of some blocks, and how to ask for them."""

    way: int
    seed: int
    stream: int
    plane: int
    first: int
    blocks: int


class Implementation(NamedTuple):
    """How the program is compiled for one of the other implementations."""

    macro: str
    standard: str
    headers: tuple[str, ...]
    """The headers of CUDA's that it includes, as `cuda.pathfinder` names them."""


IMPLEMENTATIONS = {
    "cuRAND": Implementation("CURAND", "c++17", ("curand", "cudart", "cccl")),
    "cuda::std::philox4x32": Implementation("CCCL", "c++17", ("cudart", "cccl")),
    "std::philox4x32": Implementation("STANDARD", "c++26", ()),
}


def include(part):
    """The option for the folder of some of CUDA's headers."""
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="pip install 'numinit[ptx]'")
    folder = pathfinder.find_nvidia_header_directory(part)
    if folder is None:
        pytest.skip(f"no headers of CUDA's {part}: pip install 'numinit[ptx]'")
    return f"-I{folder}"


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def theirs(request, tmp_path_factory):
    """A function that gives the words of another implementation, a row for each block."""
    how = IMPLEMENTATIONS[request.param]
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path_factory.mktemp("philox") / how.macro.lower()
    options = f"-std={how.standard}", "-O2", f"-D{how.macro}", *map(include, how.headers)
    command = [compiler, *options, SOURCE, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True)
    if "no philox_engine" in done.stderr or "-std=c++26" in done.stderr:
        pytest.skip(f"{request.param} is not in the headers here")
    assert done.returncode == 0, done.stderr

    def words(*tasks):
        data = np.array(tasks, np.uint64).tobytes()
        made = subprocess.run([program], input=data, capture_output=True, check=True).stdout
        return np.frombuffer(made, np.uint32).reshape(-1, 4)

    return words


@functools.cache
def compiled():
    """Compiled here, because importing Numba takes 0.5 s."""
    from numba import njit

    from numinit.stream.philox import LOW, block_words, counter_high

    @njit
    def words(out, seed, stream, plane, first):
        for i in range(len(out)):
            block = first + np.uint64(i)
            found = block_words(block & LOW, counter_high(block, plane), seed, stream)
            for k in range(4):
                out[i, k] = found[k]

    return words


def ours(*tasks):
    """The same words, of the function that all kernels draw from."""
    out = np.empty((sum(task.blocks for task in tasks), 4), np.uint32)
    begin = 0
    for _, *where, blocks in tasks:
        compiled()(out[begin : begin + blocks], *map(np.uint64, where))
        begin += blocks
    return out


def test_random_seeds_streams_and_blocks(theirs):
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 2**64, (MANY, 3), np.uint64) >> rng.integers(
        0, 64, (MANY, 3), np.uint64
    )
    draws[:, 2] >>= np.uint64(2)
    tasks = [Task(BY_BLOCK, seed, stream, 0, block, 1) for seed, stream, block in draws.tolist()]
    np.testing.assert_array_equal(theirs(*tasks), ours(*tasks))


@pytest.mark.parametrize("plane", range(4))
@pytest.mark.parametrize("way", [BY_BLOCK, BY_ELEMENT])
def test_edges(theirs, way, plane):
    tasks = [
        Task(way, seed, stream, plane, block, 1)
        for seed, stream, block in itertools.product(EDGES, EDGES, BLOCKS)
    ]
    found = theirs(*tasks)
    np.testing.assert_array_equal(found, ours(*tasks))
    for row, task in zip(found[::50], tasks[::50], strict=True):
        block = oracle.block_words(task.first, plane, task.seed, task.stream)
        assert row.tolist() == block


@pytest.mark.parametrize("way", [BY_BLOCK, BY_ELEMENT, IN_TURN])
@pytest.mark.parametrize("first", [0, 2**32 - MANY // 2, 2**62 - MANY])
def test_many_blocks(theirs, way, first):
    """Also over the wrap of the counter's first word, and up to the last block."""
    task = Task(way, 2**63 + 5, 2**64 - 3, 0, first, MANY)
    np.testing.assert_array_equal(theirs(task), ours(task))


@pytest.mark.parametrize("stream", [0, 2**32 - 1])
@pytest.mark.parametrize("plane", range(4))
def test_what_follows_the_last_block(theirs, plane, stream):
    found = theirs(Task(IN_TURN, 7, stream, plane, LAST, 3))
    following = (plane + 1, stream) if plane < 3 else (0, stream + 1)
    tasks = Task(0, 7, stream, plane, LAST, 1), Task(0, 7, *reversed(following), 0, 2)
    np.testing.assert_array_equal(found, ours(*tasks))


@pytest.mark.parametrize("first", [0, 2**32 - 100, 2**60 - 3])
def test_elements_have_the_words(theirs, first):
    """The upper 32 bits of a float64 uniform's 53 are the word of plane 0."""
    key, size = ni.Key(2**64 - 1, 2**40 + 1), 4000 if first < 2**59 else 12
    table = (2**40, 2**22)
    values = np.empty(size)
    ni.Uniform().fill_flat(values.view(np.uint8), 4 * first, table, "float64", key)
    words = ((values * 2.0**53).astype(np.uint64) >> np.uint64(21)).astype(np.uint32)
    found = theirs(Task(BY_ELEMENT, key.seed, key.stream, 0, first, size // 4))
    np.testing.assert_array_equal(words, found.ravel())


def test_the_word_that_the_standard_requires():
    """The 10000th value of a default-constructed std::philox4x32, whose seed is 20111115."""
    values = ni.Uniform()((10_000,), "float64", seed=20111115)
    assert int(values[-1] * 2.0**32) == 1955073260
