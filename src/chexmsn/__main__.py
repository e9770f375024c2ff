"""`python -m chexmsn` is `chexmsn`."""

import sys

from chexmsn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
