"""`etsclone brd ...`: keep Backup and Recovery Data."""

from argparse import ArgumentParser

from etsclone.commands.brd import capture, init, inspect, keygen, trust, verify

HELP = "keep what makes each server itself: capture, list, show and verify signed overlays"


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_, configure_, run in (
        ("init", init.HELP, init.configure, init.run),
        ("keygen", keygen.HELP, keygen.configure, keygen.run),
        ("trust", trust.HELP, trust.configure, trust.run),
        ("capture", capture.HELP, capture.configure, capture.run),
        ("list", inspect.LIST_HELP, inspect.configure_list, inspect.run_list),
        ("show", inspect.SHOW_HELP, inspect.configure_show, inspect.run_show),
        ("verify", verify.HELP, verify.configure, verify.run),
    ):
        command = commands.add_parser(
            name, help=help_, description=help_[0].upper() + help_[1:] + "."
        )
        configure_(command)
        command.set_defaults(run=run)
