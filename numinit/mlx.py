"""MLX's initializers by their own names: MLX's distributions, not MLX's numbers.

One import changes::

    import numinit.mlx as init  # instead of: from mlx.nn import init

    weight = init.he_normal()(mx.zeros((64, 32)))  # (out, in), as MLX's layers have it

The functions have the names, arguments, defaults and axes, (out, *kernel, in), of `mlx.nn.init`, and
one argument more, `seed`: an integer, a `numinit.Key` or a `numinit.Generator`. Without it, the seed
is drawn from MLX's own state, so that `mx.random.seed` governs. With an integer, arrays of one shape
get equal values. Give each a name instead::

    from mlx.utils import tree_map_with_path

    key = ni.Key(0)
    weights = tree_map_with_path(
        lambda name, w: init.he_normal(seed=key.fold_in(name))(w) if w.ndim > 1 else w,
        model.parameters(),
    )
    model.update(weights)

`constant` and `identity`, whose values are given, are MLX's own. Where the others differ from MLX,
on purpose:

================================= ========================= ======================================
call                              MLX                       here
================================= ========================= ======================================
``mode`` of ``he_*``              fan_in, fan_out           also fan_avg, fan_geo_avg
negative ``std``, ``low > high``  some values               ``ValueError``
``sparsity`` outside of [0, 1]    some values               ``ValueError``
16-bit values                     drawn in 16 bits          the float32 values, rounded once
``mx.compile`` with the inputs    a draw each time          MLX's ``ValueError`` without `seed`
``mx.random.state``
================================= ========================= ======================================

MLX's own tests of its initializers pass with these functions in the place of MLX's.

Examples
--------
>>> import mlx.core as mx
>>> import numinit.mlx as init
>>> init.he_normal(seed=0)(mx.zeros((64, 32))).shape
(64, 32)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

try:
    import mlx.core as mx
    from mlx.nn import init as _mlx
except ImportError as error:
    raise ModuleNotFoundError(
        "numinit.mlx needs MLX: pip install 'numinit[mlx]', and on Linux 'mlx[cpu]' or 'mlx[cuda]' "
        f"({error})",
        name="mlx",
    ) from None

import numinit.initializers as base
from numinit.engines.spec import Plan, Sampled
from numinit.stream.dtypes import DType
from numinit.weights.keys import Key

constant = _mlx.constant
identity = _mlx.identity

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


def normal(
    mean: float = 0.0, std: float = 1.0, dtype: Any = mx.float32, *, seed: Any = None
) -> Callable[[Any], Any]:
    """Normal; see ``mlx.nn.init.normal``."""
    return lambda a: _made(base.Normal(mean, std), a, dtype, seed)


def uniform(
    low: float = 0.0, high: float = 1.0, dtype: Any = mx.float32, *, seed: Any = None
) -> Callable[[Any], Any]:
    """Uniform on [low, high); see ``mlx.nn.init.uniform``."""
    return lambda a: _made(base.Uniform(low, high), a, dtype, seed)


def glorot_normal(dtype: Any = mx.float32, *, seed: Any = None) -> Callable[..., Any]:
    """Normal, variance gain**2 / fan_avg; see ``mlx.nn.init.glorot_normal``."""
    return lambda a, gain=1.0: _scaled("normal", "fan_avg", gain, a, dtype, seed)


def glorot_uniform(dtype: Any = mx.float32, *, seed: Any = None) -> Callable[..., Any]:
    """Uniform, variance gain**2 / fan_avg; see ``mlx.nn.init.glorot_uniform``."""
    return lambda a, gain=1.0: _scaled("uniform", "fan_avg", gain, a, dtype, seed)


def he_normal(dtype: Any = mx.float32, *, seed: Any = None) -> Callable[..., Any]:
    """Normal, variance gain**2 / fan; see ``mlx.nn.init.he_normal``."""
    return lambda a, mode="fan_in", gain=1.0: _scaled("normal", mode, gain, a, dtype, seed)


def he_uniform(dtype: Any = mx.float32, *, seed: Any = None) -> Callable[..., Any]:
    """Uniform, variance gain**2 / fan; see ``mlx.nn.init.he_uniform``."""
    return lambda a, mode="fan_in", gain=1.0: _scaled("uniform", mode, gain, a, dtype, seed)


def sparse(
    sparsity: float,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = mx.float32,
    *,
    seed: Any = None,
) -> Callable[[Any], Any]:
    """Normal, with zeros in each row of a matrix; see ``mlx.nn.init.sparse``."""

    def initializer(a: Any) -> Any:
        _refuse_rank(a, 2, 2)
        # numinit.Sparse has the zeros in columns, as torch.
        turned = tuple(reversed(a.shape))
        return _made(_Sparse(sparsity, std, mean), a, dtype, seed, turned).T

    return initializer


def orthogonal(
    gain: float = 1.0, dtype: Any = mx.float32, *, seed: Any = None
) -> Callable[[Any], Any]:
    """Orthonormal rows or columns; see ``mlx.nn.init.orthogonal``."""

    def initializer(a: Any) -> Any:
        _refuse_rank(a, 2, 2)
        return _made(base.Orthogonal(gain), a, dtype, seed)

    return initializer


@dataclasses.dataclass(frozen=True)
class _Sparse(base.Sparse):
    mean: float = 0.0

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        plan = super().plan(shape, dtype)
        assert isinstance(plan, Sampled)
        return dataclasses.replace(plan, distribution=base.Normal(self.mean, self.std))


def _scaled(
    distribution: Literal["normal", "uniform"],
    mode: Mode,
    gain: float,
    a: Any,
    dtype: Any,
    seed: Any,
) -> Any:
    _refuse_rank(a, 2)
    init = base.VarianceScaling(gain * gain, mode, distribution, in_axis=-1, out_axis=0)
    return _made(init, a, dtype, seed)


def _made(
    init: base.Initializer, a: Any, dtype: Any, seed: Any, shape: tuple[int, ...] | None = None
) -> Any:
    key = _drawn() if seed is None else seed
    name = str(dtype).rpartition(".")[2]  # "mlx.core.float32"
    made = init(a.shape if shape is None else shape, name, seed=key)
    if name == "bfloat16":  # older MLX does not take it from NumPy
        return mx.array(made.view("uint16")).view(dtype)
    return mx.array(made, dtype=dtype)


def _drawn() -> Key:
    """A key from MLX's own random state, which advances."""
    low, high = mx.random.randint(-(2**31), 2**31 - 1, (2,)).tolist()
    return Key((high % 2**32) << 32 | low % 2**32)


def _refuse_rank(a: Any, least: int, most: int | None = None) -> None:
    if a.ndim < least or (most is not None and a.ndim > most):
        more = "" if most == least else " or more"
        raise ValueError(f"a: a {a.ndim}D array was given; {least}D{more} is accepted")
