"""What is asked of CUDA's driver: where memory is, the context to work in, and copies.

The context is always the GPU's primary one, which the CUDA runtime, torch, CuPy and Numba share.
Under Numba's simulator there is no driver, and a GPU's memory is the process's own.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from numinit.engines.cpu import preparing

ANY_GPU = (0, 1, 2)  # handles of the default streams, which every context has
DEVICE, MANAGED = 2, 3  # the runtime's types of memory that a kernel may write
MOST_PITCH = 2**31 - 1  # bytes from row to row in one copy


#: What compiles for GPUs. An older numba-cuda does not work beside a numba that has no CUDA of its
#: own any more; beside an older numba, which has, it does not see numba.extending's intrinsics.
OLDEST = {"numba-cuda": (0, 30, 4), "numba": (0, 67)}


class MissingError(ImportError):
    """The packages that compile for GPUs are not installed, or too old."""


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_installed() -> None:
    """Refuse to work without what compiles for GPUs.

    Raises
    ------
    MissingError
        Naming the extras.
    """
    if what := lacking():
        raise MissingError(f"array: it is in the memory of a GPU, for which {what}")


@functools.cache
def lacking() -> str:
    """What must be installed to compile for GPUs; nothing if all of it is."""
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


class Bindings(NamedTuple):
    """NVIDIA's own modules."""

    driver: Any
    runtime: Any


@functools.cache
def _bindings() -> Bindings | None:
    """The driver, None under the simulator."""
    with preparing:  # a fork in the middle of an import leaves a child its locks
        from numinit.jit_cuda import SIMULATED

        if SIMULATED:
            return None
        from cuda.bindings import driver, runtime

        checked(driver.cuInit(0))
        return Bindings(driver, runtime)


def checked(result: tuple[Any, ...]) -> Any:
    """What a function of the driver returns.

    Raises
    ------
    RuntimeError
        With the driver's name for the error.
    """
    error, *values = result
    if int(error):
        raise RuntimeError(f"CUDA: {error.name}")
    return values[0] if values else None


@functools.cache
def _primary(device: int) -> Any:
    """The primary context of a GPU."""
    cuda = _bindings()
    assert cuda is not None
    return checked(cuda.driver.cuDevicePrimaryCtxRetain(checked(cuda.driver.cuDeviceGet(device))))


@contextlib.contextmanager
def current(device: int) -> Iterator[None]:
    """Make a GPU's primary context the current one, and leave what was current as it was."""
    cuda = _bindings()
    if cuda is None:
        yield
        return
    checked(cuda.driver.cuCtxPushCurrent(_primary(device)))
    try:
        yield
    finally:
        checked(cuda.driver.cuCtxPopCurrent())


def device_of(address: int, queue: int) -> int:
    """The ordinal of the GPU that memory belongs to, and a stream if it is not a default one.

    Raises
    ------
    ValueError
        If it is no GPU's, another context's, or the stream another GPU's.
    """
    cuda = _bindings()
    if cuda is None:
        return 0
    driver = cuda.driver
    # Of the runtime, for several versions of the bindings read the driver's ordinal as 0
    # (NVIDIA/cuda-python#2928).
    found = checked(cuda.runtime.cudaPointerGetAttributes(address))
    if int(found.type) not in (DEVICE, MANAGED):
        raise ValueError(f"array: its address {address:#x} is not in the memory of a GPU")
    device = int(found.device)
    primary = int(_primary(device))
    unknown, owner = driver.cuPointerGetAttribute(
        driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT, address
    )
    if not int(unknown) and int(owner) not in (0, primary):  # memory of a pool has no owner
        raise ValueError("array: it belongs to another context than the primary one of its GPU")
    if queue not in ANY_GPU and int(checked(driver.cuStreamGetCtx(queue))) != primary:
        raise ValueError(
            f"array: it is on GPU {device}, and the stream that it exports is another GPU's; make "
            "its device the current one"
        )
    return device


def wait(device: int, queue: int = 0) -> None:
    """Wait for a stream of a GPU, the default one if left out."""
    cuda = _bindings()
    if cuda is not None:
        with current(device):
            checked(cuda.driver.cuStreamSynchronize(queue))


class Properties(NamedTuple):
    """Of a GPU."""

    capability: tuple[int, int]
    """The compute capability."""
    multiprocessors: int


def properties(device: int) -> Properties:
    """The properties of a GPU."""
    cuda = _bindings()
    assert cuda is not None
    names = cuda.driver.CUdevice_attribute
    major, minor, multiprocessors = (
        int(checked(cuda.driver.cuDeviceGetAttribute(name, device)))
        for name in (
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
    )
    return Properties((major, minor), multiprocessors)


def load(name: bytes, code: bytes) -> int:
    """Load machine code on the current GPU, for good; returns the handle of its kernel."""
    cuda = _bindings()
    assert cuda is not None
    module = checked(cuda.driver.cuModuleLoadData(code))
    return int(checked(cuda.driver.cuModuleGetFunction(module, name)))


def launch(kernel: int, blocks: int, threads: int, queue: int, words: "array[int]") -> None:
    """Start a kernel of the current GPU, whose arguments all have 64 bits."""
    cuda = _bindings()
    assert cuda is not None
    address, count = words.buffer_info()
    size = array("q", (words.itemsize * count,))
    # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE and _END
    extra = array("q", (1, address, 2, size.buffer_info()[0], 0))
    grid, block = (blocks, 1, 1), (threads, 1, 1)
    checked(cuda.driver.cuLaunchKernel(kernel, *grid, *block, 0, queue, 0, extra.buffer_info()[0]))


class Rows(NamedTuple):
    """Equal rows of bytes, `pitch` apart."""

    width: int
    height: int
    pitch: int


def copy(
    address: int, host: int, rows: Rows, offsets: Iterable[int], device: int, queue: int
) -> None:
    """Copy rows that begin at each offset from the host's memory to the same place of a GPU's.

    Nothing else is touched. Returns when it is done, in the order of the stream.
    """
    cuda = _bindings()
    width, height, pitch = rows
    with current(device):
        for offset in offsets:
            to, at = address + offset, host + offset
            if cuda is not None and height > 1 and pitch <= MOST_PITCH:
                kind = cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
                checked(
                    cuda.runtime.cudaMemcpy2DAsync(to, pitch, at, pitch, width, height, kind, queue)
                )
                continue
            for row in range(0, height * pitch, pitch):
                if cuda is None:
                    ctypes.memmove(to + row, at + row, width)
                else:
                    checked(cuda.driver.cuMemcpyHtoDAsync(to + row, at + row, width, queue))
        if cuda is not None:
            checked(cuda.driver.cuStreamSynchronize(queue))
