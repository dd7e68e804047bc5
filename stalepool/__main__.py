"""``stalepool`` and ``python -m stalepool``: the command line."""

import sys
from typing import List, Optional


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; its exit status is 130 after Ctrl-C, also while it is imported."""
    try:
        from stalepool.cli import main as command_line

        return command_line.main(argv)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it


if __name__ == "__main__":
    sys.exit(main())
