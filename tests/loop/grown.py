"""Clones that grew: what their tables and filesystems say of themselves, and whether that is right."""

import hashlib
import json
import re
from pathlib import Path

from . import disks
from .disks import MIB, Sample, loop_device, node, tool

NUMBER = r"(?m)^{}[:\s]+(\d+)"

MBR = {
    "a primary": (
        "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=20MiB, type=83, bootable\n",
        {1: "ext4", 2: "ext4"},
        2,
    ),
    "a logical": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=50MiB, type=5\n"
            "5: start=22MiB, size=20MiB, type=83\n6: start=44MiB, size=20MiB, type=83\n"
        ),
        {1: "ext4", 5: "ext4", 6: "ext4"},
        6,
    ),
    "a logical before swap": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=30MiB, type=f\n"
            "3: start=60MiB, size=8MiB, type=82\n5: start=22MiB, size=20MiB, type=83\n"
        ),
        {1: "ext4", 3: "swap", 5: "ext4"},
        5,
    ),
    "a primary before a frame with swap": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=30MiB, type=5\n"
            "5: start=22MiB, size=8MiB, type=82\n"
        ),
        {1: "ext4", 5: "swap"},
        1,
    ),
}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(path: Path) -> list[dict[str, object]]:
    """The partitions that sfdisk finds: sizes and starts in sectors."""
    rows = json.loads(tool("sfdisk", "--json", path))["partitiontable"]["partitions"]
    return [{key: row[key] for key in row if key != "node"} for row in rows]


def identity(device: Path) -> dict[str, str]:
    """UUIDs and labels that blkid finds."""
    lines = tool("blkid", "--probe", "--output", "export", device).splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = ("TYPE", "UUID", "LABEL", "UUID_SUB", "PART_ENTRY_UUID", "PART_ENTRY_NAME")
    return {name: fields[name] for name in wanted if name in fields}


def filesystem_size(device: Path, kind: str) -> int:
    """What a filesystem thinks of its size."""
    if kind.startswith("ext"):
        text = tool("dumpe2fs", "-h", device)
        names = ("Block count", "Block size")
    elif kind == "xfs":
        text = tool("xfs_db", "-r", "-c", "sb 0", "-c", "print dblocks blocksize", device)
        text = text.replace(" =", ":")
        names = ("dblocks", "blocksize")
    else:
        text = tool("btrfs", "inspect-internal", "dump-super", device) + "unit 1\n"
        names = ("total_bytes", "unit")
    found = [re.search(NUMBER.format(name), text) for name in names]
    assert all(found), text
    first, second = (int(match[1]) for match in found if match)
    return first * second


def check_grown(sample: Sample, clone: Path, scratch: Path, number: int = 2) -> None:
    """Judge a grown clone: sound, all files equal, all identities kept, no space left."""
    disks.check_clone(sample, clone, scratch)
    kind, sector = sample.kinds[number], sample.sector_size
    with (
        loop_device(sample.image, sector_size=sector, read_only=True) as old,
        loop_device(clone, sector_size=sector, read_only=True) as new,
    ):
        assert "No errors detected" in tool("sfdisk", "--verify", new)
        before, after = entries(old), entries(new)
        end = (clone.stat().st_size - MIB) // sector
        assert int(str(after[-1]["start"])) + int(str(after[-1]["size"])) == end
        for row, other in zip(before, after, strict=True):
            changes = {"start", "size"}
            assert {k: row[k] for k in row.keys() - changes} == {
                k: other[k] for k in other.keys() - changes
            }
        for each in sample.kinds:
            assert identity(node(new, each)) == identity(node(old, each))
        size = int(tool("blockdev", "--getsize64", node(new, number)))
        assert size > int(tool("blockdev", "--getsize64", node(old, number))) + 20 * MIB
        assert size - filesystem_size(node(new, number), kind) < 64 * 1024
