"""What all initializers share: the ways to ask for values, checked and handed to the engine."""

import dataclasses
import functools
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from numinit.arrays import NUMPY_NAMES, adapter_of, c_steps, maker_of, refuse_overlap
from numinit.dtypes import DType, RangeError, as_dtype
from numinit.engines import cpu, cuda
from numinit.engines.cpu import Formula
from numinit.fans import as_shape
from numinit.keys import Key, as_key


class Part(NamedTuple):
    """The layout of a part of a weight, as `numinit.engines.cpu.Fill` takes it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    steps: tuple[int, ...]
    by_rows: bool
    on_gpu: bool


ROWS = 1 << 18  # that `rows` makes at a time: 2 MiB of row numbers

#: What fills memory: called with the address, the first element's global index, the address of the
#: global rows or 0, and the key's seed and stream, as `numinit.engines.cpu.Fill` is; for a GPU's
#: memory then with where it is, as `numinit.engines.cuda.Fill` is.
Filler = Callable[..., None]


def _exact(value: Any) -> Any:
    """What tells a value from every other, also from those that are equal to it."""
    if isinstance(value, Initializer) and dataclasses.is_dataclass(value):
        fields = (f.name for f in dataclasses.fields(value) if f.compare)
        return type(value), *(_exact(getattr(value, name)) for name in fields)
    if isinstance(value, tuple):
        return type(value), *map(_exact, value)
    if isinstance(value, numbers.Number) and not isinstance(value, numbers.Integral):
        return type(value), repr(value)  # the sign of a zero, too
    return type(value), value


class Exactly:
    """An initializer as a cache's key. Equality is none: -0.0 == 0.0 and True == 1 == 1 + 0j."""

    __slots__ = ("_hash", "_key", "init")

    def __init__(self, init: Any) -> None:
        self.init, self._key = init, _exact(init)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exactly) and self._key == other._key


