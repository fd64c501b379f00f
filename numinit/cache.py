"""Files of compiled code, each of use only under its own seal.

Numba's own cache looks at the file of the cached function only, so an edited helper in another
file would keep serving old code, and its index is written before the code: a process killed in
between, or two at once, can leave the one pointing at another version of the other. Here a kernel
is one file, sealed with a digest of itself and of all that it was made from.
"""

import contextlib
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl


def _source_digest() -> bytes | None:
    """SHA-256 of every source file that compiled code is made from; None where there are none."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    try:
        for name in ("jit.py", "jit_cuda.py", "floats.py", "bits.py", "transforms", "engines"):
            path = package / name
            for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
    except OSError:  # a frozen program, a zip file
        return None
    return digest.digest()


# Read with the code itself: later, the files may hold what this process does not run.
_SOURCES = _source_digest()


def directory() -> Path | None:
    """Where compiled kernels are kept; None where none can be written.

    Numba chooses it, for a function of this file: in $NUMBA_CACHE_DIR, __pycache__ where it is
    writable, or in the user's cache directory.
    """
    try:
        found = CompileResultCacheImpl(directory).locator.get_cache_path()
    except (RuntimeError, OSError):  # read-only install and home directory
        return None
    return Path(found) if _SOURCES else None


def file_of(name: str, suffix: str, *made_by: Any) -> Path | None:
    """The file of a kernel that has a name and depends, besides the sources, on what made it."""
    tag = hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    where = directory()
    return where and where / f"{name}-{tag}{suffix}"


def _seal(file: Path, code: bytes) -> bytes:
    return hashlib.sha256((_SOURCES or b"") + file.name.encode() + code).digest()


def load(file: Path) -> bytes | None:
    """What was saved; None if it was not, or of other sources, or is damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    seal, code = data[:32], data[32:]
    return code if seal == _seal(file, code) else None


def save(file: Path, code: bytes) -> None:
    """Save what `load` is to find, or nothing where that is not possible."""
    draft = file.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        draft.write_bytes(_seal(file, code) + code)
        os.replace(draft, file)  # whole or not at all
    except OSError:  # a full disk; on Windows, a reader
        with contextlib.suppress(OSError):
            draft.unlink()
