"""Sealing against the real `age` program, and against whoever wants to slip something in."""

import base64
import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import EtscloneError, HostilePayload, KeyRefused, OverlaySealed, StoreFull
from etsclone.model.brd import MAX_RECIPIENTS
from etsclone.overlay import sealing as module
from etsclone.overlay.compression import compressed
from etsclone.overlay.sealing import (
    Identities,
    load_identities,
    parse_recipient,
    parse_recipients,
    sealing,
    unseal,
)

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]

PLAIN = b"root:$y$j9T$secret\n" * 10_000
BITS = {"rsa": "1024", "ecdsa": "256"}
SECRET = pyrage.x25519.Identity.from_str(
    "AGE-SECRET-KEY-1RFW0S9JYMQTRM402MFG0PTVHYNSQ6TEGHZLGLXYEW0PH6ZKA2LEQZ44AWS"
)
AGE = str(SECRET.to_public())

# An identity as `age -p` encrypts it, with the passphrase "sesame", but for the work factor: 1 in place of 18, which
# takes a second and 256 MiB. Its public key, and the file.
LOCKED = "age1lfuctsul7jq4va80lawa4vyesf6tedd7ztn6ksjzc40a5tl9sp3qty9c5h"
LOCKED_FILE = b"""\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCByc0ozVXpsamdDZWlQZG5C
U3BMMDd3IDEKZkNZZHhybEFmZ0RlRmdXL093Q2ZGem5yaDRuelMwU05Vc1pEVVFL
QmpBcwotLS0gZkFqNWpmblBMc0RRWTg0SW9JdWl0NGlFKzhqYy9Jck0yaFJBSWFE
YUVRNAp3apuxlxxOWSOm/qao9ZkMVO5Y9OJsCj+n8VTdL/1o+N2WPWTtJ5vMxgEr
QULgYjZrDu7PafDjEeNFbOw3kvaGtbiQNmUZSiL/wubco/0AY0XB8nF6a6YZDPnL
LKdAkkHdnE8NxgR1n2n03g==
-----END AGE ENCRYPTED FILE-----
"""


def no_passphrase() -> bytes:
    raise AssertionError("this key needs no passphrase")


def sealed(plain: bytes, *recipients: str) -> bytes:
    out = io.BytesIO()
    with sealing(out, recipients) as file:
        file.write(plain)
    return out.getvalue()


def opened(data: bytes, identities: Identities) -> bytes:
    out = io.BytesIO()
    unseal(io.BytesIO(data), out, identities, "payload.tar.zst.age")
    return out.getvalue()


def age(*words: str | Path, data: bytes = b"") -> bytes:
    return subprocess.run(["age", *words], input=data, capture_output=True, check=True).stdout


@pytest.fixture
def age_key(tmp_path: Path) -> Path:
    path = tmp_path / "recovery.txt"
    path.write_text(f"# created: today\n# public key: {AGE}\n{SECRET}\n\n")
    return path


@pytest.fixture
def ssh_key(tmp_path: Path, ssh_keygen: SshKeygen) -> Path:
    path = tmp_path / "recovery"
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "the safe, left drawer", "-f", path)
    return path


def public(path: Path) -> str:
    return path.with_name(f"{path.name}.pub").read_text()


# --- sealing and opening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, len(PLAIN)])
def test_what_was_sealed_opens_with_each_key_and_with_age(
    size: int, age_key: Path, ssh_key: Path
) -> None:
    data = sealed(PLAIN[:size], AGE, public(ssh_key))
    for path in (age_key, ssh_key):
        assert opened(data, load_identities(path, no_passphrase)) == PLAIN[:size]
        assert age("-d", "-i", path, data=data) == PLAIN[:size]


def test_what_age_sealed_is_opened(age_key: Path, ssh_key: Path) -> None:
    for recipient, path in ((AGE, age_key), (public(ssh_key), ssh_key)):
        data = age("-r", recipient, data=PLAIN)
        assert opened(data, load_identities(path, no_passphrase)) == PLAIN


def test_no_plain_text_is_left_and_nothing_repeats() -> None:
    first, second = sealed(PLAIN, AGE), sealed(PLAIN, AGE)
    assert b"secret" not in first
    assert first[200:] != second[200:]
    assert 0 < len(first) - len(PLAIN) < module.MAX_AGE_HEADER


def test_without_recipients_nothing_changes() -> None:
    assert sealed(PLAIN) == PLAIN


def test_compressed_data_goes_through_without_touching_a_file(age_key: Path) -> None:
    out = io.BytesIO()
    with sealing(out, [AGE]) as file, compressed(file, 3) as archive:
        archive.write(PLAIN)
    frame = opened(out.getvalue(), load_identities(age_key, no_passphrase))
    assert (
        subprocess.run(["zstd", "-dc"], input=frame, capture_output=True, check=True).stdout
        == PLAIN
    )


def test_the_most_recipients_fit_into_the_bounded_header() -> None:
    identities = [pyrage.x25519.Identity.generate() for _ in range(MAX_RECIPIENTS)]
    data = sealed(PLAIN, *(str(each.to_public()) for each in identities))
    assert opened(data, Identities((identities[-1],))) == PLAIN


