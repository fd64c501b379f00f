"""torch's functions speak of their own arguments, whatever initializer is behind them."""

import inspect
import re

import numpy as np
import pytest

import numinit as ni

FUNCTIONS = [name for name in ni.__all__ if name.endswith("_") and not name.startswith("_")]
SHAPE = {"dirac_": (4, 4, 3)}
NEEDED = {"sparse_": {"sparsity": 0.5}, "constant_": {"val": 1.0}}

#: argument: values that are refused, whichever function has it
WRONG = {
    "tensor": [
        None,
        [1.0],
        np.empty(SHAPE["dirac_"], np.int64),
        np.broadcast_to(np.float32(0), (4, 4, 3)),
        np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (4, 4, 3), (4, 0, 0)),
        np.ma.zeros((4, 4, 3)),
    ],
    "generator": ["x", -1, 1 << 64, 1.5],
    "seed": ["x", -1, 1 << 64, 1.5],
    "mean": ["x", None, 1j, 10**400],
    "std": ["x", -1.0, None],
    "gain": ["x", None, 1j, np.nan],
    "sparsity": ["x", -0.5, 1.5, None],
    "val": ["x", None, 1j, 1e40, 10**400],
    "groups": ["x", 0, -1, 1.5],
    "mode": ["x", None, ["fan_in"], 3],
    "nonlinearity": ["x", None, ["relu"], lambda z: 1 / 0],
}
#: the same of one function
OWN = {
    ("uniform_", "a"): ["x", 2.0, np.inf, np.nan, -1e40, None],
    ("uniform_", "b"): ["x", -1.0, np.inf, 1e40, None],
    ("trunc_normal_", "a"): ["x", 3.0, np.inf, None],
    ("trunc_normal_", "b"): ["x", -3.0, -np.inf, None],
    ("orthogonal_", "gain"): ["x", None, 1j],  # NaN is a factor, as in torch
    ("kaiming_uniform_", "a"): ["x", True, [1], 1j, np.zeros(2), np.nan],
    ("kaiming_normal_", "a"): ["x", True, [1], 1j, np.zeros(2), np.nan],
}
#: by function: shapes of too few axes, and of too many where there is a limit
SHAPES = {
    "orthogonal_": [(), (3,)],
    "xavier_uniform_": [(), (3,)],
    "xavier_normal_": [(), (3,)],
    "kaiming_uniform_": [(), (3,)],
    "kaiming_normal_": [(), (3,)],
    "eye_": [(), (3,), (3, 3, 3)],
    "sparse_": [(), (3,), (3, 3, 3)],
    "dirac_": [(), (3,), (3, 3), (1,) * 6],
}

#: Names of arguments and fields that no sentence has for another reason.
VOCABULARY = {
    "low", "high", "value", "val", "seed", "generator", "in_axis", "out_axis",
    "batch_axis", "packed", "transposed", "sparsity", "nonlinearity", "param", "init", "ids",
    "index", "offset", "negative_slope", "alpha", "padding_idx",
}  # fmt: skip


def cases():
    for name in FUNCTIONS:
        for argument in inspect.signature(getattr(ni, name)).parameters:
            wrong = OWN.get((name, argument)) or WRONG[argument]
            for number, value in enumerate(wrong):
                yield pytest.param(name, argument, value, id=f"{name}-{argument}-{number}")
        for shape in SHAPES.get(name, ()):
            yield pytest.param(name, "tensor", np.zeros(shape, np.float32), id=f"{name}-{shape}")


@pytest.mark.filterwarnings("ignore:mean is more than 2 std")
@pytest.mark.parametrize(("name", "argument", "value"), list(cases()))
def test_messages_name_the_functions_arguments(name, argument, value):
    function = getattr(ni, name)
    shape = SHAPE.get(name, (4, 4))
    tensor = np.zeros(shape, np.float32)
    given = {"tensor": tensor, **NEEDED.get(name, {}), argument: value}
    with pytest.raises((TypeError, ValueError, RuntimeError)) as refused:
        function(**given)
    message = str(refused.value)
    own = set(inspect.signature(function).parameters)
    assert not {*re.findall(r"[A-Za-z_]+", message)} & (VOCABULARY - own), message
    head = message.partition(": ")[0]
    assert not set(head.split(", ")) & {"array", "dtype", "shape"}, message
    # torch's own messages of shapes and names name none.
    torchs = "tensor" in head if argument == "tensor" else "nonlinearity" in head
    assert re.search(rf"\b{argument}\b", head) or torchs, message
    assert not tensor.any()


def test_torchs_message_of_fans():
    with pytest.raises(ValueError, match="Fan in and fan out can not be computed for tensor with"):
        ni.xavier_uniform_(np.empty(3))
    with pytest.raises(RuntimeError, match=r"^a, b: 1.0 and 0.0 were given"):
        ni.uniform_(np.empty(3), 1, 0)
    with pytest.raises(TypeError, match=r"^generator: str 'x' was given"):
        ni.normal_(np.empty(3), generator="x")
    with pytest.raises(TypeError, match=r"^seed: str 'x' was given"):
        ni.normal_(np.empty(3), seed="x")
    with pytest.raises(RuntimeError, match=r"^val: 1e\+40 was given; float32"):
        ni.constant_(np.empty(3, np.float32), 1e40)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_beyond_float64_are_errors_of_torchs_kind(name):
    numbers = {"a", "b", "mean", "std", "gain", "sparsity", "val"}
    for argument in numbers & inspect.signature(getattr(ni, name)).parameters.keys():
        given = {"tensor": np.zeros((4, 4), np.float32), **NEEDED.get(name, {}), argument: 10**400}
        with pytest.raises(RuntimeError, match=rf"^{argument}: .*float64"):
            getattr(ni, name)(**given)


def test_trunc_normal_of_a_complex_tensor():
    with pytest.raises(TypeError, match=r"^tensor: a normal truncated to an interval is real"):
        ni.trunc_normal_(np.empty(3, np.complex64))
