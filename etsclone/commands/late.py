"""Commands of which only the one that the command line names is imported, and gets a parser: the others are listed."""

import importlib
import os
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Mapping, Sequence


class Help(HelpFormatter):
    """As wide as the terminal. argparse makes one for every argument, and would import shutil to ask for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _Late:
    """Stands for the parser of a command. To make those of all commands takes longer than many of them run."""

    where = ""

    def __init__(self, **settings: object) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> object:
        """From Python 3.14 on, argparse asks more of a parser that is added: a real one answers."""
        return getattr(self._parser(), name)

    def parse_known_args(
        self, args: Sequence[str], namespace: Namespace | None
    ) -> tuple[Namespace, list[str]]:
        """Parse, as argparse asks a parser of a subcommand to."""
        parser = self._parser()
        module, _, configure = self.where.rpartition(".")
        getattr(importlib.import_module(module), configure)(parser)
        known, unknown = parser.parse_known_args(args, namespace)
        if unknown:  # argparse would have the outermost parser say so, with the usage of that
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def _parser(self) -> ArgumentParser:
        return ArgumentParser(**self._settings)  # type: ignore[arg-type] # what argparse would give it


def add_commands(parser: ArgumentParser, commands: Mapping[str, tuple[str, str]]) -> None:
    """Add commands, of which the command line must name one.

    Args:
        parser: gets them.
        commands: by name the full name of the function that adds a command's arguments to its parser, and what the
            command is for.
    """
    added = parser.add_subparsers(
        metavar="COMMAND",
        required=True,
        prog=parser.prog,
        parser_class=_Late,  # type: ignore[type-var]
    )
    for name, (where, purpose) in commands.items():
        description = f"{purpose[0].upper()}{purpose[1:]}."
        late = added.add_parser(name, help=purpose, description=description, formatter_class=Help)
        late.where = where


def _columns() -> int:
    """As `shutil.get_terminal_size` finds them: $COLUMNS, the terminal's, 80."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80
