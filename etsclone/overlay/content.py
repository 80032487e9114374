"""What a capture found, in one digest: equal when nothing is worth a new generation."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from etsclone.model.brd import Header
from etsclone.overlay.compression import decompressed
from etsclone.overlay.inventory import INVENTORY_LIMIT
from etsclone.overlay.payload import PAYLOAD_LIMIT

# A word of mtree(5): names cannot look like this, for their spaces are written in octal.
_TIME = re.compile(rb" time=-?[0-9]+\.[0-9]+")


def content_digest(header: Header, payload: BinaryIO, inventory: BinaryIO) -> str:
    """The sha256 (hex) over what was captured, whenever and by whichever version of zstd it was compressed.

    It covers the scope with all its content and metadata, the profile, host and disk, and the listing of the whole
    system but for the times in it: on a running system files outside the scope are touched all the time.

    Args:
        header: the overlay's header; generation, predecessor, time and members do not count.
        payload: the compressed payload, not sealed, read from where it stands to its end.
        inventory: the compressed inventory, likewise.

    Raises:
        HostilePayload: when one of the streams is not what etsclone writes.
    """
    facts = (
        header.pair,
        header.role,
        header.host,
        header.profile,
        header.profile_sha256,
        [header.scope.role, header.scope.disk, header.scope.volatile],
        header.clone.table_uuid,
        [[each.type, each.uuid] for each in header.clone.filesystems],
        _digest(decompressed(payload, PAYLOAD_LIMIT)),
        _digest(_without_times(decompressed(inventory, INVENTORY_LIMIT))),
    )
    return _digest(iter([json.dumps(facts).encode()]))


def _digest(pieces: Iterator[bytes]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def _without_times(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of an inventory without the word `time`."""
    rest = b""
    for piece in pieces:
        whole, end, rest = (rest + piece).rpartition(b"\n")
        yield _TIME.sub(b"", whole + end)
    yield rest
