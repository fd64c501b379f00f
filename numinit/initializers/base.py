"""The base of all initializers: the ways to ask for values, checked and handed to the engines."""

import functools
from collections.abc import Callable, Sequence
from operator import add
from typing import Any, ClassVar

import numpy as np

from numinit.arrays.frameworks import framework_of
from numinit.arrays.memory import Framework
from numinit.arrays.new import empty, maker_of
from numinit.arrays.numpy import FRAMEWORK as NUMPY
from numinit.arrays.numpy import memory_of_bytes
from numinit.engines import cuda, driver
from numinit.engines.driver import Filler
from numinit.engines.floats import default_mode
from numinit.engines.layout import View, c_steps
from numinit.engines.spec import Plan, Sampled
from numinit.initializers.callers import refuse_caller, refused_call
from numinit.initializers.kept import ADDED, Exactly, Kept
from numinit.show import show
from numinit.stream.dtypes import DType, RangeError, as_dtype
from numinit.stream.transform import Transform
from numinit.weights.keys import LIMIT, Key, as_key
from numinit.weights.shapes import (
    as_rows,
    as_shape,
    check_rows,
    parse_index,
    run_start,
    window_start,
)

ROWS = 1 << 18  # rows that `rows` makes at a time; their numbers take 2 MiB


