"""Calls of CUDA's driver: where memory is, the context to work in, launches and copies.

The context is always the primary one of the GPU, which the CUDA runtime, torch, CuPy and Numba
share. Under Numba's simulator there is no driver, and device memory is the process's own.

NVIDIA's cuda.core (1.2) has most of this. But to make its LaunchConfig alone takes 2 of the 7 us of a
small fill. Its views of arrays need a driver to read an interface, and hide whether DLPack has
copied. Its linker chooses by itself between nvJitLink and the driver.
"""

import ctypes
import functools
import itertools
import re
from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple

from numinit.engines.preparing import preparing

DEFAULT_STREAMS = (0, 1, 2)  # handles of the default streams, which every context has
DEVICE = 2  # CU_MEMORYTYPE_DEVICE
MOST_PITCH = 2**31 - 1  # most bytes from row to row in one copy

#: The oldest versions that compile for GPUs. An older numba-cuda does not work beside a numba
#: without its own CUDA target. Beside an older numba, which has one, intrinsics of numba.extending
#: are not found.
OLDEST = {"numba-cuda": (0, 30, 4), "numba": (0, 67)}


class MissingError(ImportError):
    """The packages that compile for GPUs are not installed, or too old."""


def _installed(package: str) -> str:
    """The version of a package, "" if it is not installed."""
    from importlib import metadata  # late: importing it takes 10 ms

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_installed() -> None:
    """Refuse to go on without the packages that compile for GPUs.

    Raises
    ------
    MissingError
        If one is missing or too old. It names the extras.
    """
    if what := lacking():
        raise MissingError(f"array: it is in the memory of a GPU, for which {what}")


@functools.cache
def lacking() -> str:
    """A sentence that says what must be installed to compile for GPUs; "" if all of it is."""
    found = {package: _installed(package) for package in OLDEST}
    numbers = (tuple(map(int, re.findall(r"\d+", version)[:3])) for version in found.values())
    if all(number >= oldest for number, oldest in zip(numbers, OLDEST.values(), strict=True)):
        return ""
    accepted = " and ".join(
        f"{package} {'.'.join(map(str, oldest))}" for package, oldest in OLDEST.items()
    )
    given = ", ".join(f"{package} {version or 'is not'}" for package, version in found.items())
    return (
        f"numinit needs {accepted} or newer ({given} installed): pip install 'numinit[cuda12]' or "
        "'numinit[cuda13]', by the version of CUDA"
    )


@functools.cache
def _driver() -> Any:
    """NVIDIA's bindings of the driver, initialized; None under the simulator."""
    with preparing:  # a fork in the middle of an import would leave its locks locked in the child
        from numinit.compiler.cuda import SIMULATED

        if SIMULATED:
            return None
        from cuda.bindings import driver

        checked(driver.cuInit(0))
        return driver


#: What a user can do about some of the driver's errors.
_HINTS = {
    "CUDA_ERROR_NOT_INITIALIZED": "; a forked child cannot use its parent's GPUs: start it by spawn",
    "CUDA_ERROR_INVALID_IMAGE": "; is the driver older than what compiles? pip install "
    "'numinit[cuda12]' or 'numinit[cuda13]', by the version of CUDA that nvidia-smi says",
}


def checked(result: tuple[Any, ...]) -> Any:
    """The result of a call of the driver without its error code: None, one value, or a tuple.

    Raises
    ------
    RuntimeError
        If the call failed, with the driver's name for the error.
    """
    error, *values = result
    if int(error):
        why = _HINTS.get(error.name, "")
        raise RuntimeError(f"CUDA: {error.name}{why}")
    return tuple(values) if len(values) > 1 else values[0] if values else None


@functools.cache
def _primary(device: int) -> int:
    """The handle of the primary context of a GPU."""
    driver = _driver()
    return int(checked(driver.cuDevicePrimaryCtxRetain(checked(driver.cuDeviceGet(device)))))


class current:
    """Make a GPU's primary context the current one, and leave what was current as it was."""

    # Not by contextlib, which takes longer than the driver.
    __slots__ = ("_device", "_pushed")

    def __init__(self, device: int) -> None:
        self._device, self._pushed = device, False

    def __enter__(self) -> None:
        driver = _driver()
        if driver is None:
            return
        primary = _primary(self._device)
        if int(checked(driver.cuCtxGetCurrent())) == primary:
            return
        try:
            checked(driver.cuCtxPushCurrent(primary))
            self._pushed = True
        except BaseException:  # also a signal's handler, which may raise after the push
            if int(driver.cuCtxGetCurrent()[1]) == primary:
                driver.cuCtxPopCurrent()
            raise

    def __exit__(self, *error: object) -> None:
        if self._pushed:
            checked(_driver().cuCtxPopCurrent())


@functools.cache
def _pointer_attributes() -> Any:
    """The driver's function itself, because its bindings read some attributes wrongly.

    See NVIDIA/cuda-python#2928. The runtime's function would create a context and leave it behind.
    """
    address, _ = checked(_driver().cuGetProcAddress(b"cuPointerGetAttributes", 12000, 0))
    pointer = ctypes.c_void_p
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, pointer, pointer, ctypes.c_uint64)
    return kind(address)


# CU_POINTER_ATTRIBUTE_CONTEXT, _MEMORY_TYPE, _IS_MANAGED and _DEVICE_ORDINAL
_ATTRIBUTES = array("i", (1, 2, 8, 9))
UNKNOWN = (1, 201)  # CUDA_ERROR_INVALID_VALUE and _INVALID_CONTEXT


