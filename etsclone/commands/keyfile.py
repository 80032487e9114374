"""`--key-file`: the option alone; what it opens is of no use to most runs of `brd diff`."""

from argparse import ArgumentParser
from pathlib import Path


def add_unlock(parser: ArgumentParser) -> None:
    """Give a command `--key-file`."""
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help="file with the key of the disk's encrypted volumes (default: ask for the passphrase if one is needed)",
    )
