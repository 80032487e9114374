"""Where trust in signatures comes from: what the administrator names, or what this system holds; never the store."""

from pathlib import Path

from etsclone.errors import TrustRefused, medium_error
from etsclone.overlay.trust import Trust

SITE_SIGNERS = Path("/etc/etsclone/allowed_signers")
"""Whom this system, the rescue system or a server itself, trusts."""


def load_trust(named: Path | None, *, copy: Path | None = None, inside: str | None = None) -> Trust:
    """The statement of trust to check overlays against.

    Args:
        named: the file given with `--trust`; nothing else is looked at then.
        copy: the store's own copy, which is only named in the hint.
        inside: the text of the same file in the clone that is being rebuilt, if it has one.

    Raises:
        TrustRefused: when there is none.
        FormatError: when it cannot be understood.
    """
    path = named or SITE_SIGNERS
    try:
        return Trust.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if named is None and inside is not None:
            return Trust.parse(inside)
        hint = f"name a list of allowed signers with --trust, or install one as {SITE_SIGNERS}"
        if copy is not None:
            hint += f"; if you trust the store itself: --trust {copy}"
        raise TrustRefused(
            f"there is nothing to trust: {path} does not exist", hint=hint
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        failed = medium_error(error, path) if isinstance(error, OSError) else None
        raise failed or TrustRefused(
            f"cannot read the list of allowed signers {path}: {error}"
        ) from error