def test_another_key_does_not_open(ssh_key: Path) -> None:
    with pytest.raises(OverlaySealed, match="no given identity opens payload"):
        opened(sealed(PLAIN, AGE), load_identities(ssh_key, no_passphrase))


def test_one_of_several_keys_opens(age_key: Path, ssh_key: Path) -> None:
    both = (load_identities(path, no_passphrase).keys for path in (ssh_key, age_key))
    assert opened(sealed(PLAIN, AGE), Identities(sum(both, ()))) == PLAIN


def test_every_cut_and_every_flip_is_noticed() -> None:
    data = sealed(PLAIN[:70_000], AGE)
    places = [*range(0, 300, 7), 65_000, 66_000, len(data) - 20, len(data) - 1]
    damaged = [data[:place] for place in places]
    damaged += [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in places]
    for bad in (*damaged, data + b"x", data + data, b""):
        with pytest.raises((HostilePayload, OverlaySealed)):
            opened(bad, Identities((SECRET,)))


@given(st.binary(max_size=400))
def test_no_bytes_make_opening_fail_in_another_way(data: bytes) -> None:
    for whole in (data, b"age-encryption.org/v1\n" + data, sealed(b"x", AGE)[:150] + data):
        with pytest.raises((HostilePayload, OverlaySealed)):
            opened(whole, Identities((SECRET,)))


def test_only_the_binary_format_counts() -> None:
    armored = age("-a", "-r", AGE, data=PLAIN)
    with pytest.raises(HostilePayload, match="does not begin as an age file"):
        opened(armored, Identities((SECRET,)))


def test_a_header_without_an_end_is_not_read_to_its_end() -> None:
    endless = b"age-encryption.org/v1\n" + b"-> x\n\n" * 10_000 + b"--- " + b"A" * 43 + b"\n"
    with pytest.raises(HostilePayload, match="does not begin as an age file"):
        opened(endless, Identities((SECRET,)))


# --- errors of the files --------------------------------------------------------------------------------------------


class FullFile(io.BytesIO):
    """A file on a medium with little space left."""

    def __init__(self, space: int, error: Exception) -> None:
        super().__init__()
        self.space, self.error = space, error

    def write(self, data: object, /) -> int:
        self.space -= len(bytes(data))  # type: ignore[call-overload]
        if self.space < 0:
            raise self.error
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [0, 100, 70_000, 150_000])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), StoreFull("the store is full")]
)
@pytest.mark.parametrize("size", [1, len(PLAIN), 4 << 20])
def test_a_full_medium_is_told_as_what_it_is(space: int, error: Exception, size: int) -> None:
    if space > size + 1000:
        size = space  # it would fit
    plain, out = bytes(size), FullFile(space, error)
    with pytest.raises(type(error)) as caught, sealing(out, [AGE]) as file:
        file.writelines(plain[start : start + 10_000] for start in range(0, size, 10_000))
    assert caught.value is error


def test_a_full_medium_is_told_when_opening() -> None:
    for size in (1, 200_000):
        full = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(OSError, match="No space") as caught:
            unseal(
                io.BytesIO(sealed(bytes(size), AGE)), FullFile(0, full), Identities((SECRET,)), "x"
            )
        assert caught.value is full


@pytest.mark.parametrize("after", [0, 200_000])
def test_a_medium_that_cannot_be_read_is_no_forgery(after: int) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > after and self.tell() >= module.MAX_AGE_HEADER:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    data = sealed(bytes(400_000), AGE)
    with pytest.raises(OSError, match="Input/output error"):
        unseal(Broken(data), io.BytesIO(), Identities((SECRET,)), "x")


@pytest.mark.parametrize("error", [EtscloneError("no"), KeyboardInterrupt(), BrokenPipeError()])
def test_an_error_of_the_writer_comes_out_as_it_is(error: BaseException) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"something"
        raise error

    with pytest.raises(type(error)) as caught, sealing(io.BytesIO(), [AGE]) as file:
        file.writelines(pieces())
    assert caught.value is error


def test_nothing_stays_open_and_no_thread_runs_on() -> None:
    import threading

    before, threads = os.listdir("/proc/self/fd"), threading.active_count()
    sealed(PLAIN, AGE)
    with pytest.raises(OSError, match="full"), sealing(FullFile(0, OSError("full")), [AGE]) as file:
        file.write(bytes(1 << 20))
    assert os.listdir("/proc/self/fd") == before
    assert threading.active_count() == threads


def test_memory_does_not_grow_with_what_is_sealed(tmp_path: Path) -> None:
    """96 MiB are sealed and opened in a process that may not have more than 64 MiB for everything."""
    program = f"""
import resource, tempfile
from pathlib import Path
from etsclone.overlay.sealing import load_identities, sealing, unseal
resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
with tempfile.TemporaryFile(dir={str(tmp_path)!r}) as out, tempfile.TemporaryFile(dir={str(tmp_path)!r}) as back:
    with sealing(out, [{AGE!r}]) as file:
        for _ in range(96):
            file.write(bytes(1 << 20))
    unseal(out, back, load_identities(Path({str(tmp_path / "key")!r}), bytes), "x")
    print(back.tell())
"""
    import sys

    (tmp_path / "key").write_text(f"{SECRET}\n")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{96 << 20}\n", done.stderr


