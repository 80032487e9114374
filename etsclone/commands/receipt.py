"""What a receipt says of the command line, and the signature beside it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from etsclone.commands.output import ask_passphrase
from etsclone.progress import Report

Signer = Callable[[bytes], bytes]
"""Makes the armored signature over a receipt."""

_NO_OPTIONS = frozenset(
    {"run", "changes", "events", "json", "yes", "dry_run", "verbose", "source", "target"}
)
"""What argparse knows beside the options that make a difference to what is done."""


def add_key(parser: ArgumentParser) -> None:
    """Give a command `--key`."""
    parser.add_argument(
        "--key",
        metavar="KEYFILE",
        type=Path,
        help="OpenSSH key (Ed25519) to sign the receipt with; a public key if the private one is in ssh-agent",
    )


def signer(keyfile: Path | None) -> Signer | None:
    """What signs receipts; None without a key. Asks for the passphrase when there is one.

    Raises:
        KeyRefused: when the file holds no key to sign with.
    """
    if keyfile is None:
        return None
    # cryptography takes 60 ms to import, and only who signs needs these.
    from etsclone.model.brd import RECEIPT_NAMESPACE  # noqa: PLC0415
    from etsclone.overlay.heldkey import load_key  # noqa: PLC0415

    key = load_key(keyfile, lambda: ask_passphrase(keyfile))
    return lambda message: key.sign(message, RECEIPT_NAMESPACE)


UNSIGNED = "receipt  will not be signed: --key KEYFILE signs it"
"""What a plan says without `--key`."""


def receipt_words(receipt: str | Path | None, *, signed: bool) -> str:
    """Where a receipt is, for the last line of a command."""
    if receipt is None:
        return "receipt: none"
    return f"receipt: {receipt}" if signed else f"unsigned receipt: {receipt}"


def option_facts(arguments: Namespace) -> dict[str, object]:
    """The options of the command line as JSON facts, also those that were left as they are."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(arguments).items())
        if name not in _NO_OPTIONS
    }


def phase_facts(report: Report) -> list[dict[str, object]]:
    """What an operation did in which phase, as JSON facts: bytes, seconds, bytes a second."""
    return [
        {
            "phase": phase.name,
            "bytes": phase.done - phase.before,
            "seconds": round(phase.seconds, 3),
            "rate": phase.rate,
        }
        for phase in report.phases
    ]
