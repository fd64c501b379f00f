"""What is asked of CUDA's driver: where memory is, the context to work in, and copies.

The context is always the GPU's primary one, which the CUDA runtime, torch, CuPy and Numba share.
Under Numba's simulator there is no driver, and a GPU's memory is the process's own.
"""

import contextlib
import ctypes
import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

ANY_GPU = (0, 1, 2)  # handles of the default streams, which every context has


class MissingError(ImportError):
    """The package that compiles for GPUs is not installed."""


def check_installed() -> None:
    """Refuse to work without numba-cuda.

    Raises
    ------
    MissingError
        Naming the extras. (Numba's own numba.cuda, where it has one, is no longer maintained.)
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise MissingError(
            "array: it is in the memory of a GPU, for which numinit needs numba-cuda: "
            "pip install 'numinit[cuda12]' or 'numinit[cuda13]', by the version of CUDA"
        )


@functools.cache
def _bindings() -> Any:
    """The driver's functions, None under the simulator."""
    from numinit.jit_cuda import SIMULATED

    if SIMULATED:
        return None
    from cuda.bindings import driver

    _checked(driver.cuInit(0))
    return driver


def _checked(result: tuple[Any, ...]) -> Any:
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


@contextlib.contextmanager
def current(device: int) -> Iterator[None]:
    """Make a GPU's primary context the current one, and leave what was current as it was."""
    from numba import cuda

    driver = _bindings()
    if driver is None:
        yield
        return
    # Numba, when it first meets a GPU, replaces the current context rather than push another.
    before = _checked(driver.cuCtxGetCurrent())
    try:
        with cuda.gpus[device]:
            yield
    finally:
        if int(_checked(driver.cuCtxGetCurrent())) != int(before):
            _checked(driver.cuCtxSetCurrent(before))


def device_of(address: int, queue: int) -> int:
    """The ordinal of the GPU that memory belongs to, and a stream if it is not a default one.

    Raises
    ------
    ValueError
        If it is no GPU's, another context's, or the stream another GPU's.
    """
    driver = _bindings()
    if driver is None:
        return 0
    ask, what = driver.cuPointerGetAttribute, driver.CUpointer_attribute
    try:
        device = int(_checked(ask(what.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)))
    except RuntimeError as error:
        raise ValueError(
            f"array: its address {address:#x} is not in the memory of a GPU ({error})"
        ) from None
    with current(device):
        primary = int(_checked(driver.cuCtxGetCurrent()))
    unknown, owner = ask(what.CU_POINTER_ATTRIBUTE_CONTEXT, address)
    if not int(unknown) and int(owner) not in (0, primary):  # memory of a pool has no owner
        raise ValueError("array: it belongs to another context than the primary one of its GPU")
    if queue not in ANY_GPU and int(_checked(driver.cuStreamGetCtx(queue))) != primary:
        raise ValueError(
            f"array: it is on GPU {device}, and the stream that it exports is another GPU's; make "
            "its device the current one"
        )
    return device


def wait(device: int, queue: int = 0) -> None:
    """Wait for a stream of a GPU, the default one if left out."""
    driver = _bindings()
    if driver is not None:
        with current(device):
            _checked(driver.cuStreamSynchronize(queue))


def copy_to(address: int, host: np.ndarray, device: int, queue: int) -> None:
    """Copy the host's bytes to a GPU, in the order of a stream; returns when it is done."""
    driver = _bindings()
    if driver is None:
        ctypes.memmove(address, host.ctypes.data, host.size)
        return
    with current(device):
        _checked(driver.cuMemcpyHtoDAsync(address, host.ctypes.data, host.size, queue))
        _checked(driver.cuStreamSynchronize(queue))


def copy_from(address: int, host: np.ndarray, device: int, queue: int) -> None:
    """Copy as many bytes of a GPU to the host as there is room for."""
    driver = _bindings()
    if driver is None:
        ctypes.memmove(host.ctypes.data, address, host.size)
        return
    with current(device):
        _checked(driver.cuMemcpyDtoHAsync(host.ctypes.data, address, host.size, queue))
        _checked(driver.cuStreamSynchronize(queue))