def _of_pointer(address: int) -> "array[int]":
    """The attributes of the memory at an address; zeros if the driver does not know that memory."""
    values = array("Q", (0, 0, 0, 0))  # the driver writes 32 bits or 64
    first = values.buffer_info()[0]
    places = array("Q", (first, first + 8, first + 16, first + 24))
    error = _pointer_attributes()(4, _ATTRIBUTES.buffer_info()[0], places.buffer_info()[0], address)
    if error in UNKNOWN:
        return array("Q", (0, 0, 0, 0))
    if error:
        checked((_driver().CUresult(error),))
    return values


def device_of(address: int, queue: int) -> int:
    """The ordinal of the GPU that the memory at an address belongs to.

    Parameters
    ----------
    address : int
        Of the memory.
    queue : int
        The handle of the stream to work on.

    Raises
    ------
    ValueError
        If the memory is not a GPU's or of another context than the primary one, or the stream is
        another GPU's or context's.
    RuntimeError
        If the driver fails, as after an error of a kernel.
    """
    driver = _driver()
    if driver is None:
        return 0
    owner, kind, managed, device = _of_pointer(address)
    if kind != DEVICE and not managed:
        raise ValueError(f"array: its address {address:#x} is not in the memory of a GPU")
    primary = _primary(device)
    if owner and owner != primary:  # memory of a pool has no owner
        raise ValueError("array: it belongs to another context than the primary one of its GPU")
    if queue not in DEFAULT_STREAMS and int(checked(driver.cuStreamGetCtx(queue))) != primary:
        raise ValueError(
            f"array: it is on GPU {device}, and the stream that it exports is another GPU's, or of "
            "another context than the primary one; make its device the current one"
        )
    return device


def wait(device: int, queue: int = 0) -> None:
    """Wait until the work on a stream of a GPU, by default the default one, is done."""
    driver = _driver()
    if driver is not None:
        with current(device):
            checked(driver.cuStreamSynchronize(queue))


class Properties(NamedTuple):
    """Properties of a GPU."""

    capability: tuple[int, int]
    """The compute capability."""
    multiprocessors: int


def properties(device: int) -> Properties:
    """The properties of a GPU."""
    driver = _driver()
    names = driver.CUdevice_attribute
    major, minor, multiprocessors = (
        int(checked(driver.cuDeviceGetAttribute(name, device)))
        for name in (
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
    )
    return Properties((major, minor), multiprocessors)


def load(name: bytes, code: bytes) -> int:
    """Load a kernel on the current GPU, for the rest of the process; returns its handle.

    Also while a stream is captured, where the driver would else refuse what may allocate.
    """
    driver = _driver()
    relaxed = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    before = checked(driver.cuThreadExchangeStreamCaptureMode(relaxed))
    try:
        module = checked(driver.cuModuleLoadData(code))
        return int(checked(driver.cuModuleGetFunction(module, name)))
    finally:
        checked(driver.cuThreadExchangeStreamCaptureMode(before))


def launch(kernel: int, blocks: int, threads: int, queue: int, words: "array[int]") -> None:
    """Launch a kernel on the current GPU.

    Parameters
    ----------
    kernel : int
        Its handle.
    blocks, threads : int
        The number of thread blocks, and of threads in each.
    queue : int
        The handle of the stream.
    words : array.array
        The arguments side by side, 64 bits each.
    """
    address, count = words.buffer_info()
    # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE and _END; behind them the size
    extra = array("q", (1, address, 2, 0, 0, 8 * count))
    place = extra.buffer_info()[0]
    extra[3] = place + 40
    checked(_driver().cuLaunchKernel(kernel, blocks, 1, 1, threads, 1, 1, 0, queue, 0, place))


class Rows(NamedTuple):
    """The layout of some rows: `height` rows of `width` bytes, `pitch` bytes apart."""

    width: int
    height: int
    pitch: int


def copy(
    address: int, host: int, rows: Rows, offsets: Iterable[int], device: int, queue: int
) -> None:
    """Copy rows that lie side by side in the host's memory to a GPU's, and wait until it is done.

    Parameters
    ----------
    address : int
        OUT, in the GPU's memory.
    host : int
        IN, an address in the host's memory.
    rows : Rows
        The layout in the GPU's memory. Bytes between rows are not written.
    offsets : iterable of int
        Where such rows begin, in bytes after `address`: the first of the host's, the next ones, ...
    device, queue : int
        The ordinal of the GPU and the handle of the stream.

    Raises
    ------
    RuntimeError
        If the stream is being captured in a graph, or the driver fails.
    """
    driver = _driver()
    width, height, pitch = rows
    with current(device):
        if driver is not None and int(checked(driver.cuStreamIsCapturing(queue))):
            raise RuntimeError(
                "array: its values are made on the host and copied, and a graph that is being captured "
                "holds no such copy; fill it before the capture"
            )
        try:
            for at, offset in zip(itertools.count(host, width * height), offsets, strict=False):
                to = address + offset
                if driver is not None and height > 1 and pitch <= MOST_PITCH:
                    both = driver.CUDA_MEMCPY2D()
                    both.srcMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_HOST
                    both.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
                    both.srcHost, both.dstDevice = at, to
                    both.srcPitch, both.dstPitch = width, pitch
                    both.WidthInBytes, both.Height = width, height
                    checked(driver.cuMemcpy2DAsync(both, queue))
                    continue
                for row in range(height):
                    place = to + row * pitch, at + row * width, width
                    if driver is None:
                        ctypes.memmove(*place)
                    else:
                        checked(driver.cuMemcpyHtoDAsync(*place, queue))
        finally:  # also after an error, because the caller frees the host's memory
            if driver is not None:
                checked(driver.cuStreamSynchronize(queue))