class Initializer:
    """A way to fill weights. A subclass, a frozen dataclass, defines `plan`.

    The docstrings of `Sampled`, `ByIndex` and `Whole` define an initializer of each kind. An
    initializer is hashable and never changes, because the fills of a shape are kept for the next
    weight of that shape. A TypeError, ValueError or IndexError names a refused argument.

    Examples
    --------
    >>> ni.Normal(std=0.02)((2, 3), seed=0).shape
    (2, 3)
    """

    has_spread: ClassVar[bool] = True
    """Whether there is a standard deviation to scale, as `DepthScaled` does."""

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        """Say how a weight is made.

        Parameters
        ----------
        shape, dtype : tuple of int, DType
            The shape and the element type of the whole weight.

        Returns
        -------
        Sampled, ByIndex or Whole

        Raises
        ------
        TypeError, ValueError
            If there is no such weight.

        Examples
        --------
        >>> ni.Orthogonal().plan((4, 2), ni.stream.dtypes.as_dtype("float32")).name
        'Orthogonal'
        """
        raise NotImplementedError

    def __call__(
        self,
        shape: Any,
        dtype: Any = "float32",
        *refused: Any,
        seed: Any = None,
        device: Any = None,
    ) -> Any:
        """Make a new array.

        Parameters
        ----------
        shape : int or sequence of int
        dtype : str or dtype; see `numinit.stream.dtypes.DTYPES`
        *refused
            Nothing. Flax calls ``init(key, shape, dtype)``, and the error names `numinit.jax`.
        seed : int, Key, Generator or None; see `numinit.weights.keys.as_key`
        device : str or None
            "cuda" or "cuda:N" for an array on that GPU, made on the current stream; else NumPy's.

        Returns
        -------
        numpy.ndarray, torch.Tensor or cupy.ndarray

        Raises
        ------
        TypeError
            If Keras or Haiku is the caller, and the values depend on axes that are torch's.

        Examples
        --------
        >>> ni.Ones()(2, "float16")
        array([1., 1.], dtype=float16)
        """
        if seed is None:
            refuse_caller(self)
        try:
            if refused:
                raise TypeError
            whole, kind = as_shape(shape), as_dtype(dtype)
        except (TypeError, ValueError):
            if (error := refused_call(self, shape, 2 + len(refused))) is not None:
                raise error from None
            raise
        return self._new(whole, None, 0, whole, kind, seed, device)

    def fill_(self, array: Any, *, shape: Any = None, offset: Any = None, seed: Any = None) -> Any:
        """Fill an array in place: a whole weight, or a rectangular part of one.

        Parameters
        ----------
        array : numpy.ndarray, torch.Tensor or an array on a GPU
            Writable, of any layout whose elements do not overlap. Of a DTensor each process fills
            the part that it holds, with the values that the whole has on one device.
        shape, offset : sequence of int or None
            The whole weight's shape, and the array's begin in it. None: the array's shape, 0.
            A part of an orthogonal weight is cut out of the whole, which is made for it.
        seed : int, Key, Generator or None
            See `numinit.weights.keys.as_key`. For a torch tensor None draws from torch's generator,
            which must be in the same state on all processes that share a DTensor.

        Returns
        -------
        array
            The same object.

        Examples
        --------
        >>> part = ni.Normal().fill_(np.empty(2), shape=(8,), offset=(6,), seed=0)
        >>> bool((part == ni.Normal()((8,), "float64", seed=0)[6:]).all())
        True
        """
        framework = framework_of(array)
        if framework.parts is not None:
            return self._fill_parts(framework, array, shape, offset, seed)
        address, dtype, part, strides, where = framework.memory(array)
        whole, start = part, 0
        if shape is not None or offset is not None:
            whole = part if shape is None else as_shape(shape)
            start = window_start(part, whole, offset)
        layout = whole, dtype, part, strides
        fill, draws = self._ready(*layout, on_gpu=True) if where else self._ready(*layout)
        if address is not None:
            _run(framework, array, fill, draws, seed, address, start, where)
        return array

    def _fill_parts(
        self, framework: Framework, array: Any, shape: Any, offset: Any, seed: Any
    ) -> Any:
        """Fill the windows that this process holds of an array without one memory."""
        own, parts = framework.parts(array)  # type: ignore[misc]
        whole, kind = own if shape is None else as_shape(shape), as_dtype(array.dtype)
        window_start(own, whole, offset)  # refuses what reaches beyond
        corner = (0,) * len(whole) if offset is None else as_shape(offset)
        # Asked of the whole, so that all processes agree, also one that holds nothing.
        strides = tuple(step * kind.itemsize for step in c_steps(whole))
        _, draws = self._ready(whole, kind, whole, strides)
        if draws and seed is None and framework.default_seed is not None:
            seed = framework.default_seed(array)
        key = _key(draws, seed)
        for part, low in parts:
            self.fill_(part, shape=whole, offset=tuple(map(add, corner, low)), seed=key)
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
        """Make ``self(shape, dtype, seed=seed)[index]`` without the rest.

        Parameters
        ----------
        shape, dtype, seed, device
            See `__call__`.
        index : int, slice of step 1, Ellipsis or tuple of them

        Returns
        -------
        numpy.ndarray, torch.Tensor or cupy.ndarray

        Examples
        --------
        >>> ni.Eye().block((1 << 20, 1 << 20), np.s_[5, 4:7]).tolist()
        [0.0, 1.0, 0.0]
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
        self, shape: Any, ids: Any, dtype: Any = "float32", *, seed: Any = None, device: Any = None
    ) -> Any:
        """Make ``self(shape, dtype, seed=seed)[ids]`` without the rest.

        Parameters
        ----------
        shape, dtype, seed, device
            See `__call__`; at least one axis.
        ids : array_like of int
            Indices of axis 0 in any order, repeated or not. Negative ones count from the end.

        Returns
        -------
        numpy.ndarray, torch.Tensor or cupy.ndarray, of shape ``ids.shape + shape[1:]``

        Examples
        --------
        >>> ni.Normal().rows((1 << 50, 4), [7, 1 << 49], seed=0).shape
        (2, 4)
        """
        whole = as_shape(shape)
        ids = as_rows(ids, whole)
        kind = as_dtype(dtype)
        maker = maker_of(device)
        array, address, strides, where = empty((ids.size, *whole[1:]), kind, maker)
        flat, steps = ids.reshape(-1), (0, *c_steps(whole)[1:])
        # In blocks, because the kernel takes int64 and no negative row.
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

    def _fill_as(self, dtype: DType, array: Any, shape: Any, offset: Any, seed: Any) -> None:
        """`fill_` a window with elements of a type that has the item size of the array's own."""
        framework = framework_of(array)
        address, _, part, strides, where = framework.memory(array)
        whole = as_shape(shape)
        start = window_start(part, whole, offset)
        fill, draws = self._ready(whole, dtype, part, strides, None, False, bool(where))
        if address is not None:
            _run(framework, array, fill, draws, seed, address, start, where)

    def fill_flat(
        self, array: Any, start: int = 0, shape: Any = None, dtype: Any = None, seed: Any = None
    ) -> Any:
        """Fill a flat array with a run of a weight's elements in C order.

        FSDP1 and ZeRO-3 keep such runs of the flattened weights.

        Parameters
        ----------
        array : numpy.ndarray, torch.Tensor or an array on a GPU
            Writable, of one axis.
        start : int
            The index of its first element in the flattened weight.
        shape : int or sequence of int, optional
            The whole weight's shape, from which fans follow. None: that of the array.
        dtype : dtype, optional
            The weight's element type if the array is one of its raw bytes: a contiguous
            numpy.ndarray of uint8, such as a part of a mapped file. None: the array's own type.
        seed : int, Key, Generator or None
            See `fill_`.

        Returns
        -------
        array
            The same object.

        Examples
        --------
        >>> run = ni.Normal().fill_flat(np.empty(5), start=3, shape=(4, 2), seed=0)
        >>> bool((run == ni.Normal()((4, 2), "float64", seed=0).reshape(-1)[3:]).all())
        True
        """
        if dtype is None:
            framework = framework_of(array)
            address, kind, part, strides, where = framework.memory(array)
        else:
            framework = NUMPY
            address, kind, part, strides, where = memory_of_bytes(array, as_dtype(dtype))
        if len(part) != 1:
            raise ValueError(f"array: its shape is {part}; an array of one axis is accepted")
        whole = part if shape is None else as_shape(shape)
        first = run_start(part[0], whole, start)
        ready, draws = self._ready(whole, kind, part, strides, (1,), False, bool(where))
        if address is not None:
            _run(framework, array, ready, draws, seed, address, first, where)
        return array

    def prepare_flat(self, nbytes: int, shape: Sequence[int], dtype: Any) -> Filler | None:
        """Compile the function that `fill_flat` calls for raw bytes.

        Parameters
        ----------
        nbytes, shape, dtype
            The size of the array, and the shape and the type of the whole weight.

        Returns
        -------
        Filler, or None if there are no bytes to fill

        Examples
        --------
        >>> ni.Ones().prepare_flat(0, (0,), "float32") is None
        True
        """
        kind = as_dtype(dtype)
        size = kind.itemsize
        fill: Filler | None
        whole, part = as_shape(shape), (nbytes // size,)
        fill, _ = self._ready(whole, kind, part, (size,), (1,), False, False)  # as `fill_flat` asks
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

    @default_mode()  # because parameters must not depend on the caller's floating-point mode
    def _prepare(
        self,
        whole: tuple[int, ...],
        dtype: DType,
        part: tuple[int, ...],
        strides: tuple[int, ...],
        steps: tuple[int, ...] | None = None,  # None: those of `whole`
        by_rows: bool = False,
        on_gpu: bool = False,
    ) -> tuple[Filler | None, bool]:
        """Return what fills a part of a weight (None if that is empty), and whether it draws."""
        view = View(part, strides, c_steps(whole) if steps is None else steps, by_rows)
        with np.errstate(all="ignore"):
            plan = self.plan(whole, dtype)
            try:
                return driver.prepared(plan, whole, dtype, view, on_gpu)
            except RangeError as error:
                if not isinstance(plan, Sampled) or isinstance(self, Distribution | Planned):
                    raise
                raise RangeError(f"{error}; {show(self)} makes it for shape {whole}") from None

    @Kept
    def _ready(self) -> Callable[..., tuple[Filler | None, bool]]:
        """`_prepare`, kept for the next time unless the initializer is large or may change."""
        return functools.partial(_prepared, Exactly(self))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ADDED}


