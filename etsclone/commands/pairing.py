"""Whether a disk is a clone of the pair: by the identifiers of an overlay, or because somebody says so."""

from argparse import ArgumentParser, Namespace

from etsclone.commands.rebuild_shown import Section
from etsclone.commands.system import System
from etsclone.errors import StoreRefused
from etsclone.model.brd import Header


def add_other_clone(parser: ArgumentParser) -> None:
    """Give a command `--other-clone`."""
    parser.add_argument(
        "--other-clone",
        action="store_true",
        help="take the disk for a clone of the pair although no identifier of it says so",
    )


def clone_section(header: Header, system: System, arguments: Namespace) -> Section:
    """Make sure that a system is on a clone of the disk that an overlay was captured from, where both are known.

    Returns:
        What is to be told when it is not, and `--other-clone` says that it is all the same.

    Raises:
        StoreRefused: when it is not.
    """
    other = system.clone.is_foreign_to(header.clone)
    problem = f"{system.name} is no clone of pair {header.pair}: none of its UUIDs is one of the captured disk's"
    if other and not arguments.other_clone:
        raise StoreRefused(
            problem,
            hint="clone a disk of the pair onto it first, or name the store of the pair that it belongs to;"
            " --other-clone takes it for one",
        )
    lines = (f"warning: {problem}; it is taken for one (--other-clone)",) if other else ()
    return Section("other_clone", {"taken": other}, lines)
