"""A new file: its space reserved, filled through mapped windows, and visible only when whole."""

import contextlib
import errno
import mmap
import os
import re
import secrets
import shutil
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from numinit.models.untrusted import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_target", "map_window", "new_file", "start_writing"]


EXISTS = "exists; pass --force (overwrite=True) to replace it"


def check_target(path: str | Path, overwrite: bool) -> Path:
    """Where a file may be written, symbolic links followed; refuse what cannot be right."""
    try:
        target = Path(path).resolve()
        if not target.parent.is_dir():
            raise InputError(f"{path}: the directory {target.parent} does not exist")
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: exists and is not a regular file")
        if target.exists() and not overwrite:
            raise InputError(f"{path}: {EXISTS}")
    except (OSError, RuntimeError) as error:  # no permission; a loop of links
        raise InputError(f"{path}: cannot be written: {error}") from error
    return target


@contextlib.contextmanager
def new_file(target: Path, size: int, overwrite: bool) -> Iterator[int]:
    """The descriptor of a temporary file of `size` bytes, which becomes `target` at the end.

    On any exception the temporary is removed. A killed process leaves it beside the target, under
    a name that starts with a dot and ends in ``.tmp``; the next one that writes this target removes
    it, where files can be locked.

    Raises
    ------
    InputError
        If `target` exists by then and is not to be overwritten.
    OSError
        Naming the target.
    """
    with contextlib.suppress(OSError):  # a courtesy
        _remove_abandoned(target)
    # The name is cut so that a target of the longest legal name still has a temporary.
    stem = f".{target.name[:50]}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    fd = -1
    temporary = target
    try:
        mode = _mode(target) if overwrite else None
        while fd < 0:
            temporary = target.with_name(f"{stem}.{secrets.token_hex(8)}.tmp")
            fd = os.open(temporary, flags, 0o666 if mode is None else mode)
            if not _hold(fd):  # who saw it before it was locked has removed it
                os.close(fd)
                fd = -1
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(fd, mode)  # whatever the umask
        _reserve(fd, target, size)
        yield fd
        _sync(fd, target)
        if fcntl is None:  # Windows renames no file that is open
            os.close(fd)
            fd = -1
        _publish(temporary, target, overwrite)
        if fd >= 0:
            os.close(fd)  # only now: unlocked, it is nobody's
            fd = -1
    except BaseException as error:
        try:
            # Frames of the traceback may hold windows, and Windows removes no file that is mapped.
            traceback.clear_frames(error.__traceback__)
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        finally:  # whatever a signal's handler raises
            with contextlib.suppress(OSError):
                if temporary != target:
                    temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise
    _sync_directory(target.parent)


def _hold(fd: int) -> bool:
    """Lock a new temporary for as long as it is open; False if it is no more in its directory."""
    if fcntl is None:
        return True
    with contextlib.suppress(OSError):  # not all file systems can: then nobody removes it either
        fcntl.flock(fd, fcntl.LOCK_EX)
    return os.fstat(fd).st_nlink > 0


def _remove_abandoned(target: Path) -> None:
    """Remove this user's temporaries of a target that no process holds: those of killed ones."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(target.name[:50])}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(target.parent) as entries:
        found = [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    def ours(status: os.stat_result) -> bool:
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    if not ours(path.lstat()):
        return
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError: it is in use
        held, now = os.fstat(fd), path.lstat()
        if ours(held) and os.path.samestat(held, now):
            path.unlink()
    finally:
        os.close(fd)


def _mode(path: Path) -> int | None:
    """The permissions of a file that is about to be replaced; None where there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except FileNotFoundError:
        return None


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    """Give a whole file its name."""
    if not overwrite:
        try:
            os.link(temporary, target)  # unlike a rename, it fails where the name is taken
        except FileExistsError:
            raise InputError(f"{target}: {EXISTS}") from None
        except OSError:  # a file system without links: the last look there can be
            if os.path.lexists(target):
                raise InputError(f"{target}: {EXISTS}") from None
        else:
            temporary.unlink()
            return
    os.replace(temporary, target)


def _reserve(fd: int, target: Path, size: int) -> None:
    """Take the disk space now: a mapped write to a full disk would kill the process."""
    try:
        if size and hasattr(os, "posix_fallocate"):
            try:
                return os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        # Not every system and file system can: ask, and hope that nobody else takes it.
        if size > shutil.disk_usage(target.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(fd, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _sync(fd: int, target: Path) -> None:
    """Let all of a file be on disk; macOS's `fsync` stops at the disk's own cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    try:
        if full is not None:
            with contextlib.suppress(OSError):  # not all file systems can
                fcntl.fcntl(fd, full)
                return
        os.fsync(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def map_window(fd: int, offset: int, size: int) -> np.ndarray:
    """Map `size` bytes of a file, writable, for as long as the array lives."""
    lead = offset % mmap.ALLOCATIONGRANULARITY
    window = mmap.mmap(fd, lead + size, access=mmap.ACCESS_WRITE, offset=offset - lead)
    return np.frombuffer(window, np.uint8)[lead:]


def start_writing(fd: int, begin: int, end: int) -> None:
    """Let the disk begin with bytes that are done, while others are made; not all systems can."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice
            os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_DONTNEED)


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power cut, where directories can be opened."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
