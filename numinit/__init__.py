"""Exact, parallel, addressable initialization of neural-network weights.

The value of every element is a pure function of (initializer, key, logical shape, element
index): the same on any number of threads, for any shard, row or memory layout.
"""

from typing import Any

from numinit._process import is_command as _is_command

# Numba before all else, and not at the first fill, during which another thread may fork: its locks
# must be those that a fork takes last. The command line has no such threads, and imports it where
# an interrupt, or settings that Numba refuses, end in order.
if not _is_command():
    from numinit import bits as _bits  # noqa: F401

from numinit import arrays as _arrays
from numinit import gains as _gains
from numinit import keys as _keys
from numinit._version import STREAM_VERSION, __version__
from numinit.fans import fans
from numinit.functional import (
    DEPRECATED as _DEPRECATED,
)
from numinit.functional import (
    _calculate_correct_fan,  # noqa: F401
    _calculate_fan_in_and_fan_out,  # noqa: F401
    constant_,
    dirac_,
    eye_,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    ones_,
    orthogonal_,
    sparse_,
    trunc_normal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)
from numinit.gains import calculate_gain, variance_gain
from numinit.initializers import (
    STFT,
    Assign,
    Bilinear,
    Constant,
    DeltaOrthogonal,
    DepthScaled,
    Dirac,
    EmbeddingUniform,
    Eye,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    MuP,
    Normal,
    Ones,
    Orthogonal,
    Padded,
    Sparse,
    TruncatedNormal,
    TruncNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from numinit.keys import Generator, Key, manual_seed
from numinit.models import init_params

__all__ = [
    "STFT",
    "STREAM_VERSION",
    "Assign",
    "Bilinear",
    "Constant",
    "DeltaOrthogonal",
    "DepthScaled",
    "Dirac",
    "EmbeddingUniform",
    "Eye",
    "Generator",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Key",
    "LecunNormal",
    "LecunUniform",
    "MuP",
    "Normal",
    "Ones",
    "Orthogonal",
    "Padded",
    "Sparse",
    "TruncNormal",
    "TruncatedNormal",
    "Uniform",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "__version__",
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "fans",
    "init_params",
    "kaiming_normal_",
    "kaiming_uniform_",
    "manual_seed",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "variance_gain",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        from numinit.functional import deprecated

        return deprecated(name)
    raise AttributeError(f"module 'numinit' has no attribute {name!r}")


def _torch() -> _arrays.Adapter:
    from numinit.adapters.torch import ADAPTER

    return ADAPTER


def _torch_key(source: Any) -> _keys.Key | None:
    from numinit.adapters.torch import key_from

    return key_from(source)


def _gpu() -> _arrays.Adapter:
    from numinit.adapters.gpu import ADAPTER

    return ADAPTER


def _gpu_maker(device: Any) -> _arrays.Maker:
    from numinit.adapters.gpu import maker

    return maker(device)


def _torch_function(function: _gains.Function) -> _gains.Function:
    from numinit.adapters.torch import of_arrays

    return of_arrays(function)


# The adapters plug in here, so that no lower layer knows of a framework. An adapter is imported
# when an object of its framework is first seen.
_arrays.ADAPTERS["torch"] = _torch
_arrays.ADAPTERS[_arrays.EXPORTED] = _gpu
_arrays.MAKERS["cuda"] = _gpu_maker
_keys.KEY_SOURCES["torch"] = _torch_key
_gains.CONVERTERS["torch"] = _torch_function
