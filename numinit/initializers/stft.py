"""Keras' kernels of a convolution that is a short-time Fourier transform."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from numinit.engines.by_index import CHUNK
from numinit.engines.spec import ByIndex, Index, Plan
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import real
from numinit.show import show
from numinit.stream.dtypes import DType

#: Windows that are sums of cosines: a0 - a1 cos(x) + a2 cos(2 x), for x from 0 to 2 pi.
COSINES = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
}


MAX_FRAME = 1 << 24  # the longest window that is scaled; its norm takes about a second


@dataclass(frozen=True)
class STFT(Initializer):
    """The real or the imaginary part of a windowed Fourier transform, as a convolution's kernel.

    This is ``keras.initializers.STFT`` (Keras 3.8). In a weight of shape (T, 1, F), element
    (t, 0, f) is ``cos(2 pi t f / N)`` or ``-sin(2 pi t f / N)`` with N = 2 (F - 1), multiplied by
    the window at t and divided by the window's norm. Keras computes in the weight's type, and its
    float32 values for T = F = 512 are off by up to 1e-4 of the largest. Here values are computed in
    float64 and rounded once.

    Parameters
    ----------
    side : {"real", "imag"}
        The part of the transform.
    window : str, sequence of float or None
        A name, or the T values. "hann", "hamming", "blackman", "bartlett" and "boxcar" are made
        here and are the same on all machines. Any other name that `scipy.signal.get_window` takes
        needs the extra numinit[scipy], and its values follow SciPy's version.
    scaling : {"density", "spectrum"} or None
        The norm: the root of the sum of the window's squares, the sum of its magnitudes, or 1. It
        has no effect without a window.
    periodic : bool
        True for a window that is one period of a periodic sequence, False for a symmetric one.

    Raises
    ------
    ImportError
        If the window needs SciPy, and SciPy is not installed.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If a name is unknown, the weight has another shape, or the window's norm is 0.

    Examples
    --------
    >>> ni.STFT(window=None)((4, 1, 3))[:, 0, 1].tolist()
    [1.0, 0.0, -1.0, 0.0]
    """

    side: Literal["real", "imag"] = "real"
    has_spread: ClassVar[bool] = False

    window: str | Sequence[float] | None = "hann"
    scaling: Literal["density", "spectrum"] | None = "density"
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.side not in ("real", "imag"):
            raise ValueError(f"side: {show(self.side)} was given; 'real' or 'imag' is accepted")
        if self.scaling not in ("density", "spectrum", None):
            raise ValueError(
                f"scaling: {show(self.scaling)} was given; 'density', 'spectrum' or None is accepted"
            )
        if not isinstance(self.periodic, bool | np.bool_):
            raise TypeError(f"periodic: {show(self.periodic)} was given; True or False is accepted")
        object.__setattr__(self, "periodic", bool(self.periodic))
        if isinstance(self.window, str):
            _named(self.window, np.zeros(1, np.int64), 1, self.periodic)
        elif self.window is not None:
            try:
                window = tuple(real("window", value) for value in self.window)
            except TypeError:
                raise TypeError(
                    f"window: {show(self.window)} was given; a name, a sequence of real numbers or "
                    "None is accepted"
                ) from None
            if not all(map(math.isfinite, window)):
                raise ValueError(
                    "window: values that are not finite were given; finite ones are accepted"
                )
            object.__setattr__(self, "window", window)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if len(shape) != 3 or shape[1] != 1 or shape[2] < 2:
            raise ValueError(
                f"shape: {shape} was given; (frame length, 1, at least 2 frequencies) is accepted"
            )
        length = shape[0]
        if isinstance(self.window, tuple) and len(self.window) != length:
            raise ValueError(
                f"window: {len(self.window)} values were given for a frame of {length}; as many "
                "are accepted"
            )
        if length > MAX_FRAME and self.window is not None and self.scaling is not None:
            raise ValueError(
                f"shape: a frame of {length} was given; up to 2**24 are accepted for a window that "
                "is scaled"
            )
        if length and not 0 < (norm := self._norm(length)) < math.inf:
            raise ValueError(
                f"window, scaling: a window of {length} with norm {norm:g} cannot be scaled; "
                "scaling=None is accepted"
            )
        largest = 1.0  # no value is beyond its window's norm
        if isinstance(self.window, tuple) and self.scaling is None:
            largest = max((1.0, *map(abs, self.window)))
        return ByIndex("STFT", functools.partial(self._values, shape), largest)

    def _values(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        time, _, frequency = index
        period = 2 * (shape[2] - 1)
        turns = time * frequency % period
        if self.side == "imag":  # -sin x = cos(x + pi / 2)
            turns, period = 4 * turns + period, 4 * period
        wave = _cos(turns, period)
        if self.window is not None:
            wave = wave * self._window(time, shape[0]) / self._norm(shape[0])
        made: np.ndarray = wave + 0.0  # no -0.0
        return made

    def _window(self, at: np.ndarray, length: int) -> np.ndarray:
        """Return the window's values at some of its indices."""
        if isinstance(self.window, str):
            return _named(self.window, at, length, self.periodic)
        window: np.ndarray = np.array(self.window)[at]
        return window

    def _norm(self, length: int) -> float:
        return 1.0 if self.window is None or self.scaling is None else _norm(self, length)


