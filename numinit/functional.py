"""The functions of torch.nn.init, with torch's names, signatures and types of errors.

Each function fills an array in place and returns it. `_SHARED` completes their docstrings.
"""

import functools
import inspect
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numinit.initializers as init
from numinit.arrays.frameworks import framework_of
from numinit.initializers.distributions import is_complex, real
from numinit.stream.dtypes import RangeError

Array = TypeVar("Array")

_Make = Callable[..., init.Initializer]

# Cached, because making the initializer of a small tensor takes longer than making its values.
# Typed, because 1 is accepted as a slope and True is not.
_cached = functools.lru_cache(256, typed=True)
_ones, _zeros, _eye = _cached(init.Ones), _cached(init.Zeros), _cached(init.Eye)
_dirac = _cached(init.Dirac)
_uniform, _normal = _cached(init.Uniform), _cached(init.Normal)
_orthogonal = _cached(init.Orthogonal)
_trunc_normal, _sparse = _cached(init.TruncNormal), _cached(init.Sparse)
_xavier_uniform, _xavier_normal = _cached(init.XavierUniform), _cached(init.XavierNormal)
_kaiming_uniform, _kaiming_normal = _cached(init.KaimingUniform), _cached(init.KaimingNormal)


@_cached
def _constant(value: float, sign: float) -> init.Constant:
    return init.Constant(value)  # `sign` tells 0.0 from -0.0, which are equal


def _real(name: str, value: Any) -> float:
    try:
        return real(name, value)
    except RangeError as error:
        raise _torchs(error) from None


def _fill(tensor: Any, make: _Make, fields: Any, generator: Any, seed: Any) -> Any:
    if generator is not None:
        if seed is not None:
            raise TypeError("generator, seed: both were given; they are two names of one argument")
        seed = generator
    try:
        return make(*fields).fill_(tensor, seed=seed)
    except (TypeError, ValueError) as error:
        raise _torchs(error, generator is not None) from None


def _accepted(make: _Make, fields: Any) -> bool:
    try:
        make(*fields)
    except ValueError:
        return False
    return True


#: The names of an initializer's arguments in errors, and torch's names of them.
_NAMES = {"low": "a", "high": "b", "value": "val"}
_NAMES |= dict.fromkeys(("array", "shape", "dtype"), "tensor")


def _torchs(error: Exception, generator: bool = False) -> Exception:
    """The same error, of torch's type and with torch's names of arguments."""
    names, colon, rest = str(error).partition(": ")
    if not colon:
        return error
    given = names.split(", ")
    table = {**_NAMES, "seed": "generator"} if generator else _NAMES
    own = list(dict.fromkeys(table.get(name, name) for name in given))
    kind = RuntimeError if isinstance(error, RangeError) else type(error)
    return error if kind is type(error) and own == given else kind(f"{', '.join(own)}: {rest}")


