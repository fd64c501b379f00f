"""Exact, parallel, addressable initialization of neural-network weights.

The value of every element is a pure function of the initializer, the key, the logical shape and
the element's index. It is the same on any number of threads, and in any shard, row or memory
layout. The examples of all docstrings assume ``import numpy as np`` and ``import numinit as ni``.

Examples
--------
>>> init, key = ni.KaimingNormal(), ni.Key(0).fold_in("fc.weight")
>>> whole = init((256, 64), seed=key)
>>> part = init.fill_(np.empty((128, 64), np.float32), shape=(256, 64), offset=(128, 0), seed=key)
>>> bool((part == whole[128:]).all())
True
"""

from typing import TYPE_CHECKING, NoReturn

from numinit._version import STREAM_VERSION, __version__
from numinit.engines.threads import get_num_threads, set_num_threads
from numinit.functional import (
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
from numinit.initializers import (
    ICNR,
    STFT,
    Assign,
    Bilinear,
    Constant,
    DeltaOrthogonal,
    DepthScaled,
    Dirac,
    EmbeddingUniform,
    Eye,
    Formulated,
    FromIndex,
    Identity,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    LogUniform,
    MuP,
    Normal,
    NormOf,
    Ones,
    Orthogonal,
    Padded,
    Parts,
    Sinusoidal,
    Sparse,
    TruncatedNormal,
    TruncNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from numinit.initializers.variance_scaling import absent
from numinit.models.init_params import init_params
from numinit.weights.fans import (
    _calculate_correct_fan,  # noqa: F401
    _calculate_fan_in_and_fan_out,  # noqa: F401
    fans,
)
from numinit.weights.gains import calculate_gain, variance_gain
from numinit.weights.keys import Generator, Key, manual_seed

__all__ = [
    "ICNR",
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
    "Formulated",
    "FromIndex",
    "Generator",
    "Identity",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Key",
    "LogUniform",
    "MuP",
    "NormOf",
    "Normal",
    "Ones",
    "Orthogonal",
    "Padded",
    "Parts",
    "Sinusoidal",
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
    "get_num_threads",
    "init_params",
    "kaiming_normal_",
    "kaiming_uniform_",
    "manual_seed",
    "normal_",
    "ones_",
    "orthogonal_",
    "set_num_threads",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "variance_gain",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

if not TYPE_CHECKING:  # a type checker would take every name for one that exists

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
