"""The stream, version 1: which words an element owns, and digests that pin every value."""

import hashlib

import mpmath
import numpy as np
import oracle
import pytest

import numinit as ni

KEY = ni.Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)
SHAPE = (2**40, 2**22)  # indices up to 2**62: blocks that need both counter words

# Each is the SHA-256 of `init((1000, 1003), dtype, seed=KEY).tobytes()`, little-endian.
GOLDEN = {
    ("Uniform", "float32"): "78ac6e842831b2f5d2c33d08c6062cb5d4148cc246b776ddc5a4ecef413a5e3c",
    ("Uniform", "float64"): "f5b8a4026ec62f204606899215f8976f497f24e041908cf76a0b754522791634",
    ("Uniform", "float16"): "58fa1f52a57308c67c1f4cf5b0d2e0bf6fe17461ba4763c87a5955d4cfb3a861",
    ("Uniform", "bfloat16"): "c3170e5f0a0a631e63559f54e7efcc89ad05f25d02326aefd92df6aff4cc3dda",
    ("Normal", "float32"): "e05ec6787819f8ae06872ae9d30261420d3e835f17e68350a21752fd42c11b62",
    ("Normal", "float64"): "b0417988897c551d7f2a3ba88d4e5bdf5f6d4051a27a732be6bac598f8f381c3",
    ("Normal", "float16"): "2b61cf1c9bda7145d6479bca323a2acfc924f086f6220f84f79cd854520215d3",
    ("Normal", "bfloat16"): "33ef3d6fd03556c8ce913be03a25ccd2daf24c7621df3d033379c8cdce189deb",
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("start", [0, 1, 4 * 2**32 - 3, 2**62 - 7])
def test_elements_own_their_words(dtype, start):
    bits = 32 if dtype == "float32" else 64
    out = np.zeros((2, 6), dtype)
    for init, row in zip((ni.Uniform(), ni.Normal()), out, strict=True):
        init.fill_flat(row.view(np.uint8), start, SHAPE, dtype, KEY)
    with mpmath.workdps(40):
        for i in range(out.shape[1]):
            w = oracle.words(start + i, bits, KEY.seed, KEY.stream)
            assert out[0, i] == float(oracle.uniform(w, bits))
            exact = oracle.normal(start + i, bits, KEY.seed, KEY.stream)
            assert abs(float(out[1, i]) - exact) <= (1e-6 if bits == 32 else 1e-14)


def digest(init, dtype):
    values = init((1000, 1003), dtype, seed=KEY)
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize(("name", "dtype"), GOLDEN)
def test_golden_digests(name, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    assert digest(getattr(ni, name)(), dtype) == GOLDEN[name, dtype]


def test_stream_version():
    assert ni.STREAM_VERSION == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("init", [ni.Normal(0.1, 0.02), ni.Uniform(-0.1, 0.7), ni.Normal(0, 1e5)])
def test_16_bits_are_float32_rounded_once(init, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    narrow = init((2**20,), dtype, seed=1)
    wide = init((2**20,), seed=1)
    with np.errstate(over="ignore"):
        expected = wide.astype(narrow.dtype)
    if isinstance(init, ni.Uniform):  # the clamp that keeps the interval half-open
        inside = (expected.astype(np.float64) < init.high) & (
            expected.astype(np.float64) >= init.low
        )
        assert inside.mean() > 0.99
        narrow, expected = narrow[inside], expected[inside]
    np.testing.assert_array_equal(narrow.view(np.uint16), expected.view(np.uint16))


def test_float64_agrees_with_float32():
    wide, narrow = (ni.Uniform(-2, 3)((2**20,), dtype, seed=2) for dtype in ("float64", "float32"))
    assert np.abs(wide - narrow).max() <= 5 * 2**-24 + 2**-22
    # A float32 normal stands for the cell of the words that share its upper 32 bits: half a cell
    # is 1e-6 wide at most, except in the far tail (u below 2**-14) and near zero radius.
    wide, narrow = (ni.Normal()((2**20,), dtype, seed=2) for dtype in ("float64", "float32"))
    difference = np.abs(wide - narrow)
    assert np.quantile(difference, 0.999) <= 1e-6
    assert difference.max() <= 1e-3
