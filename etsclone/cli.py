"""The command line: parser, logging, and the one place where an exception becomes an exit code."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from etsclone import __version__
from etsclone.commands import brd, clone, disks, doctor, rebuild, verify
from etsclone.errors import EtscloneError, ExitCode

_COMMANDS = {
    "disks": disks,
    "clone": clone,
    "verify": verify,
    "brd": brd,
    "rebuild": rebuild,
    "doctor": doctor,
}

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run etsclone with `argv` (default: the process's own) and exit."""
    arguments = build_parser().parse_args(argv)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)]
    logging.basicConfig(level=level, format="etsclone: %(message)s", stream=sys.stderr)
    if level > logging.DEBUG:
        logging.getLogger("sh").setLevel(logging.WARNING)  # run.py has logged the command already
    # A closed session or a shutdown must undo mounts and loop devices just as ^C does.
    for number in _INTERRUPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) has SIGHUP ignored
            signal.signal(number, _interrupt)
    sys.exit(_run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="etsclone",
        description="Clone the disks of a pair of servers, keep what makes each server itself, rebuild either role.",
        epilog="exit codes: 0 done and verified, 1 failed, 2 usage, 3 refused by a guard, 4 verification failed, "
        "5 device error, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"etsclone {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="show the commands that are run"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + "."
        )
        module.configure(command)
        if hasattr(module, "run"):
            command.set_defaults(run=module.run)
    return parser


def _run(arguments: argparse.Namespace) -> ExitCode:
    try:
        arguments.run(arguments)
    except EtscloneError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted", "")
        return ExitCode.INTERRUPTED
    return ExitCode.DONE


def _complain(message: str, hint: str) -> None:
    print(f"etsclone: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # One is enough: an impatient second one would cut short what undoes mounts and loop devices.
    for number in _INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
