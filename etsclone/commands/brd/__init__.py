"""`etsclone brd ...`: keep Backup and Recovery Data."""

from argparse import ArgumentParser

from etsclone.commands.brd import (
    capture,
    check,
    copy,
    init,
    inspect,
    keygen,
    prune,
    recipients,
    trust,
    verify,
)


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose, configure_command in (
        ("init", "make a BRD store for a pair, in a new or empty folder", init.configure),
        ("keygen", "make an OpenSSH Ed25519 key for signing overlays", keygen.configure),
        ("trust", "list a public key as allowed to sign for a role", trust.configure),
        ("recipients", "show or change to whose keys overlays are sealed", recipients.configure),
        ("capture", "keep a role's state as a new signed generation", capture.configure),
        (
            "list",
            "list the generations in a store (their signatures are not checked)",
            inspect.configure_list,
        ),
        (
            "show",
            "show what an overlay says of itself, and whose key signed it",
            inspect.configure_show,
        ),
        (
            "verify",
            "check every signature, digest and link of an overlay or a store",
            verify.configure,
        ),
        (
            "check",
            "tell whether each role's newest overlay verifies and is recent, for monitoring",
            check.configure,
        ),
        ("copy", "make a second store equal to the first, or bring it up to date", copy.configure),
        ("prune", "let old generations go; their headers stay", prune.configure),
    ):
        configure_command(
            commands.add_parser(
                name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}."
            )
        )
