"""Keras' initializers by their own names: Keras' distributions, not Keras' numbers.

One import changes::

    import numinit.keras as initializers  # instead of: from keras import initializers

    layer = keras.layers.Dense(64, kernel_initializer=initializers.HeNormal(seed=0))

The classes have Keras' names, arguments, defaults, errors and axes. They are subclasses of Keras'
own, so that layers which look at the class (EinsumDense and the attention layers turn the axes of a
`VarianceScaling`) treat them alike. A saved model loads in a program that has imported this module.
`Constant`, `Identity`, `Ones` and `Zeros`, whose values are given, are Keras' own classes.

For Keras' strings, and so for the defaults of all layers, this module's classes are registered by
Keras' own means, for a while or for the process::

    with keras.saving.custom_object_scope(numinit.keras.NAMES):
        model = keras.Sequential([keras.layers.Dense(64, kernel_initializer="he_normal")])
    keras.saving.get_custom_objects().update(numinit.keras.NAMES)

**Seeds** are Keras': an integer, a `keras.random.SeedGenerator` or None, for which
`keras.utils.set_random_seed` governs. The values of an integer are those of ``ni.Key(seed)``. Use n
of a SeedGenerator draws from ``ni.Key(seed).fold_in(n)``, as with `numinit.Generator`. With an
integer, equal layers get equal values, in Keras as well. Give each layer a name instead::

    key = ni.Key(0)
    for n in range(12):
        init = initializers.HeNormal(seed=key.fold_in(f"block.{n}.kernel").seed)

**The same bits** come out on the backends torch, JAX and TensorFlow, and in NumPy by ``init.numinit``,
the initializer of `numinit` that makes them. On JAX the values are made as `numinit.jax` makes them: with a
layout, each device gets its own shard and nothing else is made, but for `Orthogonal` and
`DeltaOrthogonal`; on NVIDIA GPUs it is made there, by the extras cuda12 and cuda13, as torch tensors
on a GPU are. While JAX or TensorFlow trace a function, a callback makes the values when it runs.

Where it differs from Keras, on purpose:

======================================= ================================= =====================
call                                    Keras                             here
======================================= ================================= =====================
the numbers for a seed                  differ between backends           the same on all
truncated normal values                 up to 2.8 stddev on torch, and    within 2 stddev, in
                                        2 rounded up on TensorFlow        any type
``Orthogonal`` in 16 bits               an error on torch and JAX         rounded from float32
a seed below 0 or beyond 2**32          an error, modulo 2**32, or        modulo 2**64
                                        another, by backend
``stddev < 0``, ``minval > maxval``     some values, or an error          ``ValueError``
a ``stddev`` beyond the type's range    infinities                        ``ValueError``
``STFT`` of 512 x 257, float32          off by up to 1e-4                 rounded once
a drawn type that is no float           values on some backends           ``TypeError``
======================================= ================================= =====================

Keras' own tests of its initializers pass with these classes in the place of Keras'.

Numinit's own initializers are here under their own names, of which Keras' strings are the likes of
"kaiming_normal", with the axes of Keras as defaults and the argument `seed`: `KaimingNormal`,
`KaimingUniform`, `XavierNormal`, `XavierUniform`, `EmbeddingUniform`, `TruncNormal`, `Sparse`,
`Eye`, `Dirac`, `Bilinear`, `DeltaOrthogonal`, and `DepthScaled`, `MuP`, `Padded` around another one
of this module. (An array is an initializer in Keras already, so that `numinit.Assign` is not
needed.)

Examples
--------
>>> import numinit.keras
>>> init = numinit.keras.HeNormal(seed=0)
>>> tuple(init((3, 3, 16, 32)).shape)
(3, 3, 16, 32)
>>> init.numinit((3, 3, 16, 32), seed=0).dtype
dtype('float32')
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import keras
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "numinit.keras needs Keras 3 and a backend of Keras: pip install 'numinit[keras]' torch, or "
        f"jax or tensorflow in its place, which KERAS_BACKEND names ({error})",
        name="keras",
    ) from None

if not hasattr(keras.initializers, "STFT"):
    raise ImportError(
        f"numinit.keras needs Keras 3.8 or newer: pip install 'numinit[keras]' ({keras.__version__} "
        "is installed)"
    )

import numinit.initializers as base
from numinit.engines.spec import Plan, Sampled, Whole
from numinit.initializers.variance_scaling import Spread
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType, as_dtype
from numinit.weights.fans import fan, fans
from numinit.weights.keys import Key
from numinit.weights.shapes import as_shape

Constant = keras.initializers.Constant
Identity = keras.initializers.Identity
Initializer = keras.initializers.Initializer
Ones = keras.initializers.Ones
Zeros = keras.initializers.Zeros
deserialize = keras.initializers.deserialize
serialize = keras.initializers.serialize

_serializable = keras.saving.register_keras_serializable("numinit")


class _Made(keras.initializers.Initializer):
    """A Keras initializer whose values `numinit` makes, an initializer of numinit."""

    seed: Any = None

    @property
    def numinit(self) -> base.Initializer:
        """The initializer of numinit that makes the values."""
        raise NotImplementedError

    def __call__(self, shape: Any, dtype: Any = None, layout: Any = None) -> Any:
        """Make a tensor of the backend.

        Parameters
        ----------
        shape : sequence of int
        dtype : str, optional
            None: ``keras.config.floatx()``.
        layout : keras.distribution.TensorLayout or a layout of the backend, optional
            Where the values are wanted.

        Returns
        -------
        tensor

        Raises
        ------
        TypeError, ValueError
            If numinit does not have the type, or the initializer does not fit the shape.
        """
        name = keras.backend.standardize_dtype(dtype)
        as_dtype(name)  # its error names those that are accepted
        backend = keras.backend.backend()
        wanted = self.numinit, as_shape(shape), name, _drawn(self.seed)
        if backend == "jax":
            return _new_in_jax(*wanted, layout)
        new: _New = _BACKENDS.get(backend, _new_elsewhere)
        made = new(*wanted)
        return made if layout is None else keras.distribution.distribute_tensor(made, layout)


# Seeds.


def _drawn(seed: Any) -> Any:
    """A Key, or the state of a SeedGenerator, which may be known only when a traced function runs."""
    if seed is None:  # of values that are not drawn
        return Key(0)
    if isinstance(seed, keras.random.SeedGenerator):
        return seed.next()
    return Key(seed & (2**64 - 1))  # Keras takes negative integers, too


def _key_of(drawn: Any) -> Key:
    if isinstance(drawn, Key):
        return drawn
    state = np.asarray(drawn)
    # The backends have the same 32 bits as signed and as unsigned numbers.
    seed, uses = state.view(f"u{state.itemsize}").tolist()
    return Key(seed).fold_in(uses)


# Backends: from an initializer of numinit to a tensor.

_New = Callable[[base.Initializer, tuple[int, ...], str, Any], Any]


def _new_in_torch(init: base.Initializer, shape: tuple[int, ...], dtype: str, drawn: Any) -> Any:
    import torch

    from numinit.arrays.numpy import NUMPY_NAMES

    key = _key_of(keras.ops.convert_to_numpy(drawn) if not isinstance(drawn, Key) else drawn)
    device = keras.ops.convert_to_tensor(0).device  # of `keras.device`
    if device.type == "meta":
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    if device.type == "cuda":
        try:
            made = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            return init.fill_(made, seed=key)
        except ImportError:  # no kernels for GPUs
            pass
    # Fresh memory of NumPy, which has huge pages, and of torch the types that NumPy lacks.
    array = init(shape, dtype, seed=key)
    if dtype in NUMPY_NAMES:
        return torch.from_numpy(array).to(device)
    bits = torch.from_numpy(array.view(f"u{array.itemsize}"))
    return bits.view(getattr(torch, dtype)).to(device)


def _new_in_jax(
    init: base.Initializer, shape: tuple[int, ...], dtype: str, drawn: Any, layout: Any
) -> Any:
    import jax
    import jax.numpy as jnp

    from numinit.jax import arrays, traced

    if isinstance(layout, keras.distribution.TensorLayout):
        layout = layout.backend_layout
    kind = arrays.resolved(dtype)  # float32 for float64, unless x64 is on
    sharding = None if layout is None else arrays.as_sharding(layout)
    known = jnp.zeros(()) if isinstance(drawn, Key) else drawn
    if not isinstance(known, jax.core.Tracer):
        if sharding is None:
            return arrays.alone(init, _key_of(drawn), shape, kind, known)
        return arrays.placed(init, _key_of(drawn), shape, kind, sharding)
    # The words of a key: the seed, the stream, and what is folded in.
    if isinstance(drawn, Key):
        words = jnp.array(
            [n >> s & 0xFFFFFFFF for n in (drawn.seed, drawn.stream) for s in (32, 0)], "uint32"
        )
    else:
        words = jnp.zeros(5, "uint32").at[jnp.array([1, 4])].set(drawn.astype("uint32"))
    if sharding is None or not isinstance(init.plan(shape, DTYPES[kind.name]), Whole):
        return traced.drawn(init, words, shape, kind, sharding)
    made = traced.drawn(init, words, shape, kind)
    return jax.lax.with_sharding_constraint(made, sharding)


def _new_in_tensorflow(
    init: base.Initializer, shape: tuple[int, ...], dtype: str, drawn: Any
) -> Any:
    import tensorflow as tf

    if tf.executing_eagerly():
        return tf.convert_to_tensor(init(shape, dtype, seed=_key_of(drawn)))

    def make(*drawn: Any) -> np.ndarray:
        made: np.ndarray = init(shape, dtype, seed=key or _key_of(drawn[0]))
        return made

    key = drawn if isinstance(drawn, Key) else None
    made = tf.numpy_function(make, [] if key else [drawn], tf.as_dtype(dtype))
    made.set_shape(shape)
    return made


def _new_elsewhere(init: base.Initializer, shape: tuple[int, ...], dtype: str, drawn: Any) -> Any:
    key = drawn if isinstance(drawn, Key) else _key_of(keras.ops.convert_to_numpy(drawn))
    return keras.ops.convert_to_tensor(init(shape, dtype, seed=key), dtype)


_BACKENDS: dict[str, _New] = {"tensorflow": _new_in_tensorflow, "torch": _new_in_torch}


# Keras' classes.


@_serializable
class RandomNormal(_Made, keras.initializers.RandomNormal):
    """Normal; see ``keras.initializers.RandomNormal``."""

    @property
    def numinit(self) -> base.Initializer:
        return base.Normal(self.mean, self.stddev)


@_serializable
class TruncatedNormal(_Made, keras.initializers.TruncatedNormal):
    """Normal within two standard deviations; see ``keras.initializers.TruncatedNormal``."""

    @property
    def numinit(self) -> base.Initializer:
        return base.TruncatedNormal(self.mean, self.stddev)


@_serializable
class RandomUniform(_Made, keras.initializers.RandomUniform):
    """Uniform on [minval, maxval); see ``keras.initializers.RandomUniform``."""

    @property
    def numinit(self) -> base.Initializer:
        return base.Uniform(self.minval, self.maxval)


@_serializable
class Orthogonal(_Made, keras.initializers.Orthogonal):
    """Orthonormal, all axes but the last flattened; see ``keras.initializers.Orthogonal``."""

    @property
    def numinit(self) -> base.Initializer:
        return base.Orthogonal(self.gain, out_axis=-1)


@_serializable
class STFT(_Made, keras.initializers.STFT):
    """The kernels of a Fourier transform; see ``keras.initializers.STFT``."""

    @property
    def numinit(self) -> base.Initializer:
        return base.STFT(self.side, self.window, self.scaling, self.periodic)


@dataclass(frozen=True)
class Scaling(base.Initializer):
    """The formula of Keras' `VarianceScaling`: its axes, and a fan of at least 1.

    Parameters
    ----------
    scale, mode, distribution, input_axes, output_axes
        See ``keras.initializers.VarianceScaling``.
    """

    scale: float
    mode: base.variance_scaling.Mode
    distribution: str
    input_axes: tuple[int, ...] | None = None
    output_axes: tuple[int, ...] | None = None

    @property
    def in_axis(self) -> int | tuple[int, ...]:
        """The axes of inputs, for `MuP`."""
        return -2 if self.input_axes is None or self.output_axes is None else self.input_axes

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        n = max(1.0, fan(self.mode, *self._fans(shape)))
        std = math.sqrt(self.scale) / math.sqrt(n)
        plain = self.distribution == "untruncated_normal"
        return Sampled(base.Normal(0.0, std) if plain else Spread(std, self.distribution))

    def _fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        if self.input_axes is not None and self.output_axes is not None:
            inputs, outputs = (
                math.prod(shape[axis] for axis in axes)
                for axes in (self.input_axes, self.output_axes)
            )
            return inputs, outputs
        if len(shape) < 2:
            return math.prod(shape), math.prod(shape)
        return fans(shape, in_axis=-2, out_axis=-1)


@_serializable
class VarianceScaling(_Made, keras.initializers.VarianceScaling):
    """Variance scale / fan; see ``keras.initializers.VarianceScaling``."""

    @property
    def numinit(self) -> base.Initializer:
        # Older Keras has no axes.
        axes = (getattr(self, name, None) for name in ("input_axes", "output_axes"))
        given = (None if axis is None else tuple(axis) for axis in axes)
        return Scaling(self.scale, self.mode, self.distribution, *given)


@_serializable
class GlorotNormal(VarianceScaling, keras.initializers.GlorotNormal):
    """Truncated normal, variance 1 / fan_avg; see ``keras.initializers.GlorotNormal``."""


@_serializable
class GlorotUniform(VarianceScaling, keras.initializers.GlorotUniform):
    """Uniform, variance 1 / fan_avg; see ``keras.initializers.GlorotUniform``."""


@_serializable
class HeNormal(VarianceScaling, keras.initializers.HeNormal):
    """Truncated normal, variance 2 / fan_in; see ``keras.initializers.HeNormal``."""


@_serializable
class HeUniform(VarianceScaling, keras.initializers.HeUniform):
    """Uniform, variance 2 / fan_in; see ``keras.initializers.HeUniform``."""


@_serializable
class LecunNormal(VarianceScaling, keras.initializers.LecunNormal):
    """Truncated normal, variance 1 / fan_in; see ``keras.initializers.LecunNormal``."""


@_serializable
class LecunUniform(VarianceScaling, keras.initializers.LecunUniform):
    """Uniform, variance 1 / fan_in; see ``keras.initializers.LecunUniform``."""


constant, identity, ones, zeros = Constant, Identity, Ones, Zeros
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, orthogonal, stft = VarianceScaling, Orthogonal, STFT
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform
IdentityInitializer, OrthogonalInitializer, STFTInitializer = Identity, Orthogonal, STFT


# Numinit's own classes.


class _Own(_Made):
    """The base of classes whose arguments are the fields of a class of numinit.

    A subclass names that class. The axes have Keras' defaults, and `seed` comes last.
    """

    _kind: type[base.Initializer]
    _made: base.Initializer

    def __init_subclass__(
        cls, kind: type[base.Initializer], seeded: bool = True, **axes: int
    ) -> None:
        given = inspect.signature(kind).parameters.values()
        parameters = [p.replace(default=axes.get(p.name, p.default)) for p in given]
        if seeded:
            named = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter("seed", named, default=None))
        signature = inspect.Signature(parameters)

        def __init__(self: _Own, *args: Any, **kwargs: Any) -> None:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{cls.__name__}: {error}") from None
            bound.apply_defaults()
            self._set(bound.arguments)

        # The function's, because a class has its signature in common with its instances, and Keras
        # looks at theirs for `layout`.
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        __init__.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
        cls._kind, cls.__init__ = kind, __init__  # type: ignore[assignment,method-assign]

    def _set(self, arguments: dict[str, Any]) -> None:
        self._fields = arguments
        if "init" in self._fields:
            self._fields["init"] = self.init = _inner(self._fields["init"])
            self.seed = self.init.seed
        if "seed" in self._fields:
            self._seeds = keras.initializers.RandomNormal(seed=self._fields.pop("seed"))
            self.seed = self._seeds.seed
        self._made = self._kind(
            **{
                name: value.numinit if isinstance(value, _Made) else value
                for name, value in self._fields.items()
            }
        )

    @property
    def numinit(self) -> base.Initializer:
        return self._made

    def get_config(self) -> dict[str, Any]:
        seed = {"seed": self._seeds.get_config()["seed"]} if hasattr(self, "_seeds") else {}
        return {
            name: serialize(value) if callable(value) else value
            for name, value in self._fields.items()
        } | seed


def _inner(init: Any) -> _Made:
    found = get(init)
    if not isinstance(found, _Made):
        raise TypeError(
            f"init: {show(init)} was given; an initializer of numinit.keras that draws is accepted, "
            "such as numinit.keras.RandomNormal(stddev=0.02)"
        )
    return found


@_serializable
class KaimingNormal(_Own, kind=base.KaimingNormal, in_axis=-2, out_axis=-1):
    """Normal, with an activation's gain; see `numinit.KaimingNormal`."""