# --- recipients -----------------------------------------------------------------------------------------------------


def test_recipients_are_kept_as_they_were_written(ssh_key: Path) -> None:
    assert parse_recipient(f" {AGE}\n") == AGE
    assert parse_recipient(public(ssh_key)) == public(ssh_key).strip()
    assert parse_recipients(f"# ours\n\n{AGE}\r\n  {public(ssh_key)}") == (
        AGE,
        public(ssh_key).strip(),
    )


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("rsa", "only ssh-ed25519"), ("ecdsa", "only ssh-ed25519")],
)
def test_other_keys_of_openssh_are_refused_with_a_hint(
    kind: str, hint: str, tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    ssh_keygen("-q", "-t", kind, "-b", BITS[kind], "-N", "", "-f", tmp_path / "key")
    with pytest.raises(KeyRefused, match="that can be sealed to") as caught:
        parse_recipient((tmp_path / "key.pub").read_text())
    assert hint in caught.value.hint
    assert "ssh-keygen -t ed25519" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sk-ssh-ed25519@openssh.com AAAA", "cannot open"),
        (AGE[:-1] + ("q" if AGE[-1] != "q" else "p"), "age1"),
        (AGE.upper(), "age1"),
        ("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "age1"),
        ("ssh-ed25519", "ssh-ed25519 AAAA"),
        ("ssh-ed25519 " + "A" * 68, "ssh-ed25519 AAAA"),
        (f"{AGE} {AGE}", "age1"),
        (f"{AGE}\n{AGE}", "age1"),
        ("", "age1"),
        ("someone", "age1"),
    ],
)
def test_what_is_no_recipient_is_refused(text: str, hint: str) -> None:
    with pytest.raises(KeyRefused, match="not a public key that can be sealed to") as caught:
        parse_recipient(text)
    assert hint in caught.value.hint


def test_a_secret_key_is_not_repeated() -> None:
    for text in (str(SECRET), str(SECRET).lower()):
        with pytest.raises(KeyRefused, match="a secret key was given") as caught:
            parse_recipient(text)
        assert text[20:] not in f"{caught.value.message} {caught.value.hint}"


def test_a_file_without_recipients_is_refused() -> None:
    with pytest.raises(KeyRefused, match="no public key in it"):
        parse_recipients("# nothing\n\n")


@given(st.text(max_size=100))
def test_no_text_makes_a_recipient_in_another_way(text: str) -> None:
    for whole in (text, f"age1{text}", f"ssh-ed25519 {text}"):
        with pytest.raises(KeyRefused):
            parse_recipient(whole)


# --- identities -----------------------------------------------------------------------------------------------------


def test_an_ssh_identity_with_a_passphrase_asks_for_it(
    tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", "ed25519", "-N", "open sesame", "-f", path)
    data = sealed(PLAIN, public(path))
    assert opened(data, load_identities(path, lambda: b"open sesame")) == PLAIN
    with pytest.raises(KeyRefused, match="passphrase does not open"):
        load_identities(path, lambda: b"Open sesame")


@pytest.mark.parametrize("armored", [False, True])
def test_an_age_identity_with_a_passphrase_asks_for_it(tmp_path: Path, *, armored: bool) -> None:
    path = tmp_path / "key.age"
    lines = LOCKED_FILE.splitlines()
    path.write_bytes(LOCKED_FILE if armored else base64.b64decode(b"".join(lines[1:-1])))
    assert opened(sealed(PLAIN, LOCKED), load_identities(path, lambda: b"sesame")) == PLAIN
    for wrong in (b"Sesame", b"\xff"):
        with pytest.raises(KeyRefused, match="passphrase does not open"):
            load_identities(path, lambda answer=wrong: answer)  # type: ignore[misc]


def test_identities_may_come_through_a_pipe_and_are_not_shown(age_key: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, age_key.read_bytes())
    os.close(writer)
    found = load_identities(Path(f"/dev/fd/{reader}"), no_passphrase)
    os.close(reader)
    assert opened(sealed(PLAIN, AGE), found) == PLAIN
    assert "AGE" not in repr(found)
    assert "Identity" not in repr(found).replace("Identities", "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing\n",
        b"junk",
        AGE.encode(),
        str(SECRET).encode()[:-1],
        b"\xff\xfe",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_identity_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(KeyRefused) as caught:
        load_identities(path, no_passphrase)
    assert str(path) in caught.value.message
    assert str(SECRET)[20:-2] not in caught.value.message


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_private_keys_are_refused(kind: str, tmp_path: Path, ssh_keygen: SshKeygen) -> None:
    ssh_keygen("-q", "-t", kind, "-b", BITS[kind], "-N", "", "-f", tmp_path / "key")
    with pytest.raises(KeyRefused, match="not of the type Ed25519"):
        load_identities(tmp_path / "key", no_passphrase)


def test_a_missing_identity_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="No such file"):
        load_identities(tmp_path / "none", no_passphrase)
