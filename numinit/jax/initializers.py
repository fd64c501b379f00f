"""The names of ``jax.nn.initializers``, with its arguments, defaults and axes; see `numinit.jax`.

The values have the distributions of JAX's, and are other numbers. What a function here returns is
hashable, and equal to what it returns for equal numbers: modules that hold one as a static field
are equal, and jitted functions of them are not compiled again. With an array as a parameter it is
equal to itself alone, as JAX's functions are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from numinit.initializers import (
    Constant,
    DeltaOrthogonal,
    Normal,
    Orthogonal,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
)
from numinit.initializers.base import Initializer as Values
from numinit.initializers.distributions import real
from numinit.jax.arrays import alone, as_sharding, placed, resolved
from numinit.jax.keys import key_words, of_words
from numinit.jax.traced import drawn
from numinit.show import show
from numinit.stream.dtypes import RangeError
from numinit.weights.shapes import as_axes, as_shape

__all__ = [
    "Initializer",
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Axes = int | Sequence[int]

Initializer = jax.nn.initializers.Initializer
zeros = jax.nn.initializers.zeros
ones = jax.nn.initializers.ones

OWN: Any = ...  # a dtype argument: the initializer's own


class Array:
    """An array as an argument, perhaps traced. It equals itself alone, because arrays have no hash.

    It is no dataclass, because Flax looks into those, and would iterate over the array.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Function:
    """An initializer as JAX calls it: a function of a key, a shape, a dtype and a sharding.

    Attributes
    ----------
    name : str
        The distribution, for errors.
    values : numinit.Initializer
        What makes them, but for the factor.
    dtype : dtype or None
        For calls without one; None is JAX's default.
    factor : Array or None
        A factor of the values.
    axes : tuple of int
        The axes that a shape must have.

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> init = initializers.he_normal()
    >>> init(jax.random.key(0), (32, 64)).shape, init == initializers.he_normal()
    ((32, 64), True)
    """

    name: str
    values: Values
    dtype: Any = None
    factor: Array | None = None
    axes: tuple[int, ...] = ()

    def __call__(
        self, key: Any, shape: Any, dtype: Any = OWN, out_sharding: Any = None
    ) -> jax.Array:
        """Make an array.

        Parameters
        ----------
        key : jax.Array
            One key, typed or of uint32.
        shape : sequence of int
        dtype : dtype, optional
            None is JAX's default, float32 or with x64 float64. float64 without x64 is float32.
        out_sharding : NamedSharding or PartitionSpec, optional
            Each device makes its own shard. A PartitionSpec needs a mesh by ``jax.set_mesh``.

        Returns
        -------
        jax.Array

        Raises
        ------
        TypeError, ValueError, IndexError
            If an argument is none of these, or the shape does not fit the initializer.
        NotImplementedError
            If orthogonal matrices are asked for with a sharding; `numinit.jax.make_array` makes them.
        """
        kind = self._kind(self.dtype if dtype is OWN else dtype)
        shape = self._shape(shape)
        words = key_words(key)
        traced = isinstance(words, jax.core.Tracer)
        sharding = None if out_sharding is None else self._sharding(out_sharding, traced)
        if traced:
            made = drawn(self.values, words, shape, kind, sharding)
        elif sharding is None:
            made = alone(self.values, of_words(np.asarray(words)), shape, kind, words)
        else:
            made = placed(self.values, of_words(np.asarray(words)), shape, kind, sharding)
        return made if self.factor is None else made * jnp.asarray(self.factor.value, kind)

    @property
    def initializer(self) -> Values:
        """The same of numinit; the parameters must be numbers."""
        if self.factor is not None:
            raise TypeError(
                f"initializer: {self.name} with the parameter {show(self.factor)} was given; one with "
                "numbers as parameters is accepted"
            )
        return self.values

    def _kind(self, dtype: Any) -> np.dtype:
        kind = resolved(dtype)
        real = self.name in ("uniform", "truncated_normal")
        if jnp.issubdtype(kind, np.floating) or (
            jnp.issubdtype(kind, np.complexfloating) and not real
        ):
            return kind
        accepted = "float" if real else "float or complex"
        raise ValueError(f"dtype argument to `{self.name}` must be a {accepted} dtype, got {kind}")

    def _shape(self, shape: Any) -> tuple[int, ...]:
        found = as_shape(shape)
        rank = len(found)
        if self.axes[:1] == (-2,) and rank < 2 and self.name == "variance_scaling":
            raise ValueError(
                f"Can't compute input and output sizes of a {rank}-dimensional weights tensor with "
                "default in_axis. Must be at least 2D or specify in_axis explicitly."
            )
        if self.name == "orthogonal" and rank < 2:
            raise ValueError("orthogonal initializer requires at least a 2D shape")
        for axis in self.axes:
            if not -rank <= axis < rank:
                raise IndexError(f"axis {axis} is out of range for shape {found}")
        return found

    def _sharding(self, sharding: Any, traced: bool) -> Any:
        if isinstance(self.values, Orthogonal | DeltaOrthogonal):
            raise NotImplementedError(
                "out_sharding: orthogonal matrices are made as a whole; numinit.jax.make_array makes "
                "sharded ones"
            )
        spec = isinstance(sharding, jax.sharding.PartitionSpec)
        if not spec and not isinstance(sharding, jax.sharding.NamedSharding):
            raise TypeError(
                f"out_sharding: {show(sharding)} was given; a NamedSharding or a PartitionSpec is "
                "accepted"
            )
        if not spec or not traced:
            return as_sharding(sharding)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            raise ValueError(
                f"out_sharding: {sharding} was given without a mesh; a NamedSharding, or a mesh by "
                "jax.set_mesh, is accepted"
            )
        return jax.sharding.NamedSharding(mesh, sharding)


