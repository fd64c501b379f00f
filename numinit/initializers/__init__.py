"""Initializers: distributions whose parameters may follow from a weight's shape.

Every initializer is a small frozen dataclass. The value of an element is a pure function of the
initializer, the key, the whole weight's logical shape and the element's index; the four ways to
ask for values (`Initializer.__call__`, `fill_`, `block`, `rows`) agree to the bit.
"""

from numinit.initializers.assign import Assign
from numinit.initializers.base import Initializer, Law
from numinit.initializers.computed import Computed
from numinit.initializers.laws import Constant, Normal, Ones, Uniform, Zeros
from numinit.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from numinit.initializers.patterns import Bilinear, Dirac, Eye, Identity
from numinit.initializers.rules import DepthScaled, MuP, Padded
from numinit.initializers.scaling import (
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
from numinit.initializers.sparse import Sparse
from numinit.initializers.stft import STFT
from numinit.initializers.truncated import TruncatedNormal, TruncNormal

__all__ = [
    "STFT",
    "Assign",
    "Bilinear",
    "Computed",
    "Constant",
    "DeltaOrthogonal",
    "DepthScaled",
    "Dirac",
    "EmbeddingUniform",
    "Eye",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Law",
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
]