class _Kept:
    """Decorator: a property that is made once, without the lock of functools' in Python 3.11."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, init: Any, owner: Any = None) -> Any:
        if init is None:
            return self
        made = init.__dict__[self._make.__name__] = self._make(init)
        return made


class Initializer:
    """What all initializers can do. `law` is the one method that most of them differ in.

    An initializer is hashable and never changes: what fills a weight is kept by it and the shape.
    """

    @_Kept
    def _exactly(self) -> Exactly:
        return Exactly(self)

    @_Kept
    def _ready(self) -> Callable[..., tuple[Filler | None, bool]]:
        """`_prepare`, cached: a model's layers are alike, and small ones must not wait for Python."""
        return functools.partial(_prepared, self._exactly)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name for name, of in vars(Initializer).items() if isinstance(of, _Kept)}
        return {name: value for name, value in self.__dict__.items() if name not in kept}

    def law(self, shape: Sequence[int]) -> "Law":
        """The distribution of the elements of a weight of this shape."""
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
            A name of `numinit.dtypes.DTYPES`; bfloat16 and the float8 types need the extra
            numinit[ml-dtypes].
        seed : int, Key, Generator or None, optional
            See `numinit.keys.as_key`.
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
            See `numinit.keys.as_key`. For a torch tensor None draws from torch's own generator.

        Returns
        -------
        array
            The same object.

        Raises
        ------
        TypeError, ValueError
            Naming the argument; the array is untouched then.
        """
        adapter = adapter_of(array)
        address, dtype, part, strides, where = adapter.memory(array)
        whole, start = part, 0
        if shape is not None or offset is not None:
            whole = part if shape is None else as_shape(shape)
            start = _window_start(part, whole, offset)
        layout = whole, dtype, part, strides
        fill, draws = self._ready(*layout, on_gpu=True) if where else self._ready(*layout)
        if address is None:
            return array
        if draws and seed is None:
            words = adapter.default_key(array)
        else:
            key = _key(draws, seed)
            words = key.seed, key.stream
        if fill is None:
            return array
        try:
            fill(address, start, 0, *words, *where)
        finally:
            adapter.written(array)
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
        array, address, strides, where = _empty((ids.size, *whole[1:]), kind, maker)
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
            block = np.ascontiguousarray(flat[begin : begin + ROWS], np.int64)
            if block.min() < 0:
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
        kind = as_dtype(dtype)
        size = kind.itemsize
        fill, _ = self._ready(tuple(shape), kind, (out.size // size,), (size,), (1,))
        if fill is not None:
            fill(out.ctypes.data, start, 0, key.seed, key.stream)

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
        array, address, strides, where = _empty(part, dtype, maker_of(device))
        fill, draws = self._ready(whole, dtype, part, strides, steps, False, bool(where))
        key = _key(draws, seed)
        if fill is not None:
            fill(address, start, 0, key.seed, key.stream, *where)
        return array

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
        with np.errstate(all="ignore"):
            law = self.law(whole)
            try:
                law.check(whole, dtype)
            except RangeError as error:
                if law is self:
                    raise
                raise RangeError(f"{error}; {self!r} makes it for shape {whole}") from None
        if 0 in part:
            return None, False
        refuse_overlap(part, strides, dtype.itemsize)
        if steps is None:
            steps = c_steps(whole)
        layout = Part(part, strides, steps, by_rows, on_gpu)
        fill, draws = law.filler(whole, dtype, layout)
        if not isinstance(fill, cpu.Fill | cuda.Fill):
            fill = _quiet(fill)
        if on_gpu and not isinstance(fill, cuda.Fill):
            fill = cuda.Copied(fill, part, strides, dtype.itemsize)
        return fill, draws


@functools.lru_cache(1024)
def _prepared(exactly: Exactly, *layout: Any, **more: Any) -> tuple[Filler | None, bool]:
    return exactly.init._prepare(*layout, **more)  # type: ignore[no-any-return]


def _quiet(fill: Filler) -> Filler:
    """A fill by NumPy that no flag of the processor ends half way, whatever the caller's errstate.

    Which operations set which flags depends on the instructions that NumPy chooses.
    """

    def quiet(*where: int) -> None:
        with np.errstate(all="ignore"):
            fill(*where)

    return quiet


_NO_KEY = Key(0)


def _key(draws: bool, seed: Any) -> Key:
    """The key of a seed argument; a fill that draws nothing needs none."""
    return _NO_KEY if seed is None and not draws else as_key(seed)


def _empty(
    shape: tuple[int, ...], dtype: DType, maker: Any
) -> tuple[Any, Any, tuple[int, ...], tuple[int, ...]]:
    """A new array, its address and strides, and where it is; see `numinit.arrays.Memory`."""
    if maker is None:
        array: Any = np.empty(shape, numpy_dtype(dtype))
        return array, array.ctypes.data, array.strides, ()
    array, (address, _, _, strides, where) = maker.empty(shape, dtype)
    return array, address, strides, where


def parse_index(index: Any, whole: tuple[int, ...]) -> list[tuple[int, int | None]]:
    """The first index along each axis of `whole`, and the size; None where an integer drops it."""
    index = index if isinstance(index, tuple) else (index,)
    ellipses = sum(i is Ellipsis for i in index)
    if ellipses > 1 or len(index) - ellipses > len(whole):
        raise IndexError(f"index: {index!r} does not fit shape {whole}")
    at = next((n for n, i in enumerate(index) if i is Ellipsis), len(index))
    missing = len(whole) - (len(index) - ellipses)
    index = index[:at] + (slice(None),) * missing + index[at + 1 :]
    parsed: list[tuple[int, int | None]] = []
    for axis, (item, size) in enumerate(zip(index, whole, strict=True)):
        if isinstance(item, slice):
            try:
                low, high, stride = item.indices(size)
            except TypeError:
                raise IndexError(f"index: {item!r} on axis {axis} is not of integers") from None
            if stride != 1:
                raise IndexError(f"index: step {stride} on axis {axis}; only step 1 is accepted")
            parsed.append((low, max(0, high - low)))
            continue
        if isinstance(item, (bool, np.bool_)) or not hasattr(item, "__index__"):
            raise IndexError(
                f"index: {item!r} on axis {axis}; integers, slices and ... are accepted"
            )
        low = operator.index(item)
        if not -size <= low < size:
            raise IndexError(f"index: {low} is out of range for axis {axis} of shape {whole}")
        parsed.append((low % size, None))
    return parsed


def as_rows(rows: Any, whole: tuple[int, ...]) -> np.ndarray:
    """Row numbers as an array of integers, checked against a weight's shape."""
    if not whole:
        raise ValueError("shape: () has no rows; at least one axis is accepted")
    try:
        values = adapter_of(rows).values  # perhaps a GPU's
    except TypeError:
        values = np.asarray
    ids: np.ndarray = values(rows)
    if ids.dtype.kind not in "iu" and ids.size:
        raise TypeError(f"ids: {ids.dtype} values were given; integers are accepted")
    for bad in (ids.min(), ids.max()) if ids.size else ():
        if not -whole[0] <= bad < whole[0]:
            raise IndexError(f"ids: {bad} is out of range for {whole[0]} rows")
    return ids