@dataclass(frozen=True)
class Filled:
    """An initializer of constants, as `Function`; JAX makes them, on the device.

    Attributes
    ----------
    value : number or Array
    dtype : dtype or None
        As those of `constant`.
    """

    value: Any
    dtype: Any = None

    def __call__(
        self, key: Any, shape: Any, dtype: Any = OWN, out_sharding: Any = None
    ) -> jax.Array:
        """Make an array; the key is ignored. See `Function`."""
        kind = self.dtype if dtype is OWN else dtype
        value = self.value.value if isinstance(self.value, Array) else self.value
        make = jax.nn.initializers.constant(value)
        made: jax.Array = make(key, shape, kind, out_sharding)
        return made

    @property
    def initializer(self) -> Values:
        """The same of numinit; the value must be a number."""
        return Constant(self.value)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer) or np.ndim(value) > 0


def _number(name: str, value: Any) -> tuple[float, Array | None]:
    """Return a parameter as a number, and the factor of the values that an array is."""
    if _is_array(value):
        return 1.0, Array(value)
    number = real(name, value)
    if not math.isfinite(number):
        raise RangeError(f"{name}: {number} was given; a finite number is accepted")
    return number, None


def constant(value: Any, dtype: Any = None) -> Filled:
    """Return an initializer of arrays full of a value.

    Parameters
    ----------
    value : array_like
        A number, or an array that broadcasts to the shape.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Filled

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> initializers.constant(-7)(jax.random.key(0), (2,)).tolist()
    [-7.0, -7.0]
    """
    if _is_array(value):
        return Filled(Array(value), dtype)
    return Filled(value.item() if isinstance(value, jax.Array | np.ndarray) else value, dtype)


def uniform(scale: Any = 1e-2, dtype: Any = None) -> Function:
    """Return an initializer that is uniform on [0, scale); see `numinit.Uniform`.

    Parameters
    ----------
    scale : float or array that broadcasts to the shape
        The upper bound; a negative one is the lower bound.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> bool(initializers.uniform(10.0)(jax.random.key(0), (100,)).max() < 10)
    True
    """
    number, factor = _number("scale", scale)
    return Function("uniform", Uniform(min(number, 0.0), max(number, 0.0)), dtype, factor)


def normal(stddev: Any = 1e-2, dtype: Any = None) -> Function:
    """Return an initializer that is normal with mean 0; see `numinit.Normal`.

    Parameters
    ----------
    stddev : float or array that broadcasts to the shape
        The standard deviation.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> round(float(initializers.normal(5.0)(jax.random.key(0), (1000, 1000)).std()), 2)
    5.0
    """
    number, factor = _number("stddev", stddev)
    return Function("normal", Normal(0.0, abs(number)), dtype, factor)


def truncated_normal(
    stddev: Any = 1e-2, dtype: Any = None, lower: Any = -2.0, upper: Any = 2.0
) -> Function:
    """Return an initializer of truncated normals; see `numinit.TruncatedNormal`.

    Parameters
    ----------
    stddev : float or array that broadcasts to the shape
        The standard deviation before truncation.
    dtype : dtype, optional
        The initializer's default dtype.
    lower, upper : float
        The bounds, in standard deviations.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> bool(abs(initializers.truncated_normal(5.0)(jax.random.key(0), (100,))).max() <= 10)
    True
    """
    number, factor = _number("stddev", stddev)
    low, high = real("lower", lower), real("upper", upper)
    if number < 0:  # the values change their signs
        low, high = -high, -low
    return Function("truncated_normal", TruncatedNormal(0.0, abs(number), low, high), dtype, factor)


