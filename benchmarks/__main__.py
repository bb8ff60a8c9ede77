"""``python -m weighbridge.benchmarks``: the same as ``weighbridge bench``."""

from __future__ import annotations

import sys

from weighbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    main()
