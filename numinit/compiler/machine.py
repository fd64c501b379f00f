"""Machine code by LLVM alone, without Numba: modules become object files, object files are loaded.

All functions here take and return int64 only, by the machine's own calling convention.
"""

import ctypes
import functools
import sys
from collections.abc import Sequence
from typing import Any


@functools.cache
def binding() -> Any:
    """llvmlite.binding, ready to make code for this machine."""
    from llvmlite import binding  # late: importing it takes 20 ms

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for assembly in the code
    return binding


def triple() -> str:
    """LLVM's name for this machine; files are ELF's on Windows, too, as Numba's are."""
    name: str = binding().get_process_triple()
    return name + "-elf" * (sys.platform == "win32")


def host() -> tuple[str, str, str]:
    """The triple, the processor's name and its features, as LLVM writes them.

    The triple, because systems may share a home: one build of Python for two has one version.
    """
    llvm = binding()
    return triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def target(processor: str = "", features: str = "") -> Any:
    """LLVM's machine that code is made for.

    Code and its constants are loaded side by side, so that constants are found by their distance.
    """
    found = binding().Target.from_triple(triple())
    return found.create_target_machine(
        cpu=processor, features=features, opt=3, reloc="pic", codemodel="small"
    )


def linked(modules: Sequence[str]) -> Any:
    """LLVM's module of the texts of some."""
    first, *others = map(binding().parse_assembly, modules)
    for other in others:
        first.link_in(other)
    return first


def known(name: str) -> bool:
    """Whether loaded code may call a function of the process by this name."""
    return bool(binding().address_of_symbol(name))


def loaded(code: bytes, *names: str) -> list[int]:
    """Load an object file; returns the addresses of its functions and variables."""
    llvm = binding()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target(), use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    keep(engine)  # it owns the code
    return [
        engine.get_function_address(name) or engine.get_global_value_address(name) for name in names
    ]


def keep(thing: Any) -> None:
    """Never free an object, also when Python ends: threads and destructors still run code then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def store(address: int, words: Sequence[int]) -> None:
    """Write int64 to loaded memory."""
    (ctypes.c_int64 * len(words)).from_address(address)[:] = list(words)
