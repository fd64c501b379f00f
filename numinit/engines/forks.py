"""A number that tells a forked child from its parent."""

import functools
import os

_forks: list[None] = []
if hasattr(os, "register_at_fork"):
    # A function in C, which no handler of a signal can interrupt.
    os.register_at_fork(after_in_child=functools.partial(_forks.append, None))


def forks() -> int:
    """How many forks lie between this process and the one that imported numinit.

    A child's number differs from its parent's. The system uses process IDs again.
    """
    return len(_forks)
