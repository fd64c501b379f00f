"""What all initializers share: the ways to ask for values, checked and handed to the engines."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numinit.arrays.frameworks import framework_of
from numinit.arrays.new import empty, maker_of
from numinit.compiler.floats import default_mode
from numinit.engines import cuda, driver
from numinit.engines.driver import Filler
from numinit.engines.layout import View, c_steps
from numinit.engines.spec import Plan, Sampled
from numinit.initializers.kept import Exactly, Kept
from numinit.show import show
from numinit.stream.dtypes import DType, RangeError, as_dtype
from numinit.stream.transform import Transform
from numinit.weights.keys import Key, as_key
from numinit.weights.shapes import as_rows, as_shape, check_rows, parse_index, window_start

ROWS = 1 << 18  # that `rows` makes at a time: 2 MiB of row numbers


class Initializer:
    """What fills a weight. A subclass, a frozen dataclass, answers one question: `plan`.

    An initializer is hashable and never changes, because the fills of a shape are kept for the next
    weight of that shape.

    Examples
    --------
    One of each kind. A *sampled* weight has a distribution, here one whose spread follows from the
    shape:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import numinit as ni
    >>> from numinit.initializers import ByIndex, Sampled, Whole
    >>> @dataclass(frozen=True)
    ... class InverseRows(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         return Sampled(ni.Normal(std=1 / shape[0]))
    >>> bool(abs(InverseRows()((1000, 1000), seed=0).std() * 1000 - 1) < 0.01)
    True

    The values of a weight *by index* follow from the indices:

    >>> @dataclass(frozen=True)
    ... class Ramp(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         return ByIndex("Ramp", lambda index: index[0] * 1.0, largest=shape[0])
    >>> Ramp()((4,))
    array([0., 1., 2., 3.], dtype=float32)

    A *whole* weight is made at once; none of its parts can be made alone:

    >>> @dataclass(frozen=True)
    ... class Centred(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         def make(dtype, seed, stream, place, gain):
    ...             values = ni.Normal()(shape, dtype, seed=ni.Key(seed, stream))
    ...             return gain * (values - values.mean())
    ...         return Whole("Centred", make)
    >>> bool(abs(Centred()((64, 64), seed=0).mean()) < 1e-7)
    True
    """

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        """What is wanted of a weight.

        Parameters
        ----------
        shape : tuple of int
            Of the whole weight.
        dtype : DType
            Its element type.

        Returns
        -------
        Sampled, ByIndex or Whole

        Raises
        ------
        TypeError, ValueError
            If there is no such weight.
        """
        raise NotImplementedError

    def __call__(
        self, shape: Any, dtype: Any = "float32", *, seed: Any = None, device: Any = None
    ) -> Any:
        """A new array.

        Parameters
        ----------
        shape : int or sequence of int
            Of the whole weight.
        dtype : str or dtype, optional
            A name of `numinit.stream.dtypes.DTYPES`; bfloat16 and the float8 types need the extra
            numinit[ml-dtypes].
        seed : int, Key, Generator or None, optional
            See `numinit.weights.keys.as_key`.
        device : str, optional
            "cuda" or "cuda:N" for an array of torch's, or of CuPy's, on that GPU, made on the
            current stream; a NumPy array if left out or "cpu".
        """
        shape = as_shape(shape)
        return self._new(shape, None, 0, shape, as_dtype(dtype), seed, device)

    def fill_(self, array: Any, *, shape: Any = None, offset: Any = None, seed: Any = None) -> Any:
        """Fill an array, or the part of a weight that it is, in place.

        Parameters
        ----------
        array : numpy.ndarray, torch.Tensor or an array in the memory of a GPU
            Writable, of any layout whose elements do not overlap.
        shape : sequence of int, optional
            Of the whole weight; that of `array` if left out.
        offset : sequence of int, optional
            Where in the whole weight `array` begins, one index for each axis; the origin if
            left out.
        seed : int, Key, Generator or None, optional
            See `numinit.weights.keys.as_key`. For a torch tensor None draws from torch's own generator.

        Returns
        -------
        array
            The same object.

        Raises
        ------
        TypeError, ValueError
            Naming the argument; the array is untouched then.
        """
        framework = framework_of(array)
        address, dtype, part, strides, where = framework.memory(array)
        whole, start = part, 0
        if shape is not None or offset is not None:
            whole = part if shape is None else as_shape(shape)
            start = window_start(part, whole, offset)
        layout = whole, dtype, part, strides
        fill, draws = self._ready(*layout, on_gpu=True) if where else self._ready(*layout)
        if address is None:
            return array
        if draws and seed is None and framework.default_seed is not None:
            words = framework.default_seed(array), 0
        else:
            key = _key(draws, seed)
            words = key.seed, key.stream
        if fill is None:
            return array
        try:
            fill(address, start, 0, *words, *where)
        finally:
            framework.written(array)
        return array

    def block(
        self,
        shape: Any,
        index: Any,
        dtype: Any = "float32",
        *,
        seed: Any = None,
        device: Any = None,
    ) -> Any:
        """``self(shape, dtype, seed=seed)[index]`` without making the rest.

        Parameters
        ----------
        shape : sequence of int
            Of the whole weight.
        index : int, slice, Ellipsis or tuple of them
            Slices with step 1; as in NumPy, an integer drops its axis.
        dtype, seed, device
            As for `__call__`.
        """
        whole = as_shape(shape)
        start, part, steps = 0, [], []
        for (low, size), step in zip(parse_index(index, whole), c_steps(whole), strict=True):
            start += low * step
            if size is not None:
                part.append(size)
                steps.append(step)
        return self._new(tuple(part), tuple(steps), start, whole, as_dtype(dtype), seed, device)

    def rows(
        self,
        shape: Any,
        ids: Any,
        dtype: Any = "float32",
        *,
        seed: Any = None,
        device: Any = None,
    ) -> Any:
        """``self(shape, dtype, seed=seed)[ids]`` without making the rest.

        Parameters
        ----------
        shape : sequence of int
            Of the whole weight, at least one axis.
        ids : array_like of int
            Any rows (indices of axis 0) in any order, repeated or not; negative ones count from
            the end.
        dtype, seed, device
            As for `__call__`.

        Returns
        -------
        numpy.ndarray, or as `device` says
            Of shape ``ids.shape + shape[1:]``.
        """
        whole = as_shape(shape)
        ids = as_rows(ids, whole)
        kind = as_dtype(dtype)
        maker = maker_of(device)
        array, address, strides, where = empty((ids.size, *whole[1:]), kind, maker)
        flat, steps = ids.reshape(-1), (0, *c_steps(whole)[1:])
        # In blocks, for the kernel takes int64 and no negative row.
        sizes = {min(ROWS, ids.size), ids.size % ROWS or min(ROWS, ids.size)}
        fills = {}
        draws = False
        for size in sizes:
            part = (size, *whole[1:])
            fills[size], draws = self._ready(whole, kind, part, strides, steps, True, bool(where))
        key = _key(draws, seed)
        for begin in range(0, ids.size, ROWS):
            # A copy, checked again: another thread may write into `ids`.
            block = np.array(flat[begin : begin + ROWS], np.int64)
            if check_rows(block, whole) < 0:
                block = np.where(block < 0, block + whole[0], block)
            if (fill := fills[block.size]) is not None:
                kept, rows = block, block.ctypes.data
                if maker is not None and isinstance(fill, cuda.Fill):
                    kept, rows = maker.upload(block)
                place = address + begin * strides[0]
                fill(place, 0, rows, key.seed, key.stream, *where)
                del kept  # a GPU's is freed in the order of the stream
        return array.reshape(ids.shape + whole[1:])

    def fill_flat(
        self, out: np.ndarray, start: int, shape: Sequence[int], dtype: Any, key: Key
    ) -> None:
        """Write elements `start`, `start` + 1, ... of a weight, in C order, as raw bytes.

        Parameters
        ----------
        out : numpy.ndarray of uint8
            Contiguous and writable, for instance a window of a mapped file.
        start : int
            The first element's index in the whole weight.
        shape, dtype, key
            Of the whole weight.
        """
        fill = self.prepare_flat(out.size, shape, dtype)
        if fill is not None:
            fill(out.ctypes.data, start, 0, key.seed, key.stream)

    def prepare_flat(self, nbytes: int, shape: Sequence[int], dtype: Any) -> Filler | None:
        """What `fill_flat` fills so many bytes of a weight with, compiled; None if there are none."""
        kind = as_dtype(dtype)
        size = kind.itemsize
        fill: Filler | None
        fill, _ = self._ready(tuple(shape), kind, (nbytes // size,), (size,), (1,))
        return fill

    def _new(
        self,
        part: tuple[int, ...],
        steps: tuple[int, ...] | None,
        start: int,
        whole: tuple[int, ...],
        dtype: DType,
        seed: Any,
        device: Any,
    ) -> Any:
        """A new array of shape `part` whose elements have the given global indices."""
        array, address, strides, where = empty(part, dtype, maker_of(device))
        fill, draws = self._ready(whole, dtype, part, strides, steps, False, bool(where))
        key = _key(draws, seed)
        if fill is not None:
            fill(address, start, 0, key.seed, key.stream, *where)
        return array

    @default_mode()  # so that parameters do not depend on the caller's
    def _prepare(
        self,
        whole: tuple[int, ...],
        dtype: DType,
        part: tuple[int, ...],
        strides: tuple[int, ...],
        steps: tuple[int, ...] | None = None,
        by_rows: bool = False,
        on_gpu: bool = False,
    ) -> tuple[Filler | None, bool]:
        """What fills such a part of such a weight, None if it has no elements; whether it draws.

        `steps` are those of `whole` if left out.
        """
        view = View(part, strides, c_steps(whole) if steps is None else steps, by_rows)
        with np.errstate(all="ignore"):
            plan = self.plan(whole, dtype)
            try:
                return driver.prepared(plan, whole, dtype, view, on_gpu)
            except RangeError as error:
                if not isinstance(plan, Sampled) or isinstance(self, Distribution):
                    raise
                raise RangeError(f"{error}; {show(self)} makes it for shape {whole}") from None

    @Kept
    def _ready(self) -> Callable[..., tuple[Filler | None, bool]]:
        """`_prepare`, kept for the next time unless the initializer is large."""
        return functools.partial(_prepared, Exactly(self))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_ready"}


@functools.lru_cache(1024)  # a model's layers are alike, and small ones must not wait for Python
def _prepared(exactly: Exactly, *layout: Any, **more: Any) -> tuple[Filler | None, bool]:
    return exactly.init._prepare(*layout, **more)  # type: ignore[no-any-return]


_NO_KEY = Key(0)


def _key(draws: bool, seed: Any) -> Key:
    """The key of a seed argument; a fill that draws nothing needs none."""
    return _NO_KEY if seed is None and not draws else as_key(seed)


class Distribution(Initializer):
    """An initializer whose parameters are given: the same distribution for every shape.

    A subclass has `transform`, and `divided` if it has a spread.
    """

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return Sampled(self)

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        """The transform for arrays of a type, and an instance of its `Parameters`.

        Raises
        ------
        TypeError, ValueError
            If the type cannot hold such values.
        """
        raise NotImplementedError

    def divided(self, divisor: float) -> "Distribution":
        """The same distribution with its standard deviation divided, and its mean kept.

        Raises
        ------
        ValueError
            If it has no spread.
        """
        raise ValueError(f"{type(self).__name__} has no spread to scale")


class Planned(Initializer):
    """An initializer of one weight, whose plan is known.

    Parameters
    ----------
    known : Sampled, ByIndex or Whole
    """

    def __init__(self, known: Plan) -> None:
        self.known = known
        # Kept as long as this object: a plan may hold arrays.
        self._ready = functools.lru_cache(4)(self._prepare)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self.known