def variance_scaling(
    scale: Any,
    mode: str,
    distribution: str,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: Any = None,
) -> Function:
    """Return an initializer whose variance follows from the shape; see `numinit.VarianceScaling`.

    Parameters
    ----------
    scale : float or array that broadcasts to the shape
        The variance is scale / n.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        What n is.
    distribution : {"truncated_normal", "normal", "uniform"}
        A normal is truncated at two standard deviations, and has its variance after that.
    in_axis, out_axis, batch_axis : int or sequence of int
        The axes of inputs, outputs, and independent weights; the others are the receptive field.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Function

    Raises
    ------
    ValueError
        If `mode` or `distribution` is unknown, or `scale` is negative.

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> init = initializers.variance_scaling(2.0, "fan_in", "normal")
    >>> round(float(init(jax.random.key(0), (200, 1000)).std()), 2)
    0.1
    """
    number, factor = _number("scale", scale)
    given = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    axes = {
        name: tuple(value) if isinstance(value, Iterable) else value
        for name, value in given.items()
    }
    init = VarianceScaling(number, mode, distribution, **axes)  # type: ignore[arg-type]
    flat = tuple(axis for name, value in given.items() for axis in as_axes(name, value))
    root = None if factor is None else Array(jnp.sqrt(jnp.asarray(factor.value)))
    return Function("variance_scaling", init, dtype, root, flat)


class Scaled(Protocol):
    """A function that is `variance_scaling` with a scale, a mode and a distribution."""

    def __call__(
        self, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
    ) -> Function: ...


def _scaled(name: str, whose: str, scale: float, mode: str, distribution: str) -> Scaled:
    """Return the function of a name; `whose` says in its docstring who found it."""

    def make(
        in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
    ) -> Function:
        return variance_scaling(scale, mode, distribution, in_axis, out_axis, batch_axis, dtype)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""Return {whose}: `variance_scaling` ({scale:g}, "{mode}", "{distribution}").

    Parameters
    ----------
    in_axis, out_axis, batch_axis, dtype
        See `variance_scaling`.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> round(float(initializers.{name}()(jax.random.key(0), ({100 * scale:g}, 100)).std()), 2)
    0.1
    """
    return make


glorot_uniform = xavier_uniform = _scaled(
    "glorot_uniform", "Glorot's and Bengio's uniform", 1.0, "fan_avg", "uniform"
)
glorot_normal = xavier_normal = _scaled(
    "glorot_normal", "Glorot's and Bengio's normal", 1.0, "fan_avg", "truncated_normal"
)
lecun_uniform = _scaled("lecun_uniform", "LeCun's uniform", 1.0, "fan_in", "uniform")
lecun_normal = _scaled("lecun_normal", "LeCun's normal", 1.0, "fan_in", "truncated_normal")
he_uniform = kaiming_uniform = _scaled("he_uniform", "He's uniform", 2.0, "fan_in", "uniform")
he_normal = kaiming_normal = _scaled("he_normal", "He's normal", 2.0, "fan_in", "truncated_normal")


def orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = None) -> Function:
    """Return an initializer of orthogonal matrices; see `numinit.Orthogonal`.

    Parameters
    ----------
    scale : float or array that broadcasts to the shape
        A factor of the values.
    column_axis : int
        The axis of the columns; the other axes are flattened to the rows.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> w = initializers.orthogonal()(jax.random.key(0), (4, 2))
    >>> bool(np.allclose(w.T @ w, np.eye(2), atol=1e-5))
    True
    """
    number, factor = _number("scale", scale)
    init = Orthogonal(number, out_axis=column_axis)
    return Function("orthogonal", init, dtype, factor, (column_axis,))


def delta_orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = None) -> Function:
    """Return an initializer of convolutions that keep norms; see `numinit.DeltaOrthogonal`.

    Parameters
    ----------
    scale : float or array that broadcasts to the shape
        A factor of the values.
    column_axis : int
        An axis of the matrix in the centre, (in, out). Either gives the same distribution.
    dtype : dtype, optional
        The initializer's default dtype.

    Returns
    -------
    Function

    Examples
    --------
    >>> import jax
    >>> from numinit.jax import initializers
    >>> w = initializers.delta_orthogonal()(jax.random.key(0), (3, 2, 4))
    >>> bool(np.allclose(w[1] @ w[1].T, np.eye(2), atol=1e-5)), int(np.count_nonzero(w[::2]))
    (True, 0)
    """
    if not -2 <= column_axis < 2:
        raise IndexError(f"column_axis: {show(column_axis)} was given; -2 to 1 are accepted")
    number, factor = _number("scale", scale)
    init = DeltaOrthogonal(number, in_axis=-2, out_axis=-1)
    return Function("delta_orthogonal", init, dtype, factor)
