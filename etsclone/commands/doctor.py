"""`etsclone doctor`: which external programs are there, which package brings the missing ones, what each is for."""

from argparse import ArgumentParser, Namespace

from etsclone.commands.output import add_json, print_json, print_table
from etsclone.errors import MissingProgram
from etsclone.run import PROGRAMS, Program, find_program


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Print a line a program.

    Raises:
        MissingProgram: when any is missing that is not optional, with the command that installs them.
    """
    found = {name: find_program(name) for name in PROGRAMS}
    if arguments.json:
        print_json(
            [
                {
                    "program": name,
                    "path": found[name],
                    "package": program.package,
                    "purpose": program.purpose,
                    "optional": program.optional,
                }
                for name, program in PROGRAMS.items()
            ]
        )
    else:
        rows = [
            (name, found[name] or _absent(each), each.package, each.purpose)
            for name, each in PROGRAMS.items()
        ]
        print_table(("PROGRAM", "FOUND", "PACKAGE", "PURPOSE"), rows)
    missing = [
        program
        for name, program in PROGRAMS.items()
        if found[name] is None and not program.optional
    ]
    if missing:
        packages = sorted({program.package for program in missing})
        names = ", ".join(program.name for program in missing)
        raise MissingProgram(f"not installed: {names}", hint=f"apt install {' '.join(packages)}")


def _absent(program: Program) -> str:
    return "(optional)" if program.optional else "MISSING"
