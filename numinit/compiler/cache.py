"""Files of compiled kernels: each is sealed, and lies where no other user may write.

Numba's own cache can return old code. It looks at the file of the cached function only, and misses
an edited helper in another file. It also writes its index before the code, so that a process killed
in between leaves an index of one version beside code of another. Here a kernel is one file. It is
sealed with a digest of itself and of everything that the kernel is compiled from.

`made_from` makes the latter digest from the functions in memory, because a source file may differ
from what this process runs, such as a stale .pyc. It goes where the compiler goes: from a function
to its constants, its closure and the globals that it names, and on through every function found
there. Nothing is read from disk, so that it also works for a frozen program or one in a zip file.

A saved kernel is machine code, which can do anything. So it is kept in a folder of this user alone.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import stat
import sys
import types
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from numinit.compiler.inline import Inline
from numinit.compiler.intrinsics import Primitive

#: The settings of Numba that change the code it makes, for CPUs or for CUDA.
SETTINGS = (
    "BOUNDSCHECK",
    "CPU_FEATURES",
    "CPU_NAME",
    "CUDA_DEBUGINFO_DEFAULT",
    "CUDA_ENABLE_NRT",
    "CUDA_NRT_STATS",
    "DEBUGINFO_DEFAULT",
    "DEBUG_JIT",
    "DEBUG_NRT",
    "DIFF_IR",
    "DISABLE_INTEL_SVML",
    "ENABLE_AVX",
    "EXTEND_VARIABLE_LIFETIMES",
    "FORCE_CUDA_CC",
    "FULL_TRACEBACKS",
    "LLVM_REFPRUNE_FLAGS",
    "LLVM_REFPRUNE_PASS",
    "LOOP_VECTORIZE",
    "NRT_STATS",
    "OPT",
    "SLP_VECTORIZE",
)

#: Those of numba-cuda, which Numba has not before that is imported.
UNSET = {
    "CUDA_ENABLE_NRT": False,
    "CUDA_NRT_STATS": False,
}

#: Packages whose functions are described by name only: their versions are in the name of each file.
VERSIONED = sys.stdlib_module_names | {"cuda", "llvmlite", "numba", "numpy"}

# What matters of a code object. Its file and line numbers do not, because they change no value.
CODE = (
    "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags", "co_code", "co_names",
    "co_varnames", "co_freevars", "co_cellvars", "co_exceptiontable",
)  # fmt: skip


_CONFIG = "numba.core.config"


def _settings() -> list[Any]:
    """The settings by Numba's variables and file, and those that the program has changed."""
    names = [f"NUMBA_{name}" for name in (*SETTINGS, "DEBUGINFO")]
    found: list[Any] = [(name, os.environ[name]) for name in names if name in os.environ]
    with contextlib.suppress(OSError):
        found.append(Path(".numba_config.yaml").read_bytes())
    config = sys.modules.get(_CONFIG)
    if hasattr(config, "reload_config"):  # wholly imported
        plain = _plain_config()
        for name in SETTINGS:
            now, unset = (getattr(x, name, UNSET.get(name)) for x in (config, plain))
            found += [(name, repr(now))] if now != unset else []
    return found


def _plain_config() -> Any:
    """Numba's settings as the environment has them."""
    spec = importlib.util.find_spec(_CONFIG)
    assert spec is not None and spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    return plain


# Numba makes its target once, with the settings of that moment.
_SETTINGS_AT_FIRST = _settings()


@functools.cache  # kernels share most of their functions
def _of_code(code: types.CodeType) -> tuple[str, frozenset[str]]:
    """A digest of a code object, and the names of globals and attributes that it may look up."""
    own = [repr(getattr(code, name)) for name in CODE]
    constants = [_Description().of(x) for x in code.co_consts]
    inner = (_of_code(x)[1] for x in code.co_consts if isinstance(x, types.CodeType))
    text = repr((own, constants)).encode()
    return hashlib.sha256(text).hexdigest(), frozenset(code.co_names).union(*inner)


