"""A head in quarantine of format 1, written once and kept for ever."""

import hashlib
from pathlib import Path

from etsclone.model.extents import Extent, Extents
from etsclone.model.quarantine import Quarantine
from etsclone.plan.quarantine import find_quarantine, releasing, whole_head

HEAD = (
    b"boot code".ljust(510, b"\0")
    + b"\x55\xaa"
    + b"second sector".ljust(512, b"\0")
    + b"boot loader"
).ljust(32768, b"\0")


def test_version_1_is_read() -> None:
    data = (Path(__file__).parent / "quarantine/version-1.head").read_bytes()
    found = find_quarantine(data, len(data))
    assert found is not None
    assert found.record == Quarantine(
        size=4 << 20,
        sector_size=512,
        label="dos",
        head_size=32768,
        head_sha256=hashlib.sha256(HEAD).hexdigest(),
        withheld=HEAD[:1024],
        marks=Extents.of([Extent(32768, 163840), Extent(1 << 20, (1 << 20) + 131072)]),
        marks_sha256=hashlib.sha256(b"marks").hexdigest(),
        created="2026-11-28T13:05:00Z",
        source="a disk 1234",
    )
    assert whole_head(data, found) == HEAD
    for write in releasing(HEAD, found, 4 << 20):
        data = data[: write.offset] + write.data + data[write.offset + len(write.data) :]
    assert data == HEAD
