"""Runs `python -m imhelper`.
The commands are in cli.py, so that importing this package never touches argparse."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