class _Description:
    """Describes objects: the same in every process for equal objects, different for others."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}

    def of(self, x: Any) -> Any:
        """Describe an object as nested tuples of strings.

        Raises
        ------
        TypeError
            If the object has no description that is the same in every process.
        """
        if x is None or x is ... or type(x) in (bool, int, str, bytes, float, complex):
            return type(x).__name__, repr(x)
        if isinstance(x, (np.generic, np.ndarray)) and not x.dtype.hasobject:
            return "array", x.dtype.str, x.shape, x.tobytes()
        if isinstance(x, slice):
            return "slice", self.of((x.start, x.stop, x.step))
        if isinstance(x, (tuple, list)):
            return type(x).__name__, *map(self.of, x)
        if isinstance(x, dict):
            return "dict", *sorted((repr(self.of(key)), self.of(item)) for key, item in x.items())
        if isinstance(x, frozenset):
            return "frozenset", *sorted(repr(self.of(item)) for item in x)
        if isinstance(x, types.CodeType):
            return "code", _of_code(x)[0]
        if isinstance(x, types.ModuleType):
            module = name = x.__name__
        else:
            module = str(getattr(x, "__module__", None))
            name = str(getattr(x, "__qualname__", None))
        if module.partition(".")[0] in VERSIONED:
            return "named", module, name
        if id(x) in self._seen:  # shared, or recursive
            return "again", self._seen[id(x)][0]
        self._seen[id(x)] = len(self._seen), x
        if isinstance(x, types.FunctionType):
            cells = [cell.cell_contents for cell in x.__closure__ or ()]
            parts = x.__code__, x.__defaults__, *(x.__kwdefaults__ or {}).items(), cells
            named = sorted(_of_code(x.__code__)[1] & x.__globals__.keys())
            reached = [(name, self.of(x.__globals__[name])) for name in named]
            return "function", module, name, *map(self.of, parts), *reached
        if isinstance(x, type) and hasattr(x, "_fields"):  # a NamedTuple
            return "record", module, name, x._fields
        if isinstance(x, Inline):
            return "inline", self.of(x.py_func)
        if isinstance(x, Primitive):
            return "primitive", self.of(x.typed), self.of(x.build)
        if isinstance(made_by := getattr(x, "__wrapped__", None), types.FunctionType):
            return "wrapped", self.of(made_by)
        raise TypeError(f"{type(x).__module__}.{type(x).__qualname__}")


def made_from(name: str, *functions: Any) -> bytes | None:
    """A digest of everything that functions are compiled from.

    Parameters
    ----------
    name : str
        A name for them in the warning.
    *functions : callable
        Python functions.

    Returns
    -------
    bytes or None
        None, with a warning, where there is no such digest.
    """
    try:
        description = _Description().of(functions)
    except (TypeError, ValueError) as error:  # ValueError: a closure that is not yet complete
        _warn(f"{name} is compiled again in every process: it is made from a {error}")
        return None
    return hashlib.sha256(repr(description).encode()).digest()


@functools.cache  # once each
def _warn(message: str) -> None:
    warnings.warn(f"numinit: {message}", RuntimeWarning, stacklevel=2)


def directory() -> Path | None:
    """The folder of compiled kernels; None where it cannot be written, or other users may write.

    It is in $NUMBA_CACHE_DIR, else in __pycache__ beside this file if that can be written and the
    program is not frozen, else in the user's cache directory. A group of users may be able to write
    there. So each user has a folder of their own inside of it.
    """
    for place in _places():
        try:
            found = place / (f"numinit-{os.geteuid()}" if hasattr(os, "geteuid") else "numinit")
            with contextlib.suppress(FileExistsError):
                place.mkdir(parents=True, exist_ok=True)
                found.mkdir(0o700)
            with _inside(found):
                if os.access(found, os.W_OK | os.X_OK):
                    return found
        except RefusedError:
            return None
        except OSError:
            continue
    return None


def _places() -> Iterator[Path]:
    if told := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(told)
        return
    if not getattr(sys, "frozen", False):  # such programs unpack themselves anew each time
        yield Path(__file__).parent / "__pycache__"
    try:
        home = Path.home()
    except RuntimeError:  # a user without one, as in some containers
        return
    if sys.platform == "win32":
        yield Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "numinit"
    elif sys.platform == "darwin":
        yield home / "Library/Caches/numinit"
    else:
        yield Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "numinit"


class RefusedError(PermissionError):
    """Another user may have put code there."""


def _check(descriptor: int, path: Path) -> None:
    """Refuse, with a warning, a file or folder that other users own or may write.

    The open descriptor is checked, because the path may name another file a moment later.

    Raises
    ------
    RefusedError
        If it is refused.
    """
    if not hasattr(os, "geteuid"):
        return
    status, user = os.fstat(descriptor), os.geteuid()
    if status.st_uid not in (0, user):
        what, mend = f"belongs to user {status.st_uid}, not to {user}", "remove it"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what, mend = "may be written by other users", f"chmod go-w {path}"
    else:
        return
    _warn(
        f"{path} {what}, who could have put any code there. It is not used, so that kernels are "
        f"compiled again. To mend it: {mend}, or set NUMBA_CACHE_DIR to a folder of your own"
    )
    raise RefusedError(str(path))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Check a folder; yields a prefix for names in it and a `dir_fd`, which stay in that folder.

    Raises
    ------
    OSError
        If there is no such folder, or it is refused.
    """
    if not hasattr(os, "geteuid"):
        yield folder, None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check(descriptor, folder)
        yield Path(), descriptor
    finally:
        os.close(descriptor)


