"""Initializers: each one fills a weight of a given shape and type.

Every initializer is a small frozen dataclass. The value of an element is a pure function of the
initializer, the key, the whole weight's logical shape and the element's index. The four ways to
ask for values (`Initializer.__call__`, `fill_`, `block`, `rows`) agree to the bit.
"""

from numinit.engines.spec import ByIndex, Joined, Plan, Sampled, Whole
from numinit.initializers.assign import Assign
from numinit.initializers.base import Distribution, Initializer
from numinit.initializers.distributions import Constant, LogUniform, Normal, Ones, Uniform, Zeros
from numinit.initializers.formulated import Formulated
from numinit.initializers.from_index import FromIndex, Sinusoidal
from numinit.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from numinit.initializers.parts import ICNR, NormOf, Parts
from numinit.initializers.patterns import Bilinear, Dirac, Eye, Identity
from numinit.initializers.sparse import Sparse
from numinit.initializers.stft import STFT
from numinit.initializers.truncated_normal import TruncatedNormal, TruncNormal
from numinit.initializers.variance_scaling import (
    EmbeddingUniform,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from numinit.initializers.wrappers import DepthScaled, MuP, Padded

__all__ = [
    "ICNR",
    "STFT",
    "Assign",
    "Bilinear",
    "ByIndex",
    "Constant",
    "DeltaOrthogonal",
    "DepthScaled",
    "Dirac",
    "Distribution",
    "EmbeddingUniform",
    "Eye",
    "Formulated",
    "FromIndex",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "Joined",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "LogUniform",
    "MuP",
    "NormOf",
    "Normal",
    "Ones",
    "Orthogonal",
    "Padded",
    "Parts",
    "Plan",
    "Sampled",
    "Sinusoidal",
    "Sparse",
    "TruncNormal",
    "TruncatedNormal",
    "Uniform",
    "VarianceScaling",
    "Whole",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
]
