"""`etsclone brd ...`: keep Backup and Recovery Data."""

from argparse import ArgumentParser

from etsclone.commands.late import add_commands

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


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands."""
    add_commands(
        parser,
        {name: (f"{__name__}.{where}", purpose) for name, (where, purpose) in COMMANDS.items()},
    )
