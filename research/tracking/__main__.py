"""The process that logs a sweep to Weights & Biases; by hand it is ``research log DIR``."""

import sys

from research.tracking.sink import main

if __name__ == "__main__":
    sys.exit(main())
