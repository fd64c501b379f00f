"""The functions of torch.nn.init: in place, with torch's names, signatures and exceptions.

Each fills a NumPy array or a torch tensor and returns it. ``generator`` and ``seed`` are two
spellings of one argument; see `numinit.weights.keys.as_key` for what it takes.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from numinit.arrays.frameworks import framework_of
from numinit.initializers import (
    Constant,
    Dirac,
    Eye,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    Normal,
    Orthogonal,
    Sparse,
    TruncNormal,
    Uniform,
    XavierNormal,
    XavierUniform,
)
from numinit.initializers.distributions import real
from numinit.stream.dtypes import RangeError
from numinit.weights.fans import fans

Array = TypeVar("Array")

# Cached, for the initializer of a small tensor takes longer to make than its values.
_cached = functools.lru_cache(256, typed=True)  # typed: True is no slope, 1 is
_uniform, _normal = _cached(Uniform), _cached(Normal)
_orthogonal = _cached(Orthogonal)
_trunc_normal, _sparse = _cached(TruncNormal), _cached(Sparse)
_xavier_uniform, _xavier_normal = _cached(XavierUniform), _cached(XavierNormal)
_kaiming_uniform, _kaiming_normal = _cached(KaimingUniform), _cached(KaimingNormal)


def _fill(
    tensor: Any,
    make: Callable[..., Initializer],
    fields: tuple[Any, ...],
    generator: Any,
    seed: Any,
) -> Any:
    if generator is not None:
        if seed is not None:
            raise TypeError("generator, seed: both were given; they are two names of one argument")
        seed = generator
    try:
        return make(*fields).fill_(tensor, seed=seed)
    except (TypeError, ValueError) as error:
        raise _torchs(error, generator is not None) from None


#: What messages begin with the names of -> torch's name of it.
_NAMES = {
    "array": "tensor",
    "shape": "tensor",
    "dtype": "tensor",
    "low": "a",
    "high": "b",
    "value": "val",
}


def _torchs(error: Exception, generator: bool = False) -> Exception:
    """The error with the names of this module's arguments, and of torch's type."""
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
    """Fill with values uniform on [a, b).

    Parameters
    ----------
    tensor : numpy.ndarray or torch.Tensor
    a, b : float
        Bounds; `b` is never returned, in any dtype.
    generator, seed : int, Key, Generator or None

    Raises
    ------
    RuntimeError
        If a > b or the interval is too wide for the dtype, as torch does.
    """
    return _fill(tensor, _uniform, (real("a", a), real("b", b)), generator, seed)  # type: ignore[no-any-return]


def normal_(
    tensor: Array, mean: float = 0.0, std: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with normal values.

    Parameters
    ----------
    tensor : numpy.ndarray or torch.Tensor
    mean, std : float
    generator, seed : int, Key, Generator or None

    Raises
    ------
    RuntimeError
        If std is negative, as torch does.
    """
    fields = real("mean", mean), real("std", std)
    return _fill(tensor, _normal, fields, generator, seed)  # type: ignore[no-any-return]


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
    """Fill with normal values truncated to [a, b]; see `TruncNormal`.

    Parameters
    ----------
    tensor : numpy.ndarray or torch.Tensor
    mean, std : float
        Of the whole normal.
    a, b : float
        Absolute bounds, never exceeded, in any dtype.
    generator, seed : int, Key, Generator or None

    Warns
    -----
    UserWarning
        If the mean is more than 2 std outside of the bounds, as torch does.

    Raises
    ------
    RuntimeError
        If std is negative or a > b, as torch does, or no number of the dtype lies in [a, b].
    """
    fields = real("mean", mean), real("std", std), real("a", a), real("b", b)
    mean, std, a, b = fields
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"mean is more than 2 std from [a, b] in trunc_normal_: mean {mean}, std {std}, "
            f"[{a}, {b}]. The values follow the far tail exactly; is that what was meant?",
            stacklevel=2,
        )
    return _fill(tensor, _trunc_normal, fields, generator, seed)  # type: ignore[no-any-return]


