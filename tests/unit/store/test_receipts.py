"""Receipts are kept in the store or, where it cannot be written, on this machine; a signature goes with them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etsclone import __version__
from etsclone.errors import ExitCode, KeyRefused, ReceiptLost, StoreFull
from etsclone.store.files import aside_name
from etsclone.store.folder import Store, create
from etsclone.store.receipts import save_receipt

WHEN = datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=UTC)
NAME = "clone-20261124T010203.000004Z.json"


def sign(message: bytes) -> bytes:
    return b"signed: " + message


def test_a_receipt_on_this_machine(state_folder: Path) -> None:
    path = save_receipt("clone", {"bytes": 5}, WHEN)
    assert path == state_folder / "receipts" / NAME
    assert json.loads(path.read_text()) == {
        "receipt": "clone",
        "format": 1,
        "etsclone": __version__,
        "bytes": 5,
        "signed": False,
    }
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]


def test_what_is_signed_are_the_bytes_that_are_kept(tmp_path: Path) -> None:
    store = create(tmp_path / "store", "ets", "base-debian", ("primary",))
    for path in (
        save_receipt("clone", {}, WHEN, sign=sign),
        save_receipt("clone", {}, WHEN, keep=store.write_receipt, sign=sign),
    ):
        signature = path.with_name(f"{NAME}.sig")
        assert signature.read_bytes() == sign(path.read_bytes())
        assert signature.stat().st_mode & 0o777 == 0o600
    assert path.parent == store.path / "receipts"


@pytest.mark.parametrize("full", [NAME, f"{NAME}.sig"])
def test_a_full_store(
    full: str, tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create(tmp_path / "store", "ets", "base-debian", ("primary",))
    real = Store.write_receipt

    def write(self: Store, name: str, data: bytes) -> Path:
        if name == full:
            raise StoreFull("no space left")
        return real(self, name, data)

    monkeypatch.setattr(Store, "write_receipt", write)
    path = save_receipt("clone", {}, WHEN, keep=store.write_receipt, sign=sign)
    assert path.parent == state_folder / "receipts"
    assert {entry.name for entry in path.parent.iterdir()} == {NAME, f"{NAME}.sig"}
    assert not (store.path / "receipts" / NAME).exists()


def test_a_receipt_is_never_overwritten(state_folder: Path) -> None:
    first = save_receipt("clone", {"bytes": 1}, WHEN).read_bytes()
    with pytest.raises(ReceiptLost, match="all is done, but the receipt cannot"):
        save_receipt("clone", {"bytes": 2}, WHEN)
    assert (state_folder / "receipts" / NAME).read_bytes() == first
    assert not (state_folder / "receipts" / aside_name(NAME)).exists()


def test_a_key_that_is_gone_costs_the_signature_alone(state_folder: Path) -> None:
    def refuse(_message: bytes) -> bytes:
        raise KeyRefused("no agent holds it any more", hint="ssh-add it")

    with pytest.raises(ReceiptLost, match=r"all is done, but .*not be signed: no agent") as caught:
        save_receipt("clone", {"bytes": 1}, WHEN, sign=refuse)
    # Not that of a refusal: what was asked for is done.
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.FAILED, "ssh-add it")
    assert json.loads((state_folder / "receipts" / NAME).read_text())["bytes"] == 1
