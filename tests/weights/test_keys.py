"""Keys, the generators that hand them out, and what is accepted as a seed."""

import copy
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.weights.keys import as_key

TOP = 2**64 - 1
words = st.integers(0, TOP) | st.sampled_from([0, 1, 2**32, 2**63, TOP])

# Made by the formula of `documented` below with Python 3.12's hashlib: (seed, stream), data, result.
KNOWN_ANSWERS = [
    ((0, 0), "a", (1619040452945911624, 12152444407457499177)),
    ((0, 0), "", (2354534558616965978, 12107190075299831372)),
    ((0, 0), 1, (11483936211322711713, 4339087325647035721)),
    ((0, 0), "1", (15009715483987572419, 1530568563793592990)),
    ((5, 7), "layers.3.wq", (4683457873076524476, 6747966195608460288)),
    ((TOP, TOP), TOP, (5103223280115359774, 14404355576431138527)),
    ((0, 0), "\u00e9\ud800", (10415076513716007080, 16776586782817372798)),
]


def documented(seed, stream, data):
    """The halves of BLAKE2b-128 over (seed, stream, type tag, data), little-endian."""
    tail = b"s" + data.encode("utf-8", "surrogatepass") if isinstance(data, str) else None
    tail = tail or b"i" + data.to_bytes(8, "little")
    digest = hashlib.blake2b(struct.pack("<QQ", seed, stream) + tail, digest_size=16).digest()
    return struct.unpack("<QQ", digest)


@pytest.mark.parametrize(("key", "data", "result"), KNOWN_ANSWERS)
def test_fold_in_known_answers(key, data, result):
    assert ni.Key(*key).fold_in(data) == ni.Key(*result)
    assert documented(*key, data) == result


@given(words, words, words | st.text())
def test_fold_in_is_the_documented_formula(seed, stream, data):
    assert ni.Key(seed, stream).fold_in(data) == ni.Key(*documented(seed, stream, data))


def test_fold_in_tells_apart():
    root = ni.Key(0)
    parts = ["", "0", "1", 0, 1, 2**63, "a", "A", "a\0", "ab", "a.b", "\u00e9", "e\u0301"]
    made = {root.fold_in(p) for p in parts} | {root.fold_in("a").fold_in("b"), root}
    made |= {ni.Key(1).fold_in("a"), ni.Key(0, 1).fold_in("a"), ni.Key(1, 1).fold_in("a")}
    assert len(made) == len(parts) + 5


def test_a_key_is_a_value():
    key = ni.Key(3, 4)
    assert (key.seed, key.stream) == (3, 4) and ni.Key(3) == ni.Key(3, 0)
    assert repr(key) == "Key(seed=3, stream=4)" and eval(repr(key), vars(ni)) == key
    for other in (pickle.loads(pickle.dumps(key)), copy.deepcopy(key), ni.Key(np.uint8(3), 4)):
        assert other == key and hash(other) == hash(key) and type(other.seed) is int
    with pytest.raises(AttributeError):
        key.seed = 1


INTEGERS = [np.int8(5), np.uint64(5), np.int64(5), np.array(5)]  # what operator.index takes


@pytest.mark.parametrize("five", INTEGERS, ids=lambda five: type(five).__name__)
def test_numpy_integers_are_integers(five):
    assert ni.Key(five, five) == ni.Key(5, 5)
    assert ni.Key(0).fold_in(five) == ni.Key(0).fold_in(5)
    assert ni.Generator(five).seed == 5
    assert ni.Key(np.uint64(TOP)).seed == TOP


OUT_OF_RANGE = [-1, 2**64, 10**30, np.int64(-1), np.int8(-128)]
NOT_INTEGERS = [True, False, np.True_, 1.0, np.float32(1), "1", b"1", 1j, [1], (1, 2)]


