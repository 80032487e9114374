"""Receipts of format 1, written once by a clone and a rebuild, and what docs/receipts.md says about them."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import DOCS, needs, section, typed

from etsclone.errors import SignatureInvalid
from etsclone.model.brd import NAMESPACE, RECEIPT_NAMESPACE
from etsclone.overlay.signing import check
from etsclone.overlay.trust import parse_public_key

FOLDER = Path(__file__).parent / "receipt"
PUBLIC = Path(__file__).parent / "v1/test_key.pub"
TEXT = (DOCS / "receipts.md").read_text()
BY_HAND = section(DOCS / "receipts.md", "By hand")
KINDS = ("clone", "rebuild")
OF_CLONE = {
    "receipt",
    "format",
    "etsclone",
    "source",
    "target",
    "partitions",
    "mode",
    "verify",
    "steps",
    "options",
    "bytes",
    "extents",
    "written",
    "share",
    "shared",
    "started",
    "copied_at",
    "finished",
    "phases",
    "lost",
    "lost_owners",
    "map",
    "new_ids",
    "new_ids_warnings",
    "quarantine",
    "digest",
    "tree_hash",
}
"""What the document told of a clone's receipt when this one was written."""


def receipt(kind: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_bytes())
    return facts


def disk() -> bytes:
    """The disk that was cloned: a DOS table of one partition, every third 64 KiB of which is zero."""
    data = bytearray(2 << 20)
    data[440:462] = bytes.fromhex("4d3c2b1a0000 00202100 83 410100 00080000 00080000")
    data[510:512] = b"\x55\xaa"
    for offset in range(1 << 20, len(data), 4096):
        if offset >> 16 and (offset >> 16) % 3 != 1:
            data[offset : offset + 8] = offset.to_bytes(8, "big")
    return bytes(data)


def words(table: str) -> set[str]:
    """The members that a table of the document names, without those of other members."""
    rows: list[str] = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)", row)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_they_say(kind: str) -> None:
    facts = receipt(kind)
    assert (facts["receipt"], facts["format"], facts["etsclone"]) == (kind, 1, "0.1.0.dev0")
    assert facts["target"]["path"].startswith("/tmp/disks/")
    assert facts["started"] < facts["finished"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_signed_them(kind: str) -> None:
    data, signature = ((FOLDER / f"{kind}.json{end}").read_bytes() for end in ("", ".sig"))
    assert check(data, signature, RECEIPT_NAMESPACE).key == parse_public_key(PUBLIC.read_text())[0]
    with pytest.raises(SignatureInvalid):
        check(data, signature, NAMESPACE)
    with pytest.raises(SignatureInvalid):
        check(data.replace(b"true", b"True", 1), signature, RECEIPT_NAMESPACE)


def test_a_clones_holds_what_the_document_tells() -> None:
    facts = receipt("clone")
    told = words(section(DOCS / "receipts.md", "What a clone's holds").split("\n\nThe map")[0])
    assert told >= OF_CLONE <= facts.keys()
    assert facts["map"]["sha256"] == hashlib.sha256((FOLDER / "map").read_bytes()).hexdigest()
    assert (facts["bytes"], facts["written"], facts["lost"]) == (1 << 20, 1 << 20, [])


def test_a_rebuilds_holds_what_the_document_tells() -> None:
    facts = receipt("rebuild")
    assert re.fullmatch("[0-9a-f]{64}", facts["overlay"])
    assert facts["signer"] == "SHA256:PMJKWljCS7vCcYP2Q1QWH6uvrwuiHmng6/ERT13UWbM"
    assert (facts["pair"], facts["role"], facts["generation"]) == ("ets", "primary", 1)
    assert {
        "action": "remove",
        "path": "/etc/ssh/ssh_host_ed25519_secondary",
        "reason": "not in the overlay",
    } in facts["changes"]
    told = set(re.findall(r"`((?:fidelity|health)\.\w+)`", TEXT))
    assert told >= {f"{part}.{word}" for part in ("fidelity", "health") for word in facts[part]}


@needs("ssh-keygen")
def test_by_hand(tmp_path: Path) -> None:
    verify, of_map = re.findall(r"```sh\n(.*?)```", BY_HAND, re.DOTALL)
    [tree_hash] = re.findall(r"```python\n(.*?)```", BY_HAND, re.DOTALL)
    shutil.copy(PUBLIC, tmp_path / "key.pub")
    shutil.copy(FOLDER / "map", tmp_path)
    for kind in reversed(KINDS):
        for end in ("", ".sig"):
            shutil.copy(FOLDER / f"{kind}.json{end}", tmp_path / f"receipt.json{end}")
        assert 'Good "receipt@etsclone" signature for me' in typed(verify, tmp_path)
    assert typed(of_map, tmp_path) == "map: OK\n"
    (tmp_path / "disk").write_bytes(disk())
    (tmp_path / "tree_hash.py").write_text(tree_hash)
    said = typed(f"{sys.executable} tree_hash.py disk", tmp_path)
    assert said.strip() == receipt("clone")["tree_hash"]
