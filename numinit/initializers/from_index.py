"""Weights whose elements are a function of their indices: ramps, tables of positions, slopes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from numinit.engines.by_index import CHUNK
from numinit.engines.floats import default_mode
from numinit.engines.spec import ByIndex, Index, Plan
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import set_real
from numinit.show import show
from numinit.stream.dtypes import DType, RangeError
from numinit.weights import functions
from numinit.weights.formulas import Formula, FormulaError

#: The names of a formula that are the indices on the first axes.
INDICES = ("i", "j", "k", "l")
#: The names that `FromIndex` gives values to.
NAMES = frozenset({*INDICES, "n"})


@dataclass(frozen=True)
class FromIndex(Initializer):
    """Elements that are a function of their indices.

    A formula (see `numinit.weights.formulas`) has the indices on the first four axes as `i`, `j`,
    `k` and `l`, the size of axis a as ``size(a)``, and that of axis 0 also as `n`. It is evaluated
    in float64, and rounded once to the weight's type. Every machine makes the same values, on which
    a function of one's own has no such guarantee.

    Parameters
    ----------
    values : str or callable
        A formula, or a function as `numpy.fromfunction` takes it: of one int64 array of indices
        for each axis, which broadcast together, to an array of numbers that broadcasts to the same
        shape. It must be pure, and its values finite.

    Raises
    ------
    TypeError
        If `values` is neither, or a function returns no numbers.
    ValueError
        If `values` is no formula or uses an axis that the weight lacks, or if a value is not
        finite or is beyond the weight's type. (In weights of more than 65,536 values this may show
        after others have been written.)

    Examples
    --------
    >>> ni.FromIndex("log(j + 1)")((1, 3), "float64").tolist()
    [[0.0, 0.6931471805599453, 1.0986122886681098]]
    >>> ni.FromIndex(lambda i, j: 10 * i + j)((2, 3)).tolist()
    [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]
    """

    values: str | Formula | Callable[..., Any]

    def __post_init__(self) -> None:
        if isinstance(self.values, str):
            object.__setattr__(self, "values", Formula(self.values))
        elif not isinstance(self.values, Formula) and not callable(self.values):
            raise TypeError(
                f"values: {show(self.values)} was given; a formula or a function is accepted"
            )

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        used = range(len(shape))
        if isinstance(self.values, Formula):
            names = self.values.names
            used_names = [n for n, name in enumerate(INDICES) if name in names]
            for axis in [*used_names, *([0] if "n" in names else [])]:
                if axis >= len(shape):
                    raise FormulaError(
                        f"formula {show(self.values.text)}: {INDICES[axis] if axis in used_names else 'n'}"
                        f" needs axis {axis}; shape {shape} has {len(shape)} axes"
                    )
            self.values.bind(**dict.fromkeys(NAMES, 0.0)).values({}, shape)  # other names and axes
            used = used_names  # type: ignore[assignment]
        plan = self._plan(shape, dtype, False)
        sizes = [size if axis in used else min(size, 1) for axis, size in enumerate(shape)]
        if math.prod(shape) and math.prod(sizes) <= CHUNK:  # known before anything is written
            made = self._tried(plan, sizes)
            if np.iscomplexobj(made):
                plan = self._plan(shape, dtype, True)
        elif math.prod(shape) and not isinstance(self.values, Formula):
            made = self._tried(plan, [1] * len(shape))
            plan = self._plan(shape, dtype, np.iscomplexobj(made))
        return plan

    def _plan(self, shape: tuple[int, ...], dtype: DType, complex_: bool) -> ByIndex:
        def values(index: Index) -> np.ndarray:
            made = self._made(index, shape)
            sizes = (
                np.abs(made.real) if not complex_ else np.maximum(abs(made.real), abs(made.imag))
            )
            wrong = ~(sizes <= dtype.max)  # NaN, too
            if wrong.any():
                whole = np.broadcast_shapes(*(at.shape for at in index), made.shape)
                place = np.unravel_index(np.broadcast_to(wrong, whole).argmax(), whole)
                at = [int(np.broadcast_to(along, whole)[place]) for along in index]
                value = np.broadcast_to(made, whole)[place]
                raise RangeError(
                    f"values: {show(self)} gives {value} at {at}; finite numbers up to "
                    f"{dtype.max:.6g}, the largest {dtype.name}, are accepted"
                )
            return made

        return ByIndex("FromIndex", values, 0.0, complex_)

    @default_mode()
    def _tried(self, plan: ByIndex, sizes: list[int]) -> np.ndarray:
        with np.errstate(all="ignore"):
            return plan.values(tuple(np.ogrid[tuple(map(slice, sizes))]))

    def _made(self, index: Index, shape: tuple[int, ...]) -> np.ndarray:
        if isinstance(self.values, Formula):
            names: dict[str, Any] = dict(
                zip(INDICES, (at.astype(np.float64) for at in index), strict=False)
            )
            if shape:
                names["n"] = np.float64(shape[0])
            return np.asarray(self.values.values(names, shape))
        assert callable(self.values)
        made = np.asarray(self.values(*index))
        if made.dtype.kind not in "biufc":
            raise TypeError(
                f"values: {show(self)} returned {made.dtype} elements; numbers are accepted"
            )
        return made.astype(np.complex128 if made.dtype.kind == "c" else np.float64)


Layout = Literal["transformer", "tensor2tensor", "whisper"]
LAYOUTS = ("transformer", "tensor2tensor", "whisper")


@dataclass(frozen=True)
class Sinusoidal(Initializer):
    """Sines and cosines of the position at geometric frequencies, for tables of positions.

    Row p of a table with d columns has, for c = 0, 1, ..., the pairs ``sin(p f_c)`` and
    ``cos(p f_c)``:

    =============== ==================================== =======================================
    layout          frequency f_c                        columns
    =============== ==================================== =======================================
    "transformer"   ``base ** (-2 c / d)``               sin, cos, sin, cos, ...
    "tensor2tensor" ``base ** (-c / (d // 2 - 1))``      all sines, all cosines; a column of zeros
                                                         last if d is odd
    "whisper"       the same                             the same; d is even
    =============== ==================================== =======================================

    Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.5; tensor2tensor,
    layers/common_attention.py, `get_timing_signal_1d`; openai/whisper, model.py, `sinusoids`. The
    libraries compute in float32. Here values are within 3e-16 of the formula's, and rounded once.

    Parameters
    ----------
    layout : {"transformer", "tensor2tensor", "whisper"}
    base : float
        The lowest frequency is about 1 / base. Above 0.

    Raises
    ------
    ValueError
        If the layout is unknown, `base` is not above 0, or the weight has fewer than two axes or
        does not fit the layout. The last two axes are positions and columns; others repeat them.

    Examples
    --------
    >>> ni.Sinusoidal()((2, 4), "float64").round(4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8415, 0.5403, 0.01, 1.0]]
    """

    layout: Layout = "transformer"
    base: float = 10000.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(
                f"layout: {show(self.layout)} was given; one of {', '.join(LAYOUTS)} is accepted"
            )
        if not 0 < set_real(self, "base") < math.inf:
            raise ValueError(f"base: {self.base} was given; a finite number above 0 is accepted")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if len(shape) < 2:
            raise ValueError(f"shape: {shape} was given; at least two axes are accepted")
        rows, columns = shape[-2:]
        if self.layout == "whisper" and columns % 2:
            raise ValueError(f"shape: {columns} columns were given; an even number is accepted")
        if rows > functions.TURNS:
            raise ValueError(f"shape: {rows} positions were given; up to 2**27 are accepted")
        return ByIndex("Sinusoidal", self._values_of(columns))

    def _values_of(self, columns: int) -> Callable[[Index], np.ndarray]:
        paired = self.layout == "transformer"
        half = columns // 2

        def values(index: Index) -> np.ndarray:
            position, column = index[-2].astype(np.float64), index[-1]
            if paired:
                number, is_cos, whole = column // 2, column % 2 == 1, columns / 2
            else:
                is_cos = column >= half
                number, whole = np.where(is_cos, column - half, column), max(half - 1, 1)
            share = -number.astype(np.float64)
            log = functions.log_pair(np.float64(self.base))
            # The exponent is divided as a pair: the quotient, and what its rounding left.
            high, low = functions.times(share, log)
            quotient = high / whole
            rest = functions.remainder(high, quotient, np.float64(whole))
            frequency = functions.exp_pair(quotient, (rest + low) / whole)
            sin, cos = functions.sin_cos(*functions.times(position, frequency))
            made: Any = np.where(is_cos, cos, sin)
            made = made if paired else np.where(column == 2 * half, 0.0, made)
            return np.asarray(made)

        return values
