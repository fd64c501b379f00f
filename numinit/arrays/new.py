"""New arrays: NumPy's, or on a GPU those of torch or CuPy."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.arrays.memory import Memory
from numinit.arrays.numpy import numpy_dtype
from numinit.stream.dtypes import DType


class Maker(NamedTuple):
    """What makes arrays on a device."""

    empty: Callable[[tuple[int, ...], DType], tuple[Any, Memory]]
    """A new array, not initialized, and its memory."""
    upload: Callable[[np.ndarray], tuple[Any, int]]
    """A copy of an array on the device, and its address."""


def empty(
    shape: tuple[int, ...], dtype: DType, maker: Maker | None
) -> tuple[Any, Any, tuple[int, ...], tuple[()] | tuple[int, int]]:
    """A new array, its address and strides, and where it is; see `numinit.arrays.memory.Memory`."""
    if maker is None:
        array: Any = np.empty(shape, numpy_dtype(dtype))
        return array, array.ctypes.data, array.strides, ()
    array, (address, _, _, strides, where) = maker.empty(shape, dtype)
    return array, address, strides, where


def maker_of(device: Any) -> Maker | None:
    """What makes arrays on a device, "cuda" or "cuda:N": torch or CuPy; None for the host's memory.

    The first that is imported, else the first that is installed, of those that see a GPU.

    Raises
    ------
    ValueError
        For another device, or one that is not there.
    ImportError
        If neither is installed, or sees a GPU.
    """
    if device is None or str(device) == "cpu":
        return None
    head, colon, number = str(device).partition(":")
    if head != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(
            f"device: {str(device)!r} was given; 'cpu', 'cuda' and 'cuda:N' are accepted"
        )
    index = int(number) if colon else None
    makers = {"torch": _torch_maker, "cupy": _cupy_maker}
    for found in (sys.modules.__contains__, importlib.util.find_spec):
        for package, make in makers.items():
            if found(package) and (made := make(index)) is not None:
                return made
    raise ImportError(
        f"device: {str(device)!r} needs CuPy or a torch that was built for CUDA, which makes the "
        "array, and a GPU that it sees"
    )


def _refuse_missing(index: int | None, count: int) -> None:
    if index is not None and index >= count:
        raise ValueError(f"device: 'cuda:{index}' was given; {count} GPUs are there, from 'cuda:0'")


def _torch_maker(index: int | None) -> Maker | None:
    import torch

    from numinit.arrays.torch import memory

    if torch.version.cuda is None or not torch.cuda.is_available():
        return None
    _refuse_missing(index, torch.cuda.device_count())
    device = torch.device("cuda", torch.cuda.current_device() if index is None else index)

    def empty(shape: tuple[int, ...], dtype: DType) -> tuple[Any, Memory]:
        tensor = torch.empty(shape, dtype=getattr(torch, dtype.name), device=device)
        return tensor, memory(tensor)

    def upload(array: np.ndarray) -> tuple[Any, int]:
        tensor = torch.tensor(array, device=device)
        return tensor, tensor.data_ptr()

    return Maker(empty, upload)


def _cupy_maker(index: int | None) -> Maker | None:
    import cupy

    from numinit.arrays.gpu import memory

    if cupy.cuda.runtime.is_hip:
        return None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver
        return None
    _refuse_missing(index, count)
    device = cupy.cuda.Device(index)

    def empty(shape: tuple[int, ...], dtype: DType) -> tuple[Any, Memory]:
        with device:  # also the stream that an array exports is the current device's
            try:
                array = cupy.empty(shape, numpy_dtype(dtype))
            except (TypeError, ValueError) as error:
                raise TypeError(f"dtype: CuPy makes no arrays of {dtype.name} ({error})") from None
            return array, memory(array)

    def upload(array: np.ndarray) -> tuple[Any, int]:
        with device:
            copy = cupy.asarray(array)
        return copy, copy.data.ptr

    return Maker(empty, upload)
