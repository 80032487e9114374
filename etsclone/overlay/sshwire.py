"""The bytes of SSH public keys and of SSHSIG signatures. Pure; the cryptography is in `signing`.

Sources: OpenSSH's PROTOCOL.sshsig, PROTOCOL.key (private key files) and PROTOCOL.u2f (sk-ssh-ed25519@openssh.com);
RFC 4251 section 5 (strings); RFC 8709 sections 4 and 6 (ssh-ed25519). Only Ed25519 is known here, in a file or in a
hardware token: one algorithm, keys and signatures of one length, nothing to negotiate.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from etsclone.errors import SignatureInvalid
from etsclone.model.brd import NAMESPACE

KEY_TYPE = "ssh-ed25519"
HARDWARE_TYPE = "sk-ssh-ed25519@openssh.com"
"""The type of Ed25519 keys in a FIDO token."""

KEY_TYPES = (KEY_TYPE, HARDWARE_TYPE)
HASHES = ("sha256", "sha512")
KEY_SIZE = 32
SIGNATURE_SIZE = 64

_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_COLUMNS = 70
_COUNTER_SIZE = 5
_PRIVATE_MAGIC = b"openssh-key-v1\0"
_PRIVATE_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PRIVATE_END = b"-----END OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: one of `KEY_TYPES`, 32 bytes, and of a token's key what it is for, such as `ssh:`."""

    type: str
    raw: bytes
    application: bytes = b""


@dataclass(frozen=True, slots=True)
class SshSignature:
    """An SSHSIG: the wire form of the public key that it names, `sha256` or `sha512`, 64 bytes.

    `token` is what a hardware token adds and signs too: a byte of flags and a counter of 32 bits; empty for others.
    """

    key: bytes
    hash_algorithm: str
    signature: bytes
    token: bytes = b""


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
        (string,), data = _take_strings(data, 1)
        strings.append(string)
    return strings


def public_blob(raw: bytes) -> bytes:
    """The wire form of the Ed25519 public key of these 32 bytes."""
    return pack_strings(KEY_TYPE.encode(), raw)


def public_key(blob: bytes) -> PublicKey:
    """An Ed25519 public key from its wire form.

    Raises:
        ValueError: for any other kind of key, and for other lengths.
    """
    strings = split_strings(blob)
    key_type = _key_type(strings)
    if len(strings) != (3 if key_type == HARDWARE_TYPE else 2) or len(strings[1]) != KEY_SIZE:
        raise ValueError(f"its {key_type} value is not of {KEY_SIZE} bytes")
    application = b"".join(strings[2:])
    if b"\0" in application:
        raise ValueError("the application of its key holds a NUL")
    return PublicKey(key_type, strings[1], application)


def private_file_key(data: bytes) -> tuple[bytes, bool]:
    """The public key (wire form) that an OpenSSH private key file holds in the clear, and whether it is encrypted.

    Raises:
        ValueError: when it is no such file.
    """
    text = data.strip()
    if not (text.startswith(_PRIVATE_BEGIN) and text.endswith(_PRIVATE_END)):
        raise ValueError("it is no OpenSSH private key file")
    blob = base64.b64decode(text[len(_PRIVATE_BEGIN) : -len(_PRIVATE_END)])
    if not blob.startswith(_PRIVATE_MAGIC):
        raise ValueError("it is no OpenSSH private key file of version 1")
    (cipher, _, _), rest = _take_strings(blob[len(_PRIVATE_MAGIC) :], 3)
    (key,), _ = _take_strings(rest[4:], 1)  # after the number of keys, which is always 1
    return key, cipher != b"none"


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


def token_data(key: PublicKey, token: bytes, data: bytes) -> bytes:
    """What a hardware token really signs when it is asked to sign `data` (PROTOCOL.u2f, "SSH U2F Signatures")."""
    return hashlib.sha256(key.application).digest() + token + hashlib.sha256(data).digest()


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
            pack_strings(split_strings(signature.key)[0], signature.signature) + signature.token,
        )
    )
    return _wrap(blob)


def parse_signature(armored: bytes, namespace: str = NAMESPACE) -> SshSignature:
    """Read a signature file of a namespace; only the exact bytes that `armor` writes for a signature are one.

    Raises:
        SignatureInvalid: for another armor, key type, hash, version or namespace, and for data left over.
    """
    try:
        return _parse_blob(_unwrap(armored), namespace)
    except ValueError as error:
        raise SignatureInvalid(
            f"the signature does not have its format: {error}",
            hint="sign with an Ed25519 key, as `brd capture` does",
        ) from error


def _parse_blob(blob: bytes, wanted: str) -> SshSignature:
    if not blob.startswith(_MAGIC + struct.pack(">I", _VERSION)):
        raise ValueError("it is no SSHSIG of version 1")
    strings = split_strings(blob[len(_MAGIC) + 4 :])
    if len(strings) != 5:
        raise ValueError(f"it has {len(strings)} fields, not 5")
    key, namespace, reserved, hash_algorithm, signature = strings
    if namespace != wanted.encode():
        raise ValueError(f"it was made for {ascii(namespace[:64])[1:]}, not for {wanted!r}")
    _check_fields(reserved, hash_algorithm)
    value, token = _signature_value(public_key(key).type, signature)
    return SshSignature(key, hash_algorithm.decode(), value, token)


def _check_fields(reserved: bytes, hash_algorithm: bytes) -> None:
    if reserved:
        raise ValueError("its reserved field is not empty")
    if hash_algorithm not in (name.encode() for name in HASHES):
        raise ValueError(
            f"its hash algorithm {ascii(hash_algorithm[:64])[1:]} is not one of {', '.join(HASHES)}"
        )


def _signature_value(key_type: str, blob: bytes) -> tuple[bytes, bytes]:
    """The 64 bytes of an Ed25519 signature, and what a token adds to them."""
    end = len(blob) - (_COUNTER_SIZE if key_type == HARDWARE_TYPE else 0)
    strings = split_strings(blob[: max(end, 0)])
    if _key_type(strings) != key_type:
        raise ValueError("its key and its signature are of two types")
    if len(strings) != 2 or len(strings[1]) != SIGNATURE_SIZE:
        raise ValueError(f"its {key_type} value is not of {SIGNATURE_SIZE} bytes")
    return strings[1], blob[end:]


def _key_type(strings: list[bytes]) -> str:
    """The type that the first of the strings of a key or signature names."""
    for key_type in KEY_TYPES:
        if strings[:1] == [key_type.encode()]:
            return key_type
    raise ValueError(f"its key is not of the type {KEY_TYPE}")


def _take_strings(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """The first strings of `data`, and what follows them."""
    strings = []
    for _ in range(count):
        if len(data) < 4:
            raise ValueError("the length of a string is cut off")
        (length,) = struct.unpack_from(">I", data)
        if length > len(data) - 4:
            raise ValueError("a string is cut off")
        strings.append(data[4 : 4 + length])
        data = data[4 + length :]
    return strings, data


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
