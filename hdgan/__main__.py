"""`python -m hdgan`, which is also how torchrun starts training."""

import sys

from hdgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