@_serializable
class KaimingUniform(_Own, kind=base.KaimingUniform, in_axis=-2, out_axis=-1):
    """Uniform, with an activation's gain; see `numinit.KaimingUniform`."""


@_serializable
class XavierNormal(_Own, kind=base.XavierNormal, in_axis=-2, out_axis=-1):
    """Normal with a gain, not truncated as `GlorotNormal`; see `numinit.XavierNormal`."""


@_serializable
class XavierUniform(_Own, kind=base.XavierUniform, in_axis=-2, out_axis=-1):
    """Uniform with a gain; see `numinit.XavierUniform`."""


@_serializable
class EmbeddingUniform(_Own, kind=base.EmbeddingUniform):
    """Uniform on +-sqrt(1 / rows); see `numinit.EmbeddingUniform`."""


@_serializable
class TruncNormal(_Own, kind=base.TruncNormal):
    """Normal between absolute bounds; see `numinit.TruncNormal`."""


@_serializable
class Sparse(_Own, kind=base.Sparse):
    """Normal, with zeros in each column: in a Dense kernel, in each unit; see `numinit.Sparse`."""


@_serializable
class Eye(_Own, kind=base.Eye, seeded=False):
    """An identity, or a stack of them; see `numinit.Eye`."""


@_serializable
class Dirac(_Own, kind=base.Dirac, seeded=False, in_axis=-2, out_axis=-1):
    """The identity of a convolution; see `numinit.Dirac`."""