@pytest.mark.parametrize(
    ("bad", "error"),
    [(b, ValueError) for b in OUT_OF_RANGE] + [(b, TypeError) for b in NOT_INTEGERS],
    ids=lambda b: repr(b) if not isinstance(b, type) else b.__name__,
)
def test_what_is_no_word_is_refused(bad, error):
    calls = {
        "seed": [lambda: ni.Key(bad), lambda: ni.Generator(bad), lambda: ni.Generator(0).manual_seed(bad)],
        "stream": [lambda: ni.Key(0, bad)],
        "data": [] if isinstance(bad, str) else [lambda: ni.Key(0).fold_in(bad)],
    }  # fmt: skip
    calls["seed"] += [lambda: as_key(bad), lambda: ni.Normal()((2,), seed=bad)]
    for name, tries in calls.items():
        for call in tries:
            with pytest.raises(error, match=rf"^{name}: .*(given)"):
                call()


@pytest.mark.parametrize("bad", [None, b"a", 1.5])
def test_fold_in_takes_names_and_numbers(bad):
    with pytest.raises(TypeError, match=r"^data: .*a string or an integer"):
        ni.Key(0).fold_in(bad)


def test_the_nth_use_of_a_generator():
    generator = ni.Generator(42)
    for n in range(5):
        assert repr(generator) == f"Generator(seed=42, uses={n})"
        assert generator.next_key() == ni.Key(42).fold_in(n)
    assert generator.manual_seed(42) is generator
    assert generator.next_key() == ni.Key(42).fold_in(0)
    assert generator.manual_seed(7).seed == 7
    assert generator.next_key() == ni.Key(7).fold_in(0)
    generator.next_key()
    values = ni.Normal()((5,), seed=generator)
    np.testing.assert_array_equal(values, ni.Normal()((5,), seed=ni.Key(7).fold_in(2)))


def test_a_failed_manual_seed_changes_nothing():
    generator = ni.Generator(42)
    generator.next_key()
    with pytest.raises(ValueError, match="seed"):
        generator.manual_seed(-1)
    assert generator.next_key() == ni.Key(42).fold_in(1)


def test_generators_without_a_seed_differ():
    assert len({ni.Generator().seed for _ in range(8)}) == 8  # fails by chance: 28 / 2**64


def test_manual_seed_governs_calls_without_a_seed():
    generator = ni.manual_seed(5)
    assert isinstance(generator, ni.Generator) and generator.seed == 5
    init, array = ni.Normal(), np.zeros(6, np.float32)
    made = [
        lambda: init((6,)),
        lambda: init.fill_(array).copy(),
        lambda: init.block((9,), slice(0, 6)),
        lambda: init.rows((9,), range(6)),
        lambda: ni.normal_(array).copy(),
        lambda: as_key(None),
    ]
    first = [make() for make in made]
    for n, values in enumerate(first):
        key = ni.Key(5).fold_in(n)
        if n == 5:
            assert values == key
        else:
            np.testing.assert_array_equal(values, init((6,), seed=key))


def test_calls_that_need_no_key_do_not_advance():
    generator = ni.manual_seed(5)
    array = np.zeros(3, np.float32)
    ni.Normal()((3,), seed=1)
    ni.Normal().fill_(array, seed=ni.Generator(1))
    ni.zeros_(array)
    ni.Ones()((3,))
    ni.Constant(2).rows((3, 3), [0])
    for bad in (lambda: ni.Normal().fill_(array, offset=(1,)), lambda: ni.xavier_normal_(array)):
        with pytest.raises(ValueError):  # noqa: PT011
            bad()
    assert generator.next_key() == ni.Key(5).fold_in(0)


def test_next_key_is_safe_in_many_threads():
    count, uses = 8, 400
    generator = ni.Generator(9)
    found = [[] for _ in range(count)]
    start = threading.Barrier(count)

    def use(keys):
        start.wait()
        for _ in range(uses):
            keys.append(generator.next_key())

    threads = [threading.Thread(target=use, args=(keys,)) for keys in found]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet between reading and writing the count
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    keys = [key for keys in found for key in keys]
    assert len(keys) == count * uses
    assert set(keys) == {ni.Key(9).fold_in(n) for n in range(count * uses)}


