"""``python -m alexnet``: the same as the command ``alexnet``."""

from __future__ import annotations

import sys

from alexnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