def orthogonal_(
    tensor: Array, gain: float = 1, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with a (semi-)orthogonal matrix of the first axis and the others; see `Orthogonal`.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions.
    """
    return _fill(tensor, _orthogonal, (real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def sparse_(
    tensor: Array, sparsity: float, std: float = 0.01, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill a matrix with normal values and ``ceil(sparsity * rows)`` zeros a column; see `Sparse`.

    Raises
    ------
    ValueError
        If the tensor is no matrix, or sparsity is not from 0 to 1.
    RuntimeError
        If std is negative, as torch does.
    """
    fields = real("sparsity", sparsity), real("std", std)
    return _fill(tensor, _sparse, fields, generator, seed)  # type: ignore[no-any-return]


def constant_(tensor: Array, val: float) -> Array:
    """Fill with the value `val`.

    Raises
    ------
    RuntimeError
        If a finite `val` is beyond the largest number of the dtype, as torch does.
    """
    return _fill(tensor, Constant, (real("val", val),), None, None)  # type: ignore[no-any-return]


def ones_(tensor: Array) -> Array:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Array) -> Array:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Array) -> Array:
    """Fill a matrix with the identity; see `Eye`.

    Raises
    ------
    ValueError
        For other than 2 dimensions.
    """
    return _fill(tensor, Eye, (), None, None)  # type: ignore[no-any-return]


def dirac_(tensor: Array, groups: int = 1) -> Array:
    """Fill with the identity of a convolution; see `Dirac`.

    Parameters
    ----------
    tensor : numpy.ndarray or torch.Tensor
        (out, in, *kernel).
    groups : int, optional
        Each of that many groups of outputs has the identity.

    Raises
    ------
    ValueError
        For other than 3 to 5 dimensions, or if `groups` does not divide the first.
    """
    return _fill(tensor, Dirac, (groups,), None, None)  # type: ignore[no-any-return]


def xavier_uniform_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with values uniform on +-gain * sqrt(6 / (fan_in + fan_out)); see `XavierUniform`.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions.
    """
    return _fill(tensor, _xavier_uniform, (real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def xavier_normal_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with normal values, std = gain * sqrt(2 / (fan_in + fan_out)); see `XavierNormal`.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions.
    """
    return _fill(tensor, _xavier_normal, (real("gain", gain),), generator, seed)  # type: ignore[no-any-return]


def kaiming_uniform_(
    tensor: Array,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str | Callable[[Any], Any] = "leaky_relu",
    generator: Any = None,
    *,
    seed: Any = None,
) -> Array:
    """Fill with values uniform on +-gain * sqrt(3 / fan); see `KaimingUniform`.

    Warns
    -----
    UserWarning
        For a tensor without elements, which is returned as it is.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions, an unknown mode or nonlinearity.
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
    """Fill with normal values, std = gain / sqrt(fan); see `KaimingNormal`.

    Warns
    -----
    UserWarning
        For a tensor without elements, which is returned as it is.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions, an unknown mode or nonlinearity.
    """
    return _kaiming(_kaiming_normal, tensor, a, mode, nonlinearity, generator, seed)  # type: ignore[no-any-return]


_SLOPES = (int, float, type(None))  # that have a hash


def _kaiming(
    make: Callable[..., Initializer],
    tensor: Any,
    a: Any,
    mode: Any,
    nonlinearity: Any,
    generator: Any,
    seed: Any,
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
    hashed = isinstance(mode, str) and isinstance(a, _SLOPES)
    if not (hashed and isinstance(nonlinearity, str)):
        make = inspect.unwrap(make)  # a callable may have no hash, and change between calls
    return _fill(tensor, make, (a, mode, nonlinearity), generator, seed)


def _calculate_fan_in_and_fan_out(tensor: Any) -> tuple[int, int]:
    """The fans of a tensor in torch's layout: a name that programs for torch use; see `fans`."""
    fan_in, fan_out = fans(tensor.shape)
    return int(fan_in), int(fan_out)


def _calculate_correct_fan(tensor: Any, mode: str) -> int:
    """The fan that `mode`, fan_in or fan_out in any case, selects, as torch's function."""
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]
