"""The stream, version 1: which words an element owns, and digests that pin every value."""

import hashlib
from math import inf as INF

import mpmath
import numpy as np
import oracle
import pytest

import numinit as ni

KEY = ni.Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)
SHAPE = (2**40, 2**22)  # indices up to 2**62: blocks that need both counter words

INITIALIZERS = {
    "Uniform": ni.Uniform(),
    "Normal": ni.Normal(),
    "TruncNormal": ni.TruncNormal(),
    "TruncNormal, thin": ni.TruncNormal(0, 1, 1, 1.125),
    "TruncNormal, far": ni.TruncNormal(0, 1, 8, INF),
    "Sparse": ni.Sparse(0.3),
    "uniform": ni.VarianceScaling(distribution="uniform"),
    "truncated_normal": ni.VarianceScaling(distribution="truncated_normal"),
}
# Each is the first half of the SHA-256 of
# `INITIALIZERS[name]((1000, 1003), dtype, seed=KEY).tobytes()`, little-endian.
GOLDEN = {
    ("Uniform", "float32"): "78ac6e842831b2f5d2c33d08c6062cb5",
    ("Uniform", "float64"): "f5b8a4026ec62f204606899215f8976f",
    ("Uniform", "float16"): "58fa1f52a57308c67c1f4cf5b0d2e0bf",
    ("Uniform", "bfloat16"): "c3170e5f0a0a631e63559f54e7efcc89",
    ("Uniform", "float8_e4m3fn"): "8067651b7ed833639176e07a1490a3f5",
    ("Uniform", "float8_e5m2"): "04f30372b3a7ccffc1e5e52192ef7ac0",
    ("Uniform", "complex64"): "fb91ef18c76405ae6e13a734a60055d6",
    ("Uniform", "complex128"): "f67efc737569b285e68c155937f117b0",
    ("Normal", "float32"): "e05ec6787819f8ae06872ae9d3026142",
    ("Normal", "float64"): "b0417988897c551d7f2a3ba88d4e5bdf",
    ("Normal", "float16"): "2b61cf1c9bda7145d6479bca323a2acf",
    ("Normal", "bfloat16"): "33ef3d6fd03556c8ce913be03a25ccd2",
    ("Normal", "float8_e4m3fn"): "f2aa7ab1266834aa52492d64f4a83130",
    ("Normal", "float8_e5m2"): "b26c687a31d798829e8bbd6f0237b6dd",
    ("Normal", "complex64"): "2a2090fc5880cbd4db844ec3b2affb3d",
    ("Normal", "complex128"): "eed42ac83057e0614e629e368097eadb",
    ("TruncNormal", "float32"): "48653d8ab3006e6c9bc18446b9350041",
    ("TruncNormal", "float64"): "f9145af63640b07aee435462312161c2",
    ("TruncNormal", "float16"): "dce991f56ba0feb15288bbc86344960f",
    ("TruncNormal", "bfloat16"): "d3349c5d68677d890d01b44a033f6c37",
    ("TruncNormal", "float8_e4m3fn"): "3f074cfdeb2a02c1908aa078c1815aca",
    ("TruncNormal", "float8_e5m2"): "5093c84d5663279662b60f3b907d6398",
    ("TruncNormal, thin", "float32"): "3bdc10dd0c6c5e00b8b8f48fca0411de",
    ("TruncNormal, thin", "float64"): "5ceb825d34cf1b27c1370ed6628c3484",
    ("TruncNormal, far", "float32"): "6f42b6732dc56ebd0f8b16409289528d",
    ("TruncNormal, far", "float64"): "297b1b62597e7631e96c710d9d6b8770",
    ("Sparse", "float32"): "5c8fe88f076b5a696f2c253836ee5211",
    ("Sparse", "complex64"): "9e0f75d066bac01fd2bcb52ce37b7867",
    ("Sparse", "complex128"): "493b0716928e618b717037cbb08ffe4c",
    ("uniform", "float32"): "fcf21153ee0d53ba37b01767841a956b",
    ("uniform", "complex64"): "57687f511c2818d08b144396e0745d31",
    ("uniform", "complex128"): "0148bd25ed410cee44ca80dc340a3f60",
    ("truncated_normal", "float32"): "7d7ea5f8440cc4aca94693626fe3f894",
    ("truncated_normal", "complex64"): "809aaeb597a7dbc2e47ab50c9af5968c",
    ("truncated_normal", "complex128"): "ea9d936c10f6ad6abf013d96086015e8",
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
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()[:32]


@pytest.mark.parametrize(("name", "dtype"), GOLDEN)
def test_golden_digests(name, dtype):
    if dtype.startswith(("bfloat", "float8")):
        pytest.importorskip("ml_dtypes")
    assert digest(INITIALIZERS[name], dtype) == GOLDEN[name, dtype]


def test_stream_version():
    assert ni.STREAM_VERSION == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("init", [ni.Normal(0.1, 0.02), ni.Uniform(-0.1, 0.7), ni.Normal(0, 6e4)])
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