def test_a_numpy_generator_is_a_seed_and_advances():
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    keys = [as_key(one) for _ in range(200)]
    # A whole 64-bit word each: over 200 keys every bit is seen (fails by chance: 64 / 2**199).
    assert keys == [ni.Key(int(w)) for w in two.integers(0, TOP, 200, np.uint64, endpoint=True)]
    assert np.bitwise_or.reduce(np.array([k.seed for k in keys], np.uint64)) == TOP
    assert one.random() == two.random()
    a, b = np.random.default_rng(4), np.random.default_rng(4)
    first, second = (ni.Normal()((9,), seed=a) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, ni.Normal()((9,), seed=b))
    np.testing.assert_array_equal(second, ni.Normal()((9,), seed=b))


def test_a_torch_generator_is_a_seed_and_advances():
    torch = pytest.importorskip("torch")
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    keys = [as_key(one) for _ in range(200)]
    assert keys == [as_key(two) for _ in range(200)]
    assert len(set(keys)) == 200
    seen = np.bitwise_or.reduce(np.array([k.seed for k in keys], np.uint64))
    assert seen == 2**63 - 1  # the 63 bits that torch draws for an int64
    first, second = (ni.Normal()((9,), seed=one) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, ni.Normal()((9,), seed=two))


def test_a_legacy_numpy_state_is_refused():
    with pytest.raises(TypeError, match=r"^seed: RandomState"):
        as_key(np.random.RandomState(0))


def test_generators_are_copied_and_pickled():
    generator = ni.Generator(7)
    generator.next_key()
    for twin in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert twin.next_key() == ni.Key(7).fold_in(1)
    assert generator.next_key() == ni.Key(7).fold_in(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork")
def test_forked_children_of_what_has_no_seed_differ_and_of_what_has_one_go_on():
    """In processes of their own: pytest's own threads and generators stay out of it."""
    script = """
import copy, os, sys
import numinit as ni

def keys_of_children(draw, generations=1):
    read, write = os.pipe()
    for _ in range(2):
        if not os.fork():
            for _ in range(generations - 1):
                if os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
            os.write(write, f"{draw()}\\n".encode())
            os._exit(0)
    assert all(os.wait()[1] == 0 for _ in range(2))
    os.close(write)
    return os.fdopen(read).read().splitlines()

own, late = ni.Generator(), ni.Generator()
process = ni.weights.keys.default_generator
for generator in own, process:
    generator.next_key()
for draw in own.next_key, late.next_key, process.next_key, lambda: (own.seed, own.next_key()):
    for generations in 1, 2:
        drawn = [*keys_of_children(draw, generations), str(draw())]
        assert len(set(drawn)) == 3, drawn
assert own.seed == own.seed
twin = copy.deepcopy(own)
assert keys_of_children(twin.next_key) == [str(own.next_key())] * 2
ni.manual_seed(5)
own.manual_seed(7)
for generator, seed in (process, 5), (own, 7):
    assert generator.next_key() == ni.Key(seed).fold_in(0)
    assert keys_of_children(generator.next_key, 2) == [str(ni.Key(seed).fold_in(1))] * 2
    assert generator.next_key() == ni.Key(seed).fold_in(1)
"""
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=60
    )


def test_a_draw_in_the_middle_of_a_draw():
    """As a signal's handler does, or a destructor: the trace function runs between two lines."""
    generator, drawn = ni.Generator(3), []

    def trace(frame, event, _):
        if frame.f_code in (ni.Generator.next_key.__code__, ni.Generator._source.__code__):
            sys.settrace(None)
            frame.f_trace = None
            drawn.append(generator.next_key())
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        drawn.append(generator.next_key())
    finally:
        sys.settrace(None)
    assert len(drawn) > 1
    assert set(drawn) == {ni.Key(3).fold_in(n) for n in range(len(drawn))}
