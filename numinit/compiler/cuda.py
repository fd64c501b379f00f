"""How kernels are compiled for CUDA.

The functions that `numinit.compiler.inline` marks are used as they are. Nothing here needs a driver
or a GPU. Numba is imported only to compile.

Under Numba's CUDA simulator (NUMBA_ENABLE_CUDASIM=1) a kernel is a Python function. It calls the
inline functions as compiled for the CPU, and device memory is the process's own.
"""

import functools
import importlib
import os
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numinit.compiler.cache import cached

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")

Kind = str | tuple[str, int] | tuple[type, str]
"""An argument's type: of a number, of a tuple of some numbers, of a NamedTuple of numbers."""


def _numba() -> Any:
    """numba.cuda."""
    if not (SIMULATED or hasattr(np, "row_stack")):
        # NumPy 2.5 has removed this function. numba-cuda, which is no longer developed, looks it up
        # when it is imported.
        vars(np)["row_stack"] = lambda arrays: np.vstack(arrays)
        try:
            importlib.import_module("numba.cuda.np.arrayobj")
        finally:
            del vars(np)["row_stack"]
    from numba import cuda

    return cuda


def _type(kind: Kind) -> Any:
    """Numba's type of an argument."""
    from numba import types

    if isinstance(kind, str):
        return getattr(types, kind)
    first, second = kind
    if isinstance(first, str):
        return types.UniTuple(_type(first), second)
    return types.NamedUniTuple(_type(second), len(first._fields), first)  # type: ignore


class Image(NamedTuple):
    """The machine code of one kernel, for the driver to load."""

    name: bytes
    """Of the kernel in the code."""
    code: bytes


def ptx(function: Callable[..., Any], signature: tuple[Kind, ...], capability: Any) -> str:
    """The PTX of a kernel's function for a compute capability.

    It is compiled without fastmath, so that division and sqrt round correctly. The compiler may
    still fuse a product that feeds a sum, which is why the transforms have none.
    """
    function.__qualname__ = function.__name__
    code, _ = _numba().compile(
        function, tuple(map(_type, signature)), cc=capability, output="ptx", abi="numba", device=False,
        debug=False, opt=True,
    )  # fmt: skip
    return str(code)


def assembled(text: str, *options: str) -> tuple[bytes, str]:
    """Assemble PTX with CUDA's own assembler; returns the machine code and the messages.

    Raises
    ------
    RuntimeError
        If it fails, with the assembler's message.
    """
    from cuda.bindings import nvjitlink

    (arch,) = re.findall(r"\.target (sm_\w+)", text)
    options = (f"-arch={arch}", "-Xptxas=--fmad=false", *options)
    link, said = 0, bytearray()
    try:
        link = nvjitlink.create(len(options), options)
        data = text.encode()
        nvjitlink.add_data(link, nvjitlink.InputType.PTX, data, len(data), "kernel")
        nvjitlink.complete(link)
    except nvjitlink.nvJitLinkError as error:
        if link:
            said = bytearray(nvjitlink.get_error_log_size(link))
            nvjitlink.get_error_log(link, said)
            nvjitlink.destroy(link)
        why = f"{error} {_text(said)}"
        raise RuntimeError(f"CUDA's assembler has no code for {arch}: {why}") from None
    try:
        code = bytearray(nvjitlink.get_linked_cubin_size(link))
        nvjitlink.get_linked_cubin(link, code)
        said = bytearray(nvjitlink.get_info_log_size(link))
        nvjitlink.get_info_log(link, said)
    finally:
        nvjitlink.destroy(link)
    return bytes(code), _text(said)


def _text(log: bytearray) -> str:
    return log.decode(errors="replace").strip("\0\n ")


def image(
    function: Callable[..., Any], signature: tuple[Kind, ...], capability: tuple[int, int]
) -> Image:
    """Compile a kernel's function for a compute capability, or load it from the cache.

    Raises
    ------
    ImportError
        If a part of CUDA's toolkit is missing.
    RuntimeError
        If the assembler fails.
    """

    def make() -> bytes:
        text = ptx(function, signature, capability)
        (name,) = re.findall(r"\.entry (\w+)", text)
        return bytes(name, "ascii") + b"\0" + assembled(text)[0]

    sources = function, signature, ptx, assembled
    saved = cached(function.__name__, ".cubin", make, sources, capability, _toolkit())
    name, _, code = saved.partition(b"\0")
    return Image(name, code)


@functools.cache
def _toolkit() -> list[Any]:
    """The versions of all that compiles for CUDA, for the name of a cached file.

    Raises
    ------
    ImportError
        If a part is missing.
    """
    from cuda import pathfinder

    found: list[Any] = [metadata.version("numba-cuda")]
    for library in ("nvvm", "nvJitLink"):
        try:
            path = Path(pathfinder.load_nvidia_dynamic_lib(library).abs_path or "")
        except pathfinder.DynamicLibNotFoundError:
            raise ImportError(
                f"array: it is in the memory of a GPU, for which CUDA's {library} is not installed: "
                "pip install 'numinit[cuda12]' or 'numinit[cuda13]', by the version of CUDA"
            ) from None
        found += _file(path)
        # NVVM's own library of functions: beside it in the toolkit, a folder away in wheels.
        for place in ("libdevice/*.bc", "nvvm/libdevice/*.bc") if path.name else ():
            for beside in sorted(path.parents[1].glob(place)):
                found += _file(beside)
    return found


def _file(path: Path) -> list[Any]:
    if not path.is_file():
        return [path.name]
    return [path.name, path.stat().st_size, path.stat().st_mtime_ns]


def simulated(function: Callable[..., Any], signature: tuple[Kind, ...]) -> Any:
    """Numba's kernel of a function under the simulator."""
    from numba import types

    return _numba().jit(types.void(*map(_type, signature)))(function)