def uniform_(
    tensor: Array, a: float = 0.0, b: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with values uniform on [a, b), as `Uniform` does. No value is `b`, in any dtype.

    Examples
    --------
    >>> w = ni.uniform_(np.empty((3, 4)), 2.0, 2.5, seed=0)
    >>> bool((w >= 2.0).all() and (w < 2.5).all())
    True
    """
    return _fill(tensor, _uniform, (_real("a", a), _real("b", b)), generator, seed)  # type: ignore[no-any-return]


def normal_(
    tensor: Array, mean: float = 0.0, std: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with normally distributed values, as `Normal` does.

    Examples
    --------
    >>> round(float(ni.normal_(np.empty((1000, 1000)), std=0.5, seed=0).std()), 2)
    0.5
    """
    return _fill(tensor, _normal, (_real("mean", mean), _real("std", std)), generator, seed)  # type: ignore[no-any-return]


def trunc_normal_(
    tensor: Array,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
    *,
    seed: Any = None,
) -> Array:
    """Fill with normal values truncated to the absolute bounds [a, b], as `TruncNormal` does.

    `mean` and `std` are those before truncation. A mean 2 std out of bounds gives a UserWarning.

    Examples
    --------
    >>> bool(abs(ni.trunc_normal_(np.empty((3, 4)), a=-0.5, b=0.5, seed=0)).max() <= 0.5)
    True
    """
    mean, std, a, b = fields = _real("mean", mean), _real("std", std), _real("a", a), _real("b", b)
    if (mean < a - 2 * std or mean > b + 2 * std) and _accepted(_trunc_normal, fields):
        warnings.warn(
            f"mean is more than 2 std from [a, b] in trunc_normal_: mean {mean}, std {std}, "
            f"[{a}, {b}]. The values follow the far tail exactly; is that what was meant?",
            stacklevel=2,
        )
    return _fill(tensor, _trunc_normal, fields, generator, seed)  # type: ignore[no-any-return]


def orthogonal_(
    tensor: Array, gain: float = 1, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with a matrix of orthonormal rows or columns, times `gain`, as `Orthogonal` does.

    Examples
    --------
    >>> w = ni.orthogonal_(np.empty((3, 5)), seed=0)
    >>> bool(np.allclose(w @ w.T, np.eye(3)))
    True
    """
    return _fill(tensor, _orthogonal, (_real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def sparse_(
    tensor: Array, sparsity: float, std: float = 0.01, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill a matrix with normal values, and an exact number of zeros in each column: `Sparse`.

    Examples
    --------
    >>> (ni.sparse_(np.empty((10, 3)), sparsity=0.25, seed=0) == 0).sum(axis=0).tolist()
    [3, 3, 3]
    """
    return _fill(tensor, _sparse, (_real("sparsity", sparsity), _real("std", std)), generator, seed)  # type: ignore[no-any-return]


def constant_(tensor: Array, val: complex) -> Array:
    """Fill with the value `val`, as `Constant` does.

    Examples
    --------
    >>> ni.constant_(np.empty(2), 0.5)
    array([0.5, 0.5])
    """
    if is_complex(val):
        return _fill(tensor, init.Constant, (val,), None, None)  # type: ignore[no-any-return]
    number = _real("val", val)
    return _fill(tensor, _constant, (number, math.copysign(1, number)), None, None)  # type: ignore[no-any-return]


def ones_(tensor: Array) -> Array:
    """Fill with 1.

    Examples
    --------
    >>> ni.ones_(np.empty(2))
    array([1., 1.])
    """
    return _fill(tensor, _ones, (), None, None)  # type: ignore[no-any-return]


def zeros_(tensor: Array) -> Array:
    """Fill with 0.

    Examples
    --------
    >>> ni.zeros_(np.empty(2))
    array([0., 0.])
    """
    return _fill(tensor, _zeros, (), None, None)  # type: ignore[no-any-return]


def eye_(tensor: Array) -> Array:
    """Fill a matrix with ones on its diagonal and zeros elsewhere, as `Eye` does.

    Examples
    --------
    >>> ni.eye_(np.empty((2, 3))).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return _fill(tensor, _eye, (), None, None)  # type: ignore[no-any-return]


def dirac_(tensor: Array, groups: int = 1) -> Array:
    """Fill a convolution's weight (out, in, *kernel) so that it copies inputs, as `Dirac` does.

    Examples
    --------
    >>> ni.dirac_(np.empty((1, 1, 3))).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    make = _dirac if isinstance(groups, int) else init.Dirac  # others may have no hash
    return _fill(tensor, make, (groups,), None, None)  # type: ignore[no-any-return]


def xavier_uniform_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with uniform values on +-gain * sqrt(6 / (fan_in + fan_out)), as `XavierUniform` does.

    Examples
    --------
    >>> bool(abs(ni.xavier_uniform_(np.empty((2, 4)), seed=0)).max() <= 1)
    True
    """
    return _fill(tensor, _xavier_uniform, (_real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def xavier_normal_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with normal values of std gain * sqrt(2 / (fan_in + fan_out)), as `XavierNormal` does.

    Examples
    --------
    >>> round(float(ni.xavier_normal_(np.empty((100, 100)), seed=0).std()), 2)
    0.1
    """
    return _fill(tensor, _xavier_normal, (_real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def kaiming_uniform_(
    tensor: Array,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str | Callable[[Any], Any] = "leaky_relu",
    generator: Any = None,
    *,
    seed: Any = None,
) -> Array:
    """Fill with uniform values on +-gain * sqrt(3 / fan), as `KaimingUniform` does.

    A tensor without elements gives a UserWarning, as in torch, and is returned unchanged.

    Examples
    --------
    >>> bool(abs(ni.kaiming_uniform_(np.empty((2, 6)), nonlinearity="relu", seed=0)).max() <= 1)
    True
    """
    return _kaiming(_kaiming_uniform, tensor, a, mode, nonlinearity, generator, seed)  # type: ignore[no-any-return]


def kaiming_normal_(
    tensor: Array,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str | Callable[[Any], Any] = "leaky_relu",
    generator: Any = None,
    *,
    seed: Any = None,
) -> Array:
    """Fill with normal values of std gain / sqrt(fan), as `KaimingNormal` does.

    A tensor without elements gives a UserWarning, as in torch, and is returned unchanged.

    Examples
    --------
    >>> round(float(ni.kaiming_normal_(np.empty((99, 50)), nonlinearity="relu", seed=0).std()), 1)
    0.2
    """
    return _kaiming(_kaiming_normal, tensor, a, mode, nonlinearity, generator, seed)  # type: ignore[no-any-return]


def _kaiming(
    make: _Make, tensor: Any, a: Any, mode: Any, nonlinearity: Any, generator: Any, seed: Any
) -> Any:
    try:
        framework = framework_of(tensor)
        empty = 0 in (tensor.shape if hasattr(tensor, "shape") else framework.memory(tensor)[2])
    except (TypeError, ValueError) as error:
        raise _torchs(error) from None
    if empty:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return tensor
    if isinstance(mode, str):
        mode = mode.lower()
    hashed = isinstance(mode, str) and isinstance(a, int | float | None)
    if not (hashed and isinstance(nonlinearity, str)):
        make = inspect.unwrap(make)  # a callable may have no hash, and may change between calls
    return _fill(tensor, make, (a, mode, nonlinearity), generator, seed)


_SHARED = """
Parameters
----------
tensor : numpy.ndarray, torch.Tensor or an array on a GPU
    The array to fill, writable. Its dtype is one of `numinit.stream.dtypes.DTYPES`.
sparsity, std : float
    The fraction of zeros (``ceil(sparsity * rows)`` in a column), and the std of the others.
mean, std : float
    The mean and the standard deviation.
a, b : float
    The lower and the upper bound.
val : float or complex
    The value of every element. A complex number needs a complex tensor.
groups : int
    The number of groups of output channels. Each group copies the inputs.
gain : float
    A factor of all values; see `calculate_gain`.
a, mode, nonlinearity : float, {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}, str or callable
    The negative slope of leaky_relu, the fan, and the activation; see `KaimingNormal`.
generator, seed : int, Key, Generator or None
    Two names of one argument; see `numinit.weights.keys.as_key`.

Returns
-------
array
    The tensor itself.

Raises
------
TypeError, ValueError
    If an argument, or the tensor's shape or dtype, is not accepted.
RuntimeError
    If std < 0, a > b, or a number does not fit the dtype, as in torch.
"""


def _add_shared(function: Callable[..., Any]) -> None:
    """Insert the part of `_SHARED` that concerns a function before the example of its docstring."""
    named = inspect.signature(function).parameters.keys()
    entry = re.compile(r"^(\S.*) : .*\n( .*\n)+", re.MULTILINE)
    shared = entry.sub(lambda e: e[0] if named >= {*e[1].split(", ")} else "", _SHARED)
    text = inspect.cleandoc(function.__doc__ or "")  # without docstrings, under python -OO
    function.__doc__ = text.replace("\nExamples\n", f"{shared}\nExamples\n")


for _function in (
    *(uniform_, normal_, trunc_normal_, orthogonal_, sparse_, constant_, ones_, zeros_, eye_),
    *(dirac_, xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_),
):
    _add_shared(_function)
