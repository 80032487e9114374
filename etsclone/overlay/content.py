"""What a capture found, in one digest: equal when nothing is worth a new generation."""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import zstandard

from etsclone.model.brd import Header
from etsclone.overlay.compression import WINDOW

# A word of mtree(5): names cannot look like this, for their spaces are written in octal.
_TIME = re.compile(rb" time=-?[0-9]+\.[0-9]+")


class Noted(io.RawIOBase):
    """Passes on the compressed bytes that are written to its `file`, and digests what they stand for."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out
        self._plain = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._sha256 = hashlib.sha256()
        self.file = io.BufferedWriter(self)

    @property
    def digest(self) -> str:
        """The sha256 (hex) of all that was written, decompressed."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer; Python 3.11 has no name for that
        self._sha256.update(self._plain.decompress(bytes(data)))
        return self._out.write(data)


@contextmanager
def noted(out: BinaryIO) -> Iterator[Noted]:
    """Digest what is compressed into `out`."""
    note = Noted(out)
    try:
        yield note
    finally:  # also when it failed: what is left in the buffer must not come later
        note.file.flush()


def lines_digest(lines: bytes) -> bytes:
    """The sha256 of whole lines of an inventory, but for the word `time`."""
    return hashlib.sha256(_TIME.sub(b"", lines)).digest()


def content_digest(
    header: Header, contents: Sequence[str], recipients: Sequence[str] = (), signer: str = ""
) -> str:
    """The sha256 (hex) over what was captured, whenever and by whichever version of zstd it was compressed.

    It covers the scope with all its content and metadata, the profile, host and disk, who can open it, and the listing
    of the whole system but for the times in it: on a running system files outside the scope are touched all the time.

    Args:
        header: the overlay's header; generation, predecessor, time and members do not count.
        contents: the digests of the payload, as `noted` gives it, and of the inventory: of its head and of the listing.
        recipients: to whom they are sealed.
        signer: the fingerprint of the key that signs: what a stolen key signed is not confirmed by a new one.
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
        contents,
        sorted(recipients),
        signer,
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
