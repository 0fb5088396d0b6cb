"""``python -m research.tracking DIR``: log a sweep to Weights & Biases."""

import sys

from research.tracking.sink import main

if __name__ == "__main__":
    sys.exit(main())