def _window_start(part: tuple[int, ...], whole: tuple[int, ...], offset: Any) -> int:
    """The global index of a window's first element, after checking that it lies inside."""
    begin = (0,) * len(whole) if offset is None else as_shape(offset, "offset")
    if not len(part) == len(whole) == len(begin):
        raise ValueError(
            f"shape, offset: {whole} and {begin} were given; as many axes as the array's "
            f"shape {part} has are accepted"
        )
    if any(o + p > w for o, p, w in zip(begin, part, whole, strict=True)):
        raise ValueError(
            f"offset: a window of shape {part} at {begin} reaches beyond the whole shape {whole}"
        )
    return sum(map(operator.mul, begin, c_steps(whole)))


def numpy_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype of an element type.

    Raises
    ------
    ImportError
        For bfloat16 and float8 without the package ml_dtypes, naming the extra.
    """
    if dtype.name in NUMPY_NAMES:
        return np.dtype(dtype.name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f"dtype: NumPy arrays of {dtype.name} need ml_dtypes: pip install 'numinit[ml-dtypes]'"
        ) from None
    found: np.dtype = np.dtype(getattr(ml_dtypes, dtype.name))
    return found


class Law(Initializer):
    """An initializer whose distribution is the same for every shape."""

    whole: ClassVar[bool] = False
    """Whether a weight can only be made as a whole."""

    @property
    def tolerance(self) -> float:
        """How far values may be from those that another machine makes."""
        return 0.0

    one_shape: ClassVar[bool] = False
    """Whether it is for one shape after all, in which it clears some elements."""

    def law(self, shape: Sequence[int]) -> "Law":
        return self

    def formula(self, dtype: DType) -> Formula:
        """What the engine takes, for arrays of `dtype`.

        Raises
        ------
        TypeError, ValueError
            If the type cannot hold such values.
        """
        raise NotImplementedError

    def narrowed(self, divisor: float) -> "Law":
        """The same law, its standard deviation divided and its mean kept.

        Raises
        ------
        ValueError
            If it has no spread.
        """
        raise ValueError(f"{type(self).__name__} has no spread to scale")

    def check(self, shape: Sequence[int], dtype: DType) -> None:
        """Refuse a weight that cannot have such values, with a TypeError or a ValueError."""
        self.formula(dtype)

    def filler(self, whole: tuple[int, ...], dtype: DType, part: Part) -> tuple[Filler, bool]:
        """What fills a part, not empty, of a weight that `check` accepts; whether it draws.

        A law that only fills the host's memory may do so for a GPU, too: it is copied then.
        """
        formula = self.formula(dtype)
        engine = cuda if part.on_gpu else cpu
        fill = engine.Fill(part.shape, part.strides, part.steps, dtype.name, formula, part.by_rows)
        return fill, formula.law != "constant"
