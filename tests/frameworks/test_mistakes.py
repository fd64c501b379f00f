"""Initializers of torch's axes, given to a framework of other axes: an error that names the import.

`keras_backend` has the tests of Keras.
"""

import numpy as np
import pytest

import numinit as ni

jax = pytest.importorskip("jax", reason="needs JAX")
MESSAGE = r"numinit\.jax"
X = np.ones((2, 3), np.float32)


def test_jax():
    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.PRNGKey(2**63 - 1)):
        for init in (ni.KaimingNormal(), ni.Normal()):
            for call in (lambda k: init(k, (3, 4), "float32"), lambda k: init(k, (3, 4))):  # noqa: B023
                with pytest.raises(TypeError, match=MESSAGE):
                    call(key)
                with pytest.raises(TypeError, match=MESSAGE):
                    jax.jit(call)(key)


def test_flax():
    nn = pytest.importorskip("flax.linen", reason="needs Flax")
    from flax import nnx

    with pytest.raises(TypeError, match=MESSAGE):
        nn.Dense(4, kernel_init=ni.KaimingNormal()).init(jax.random.key(0), X)
    with pytest.raises(TypeError, match=MESSAGE):
        nnx.Linear(3, 4, kernel_init=ni.KaimingNormal(), rngs=nnx.Rngs(0))


def test_haiku():
    hk = pytest.importorskip("haiku", reason="needs Haiku")
    made = {}
    for name, init in {
        "torch": ni.KaimingNormal(),
        "own": ni.KaimingNormal(in_axis=0, out_axis=1),
    }.items():
        net = hk.transform(lambda x: hk.Linear(4, w_init=init)(x))  # noqa: B023
        if name == "torch":
            with pytest.raises(TypeError, match=MESSAGE):
                net.init(jax.random.key(0), X)
        else:
            made = net.init(jax.random.key(0), X)
    assert made["linear"]["w"].shape == (3, 4)
    assert ni.KaimingNormal()((3, 4), np.float32).shape == (3, 4)