@functools.lru_cache(16)
def _norm(stft: STFT, length: int) -> float:
    # Windows that differ only in the signs of their zeros are equal, and have the same norm.
    def terms() -> Iterator[float]:
        for begin in range(0, length, CHUNK):
            window = stft._window(np.arange(begin, min(begin + CHUNK, length)), length)
            yield from window * window if stft.scaling == "density" else np.abs(window)

    with np.errstate(all="ignore"):
        try:
            total = math.fsum(terms())
        except OverflowError:
            return math.inf
    return math.sqrt(total) if stft.scaling == "density" else total


def _named(name: str, at: np.ndarray, length: int, periodic: bool) -> np.ndarray:
    """Return a window's values at some indices, as SciPy's, which the usual windows do not need."""
    window: np.ndarray
    if name not in (*COSINES, "bartlett"):
        window = _scipys(name, length, periodic)[at]
        return window
    if length < 2:
        return np.ones(at.shape)
    whole = length if periodic else length - 1  # the period, or the number of intervals
    if name == "bartlett":
        window = 1.0 - np.abs(2 * at - whole) / whole
        return window
    window = np.zeros(at.shape)
    for order, a in enumerate(COSINES[name]):
        window += (-1) ** order * a * _cos(order * at, whole)
    return window


@functools.lru_cache(16)
def _scipys(name: str, length: int, periodic: bool) -> np.ndarray:
    try:
        from scipy.signal import get_window
    except ImportError:
        raise ImportError(
            f"window: {show(name)} needs SciPy: pip install 'numinit[scipy]'; without it "
            f"{', '.join((*COSINES, 'bartlett'))} are accepted"
        ) from None
    try:
        return np.array(get_window(name, max(length, 1), periodic), np.float64)[:length]
    except ValueError as error:
        raise ValueError(f"window: {error}") from None


def _cos(turns: np.ndarray, period: int) -> np.ndarray:
    """Return cos(2 pi turns / period) within 2 ulp, and exactly at quarters of a turn.

    It uses products, quotients and sums only, so that all machines get the same values. np.cos
    differs between machines.
    """
    # An angle of `period` is a quarter of a turn. All angles are folded to the first quarter.
    angle = 4 * np.abs(turns % period)
    angle = np.minimum(angle, 4 * period - angle)
    negative = angle > period
    angle = np.where(negative, 2 * period - angle, angle)
    # Beyond an eighth of a turn, the cosine is the sine of the rest of the quarter.
    swap = 2 * angle > period
    x = np.where(swap, period - angle, angle) / period * (math.pi / 2)
    z = x * x
    cos, sin = (np.zeros_like(z) for _ in range(2))
    for k in range(9, 0, -1):  # Taylor's series; its error is below 2**-60 at pi / 4
        cos = -z / ((2 * k - 1) * (2 * k)) * (1.0 + cos)
        sin = -z / ((2 * k) * (2 * k + 1)) * (1.0 + sin)
    made: np.ndarray = np.where(swap, x + x * sin, 1.0 + cos)
    return np.where(negative, -made, made)
