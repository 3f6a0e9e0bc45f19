"""The entry point of the command line: `python -m hallo3_core`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
