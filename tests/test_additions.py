"""One of each thing, added from outside of the package by one row of the same tables."""

import json
import sys
import types
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import oracle
import pytest

import numinit as ni
from numinit.arrays import frameworks
from numinit.arrays.memory import Framework
from numinit.compiler.inline import inline
from numinit.initializers import Distribution
from numinit.models import formats
from numinit.models.formats.format import Contents, Format
from numinit.models.recipes import parse
from numinit.models.verify import Mismatch, verify
from numinit.models.write import write
from numinit.stream import dtypes
from numinit.stream.dtypes import DTYPES, DType
from numinit.stream.rounding import float8_bits
from numinit.stream.transform import Transform

KEY = ni.Key(5, 7)


class SignParameters(NamedTuple):
    size: float


@inline
def sign_float32(word0, word1, p):
    """-size or size, by the first bit of each word."""
    size = np.float32(p.size)
    first = size if word0 >> np.uint32(31) else -size
    return first, size if word1 >> np.uint32(31) else -size


@inline
def sign_float64(word0, word1, p):
    """As `sign_float32`."""
    first = p.size if word0 >> np.uint64(63) else -p.size
    return first, p.size if word1 >> np.uint64(63) else -p.size


SIGN = Transform("sign", SignParameters, sign_float32, sign_float64)


@dataclass(frozen=True)
class Sign(Distribution):
    """-size or size, with the same chance."""

    size: float = 1.0

    def transform(self, dtype):
        return SIGN, SIGN.Parameters(self.size)

    def divided(self, divisor):
        return replace(self, size=self.size / divisor)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_distribution(dtype):
    words = np.array([oracle.word(i, 0, KEY.seed, KEY.stream) for i in range(60)])
    expected = np.where(words >> 31, 0.25, -0.25).reshape(12, 5)
    init = Sign(0.25)
    np.testing.assert_array_equal(init((12, 5), dtype, seed=KEY), expected)
    np.testing.assert_array_equal(init.rows((12, 5), [11, 3], dtype, seed=KEY), expected[[11, 3]])
    scaled = ni.Padded(ni.DepthScaled(init, 8), 0)((12, 5), dtype, seed=KEY)
    np.testing.assert_array_equal(scaled[1:], expected[1:] / 4)
    assert not scaled[0].any()


def test_a_distribution_on_a_gpu():
    pytest.importorskip("numba.cuda", exc_type=ImportError)
    from numinit.engines.cuda_driver import lacking

    if lacking():
        pytest.skip(lacking())
    from numinit.compiler.cuda import ptx
    from numinit.engines.cuda_kernel import Variant, fill_function

    variant = Variant(SIGN, DTYPES["float32"])
    assert "fill_sign_float32" in ptx(fill_function(variant), variant.signature, (8, 0))


@inline
def float8_e3m4_bits(x):
    """The bits of `x` as float8_e3m4 (uint8); infinity from 15.75 on."""
    return float8_bits(x, 4, 3, 0x70, 0x417C0000)


def test_an_element_type(monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    row = DType("float8_e3m4", 1, None, 5, -2, 15.5, float8_e3m4_bits)
    monkeypatch.setitem(dtypes.DTYPES, row.name, row)
    # The clamp that keeps an interval half-open is to the type's own numbers.
    for init, most in ((ni.Normal(1, 3), 15.5), (ni.Uniform(-15, 2), 1.9375)):
        drawn = init((999,), row.name, seed=KEY)
        wide = np.minimum(init((999,), seed=KEY), np.float32(most))
        assert drawn.dtype == ml_dtypes.float8_e3m4
        np.testing.assert_array_equal(drawn, wide.astype(ml_dtypes.float8_e3m4))
    given = np.array([0.0, -0.0, 1.03125, 15.5, -0.1, 0.015625, np.inf, -np.inf, np.nan])
    made = ni.Assign(given)(given.shape, row.name)
    expected = given.astype(ml_dtypes.float8_e3m4)
    np.testing.assert_array_equal(made.view(np.uint8), expected.view(np.uint8))


class Toy:
    """An array of a framework of one's own."""

    def __init__(self, shape):
        self.inside = np.zeros(shape, np.float32)


def test_a_framework(monkeypatch):
    module = types.ModuleType("toy_framework")
    numpy = frameworks.framework_of(np.zeros(1))
    written = []
    module.FRAMEWORK = Framework(
        Toy, lambda toy: numpy.memory(toy.inside), lambda toy: toy.inside, written.append,
        lambda toy: 17,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "toy_framework", module)
    monkeypatch.setitem(frameworks.FRAMEWORKS, Toy.__module__, "toy_framework")
    toy = Toy((8, 9))
    assert ni.normal_(toy) is toy and written == [toy]
    np.testing.assert_array_equal(toy.inside, ni.Normal()((8, 9), seed=17))
    np.testing.assert_array_equal(ni.Assign(toy)((8, 9)), toy.inside)


def toy_layout(tensors, metadata):
    starts, end = {}, 0
    for name, (shape, dtype) in tensors.items():
        starts[name] = end
        end += int(np.prod(shape)) * dtype.itemsize
    held = {name: [list(shape), dtype.name] for name, (shape, dtype) in tensors.items()}
    text = json.dumps([metadata, held], separators=(",", ":")).encode() + b"\n"
    return text, starts


def toy_read(path):
    with path.open("rb") as file:
        text = file.readline()
    metadata, held = json.loads(text)
    tensors = {name: (tuple(shape), DTYPES[dtype]) for name, (shape, dtype) in held.items()}
    return Contents(metadata, tensors, len(text))


def test_a_file_format(tmp_path, monkeypatch):
    module = types.ModuleType("toy_format")
    module.FORMAT = Format(toy_layout, toy_read)
    monkeypatch.setitem(sys.modules, "toy_format", module)
    monkeypatch.setitem(formats.FORMATS, ".toy", "toy_format")
    path = tmp_path / "model.toy"
    recipe = parse('rules = [{match = "*", init = "Normal"}]')
    assert write(path, {"b": (3, 4), "a": (5,)}, recipe, seed=3).nbytes == 68
    values = np.fromfile(path, np.float32, offset=path.stat().st_size - 68)
    np.testing.assert_array_equal(values[:12].reshape(3, 4), init_params_of("b", (3, 4)))
    assert verify(path).tensors == 2
    again = write(tmp_path / "again.safetensors", path, recipe, seed=3)  # as names and shapes, too
    assert again.tensors == 2
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Mismatch, match=r"'a' differs, first at element \[4\]"):
        verify(path)


def init_params_of(name, shape):
    return ni.init_params({name: shape}, {"*": ni.Normal()}, seed=3)[name]
