"""New arrays: of NumPy, or on a GPU of torch or CuPy."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.arrays.memory import Memory
from numinit.arrays.numpy import numpy_dtype
from numinit.show import show
from numinit.stream.dtypes import DType


class Maker(NamedTuple):
    """Allocates arrays on a device."""

    empty: Callable[[tuple[int, ...], DType], tuple[Any, Memory]]
    """Returns a new array, not initialized, and its memory."""
    upload: Callable[[np.ndarray], tuple[Any, int]]
    """Copies an array to the device; returns the copy and its address."""


def empty(
    shape: tuple[int, ...], dtype: DType, maker: Maker | None
) -> tuple[Any, Any, tuple[int, ...], tuple[()] | tuple[int, int]]:
    """Make a new array, not initialized.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : DType
        Its element type.
    maker : Maker or None
        Allocates it on a device; None makes a NumPy array.

    Returns
    -------
    tuple
        The array, its address, its strides in bytes and where it is; see
        `numinit.arrays.memory.Memory`.
    """
    if maker is None:
        kind = numpy_dtype(dtype)
        try:
            array: Any = np.empty(shape, kind)
        except ValueError as error:  # too many bytes, or axes, for NumPy
            raise ValueError(f"shape: {show(shape)} was given; NumPy says: {error}") from None
        return array, array.ctypes.data, array.strides, ()
    array, (address, _, _, strides, where) = maker.empty(shape, dtype)
    return array, address, strides, where


def maker_of(device: Any) -> Maker | None:
    """Choose torch or CuPy to allocate arrays on a device; None for the host's memory.

    Of those that see a GPU, it is the first that is imported, else the first that is installed.

    Parameters
    ----------
    device : str, torch.device or None
        "cpu" or None, "cuda" or "cuda:N".

    Raises
    ------
    ValueError
        If it is another device, or there is no such GPU.
    ImportError
        If neither package is installed and sees a GPU.
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
    for found in (sys.modules.get, importlib.util.find_spec):
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
        with device:  # the exported stream is the current device's, too
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
