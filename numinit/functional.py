"""The functions of torch.nn.init: in place, with torch's names, signatures and exceptions.

Each fills a NumPy array or a torch tensor and returns it. ``generator`` and ``seed`` are two
spellings of one argument; see `numinit.keys.as_key` for what it takes.
"""

import functools
import warnings
from typing import Any, TypeVar

from numinit.arrays import adapter_of
from numinit.initializers import (
    Constant,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    Normal,
    Uniform,
    XavierNormal,
    XavierUniform,
)

Array = TypeVar("Array")

_made = functools.lru_cache(1024, typed=True)(lambda kind, *fields: kind(*fields))


def _fill(tensor: Any, initializer: Initializer, generator: Any, seed: Any) -> Any:
    if generator is not None:
        if seed is not None:
            raise TypeError("generator, seed: both were given; they are two names of one argument")
        seed = generator
    return initializer.fill_(tensor, seed=seed)


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
    if not a <= b:
        raise RuntimeError(f"uniform_ expects to return a [a, b) range, but found a={a} > b={b}")
    try:
        initializer = _made(Uniform, a, b)
    except ValueError as error:
        raise RuntimeError(f"uniform_: {error}") from None
    return _fill(tensor, initializer, generator, seed)  # type: ignore[no-any-return]


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
    if not std >= 0:
        raise RuntimeError(f"normal_ expects std >= 0.0, but found std {std}")
    return _fill(tensor, _made(Normal, mean, std), generator, seed)  # type: ignore[no-any-return]


def constant_(tensor: Array, val: float) -> Array:
    """Fill with the value `val`."""
    return _fill(tensor, Constant(val), None, None)  # type: ignore[no-any-return]


def ones_(tensor: Array) -> Array:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Array) -> Array:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def xavier_uniform_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with values uniform on +-gain * sqrt(6 / (fan_in + fan_out)); see `XavierUniform`.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions.
    """
    return _fill(tensor, _made(XavierUniform, gain), generator, seed)  # type: ignore[no-any-return]


def xavier_normal_(
    tensor: Array, gain: float = 1.0, generator: Any = None, *, seed: Any = None
) -> Array:
    """Fill with normal values, std = gain * sqrt(2 / (fan_in + fan_out)); see `XavierNormal`.

    Raises
    ------
    ValueError
        For fewer than 2 dimensions.
    """
    return _fill(tensor, _made(XavierNormal, gain), generator, seed)  # type: ignore[no-any-return]


def kaiming_uniform_(
    tensor: Array,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
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
    return _kaiming(KaimingUniform, tensor, a, mode, nonlinearity, generator, seed)  # type: ignore[no-any-return]


def kaiming_normal_(
    tensor: Array,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
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
    return _kaiming(KaimingNormal, tensor, a, mode, nonlinearity, generator, seed)  # type: ignore[no-any-return]


def _kaiming(
    kind: type, tensor: Any, a: Any, mode: Any, nonlinearity: Any, generator: Any, seed: Any
) -> Any:
    if 0 in getattr(tensor, "shape", ()):
        adapter_of(type(tensor))  # type: ignore[arg-type]
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return tensor
    return _fill(tensor, _made(kind, a, mode, nonlinearity), generator, seed)