_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


def file_of(name: str, suffix: str, *made_by: Any) -> Path | None:
    """The file of a kernel, None without a cache.

    Parameters
    ----------
    name : str
        The kernel's name.
    suffix : str
        Of the file.
    *made_by : object
        What the machine code depends on besides the kernel's source, such as the processor. The
        compiler's settings and versions are added here.
    """
    where = directory()
    if where is None:
        return None
    getattr(sys.modules.get(_CONFIG), "reload_config", bool)()  # as the compiler does
    # -OO drops docstrings, which count as constants.
    python = sys.version, sys.flags.optimize > 1
    versions = *python, *map(_version, ("numba", "llvmlite")), np.__version__
    everything = made_by, versions, _SETTINGS_AT_FIRST, _settings()
    return where / f"{name}-{hashlib.sha256(repr(everything).encode()).hexdigest()[:16]}{suffix}"


def _version(package: str) -> str:
    """The version of a package, which is not imported for it."""
    found = getattr(sys.modules.get(package), "__version__", None)
    return found if isinstance(found, str) else _installed(package)


@functools.cache
def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a frozen program has the code alone
        return str(importlib.import_module(package).__version__)


def _seal(file: Path, source: bytes, code: bytes) -> bytes:
    return hashlib.sha256(source + file.name.encode() + code).digest()


def load(file: Path, source: bytes) -> bytes | None:
    """Load the code in a file.

    Parameters
    ----------
    file : Path
        From `file_of`.
    source : bytes
        From `made_from`.

    Returns
    -------
    bytes or None
        None if there is no file, or it is damaged, refused or made from another source.
    """
    try:
        with _inside(file.parent) as (prefix, dir_fd):
            descriptor = os.open(prefix / file.name, os.O_RDONLY | _PLAIN, dir_fd=dir_fd)
            with open(descriptor, "rb") as stream:
                _check(descriptor, file)
                data = stream.read()
    except OSError:
        return None
    seal, code = data[:32], data[32:]
    return code if seal == _seal(file, source, code) else None


def save(file: Path, source: bytes, code: bytes) -> None:
    """Save code for `load`; does nothing where the file cannot be written."""
    with contextlib.suppress(OSError), _inside(file.parent) as (prefix, dir_fd):
        draft, final = prefix / f"{file.stem}.{uuid.uuid4().hex}.tmp", prefix / file.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN
        descriptor = os.open(draft, flags, 0o600, dir_fd=dir_fd)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(_seal(file, source, code) + code)
            # In one step, so that readers see a whole file or none.
            os.replace(draft, final, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:  # such as a full disk or, on Windows, a file that is being read
            os.unlink(draft, dir_fd=dir_fd)
            raise


def cached(
    name: str, suffix: str, make: Callable[[], bytes], sources: Iterable[Any], *made_by: Any
) -> bytes:
    """Code that was made before and saved, or that is made now.

    Parameters
    ----------
    name, suffix, *made_by
        As `file_of` takes them.
    make : callable
        Makes the code.
    sources : iterable
        The functions that it is made from, with those that make it.
    """
    source = made_from(name, *sources)
    file = file_of(name, suffix, *made_by) if source else None
    saved = load(file, source) if file and source else None
    if saved is not None:
        return saved
    code = make()
    if file and source:
        save(file, source, code)
    return code