@functools.lru_cache(1024)  # a model's layers are alike, and planning takes longer than small fills
def _prepared(exactly: Exactly, *layout: Any, **more: Any) -> tuple[Filler | None, bool]:
    return exactly.init._prepare(*layout, **more)  # type: ignore[no-any-return]


def _run(
    framework: Framework,
    array: Any,
    fill: Filler | None,
    draws: bool,
    seed: Any,
    address: int,
    start: int,
    where: tuple[()] | tuple[int, int],
) -> None:
    """Fill an array's memory from its own kind of seed."""
    if draws and seed is None and framework.default_seed is not None:
        words = framework.default_seed(array), 0
    elif type(seed) is int and 0 <= seed < LIMIT:
        words = seed, 0  # a Key takes longer to make
    else:
        key = _key(draws, seed)
        words = key.seed, key.stream
    if fill is None:
        return
    try:
        fill(address, start, 0, *words, *where)
    finally:
        framework.written(array)


_NO_KEY = Key(0)


def _key(draws: bool, seed: Any) -> Key:
    """The key of a seed argument; a fill that draws nothing needs none."""
    return _NO_KEY if seed is None and not draws else as_key(seed)


class Distribution(Initializer):
    """An initializer that is one distribution; see `numinit.engines.spec.Distribution`."""

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return Sampled(self)

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        """Return the transform for a type, and its parameters."""
        raise NotImplementedError

    def divided(self, divisor: float) -> "Distribution":
        """Return the distribution with its standard deviation divided."""
        raise ValueError(f"{type(self).__name__} has no spread to scale")


class Planned(Initializer):
    """An initializer of one weight, whose plan is `known`."""

    def __init__(self, known: Plan) -> None:
        self.known = known
        # Kept as long as this object: a plan may hold arrays.
        self._ready = functools.lru_cache(4)(self._prepare)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self.known
