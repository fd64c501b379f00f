"""Frameworks that call an initializer of torch's axes by mistake."""

import sys
import types

import numpy as np
import pytest

import numinit as ni


def caller(name, monkeypatch):
    """A function that calls an initializer from a module of that name, as if it were imported."""
    package = name.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    space = {"__name__": name}
    exec("def call(init, *args, **kwargs):\n    return init(*args, **kwargs)", space)
    return space["call"]


TORCH_AXES = [
    ni.KaimingNormal(), ni.XavierUniform(gain=2.0), ni.VarianceScaling(), ni.Orthogonal(),
    ni.DeltaOrthogonal(), ni.Dirac(), ni.Bilinear(), ni.DepthScaled(ni.KaimingNormal(), 3),
    ni.Padded(ni.MuP(ni.KaimingUniform(), "hidden", (4, 4)), 0),
]  # fmt: skip
OTHERS = [
    ni.Normal(), ni.Zeros(), ni.Sparse(0.5), ni.EmbeddingUniform(), ni.Eye(),
    ni.KaimingNormal(in_axis=-2, out_axis=-1), ni.Orthogonal(out_axis=-1),
    ni.DepthScaled(ni.VarianceScaling(in_axis=0, out_axis=1), 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "meant"),
    [("keras.src.backend.common.variables", "numinit.keras"), ("haiku._src.base", "numinit.jax")],
)
@pytest.mark.parametrize("init", TORCH_AXES, ids=repr)
def test_a_framework_of_other_axes_is_refused(module, meant, init, monkeypatch):
    call = caller(module, monkeypatch)
    through_jax = caller("jax._src.api", monkeypatch)
    with pytest.raises(TypeError, match=f"^{type(init).__name__}: .*use {meant} instead of"):
        call(init, (4, 4), dtype="float32")
    with pytest.raises(TypeError, match=meant):
        call(through_jax, init, (4, 4), dtype="float32")


@pytest.mark.parametrize("init", OTHERS, ids=repr)
def test_initializers_without_axes_or_with_others_are_not(init, monkeypatch):
    assert caller("keras.src.x", monkeypatch)(init, (4, 4), dtype="float32").shape == (4, 4)


def test_honest_calls_beside_keras(monkeypatch):
    call = caller("keras.src.x", monkeypatch)
    init = ni.KaimingNormal()
    assert init((4, 4)).dtype == np.float32
    assert init((4, 4), dtype="float16").dtype == np.float16
    assert caller("kerastuner", monkeypatch)(init, (4, 4), dtype="float16").dtype == np.float16
    turned = call(lambda shape, dtype: init(shape[::-1], dtype).T, (3, 4), dtype="float32")
    assert turned.shape == (3, 4)  # the user's own function between them
    assert call(init, (4, 4), dtype="float32", seed=0).shape == (4, 4)  # Keras gives no seed


class Key:
    """As a JAX key of the old style."""

    def __init__(self, *words):
        self.words = words

    def __iter__(self):
        return iter(self.words)


Key.__module__ = "jaxlib._jax"


@pytest.mark.parametrize(
    "call",
    [
        lambda init: init(Key(0, 42), (3, 4), "float32"),
        lambda init: init(Key(0, 42), (3, 4)),
        lambda init: init(Key(2**32 - 1, 2**32 - 1), (3, 4)),
        lambda init: init(Key(0, 42), (3, 4), "float32", None),
    ],
)
@pytest.mark.parametrize("init", [ni.KaimingNormal(), ni.Normal()])
def test_a_key_as_the_shape_names_numinit_jax(init, call):
    with pytest.raises(TypeError, match=r"^shape: a JAX Key was given; .*numinit\.jax"):
        call(init)


def test_a_shape_of_jax_is_a_shape():
    assert ni.Zeros()(Key(2, 3), "float32").shape == (2, 3)


def test_too_many_arguments():
    with pytest.raises(TypeError, match=r"^Normal: 3 positional arguments were given"):
        ni.Normal()((2, 3), "float32", 0)
