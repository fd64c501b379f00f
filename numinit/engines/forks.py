"""Which process this is, of those that were forked."""

import functools
import os

_forks: list[None] = []
if hasattr(os, "register_at_fork"):
    # In C alone: a signal's handler that raises cannot come between.
    os.register_at_fork(after_in_child=functools.partial(_forks.append, None))


def forks() -> int:
    """How many forks lie between this process and the one that imported numinit.

    Whoever keeps this number sees by it that a child is another process, also where a process
    number is used again.
    """
    return len(_forks)
