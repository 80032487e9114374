"""Where trust in signatures comes from: what the administrator names, or what this system holds; never the store."""

import contextlib
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from etsclone.commands.textfile import unread
from etsclone.errors import FormatError, TrustRefused, medium_error
from etsclone.model.brd import CONFIG, MAX_SIGNERS
from etsclone.overlay.trust import Trust
from etsclone.regular import read_given, read_regular

SITE_SIGNERS = Path("/etc/etsclone/allowed_signers")
"""Whom this system, the rescue system or a server itself, trusts."""

SITE_REVOKED = Path("/etc/etsclone/revoked_keys")
"""Whose signatures it no longer believes."""


def add_revoked(parser: ArgumentParser) -> None:
    """Give a command `--revoked`."""
    parser.add_argument(
        "--revoked",
        metavar="FILE",
        type=Path,
        help=f"public keys that are not to be trusted, one a line (default: {SITE_REVOKED}, if there is one)",
    )


def load_trust(
    named: Path | None,
    *,
    revoked: Path | None = None,
    copy: Path | None = None,
    inside: tuple[str, str] | None = None,
    follow: bool = True,
) -> Trust:
    """The statement of trust to check overlays against.

    Args:
        named: the file given with `--trust`, or a pipe; nothing else is looked at then.
        revoked: the file given with `--revoked`; else that of this system counts, if it has one.
        copy: the store's own copy, which is only named in the hint.
        inside: the texts of both files in the clone that is being rebuilt, if it has them.
        follow: whether the named file may be a symbolic link; one that a store holds must not.

    Raises:
        TrustRefused: when there is none, or it cannot be understood.
        DeviceError: when its medium fails.
    """
    path = named or SITE_SIGNERS
    revoked_text = _revoked_text(revoked)
    try:
        with naming(path):
            return Trust.parse(_text(path, named=named is not None, follow=follow), revoked_text)
    except FileNotFoundError as error:
        if named is None and inside is not None:
            signers, revoked_inside = inside
            with naming("in the clone"):
                return Trust.parse(signers, f"{revoked_inside}\n{revoked_text}")
        hint = f"name a list of allowed signers with --trust, or install one as {SITE_SIGNERS}"
        if copy is not None:
            hint += f"; if you trust the store itself: --trust {copy}"
        raise TrustRefused(
            f"there is nothing to trust: {path} does not exist", hint=hint
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        failed = medium_error(error, path) if isinstance(error, OSError) else None
        raise failed or TrustRefused(
            f"cannot read the list of allowed signers {path}: {unread(error)}",
            hint="name a file with a line for each key: ROLE KEYTYPE KEY",
        ) from error


def load_revoked(named: Path | None) -> frozenset[bytes]:
    """The keys (wire form) that are not to be trusted: those of the file given with `--revoked`, else this system's.

    Raises:
        TrustRefused: when a file is named and missing, or one cannot be understood.
    """
    return Trust.parse("", _revoked_text(named)).revoked


@contextlib.contextmanager
def naming(where: object) -> Iterator[None]:
    """Have what is wrong with a list say where that is.

    Raises:
        TrustRefused: also in place of FormatError.
    """
    try:
        yield
    except (FormatError, TrustRefused) as error:
        raise TrustRefused(f"{where}: {error.message}", hint=error.hint) from error


def _text(path: Path, *, named: bool, follow: bool = True) -> str:
    # Nobody makes a pipe in a store but who wants that somebody waits for it.
    if named and follow and not os.path.lexists(path.parent / CONFIG):
        return read_given(path, MAX_SIGNERS).decode("utf-8")
    return read_regular(path, MAX_SIGNERS, follow=follow).decode("utf-8")


def _revoked_text(named: Path | None) -> str:
    path = named or SITE_REVOKED
    try:
        text = _text(path, named=named is not None)
        with naming(path):
            Trust.parse("", text)
    except FileNotFoundError as error:
        if named is None and not os.path.lexists(path):  # a link to nowhere is a mistake
            return ""
        raise TrustRefused(
            f"there is no list of revoked keys {path}",
            hint="name a file that holds public keys, one a line, or leave --revoked away",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrustRefused(
            f"cannot read the list of revoked keys {path}: {unread(error)}",
            hint="it holds public keys, one a line; binary KRLs are not read",
        ) from error
    return text
