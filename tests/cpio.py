"""Archives as `cpio -H newc` writes them, made from their specification."""

from collections.abc import Sequence


def archive(*files: tuple[str, bytes], end: bool = True) -> bytes:
    """An archive of regular files; without its `end`, one that is cut off."""
    whole = [*files, ("TRAILER!!!", b"")] if end else files
    return b"".join(entry(name, content) for name, content in whole)


def entry(name: str, content: bytes, *, mode: int = 0o100644, magic: str = "070701") -> bytes:
    """A header, a name and a content, each filled up to four bytes."""
    raw = name.encode() + b"\0"
    fields: Sequence[int] = (7, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    head = magic.encode() + b"".join(b"%08X" % field for field in fields) + raw
    return padded(head) + padded(content)


def padded(data: bytes, step: int = 4) -> bytes:
    """The bytes with zeros up to a multiple of `step`."""
    return data + bytes(-len(data) % step)
