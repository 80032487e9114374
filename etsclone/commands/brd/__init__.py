"""`etsclone brd ...`: keep Backup and Recovery Data."""

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

COMMANDS = {
    "init": ("init.configure", "make a BRD store for a pair, in a new or empty folder"),
    "keygen": ("keygen.configure", "make an OpenSSH Ed25519 key for signing overlays"),
    "trust": ("trust.configure", "list a public key as allowed to sign for a role"),
    "recipients": (
        "recipients.configure",
        "show or change to whose keys overlays are sealed",
    ),
    "capture": ("capture.configure", "keep a role's state as a new signed generation"),
    "list": (
        "inspect.configure_list",
        "list the generations in a store (their signatures are not checked)",
    ),
    "show": (
        "inspect.configure_show",
        "show what an overlay says of itself, and whose key signed it",
    ),
    "diff": ("diff.configure", "tell what two overlays, trees or disks differ in"),
    "log": ("log.configure", "tell what changed from generation to generation"),
    "verify": (
        "verify.configure",
        "check every signature, digest and link of an overlay or a store",
    ),
    "check": (
        "check.configure",
        "tell whether each role's newest overlay verifies and is recent, for monitoring",
    ),
    "copy": ("copy.configure", "make a second store equal to the first, or bring it up to date"),
    "prune": ("prune.configure", "let old generations go; their headers stay"),
}
"""The verbs: the function of a module of this package that adds the arguments, and what they are for."""


class _Late(ArgumentParser):
    """The parser of a command whose module is imported only when the command line names it."""

    where = ""

    def parse_known_args(  # type: ignore[override] # argparse calls it with these two
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Add the arguments, then parse."""
        module, _, function = self.where.partition(".")
        getattr(importlib.import_module(f"{__name__}.{module}"), function)(self)
        return super().parse_known_args(args, namespace)


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Late)
    for name, (where, purpose) in COMMANDS.items():
        description = f"{purpose[0].upper()}{purpose[1:]}."
        commands.add_parser(name, help=purpose, description=description).where = where
