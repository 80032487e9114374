"""The digests of a few files: as an inventory has them, and as they are on the disk."""

import hashlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import BinaryIO

from etsclone.errors import UnsafePath
from etsclone.model.tree import name_of, parent_of
from etsclone.overlay.compression import decompressed, lines
from etsclone.overlay.files import chunks, opened_file, opened_folder, opened_root
from etsclone.overlay.inventory import INVENTORY_LIMIT, LONGEST_LINE, entry_of, quoted


def recorded_digests(inventory: BinaryIO, paths: Collection[bytes]) -> dict[bytes, str]:
    """What an inventory says of these files; those that it has no digest of are left out.

    Raises:
        HostilePayload: when it is damaged.
    """
    wanted = {quoted(b"." + path) for path in paths}
    found = (
        entry_of(line)
        for line in lines(decompressed(inventory, INVENTORY_LIMIT), LONGEST_LINE)
        if line.split(b" ", 1)[0] in wanted
    )
    return {entry.path: entry.sha256 for entry in found if entry.sha256}


def read_digests(root: str, paths: Iterable[bytes]) -> dict[bytes, str]:
    """The sha256 (hex) of files below `root`; what is no file any more is left out.

    Raises:
        OSError: when one cannot be read.
    """
    digests: dict[bytes, str] = {}
    with opened_root(root) as top:
        for path in paths:
            with (
                suppress(FileNotFoundError, UnsafePath),
                opened_folder(top, parent_of(path)) as folder,
                opened_file(folder, name_of(path)) as descriptor,
            ):
                digest = hashlib.sha256()
                for piece in chunks(descriptor):
                    digest.update(piece)
                digests[path] = digest.hexdigest()
    return digests