@_serializable
class Bilinear(_Own, kind=base.Bilinear, seeded=False, in_axis=-1, out_axis=-2):
    """Upsampling, for kernels of Conv2DTranspose; see `numinit.Bilinear`."""


@_serializable
class DeltaOrthogonal(_Own, kind=base.DeltaOrthogonal, in_axis=-2, out_axis=-1):
    """Convolutions that keep norms; see `numinit.DeltaOrthogonal`."""


@_serializable
class DepthScaled(_Own, kind=base.DepthScaled, seeded=False):
    """Another initializer's values divided by sqrt(2 layers); see `numinit.DepthScaled`."""


@_serializable
class MuP(_Own, kind=base.MuP, seeded=False):
    """Another initializer's values in another width; see `numinit.MuP`."""


@_serializable
class Padded(_Own, kind=base.Padded, seeded=False):
    """Another initializer's values with one row of zeros; see `numinit.Padded`."""


kaiming_normal, kaiming_uniform = KaimingNormal, KaimingUniform
xavier_normal, xavier_uniform = XavierNormal, XavierUniform
embedding_uniform, trunc_normal, delta_orthogonal = EmbeddingUniform, TruncNormal, DeltaOrthogonal
sparse, eye, dirac, bilinear = Sparse, Eye, Dirac, Bilinear
depth_scaled, mu_p, padded = DepthScaled, MuP, Padded

#: Names that Keras looks up, and the classes of this module. `keras.saving.custom_object_scope` and
#: `keras.saving.get_custom_objects` take it.
NAMES: dict[str, type] = {
    name: kind
    for name, kind in globals().items()
    if isinstance(kind, type) and issubclass(kind, _Made) and not name.startswith("_")
} | {"normal": RandomNormal, "uniform": RandomUniform}


def get(identifier: Any) -> Any:
    """Return an initializer, as ``keras.initializers.get``; strings name the classes of this module.

    Parameters
    ----------
    identifier : str, dict, callable, array or None

    Returns
    -------
    keras.initializers.Initializer, or a callable, or None

    Examples
    --------
    >>> import numinit.keras
    >>> type(numinit.keras.get("he_normal")).__module__
    'numinit.keras'
    """
    with keras.saving.custom_object_scope(NAMES):
        return keras.initializers.get(identifier)
