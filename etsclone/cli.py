"""The command line: parser, logging, and the one place where an exception becomes an exit code."""

import argparse
import errno
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from etsclone import __version__
from etsclone.commands.late import Help, add_commands
from etsclone.errors import (
    INTERRUPTIONS,
    EtscloneError,
    ExitCode,
    Interrupted,
    OutputLost,
    medium_error,
)
from etsclone.model.tree import printable
from etsclone.progress import print_event, tell_state
from etsclone.streams import hold_closed, lasting, lost_output

COMMANDS = {
    "disks": "list the disks, what they hold, and which may be written to",
    "clone": "copy the used blocks of a disk to another disk or image, and verify them",
    "verify": "compare two disks over the blocks that the first one uses",
    "release": "let a clone that was made with --quarantine be a disk like others",
    "brd": "keep what makes each server itself: capture, list, show, compare and verify signed overlays",
    "check": "tell whether a rebuild of a clone gives exactly what was captured, and whether the clone is sound",
    "rebuild": "make a clone of either role the role that an overlay holds",
    "mount": "mount the system of a disk, as its own fstab puts it together, to look at or to mend",
    "umount": "undo what mount did: mounts, volumes, encrypted ones, arrays, loop devices",
    "doctor": "tell which external programs are installed and what each is for",
}
"""The verbs, each a module of `etsclone.commands`, and what they are for."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run etsclone with `argv` (default: the process's own words) and exit."""
    hold_closed()
    # A closed session or a shutdown must undo mounts and loop devices just as ^C does.
    for number in INTERRUPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) has SIGHUP ignored
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGUSR1, tell_state)  # for all commands: by default it would end them
    with lasting():
        code = _run(sys.argv[1:] if argv is None else argv)
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """The parser for a command line."""
    parser = argparse.ArgumentParser(
        prog="etsclone",
        description="Clone the disks of a pair of servers, keep what makes each server itself, rebuild either role.",
        epilog="exit codes: 0 done and verified, 1 failed, 2 usage, 3 refused by a guard, 4 verification failed, "
        "5 device error, 130 interrupted",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"etsclone {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="show the commands that are run"
    )
    add_commands(
        parser,
        {
            name: (f"etsclone.commands.{name}.configure", purpose)
            for name, purpose in COMMANDS.items()
        },
    )
    return parser


class _Printable(logging.Formatter):
    """One printable line a record: commands that are run have words of a clone in them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr(verbosity: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("etsclone: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def _run(words: Sequence[str]) -> ExitCode:
    arguments = argparse.Namespace()
    code = _work(words, arguments)
    sys.stdout.flush()
    lost = lost_output()
    # A reader that has seen enough is no failure, nor does it make one unseen: the code is that of the work.
    if lost is None or lost.errno == errno.EPIPE:
        return code
    failed = _fail(_output_lost(lost, arguments), arguments)
    done = code is ExitCode.DONE and not _changes(arguments)
    return failed if done else code


def _work(words: Sequence[str], arguments: argparse.Namespace) -> ExitCode:
    try:
        build_parser().parse_args(words, arguments)
        _log_to_stderr(arguments.verbose)
        arguments.run(arguments)
        sys.stdout.flush()  # here, since whoever reads may keep it waiting until ^C
    except EtscloneError as error:
        return _fail(error, arguments)
    except OSError as error:
        # Wherever a medium is touched it may be gone, and each place would say the same of it.
        failed = medium_error(error, error.filename or "a file")
        if failed is None:
            raise
        return _fail(failed, arguments)
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted"), arguments)
    except SystemExit as asked:  # argparse: --help, --version, or what makes no sense
        return ExitCode(int(asked.code or 0))
    return ExitCode.DONE


def _changes(arguments: argparse.Namespace) -> bool:
    """Whether the command is for what it changes, not for what it prints: nobody must think that it did nothing."""
    return getattr(arguments, "changes", False) and not getattr(arguments, "dry_run", False)


def _output_lost(error: OSError, arguments: argparse.Namespace) -> OutputLost:
    return OutputLost(
        f"what is printed cannot be written to standard output: {error.strerror}",
        hint="the exit code tells what became of the work" if _changes(arguments) else "",
    )


def _fail(error: EtscloneError, arguments: argparse.Namespace) -> ExitCode:
    # What a program or a file of a clone said may be in it.
    print(f"etsclone: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)
    if getattr(arguments, "events", False) and arguments.json:
        facts = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        print_event("error", facts)
    return error.exit_code


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # One is enough: an impatient second one would cut short what undoes mounts and loop devices.
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
