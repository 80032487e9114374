"""The bytes of SSH public keys and of SSHSIG signatures. Pure; the cryptography is in `signing`.

Sources: OpenSSH's PROTOCOL.sshsig; RFC 4251 section 5 (strings); RFC 8709 sections 4 and 6 (ssh-ed25519). Only
Ed25519 is known here: one algorithm, keys and signatures of one length, nothing to negotiate.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from etsclone.errors import SignatureInvalid
from etsclone.model.brd import NAMESPACE

KEY_TYPE = "ssh-ed25519"
HASHES = ("sha256", "sha512")
KEY_SIZE = 32
SIGNATURE_SIZE = 64

_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_COLUMNS = 70


@dataclass(frozen=True, slots=True)
class SshSignature:
    """An SSHSIG: the wire form of the public key that it names, `sha256` or `sha512`, 64 bytes."""

    key: bytes
    hash_algorithm: str
    signature: bytes


def pack_strings(*strings: bytes) -> bytes:
    """Each string with its length in front, as 32 bits in network order."""
    return b"".join(struct.pack(">I", len(string)) + string for string in strings)


def split_strings(data: bytes) -> list[bytes]:
    """The strings that `data` is made of, from its first byte to its last.

    Raises:
        ValueError: when the last one does not end where `data` does.
    """
    strings = []
    while data:
        if len(data) < 4:
            raise ValueError("the length of a string is cut off")
        (length,) = struct.unpack_from(">I", data)
        if length > len(data) - 4:
            raise ValueError("a string is cut off")
        strings.append(data[4 : 4 + length])
        data = data[4 + length :]
    return strings


def public_blob(raw: bytes) -> bytes:
    """The wire form of the Ed25519 public key of these 32 bytes."""
    return pack_strings(KEY_TYPE.encode(), raw)


def raw_public_key(blob: bytes) -> bytes:
    """The 32 bytes of an Ed25519 public key, from its wire form.

    Raises:
        ValueError: for any other kind of key, and for other lengths.
    """
    return _typed(blob, KEY_SIZE)


def fingerprint(blob: bytes) -> str:
    """The SHA256 fingerprint of a public key in its wire form, as ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def decode_base64(text: bytes) -> bytes:
    """Decode base64 that is exactly as an encoder writes it: padded, no blanks, no bits to spare.

    Raises:
        ValueError: for anything else.
    """
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data) != text:
        raise ValueError("not canonical base64")
    return data


def signed_data(hash_algorithm: str, message: bytes, namespace: str = NAMESPACE) -> bytes:
    """What an SSHSIG of a namespace over `message` really signs."""
    digest = hashlib.new(hash_algorithm, message).digest()
    return _MAGIC + pack_strings(namespace.encode(), b"", hash_algorithm.encode(), digest)


def armor(signature: SshSignature, namespace: str = NAMESPACE) -> bytes:
    """The file that `ssh-keygen -Y sign` would write: base64 in lines of 70 columns between two marks."""
    blob = (
        _MAGIC
        + struct.pack(">I", _VERSION)
        + pack_strings(
            signature.key,
            namespace.encode(),
            b"",
            signature.hash_algorithm.encode(),
            pack_strings(KEY_TYPE.encode(), signature.signature),
        )
    )
    return _wrap(blob)


def parse_signature(armored: bytes) -> SshSignature:
    """Read a signature file; only the exact bytes that `armor` writes for a signature are one.

    Raises:
        SignatureInvalid: for another armor, key type, hash, version or namespace, and for data left over.
    """
    try:
        return _parse_blob(_unwrap(armored))
    except ValueError as error:
        raise SignatureInvalid(
            f"the signature does not have its format: {error}",
            hint="sign with an Ed25519 key, as `brd capture` does",
        ) from error


def _parse_blob(blob: bytes) -> SshSignature:
    if not blob.startswith(_MAGIC + struct.pack(">I", _VERSION)):
        raise ValueError("it is no SSHSIG of version 1")
    strings = split_strings(blob[len(_MAGIC) + 4 :])
    if len(strings) != 5:
        raise ValueError(f"it has {len(strings)} fields, not 5")
    key, namespace, reserved, hash_algorithm, signature = strings
    _check_fields(namespace, reserved, hash_algorithm)
    raw_public_key(key)
    return SshSignature(key, hash_algorithm.decode(), _typed(signature, SIGNATURE_SIZE))


def _check_fields(namespace: bytes, reserved: bytes, hash_algorithm: bytes) -> None:
    if namespace != NAMESPACE.encode():
        raise ValueError(f"it was made for {ascii(namespace[:64])[1:]}, not for {NAMESPACE!r}")
    if reserved:
        raise ValueError("its reserved field is not empty")
    if hash_algorithm not in (name.encode() for name in HASHES):
        raise ValueError(
            f"its hash algorithm {ascii(hash_algorithm[:64])[1:]} is not one of {', '.join(HASHES)}"
        )


def _typed(blob: bytes, size: int) -> bytes:
    """The value of an ssh-ed25519 key or signature: a string that names the type, a string of `size` bytes."""
    strings = split_strings(blob)
    if not strings or strings[0] != KEY_TYPE.encode():
        raise ValueError(f"its key is not of the type {KEY_TYPE}")
    if len(strings) != 2 or len(strings[1]) != size:
        raise ValueError(f"its {KEY_TYPE} value is not of {size} bytes")
    return strings[1]


def _wrap(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[start : start + _COLUMNS] + b"\n" for start in range(0, len(text), _COLUMNS)]
    return b"".join((_BEGIN, *lines, _END))


def _unwrap(armored: bytes) -> bytes:
    if not (armored.startswith(_BEGIN) and armored.endswith(_END)):
        raise ValueError("its first or last line is not that of an SSH signature")
    try:
        blob = base64.b64decode(armored[len(_BEGIN) : -len(_END)], validate=False)
    except binascii.Error as error:
        raise ValueError(f"it is no base64: {error}") from error
    # Decoders are lenient in many ways; whatever they let pass shows when the blob is wrapped again.
    if _wrap(blob) != armored:
        raise ValueError("its base64 is not in the form that ssh-keygen writes")
    return blob
