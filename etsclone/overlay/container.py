"""The overlay file: four members in an uncompressed tar, written in one way and read as if an enemy had made it.

Nothing of the header is interpreted before its signature holds, and no byte of payload or inventory leaves this
module before all bytes of the file were checked. The format is specified in `docs/brd-format.md`.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from etsclone.errors import (
    DigestMismatch,
    OverlayMalformed,
    OverlayMismatch,
    OverlaySealed,
    UsageError,
    VerificationFailed,
    medium_error,
)
from etsclone.model.brd import Header, Member, Signer
from etsclone.overlay import ustar
from etsclone.overlay.header import MAX_HEADER, decode, digest, encode
from etsclone.overlay.signing import check, verify
from etsclone.overlay.temporary import room_needed
from etsclone.overlay.trust import Trust
from etsclone.regular import UnfitFileError, open_regular
from etsclone.units import MIB

HEADER = "header.json"
MAX_SIGNATURE = 4 * 1024
"""Bytes. An Ed25519 signature needs 292."""

_CHUNK = MIB
_IN_MEMORY = 64 * MIB
"""Members up to this size are copied into memory and never touch the rescue system's disk: they may hold secrets."""

_SEAL = object()
_HINT = "the file is damaged or was tampered with: take another copy, or an older generation"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The signed bytes of a header, the signature file, and the time (seconds since the epoch) of their tar headers.

    Nothing here is verified; `etsclone.overlay.header.decode` shows what the header claims.
    """

    header: bytes
    signature: bytes
    mtime: int

    @property
    def size(self) -> int:
        """How many bytes of the file they take, with their tar headers and padding."""
        parts = (self.header, self.signature)
        return sum(ustar.BLOCK + len(part) + ustar.padding(len(part)) for part in parts)


class Opener(Protocol):
    """What opens sealed members: `sealing.Identities`, of which nothing is loaded for overlays that are not sealed."""

    def unseal(self, sealed: BinaryIO, out: BinaryIO, name: str) -> None:
        """As `sealing.unseal`."""


@dataclass(frozen=True, slots=True)
class VerifiedOverlay:
    """An overlay of which every byte was verified; only `open_verified` makes one. Close it, or use it in a `with`.

    `digest` is the sha256 (hex) of the header's bytes, by which the next generation names this one. `opened` tells
    whether the contents can be read: they are not sealed, or were opened.
    """

    header: Header
    digest: str
    signer: Signer
    opened: bool
    _spools: tuple[BinaryIO, ...] = field(repr=False)
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("an overlay is verified by open_verified, and by nothing else")

    def payload(self) -> BinaryIO:
        """A new stream over the verified, still compressed bytes of the payload. It must be read before `close`.

        Raises:
            OverlaySealed: when no identity was given that opens it.
        """
        return self._content(0)

    def inventory(self) -> BinaryIO:
        """A new stream over the verified, still compressed bytes of the inventory; else as `payload`."""
        return self._content(1)

    def _content(self, index: int) -> BinaryIO:
        if not self.opened:
            raise OverlaySealed(
                f"generation {self.header.generation} of {self.header.role} is sealed",
                hint="name the recovery key with --identity",
            )
        return _reader(self._spools[index])

    def close(self) -> None:
        """Give back the space of the private copies."""
        for spool in self._spools:
            spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- writing --------------------------------------------------------------------------------------------------------


def measure(name: str, stream: BinaryIO) -> Member:
    """What the header must say of a member: name, size in bytes and sha256 of all that `stream` still holds."""
    sha256, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        sha256.update(chunk)
        size += len(chunk)
    return Member(name, size, sha256.hexdigest())


def write_overlay(
    out: BinaryIO,
    header: Header,
    sign: Callable[[bytes], bytes],
    payload: BinaryIO,
    inventory: BinaryIO,
) -> str:
    """Write an overlay file; equal arguments give equal bytes.

    Args:
        out: where it goes; on an error it holds an unfinished overlay.
        header: what is signed; its members must be those that `measure` finds in the two streams.
        sign: makes the armored signature over the header's bytes.
        payload: the compressed payload, read from where the stream stands to its end.
        inventory: the compressed inventory, likewise.

    Returns:
        The digest (sha256, hex) of the header's bytes.

    Raises:
        OverlayMalformed: when the header or the signature is above its limit.
        SignatureInvalid: when the signature does not hold.
        DigestMismatch: when a stream does not hold what the header says.
    """
    header_bytes, mtime = encode(header), int(header.created.timestamp())
    write_signed(out, HEADER, header_bytes, mtime, sign)
    for member, stream in zip(header.members, (payload, inventory), strict=True):
        out.write(ustar.header(member.name, member.size, mtime))
        _copy_checked(member, stream, out)
        if stream.read(1):
            raise DigestMismatch(f"{member.name} holds more than its header says")
        out.write(bytes(ustar.padding(member.size)))
    out.write(ustar.END)
    return digest(header_bytes)


def write_signed(
    out: BinaryIO, name: str, content: bytes, mtime: int, sign: Callable[[bytes], bytes]
) -> None:
    """Write two members: `content` as `name`, and the signature over it as `name` with `.sig` added.

    Raises:
        OverlayMalformed: when the signature is above its limit.
    """
    signature = sign(content)
    if len(signature) > MAX_SIGNATURE:
        raise OverlayMalformed(
            f"the signature has {len(signature)} bytes, more than {MAX_SIGNATURE}"
        )
    check(content, signature)
    for member, data in ((name, content), (f"{name}.sig", signature)):
        out.writelines(
            (ustar.header(member, len(data), mtime), data, bytes(ustar.padding(len(data))))
        )


# --- reading --------------------------------------------------------------------------------------------------------


def read_envelope(source: Path | BinaryIO) -> Envelope:
    """Read the header's and the signature's bytes, not trusting any: at most 70 KiB, whatever the file says.

    Raises:
        OverlayMalformed: when the file does not begin as every overlay does.
        UsageError: when it cannot be opened.
        DeviceError: when its medium fails.
    """
    with _opened(source) as file:
        return _read_envelope(file)


def read_signed(source: Path, name: str) -> Envelope:
    """Read what `write_signed` wrote of that name, and no more than that, not trusting any of it.

    Raises:
        OverlayMalformed: when the file is anything else.
        UsageError, DeviceError: as `read_envelope`.
    """
    with _opened(source, follow=False) as file:
        envelope = _read_envelope(file, name)
        _check_end(file)
        return envelope


def verify_envelope(
    envelope: Envelope,
    trust: Trust,
    *,
    role: str | None = None,
    pair: str | None = None,
    generation: int | None = None,
) -> tuple[Header, Signer]:
    """What a header says and who signed it, once that is proven. For the arguments and errors see `open_verified`."""
    header, signer = _accept(envelope, trust)
    _check_asked(header, role, pair, generation)
    return header, signer


def open_verified(
    source: Path | BinaryIO,
    trust: Trust,
    *,
    role: str | None = None,
    pair: str | None = None,
    generation: int | None = None,
    identities: Opener | None = None,
    spool: Path | None = None,
) -> VerifiedOverlay:
    """Verify an overlay file, every byte of it, and return what it holds.

    Payload and inventory are copied into private files without a name while they are checked (small ones in memory),
    so that what is used later is what was verified, even if the overlay lies on a medium that others can write to.

    Args:
        source: the overlay; a stream is read from where it stands and need not be seekable.
        trust: which keys may sign for which roles.
        role: the role that it must be of; None takes the one that the header names.
        pair: the pair that it must be of; None takes any.
        generation: the generation that it must be; None takes any.
        identities: who opens the contents if they are sealed; None leaves them sealed.
        spool: the folder for private copies above 64 MiB; None takes the system's temporary folder.

    Raises:
        TrustRefused: when nobody is trusted at all.
        SignatureInvalid: when the signature does not hold, or its key is not trusted for the role.
        OverlayMismatch: when it is a genuine overlay of another role, pair or generation.
        OverlayMalformed, DigestMismatch: when any other byte is not as it was written.
        OverlaySealed: when none of the identities opens it.
        HostilePayload: when a sealed member does not open as it was sealed.
        StoreFull: when the private copies need more space than there is, or there is no folder for them.
        UsageError: when the file cannot be opened.
        DeviceError: when its medium fails.
    """
    room = room_needed("the verified copy of the overlay", spool)
    with _opened(source) as file, room, contextlib.ExitStack() as spools:
        envelope = _read_envelope(file)
        header, signer = verify_envelope(
            envelope, trust, role=role, pair=pair, generation=generation
        )
        copies = [
            spools.enter_context(_spooled(file, member, envelope.mtime, spool))
            for member in header.members
        ]
        _check_end(file)
        if header.sealed and identities:
            copies = [
                spools.enter_context(_unsealed(member, copy, identities, spool))
                for member, copy in zip(header.members, copies, strict=True)
            ]
        opened = not header.sealed or identities is not None
        spools.pop_all()
        return VerifiedOverlay(
            header, digest(envelope.header), signer, opened, tuple(copies), _SEAL
        )


def _accept(envelope: Envelope, trust: Trust) -> tuple[Header, Signer]:
    """The header, parsed only once a key that is trusted for something signed it; then held to what it says."""
    verify(envelope.header, envelope.signature, trust)
    header = decode(envelope.header)
    signer = verify(envelope.header, envelope.signature, trust, header.role, header.created)
    if envelope.mtime != int(header.created.timestamp()):
        raise OverlayMalformed(
            "the times of the tar headers differ from the signed time", hint=_HINT
        )
    return header, signer


def _check_asked(
    header: Header, role: str | None, pair: str | None, generation: int | None
) -> None:
    what = (
        f"the overlay is generation {header.generation} of role {header.role} of pair {header.pair}"
    )
    for asked, found, name in (
        (pair, header.pair, "pair"),
        (role, header.role, "role"),
        (generation, header.generation, "generation"),
    ):
        if asked is not None and asked != found:
            raise OverlayMismatch(
                f"{what}, not of {name} {asked}", hint="it was moved or renamed: ask for what it is"
            )


def _check_end(file: BinaryIO) -> None:
    if _read_exactly(file, len(ustar.END), "its end") != ustar.END or file.read(1):
        raise OverlayMalformed("there are bytes after the last member", hint=_HINT)


def _read_envelope(file: BinaryIO, name: str = HEADER) -> Envelope:
    header, mtime = _read_small(file, name, MAX_HEADER)
    signature, signature_mtime = _read_small(file, f"{name}.sig", MAX_SIGNATURE)
    if mtime != signature_mtime:
        raise OverlayMalformed("the times of the tar headers differ", hint=_HINT)
    return Envelope(header, signature, mtime)


def _read_small(file: BinaryIO, name: str, limit: int) -> tuple[bytes, int]:
    """A member whose size is not known beforehand, and its time; the size is checked before anything is read."""
    block = _read_exactly(file, ustar.BLOCK, f"the tar header of {name}")
    try:
        size, mtime = ustar.size_and_mtime(block)
    except ValueError as error:
        raise OverlayMalformed(
            f"there is no tar header where {name} must stand",
            hint="this is no overlay, or it is damaged",
        ) from error
    _check_block(block, name, size, mtime)
    if size > limit:
        raise OverlayMalformed(f"{name} has {size} bytes, more than {limit}", hint=_HINT)
    content = _read_exactly(file, size, name)
    _read_padding(file, size, name)
    return content, mtime


def _check_block(block: bytes, name: str, size: int, mtime: int) -> None:
    if block == ustar.header(name, size, mtime):
        return
    found = ustar.name_of(block)
    if found != name:
        raise OverlayMalformed(f"{found or 'nothing'} stands where {name} must stand", hint=_HINT)
    raise OverlayMalformed(f"the tar header of {name} is not the one that it must be", hint=_HINT)


def _spooled(file: BinaryIO, member: Member, mtime: int, folder: Path | None) -> BinaryIO:
    """The member that comes next in `file`, in a private file, complete and checked."""
    block = _read_exactly(file, ustar.BLOCK, f"the tar header of {member.name}")
    _check_block(block, member.name, member.size, mtime)
    with contextlib.ExitStack() as undo:
        if member.size <= _IN_MEMORY:  # as it was read: nothing is copied
            content = _read_exactly(file, member.size, member.name)
            _check_digest(member, hashlib.sha256(content).hexdigest())
            copy: BinaryIO = io.BytesIO(content)
        else:
            copy = undo.enter_context(_private_file(member.size, folder))
            _copy_checked(member, file, copy)
            copy.flush()
        _read_padding(file, member.size, member.name)
        undo.pop_all()
    return copy


def _unsealed(
    member: Member, sealed: BinaryIO, identities: Opener, folder: Path | None
) -> BinaryIO:
    """What was sealed, in a private file, once all of it is known to be genuine."""
    with contextlib.ExitStack() as undo:
        plain = undo.enter_context(_private_file(member.size, folder))
        identities.unseal(sealed, plain, member.name)
        plain.flush()
        sealed.close()
        undo.pop_all()
    return plain


def _private_file(size: int, folder: Path | None) -> BinaryIO:
    """An empty file without a name, for `size` bytes: it is gone with the process, however that ends."""
    if size <= _IN_MEMORY:
        return io.BytesIO()
    import tempfile  # noqa: PLC0415 - takes a while, and only large members need it

    return tempfile.TemporaryFile(dir=folder)


def _copy_checked(member: Member, source: BinaryIO, out: BinaryIO) -> None:
    sha256, left = hashlib.sha256(), member.size
    while left:
        chunk = _read_exactly(source, min(left, _CHUNK), member.name)
        sha256.update(chunk)
        out.write(chunk)
        left -= len(chunk)
    _check_digest(member, sha256.hexdigest())


def _check_digest(member: Member, digest: str) -> None:
    if digest != member.sha256:
        raise DigestMismatch(
            f"{member.name} does not have the digest that its header vouches for", hint=_HINT
        )


def _read_padding(file: BinaryIO, size: int, name: str) -> None:
    if any(_read_exactly(file, ustar.padding(size), name)):
        raise OverlayMalformed(f"the padding after {name} is not zero", hint=_HINT)


def _read_exactly(file: BinaryIO, size: int, what: str) -> bytes:
    chunks: list[bytes] = []
    while size:  # a pipe may give less than it is asked for
        chunk = file.read(size)
        if not chunk:
            raise OverlayMalformed(f"the file is truncated: it ends in {what}", hint=_HINT)
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def _opened(source: Path | BinaryIO, *, follow: bool = True) -> Iterator[BinaryIO]:
    """The stream to read; messages about a path begin with it. A link may be the name that somebody gave an overlay."""
    if not isinstance(source, Path):
        yield source
        return
    try:
        descriptor = open_regular(source, follow=follow)
    except OSError as error:
        if isinstance(error, UnfitFileError) and not follow:  # nobody named it
            raise OverlayMalformed(f"{source}: {error.strerror}", hint=_HINT) from error
        raise medium_error(error, source) or UsageError(
            f"{source}: {error.strerror}", hint="`etsclone brd list` shows what there is"
        ) from error
    with open(descriptor, "rb") as file:
        try:
            yield file
        except VerificationFailed as error:
            raise type(error)(f"{source}: {error.message}", hint=error.hint) from error
        except OSError as error:
            failed = medium_error(error, source)
            if failed is None:
                raise
            raise failed from error


class _SpoolReader(io.RawIOBase):
    """Reads a file by position, so that several readers (and a forked child) do not move each other's place."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += count
        return count


def _reader(file: BinaryIO) -> BinaryIO:
    if isinstance(file, io.BytesIO):
        return io.BytesIO(file.getvalue())  # one and the same bytes, not copied
    return io.BufferedReader(_SpoolReader(file))
