"""What a capture says when it may have been of the wrong system: a rebuild would believe it."""

import contextlib
from collections.abc import Iterator

from etsclone.errors import EtscloneError
from etsclone.model.brd import Header
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode
from etsclone.store.folder import Store


def mistaken_notes(store: Store, new: Header) -> tuple[str, ...]:
    """Sentences about the host and the disk of what was just captured, where the store holds them against its role.

    Nothing that is read for them is verified: they are worth no more than a second look.
    """
    known = tuple(_newest(store, new))
    return (*_host_notes(new, known), *_disk_notes(new, known))


def _newest(store: Store, new: Header) -> Iterator[Header]:
    """The header of each role's newest generation, that of the new one's role first: of the one before."""
    for role in sorted(store.roles, key=lambda role: role != new.role):
        found = [
            each
            for each in store.generations(role)
            if role != new.role or each.number < new.generation
        ]
        if found:
            with contextlib.suppress(EtscloneError):  # a damaged one is told of by the comparison
                yield decode(read_envelope(found[-1].path).header)


def _host_notes(new: Header, known: tuple[Header, ...]) -> Iterator[str]:
    if not new.host or any(each.role == new.role and each.host == new.host for each in known):
        return  # roles that share a host name have shared it before
    for each in known:
        if each.host == new.host:
            yield (
                f"the system calls itself {new.host}, as that of {_named(each)} did: if it is not {new.role}, capture"
                f" {new.role} anew from the right one, or a rebuild makes a second {each.role}"
            )


def _disk_notes(new: Header, known: tuple[Header, ...]) -> Iterator[str]:
    for each in known:
        if new.clone.is_foreign_to(each.clone):
            yield (
                f"this disk has no identifier of that of {_named(each)}: a clone of the one is rebuilt from an overlay"
                " of the other with --other-clone only"
            )
            return


def _named(header: Header) -> str:
    return f"generation {header.generation} of {header.role}"
