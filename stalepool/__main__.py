"""``python -m stalepool``: the command line."""

import sys

from stalepool.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
