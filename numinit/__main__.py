"""``python -m numinit``: the command line."""

import sys

from numinit.cli import main

sys.exit(main())
