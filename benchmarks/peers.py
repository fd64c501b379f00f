"""The same fills by numinit and by its peers, each as a function of a buffer."""

from collections.abc import Callable
from typing import Any

import numpy as np

import numinit as ni

MIB = 1 << 20
SIZE = 256 * MIB

try:
    import torch
except ImportError:
    torch = None

_generator = np.random.default_rng(0)

#: (peer, law): fills a buffer of `buffer`.
FILLS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("numinit", "constant"): lambda a: ni.constant_(a, 1.0),
    ("numinit", "uniform"): lambda a: ni.uniform_(a, seed=0),
    ("numinit", "normal"): lambda a: ni.normal_(a, seed=0),
    ("numpy", "constant"): lambda a: a.fill(1.0),
    ("numpy", "uniform"): lambda a: _generator.random(dtype=a.dtype, out=a),
    ("numpy", "normal"): lambda a: _generator.standard_normal(dtype=a.dtype, out=a),
}
if torch is not None:
    FILLS |= {
        ("torch", "constant"): lambda a: torch.nn.init.constant_(a, 1.0),
        ("torch", "uniform"): lambda a: torch.nn.init.uniform_(a),
        ("torch", "normal"): lambda a: torch.nn.init.normal_(a),
    }


def buffer(peer: str, dtype: str, nbytes: int = SIZE) -> Any:
    """A touched array of the peer's kind.

    Raises
    ------
    NotImplementedError
        Where the peer has no such arrays, or is not installed; asv skips the benchmark then.
    """
    if peer == "torch":
        if torch is None:
            raise NotImplementedError("torch is not installed")
        kind = getattr(torch, dtype)
        return torch.full((nbytes // kind.itemsize,), 0.5, dtype=kind)
    if dtype == "bfloat16" or (peer == "numpy" and dtype == "float16"):
        if peer == "numpy":
            raise NotImplementedError(f"NumPy draws no {dtype}")
        try:
            import ml_dtypes
        except ImportError:
            raise NotImplementedError("ml_dtypes is not installed") from None
        return np.full(nbytes // 2, 0.5, ml_dtypes.bfloat16)
    return np.full(nbytes // np.dtype(dtype).itemsize, 0.5, dtype)
