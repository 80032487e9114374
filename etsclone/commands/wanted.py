"""Which overlay is to be applied to a clone, or compared with it: what a person names, and what is verified of it."""

import contextlib
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.chroot import in_chroot
from etsclone.commands.counts import count_from
from etsclone.commands.identity import add_identity
from etsclone.commands.pairing import add_other_clone
from etsclone.commands.system import System
from etsclone.commands.trust import SITE_REVOKED, SITE_SIGNERS, add_revoked, load_trust
from etsclone.model.brd import MAX_SIGNERS
from etsclone.overlay.container import Opener, VerifiedOverlay, open_verified
from etsclone.regular import read_regular
from etsclone.store.folder import Generation, Store


def add_wanted(parser: ArgumentParser) -> None:
    """Add the options that choose an overlay and say whom to trust, and `--root`."""
    parser.add_argument(
        "--root", metavar="DIR", help="in place of DISK: where a clone's root is mounted"
    )
    parser.add_argument(
        "--generation",
        metavar="N",
        type=count_from(1),
        help="an older state of the role (default: the newest)",
    )
    parser.add_argument(
        "--trust",
        metavar="FILE",
        type=Path,
        help=f"allowed_signers file to trust (default: {SITE_SIGNERS} of this system, then of the clone)",
    )
    add_revoked(parser)
    add_identity(parser, "that opens a sealed overlay")
    add_other_clone(parser)


def verified(
    asked: Generation,
    store: Store,
    arguments: Namespace,
    system: System,
    identities: Opener | None,
) -> VerifiedOverlay:
    """The overlay that was asked for, every byte of it verified.

    Raises:
        TrustRefused, VerificationFailed: when it cannot be.
    """
    trust = load_trust(
        arguments.trust,
        revoked=arguments.revoked,
        copy=store.signers_path,
        inside=_trust_inside(system.folder),
    )
    return open_verified(
        asked.path,
        trust,
        role=arguments.role,
        pair=store.pair,
        generation=asked.number,  # whatever name somebody gave to a genuine but older one
        identities=identities,
    )


def _trust_inside(folder: str) -> tuple[str, str] | None:
    """What the clone itself says of whom to trust, and of whom not."""

    def read() -> tuple[str, str] | None:
        with contextlib.suppress(OSError):
            signers = read_regular(SITE_SIGNERS, MAX_SIGNERS, follow=True)
            if not os.path.lexists(SITE_REVOKED):
                return signers.decode(errors="replace"), ""
            revoked = read_regular(SITE_REVOKED, MAX_SIGNERS, follow=True)
            return signers.decode(errors="replace"), revoked.decode(errors="replace")
        return None

    return in_chroot(folder, read)
