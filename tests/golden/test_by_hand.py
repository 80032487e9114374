"""Law 6: the commands of docs/brd-format.md and of v1/README.md, typed as they stand there."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import FORMAT, commands, needs, section, typed
from oracle import STATE_FLAGS, inode_flags, look

FOLDER = Path(__file__).parent / "v1"
OVERLAYS = {
    "plain": "primary-000003.brd",
    "sealed": "sealed-primary-000004.brd",
    "whole": "whole-primary-000006.brd",
}
TEXT = section(FORMAT, "By hand")
VERIFY, OPEN, UNPACK = commands(TEXT)
WITH_FLAGS, LIST = re.findall(r"`(zstd [^`]*bsdtar [^`]*)`", TEXT)
CREATED = re.search(r"`-O (verify-time=[0-9]+Z)`", TEXT)
LETTERS = {"sappnd": "a", "schg": "i", "nodump": "d", "noatime": "A", "dirsync": "D", "sync": "S"}

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="by hand it is done as root")


class Hand:
    """A person's /root, with an overlay and the list of who is trusted, and /mnt."""

    def __init__(self, folder: Path) -> None:
        self.root, self.mnt = folder / "root", folder / "mnt"
        self.overlay = self.root / "overlay"
        self.root.mkdir()
        self.mnt.mkdir()
        shutil.copy(FOLDER / "allowed_signers", self.root)

    def types(self, block: str, folder: Path) -> str:
        return typed(block.replace("/root", str(self.root)).replace("/mnt", str(self.mnt)), folder)

    def verifies(self, kind: str, *more: str) -> str:
        shutil.copy(FOLDER / OVERLAYS[kind], self.root / OVERLAYS["plain"])
        command = VERIFY.replace("ssh-keygen -Y verify", " ".join(["ssh-keygen -Y verify", *more]))
        return self.types(command, self.root)


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[Hand]:
    hand = Hand(tmp_path)
    yield hand
    for path in hand.mnt.rglob("*"):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            inode_flags(path, 0)


@needs("ssh-keygen", "tar", "age")
@pytest.mark.parametrize("kind", OVERLAYS)
def test_an_overlay_is_verified(hand: Hand, kind: str) -> None:
    said = hand.verifies(kind)
    assert 'Good "brd@etsclone" signature for primary' in said
    told = re.findall(r'"sha256": "([0-9a-f]{64})"', said)
    found = re.findall(r"^([0-9a-f]{64})  (?:payload|inventory)", said, re.MULTILINE)
    assert found == told
    assert len(found) == 2
    assert stat.S_IMODE(hand.overlay.stat().st_mode) == 0o700


@needs("ssh-keygen", "tar")
def test_the_words_for_validity_and_revoked_keys(hand: Hand) -> None:
    assert CREATED
    listed = (FOLDER / "allowed_signers").read_text()
    bounds = 'valid-after="20261122Z",valid-before="20261123Z"'
    limited = listed.replace(" ssh-", f",{bounds} ssh-", 1)
    (hand.root / "allowed_signers").write_text(limited)
    (hand.root / "revoked_keys").write_text("# nobody yet\n")
    words = ("-O", CREATED[1], "-r", "/root/revoked_keys")
    assert 'Good "brd@etsclone"' in hand.verifies("plain", *words)
    shutil.rmtree(hand.overlay)
    with pytest.raises(AssertionError, match="Could not verify"):
        hand.verifies("plain")
    shutil.rmtree(hand.overlay)
    shutil.copy(FOLDER / "test_key.pub", hand.root / "revoked_keys")
    with pytest.raises(AssertionError, match="Could not verify"):
        hand.verifies("plain", *words)


@by_root
@needs("ssh-keygen", "tar", "age", "zstd")
def test_a_sealed_overlay_unpacks_to_the_same(hand: Hand, tmp_path: Path) -> None:
    hand.verifies("plain")
    hand.types(UNPACK, hand.overlay)
    (tmp_path / "other").mkdir()
    other = Hand(tmp_path / "other")
    other.verifies("sealed")
    shutil.copy(FOLDER / "test_identity", other.overlay / "recovery.txt")
    other.types(OPEN, other.overlay)
    other.types(UNPACK, other.overlay)
    below = [look(each.mnt / "etc/dhcp") for each in (hand, other)]
    assert below[0] == below[1]
    assert (hand.mnt / "etc/hostname").read_bytes() == b"srv1\n"
    assert len(below[0]) == 7


@by_root
@needs("ssh-keygen", "tar", "zstd", "bsdtar")
def test_bsdtar_sets_the_flags_and_lists_the_system(hand: Hand) -> None:
    hand.verifies("whole")
    # It complains of names that are no UTF-8, and writes them all the same.
    hand.types(f"{WITH_FLAGS} || test $? = 1", hand.overlay)
    assert b"/etc/names/to long" in look(hand.mnt)
    for name, flags in {
        "a": ["sappnd"],
        "all": ["sappnd", "schg", "nodump", "noatime", "sync"],
        "folder": ["schg", "nodump", "noatime", "dirsync", "sync"],
        "i": ["schg"],
        "folder/in": [],
    }.items():
        wanted = sum(STATE_FLAGS[LETTERS[flag]] for flag in flags)
        assert inode_flags(hand.mnt / "etc/flags" / name) == wanted, name
    # mtree(5) of libarchive knows no sockets, and of Linux no minor numbers above 255; they are listed all the same.
    listed = hand.types(f"{LIST} || test $? = 1", hand.overlay).splitlines()
    assert {".", "./etc/hostname", "./usr/share/lib demo", "./etc/devices/log"} <= set(listed)
    assert not [name for name in listed if "volatile" in name]


@needs("ssh-keygen", "tar", "age", "zstd")
def test_the_commands_beside_the_golden_files(tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    shutil.copytree(FOLDER, folder)
    plain, sealed = commands((FOLDER / "README.md").read_text().split("\nBy hand:\n")[1])
    said = typed(plain.replace("/tmp/golden", str(tmp_path / "golden")), folder)
    assert said.count('Good "brd@etsclone" signature for primary') == 1
    header = (tmp_path / "golden/header.json").read_text()
    assert re.findall(r"^[0-9a-f]{64}", said, re.MULTILINE) == re.findall(
        r'"sha256": "(\w+)"', header.split('"members"')[1]
    )
    said = typed(sealed.replace("/tmp/golden", str(tmp_path / "golden")), folder)
    assert said.count('Good "brd@etsclone" signature for primary') == 1
    assert "etc/dhcp/dhcpd.conf.singleserver link to etc/dhcp/dhcpd.conf" in said
