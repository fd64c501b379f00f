"""Philox: the known answers of Random123, and an independent oracle."""

import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from oracle import philox as oracle_philox

from numinit.stream.philox import block_words, counter_high, philox

KNOWN_ANSWERS = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""  # Random123 kat_vectors, philox4x32 with 10 rounds: counter, key, result


@njit
def compiled(c0, c1, c2, c3, k0, k1):
    return philox(c0, c1, c2, c3, k0, k1)


def ours(counter, key):
    return [int(w) for w in compiled(*map(np.uint64, (*counter, *key)))]


def answers(text, rounds):
    for line in text.strip().splitlines():
        fields = line.split()
        if fields[0].startswith("#"):
            continue
        if fields[0] == "philox4x32":
            if int(fields[1]) != rounds:
                continue
            fields = fields[2:]
        numbers = [int(field, 16) for field in fields]
        yield numbers[:4], numbers[4:6], numbers[6:]


@pytest.mark.parametrize(("counter", "key", "result"), list(answers(KNOWN_ANSWERS, 10)))
def test_known_answers(counter, key, result):
    assert ours(counter, key) == result
    assert oracle_philox(counter, key) == result


def test_known_answers_of_the_shared_file(shared):
    found = list(answers((shared / "kat" / "philox4x32.txt").read_text(), 10))
    assert len(found) == 3
    for counter, key, result in found:
        assert ours(counter, key) == result
    for counter, key, result in answers((shared / "kat" / "philox4x32.txt").read_text(), 7):
        assert oracle_philox(counter, key, 7) == result


def test_random_counters_agree_with_the_oracle():
    random = np.random.default_rng(0)
    for _ in range(200):
        numbers = [int(w) for w in random.integers(0, 2**32, 6)]
        assert ours(numbers[:4], numbers[4:]) == oracle_philox(numbers[:4], numbers[4:])


@njit
def words_of(block, plane, seed, stream):
    return block_words(block & np.uint64(0xFFFFFFFF), counter_high(block, plane), seed, stream)


@pytest.mark.parametrize("block", [0, 1, 2**32 - 1, 2**32, 2**62 - 1])
@pytest.mark.parametrize("plane", [0, 1, 2, 3])
def test_counter_layout(block, plane):
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    counter = (block & 0xFFFFFFFF, (block >> 32) + (plane << 30), 0x76543210, 0xFEDCBA98)
    got = words_of(*map(np.uint64, (block, plane, seed, stream)))
    assert [int(w) for w in got] == oracle_philox(counter, (0x89ABCDEF, 0x01234567))


@pytest.mark.parametrize("call", ["normal_float64(word, word, p)", "outer(word, p)"])
def test_the_first_of_a_process_to_compile_an_inline_function(call):
    """Nothing of the package's own compiler has been imported then."""
    code = f"""
import numpy as np
from numba import njit
from numinit.stream.normal import NORMAL, normal_float64
@njit
def outer(word, p):
    return normal_float64(word, word, p)
word, p = np.uint64(5), NORMAL.Parameters(0.0, 1.0, 0.0)
x, y = {call}
assert 9 < x < 10 and 0 < y < 1e-8
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
