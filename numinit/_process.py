"""What kind of process this is."""

import os
import sys


def is_command() -> bool:
    """Whether it is the command line: its script, or ``python -m numinit``."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return name.removesuffix(".exe") == "numinit" or (name == "-m" and "numinit" in sys.orig_argv)
