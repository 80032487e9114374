"""How a copy uses the machine: what fits the disks, unless the user says otherwise."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from etsclone.commands.counts import count_from
from etsclone.copying.workers import Tuning
from etsclone.errors import UsageError
from etsclone.model.disk import Disk
from etsclone.model.plan import PIECE
from etsclone.run import run
from etsclone.units import MIB, align_down, human, parse_size

MEMORY = 256 * MIB
"""The most that the buffers of all workers may take together."""


_REAL_BUSES = frozenset({"ata", "scsi", "usb"})


def add_tuning(parser: ArgumentParser) -> None:
    """Give a command the options that say how it uses the machine."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=count_from(1),
        help="blocks under way at a time (default: by device)",
    )
    parser.add_argument(
        "--block-size", metavar="SIZE", type=_size, default=MIB, help="bytes in a block (1M)"
    )
    parser.add_argument(
        "--rate-limit", metavar="SIZE", type=_size, help="at most so many bytes a second"
    )
    parser.add_argument(
        "--idle", action="store_true", help="only use the disks when nobody else does"
    )


def tuning_of(arguments: Namespace, source: Disk, target: Disk) -> Tuning:
    """What the options say, checked; what they leave open fits the disks.

    Raises:
        UsageError: for blocks that are not whole pieces of 64 KiB, or more memory than there should be.
    """
    workers, block_size = arguments.workers, arguments.block_size
    if workers is None:
        workers = _workers_for(source, target)
    if block_size % PIECE:
        raise UsageError("blocks are a multiple of 64K", hint="--block-size 1M")
    if workers * block_size > MEMORY:
        raise UsageError(
            f"workers times block size is more than {human(MEMORY)}", hint="take smaller blocks"
        )
    limit = arguments.rate_limit
    if limit is not None:
        # A block waits until all of it is within the rate, and ^C waits for the block.
        block_size = min(block_size, max(PIECE, align_down(limit, PIECE)))
    if arguments.idle:
        run("ionice", ["--class", "idle", "--pid", str(os.getpid())])
    return Tuning(block_size, workers, limit)


def _workers_for(source: Disk, target: Disk) -> int:
    # A rotating disk is fastest when it is read in one stream; virtual ones only say that they rotate.
    rotating = any(disk.rotational and disk.transport in _REAL_BUSES for disk in (source, target))
    return 1 if rotating else 4


def _size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    if size <= 0:
        raise ArgumentTypeError(f"not a size above 0: {text!r}")
    return size
