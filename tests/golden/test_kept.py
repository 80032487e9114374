"""What stores and machines keep beside overlays, of version 1: written once, read and written the same for ever."""

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from stores import etsclone, flaws
from test_v1 import HEADER
from test_whole import OVERLAY_DIGEST

from etsclone.errors import OverlayMalformed, OverlayMismatch, SignatureInvalid
from etsclone.model.disk import DiskIdentity
from etsclone.model.history import Known
from etsclone.model.journal import (
    Journal,
    Lock,
    Progress,
    Seen,
    Standing,
    Stay,
    Steps,
    Swap,
    begun_line,
    head_line,
    parse_journal,
    progress_line,
    step_lines,
)
from etsclone.model.keep import BootCode
from etsclone.model.tree import Kind
from etsclone.overlay.checked import Check, open_check, write_check
from etsclone.overlay.container import open_verified, read_envelope, verify_envelope
from etsclone.overlay.signing import SigningKey, load_private_key, sign
from etsclone.overlay.trust import Trust
from etsclone.store.clones import CloneFacts, CloneRecord
from etsclone.store.memory import Captured, Memory, recall, remember_capture, remember_newest

FOLDER = Path(__file__).parent
V1 = FOLDER / "v1"
SIGNERS = "".join((V1 / name).read_text() for name in ("allowed_signers", "allowed_signers_token"))
TRUST = Trust.parse(SIGNERS)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    path = tmp_path / "key"
    path.write_bytes((V1 / "test_key").read_bytes())
    path.chmod(0o600)
    return load_private_key(path, bytes)


# --- in a store -----------------------------------------------------------------------------------------------------

CHECK = Check("ets", "primary", 6, OVERLAY_DIGEST, datetime(2026, 11, 26, 3, 4, 5, tzinfo=UTC))
PRUNED = V1 / "pruned-primary-000003.header"


def test_a_check(tmp_path: Path, key: SigningKey) -> None:
    golden = V1 / "primary.checked"
    assert open_check(golden, TRUST, pair="ets", role="primary") == CHECK
    again = tmp_path / "again"
    with again.open("wb") as out:
        write_check(out, CHECK, partial(sign, key=key))
    assert again.read_bytes() == golden.read_bytes()
    with pytest.raises(OverlayMismatch):
        open_check(golden, TRUST, pair="ets", role="secondary")


def test_a_pruned_generation() -> None:
    header, signer = verify_envelope(
        read_envelope(PRUNED), TRUST, role="primary", pair="ets", generation=3
    )
    assert header == HEADER
    assert signer.principal == "primary"
    assert (V1 / "primary-000003.brd").read_bytes().startswith(PRUNED.read_bytes())
    with pytest.raises(OverlayMalformed):
        open_verified(PRUNED, TRUST)


def test_revoked_keys() -> None:
    revoked = (V1 / "revoked_keys").read_text()
    for name in ("primary-000003.brd", "token-primary-000005.brd"):
        with open_verified(V1 / name, Trust.parse(SIGNERS)):
            pass
        with pytest.raises(SignatureInvalid, match="revoked"):
            open_verified(V1 / name, Trust.parse(SIGNERS, revoked))
    only_comments = "".join(
        line for line in revoked.splitlines(keepends=True) if "ssh-" not in line
    )
    with open_verified(V1 / "primary-000003.brd", Trust.parse(SIGNERS, only_comments)):
        pass


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The golden files as one store, from which generations 1 and 2 are lost."""
    path = tmp_path / "store"
    role = path / "primary"
    role.mkdir(parents=True)
    shutil.copy(V1 / "brd.toml", path)
    (path / "allowed_signers").write_text(SIGNERS)
    shutil.copy(PRUNED, role / "primary-000003.header")
    shutil.copy(V1 / "primary.checked", role)
    for number, kind in ((4, "sealed"), (5, "token"), (6, "whole")):
        shutil.copy(V1 / f"{kind}-primary-{number:06d}.brd", role / f"primary-{number:06d}.brd")
    return path


def problems(store: Path) -> list[tuple[str, str, int]]:
    return flaws(etsclone("brd", "verify", store, "--trust", store / "allowed_signers", "--json"))


def test_they_are_the_history_of_one_role(store: Path, state_folder: Path) -> None:
    lost = [("gap", "primary", 1)]
    assert problems(store) == lost
    # The machine of these files has seen a generation of the other role, of which the store has none.
    shutil.copytree(FOLDER / "state", state_folder, dirs_exist_ok=True)
    lost.append(("rollback", "secondary", 1))
    assert problems(store) == lost
    (store / "primary/primary-000006.brd").unlink()
    assert set(problems(store)) - set(lost) == {("rollback", "primary", 6)}


# --- on a machine ---------------------------------------------------------------------------------------------------

NEWEST = Known(6, OVERLAY_DIGEST)
CAPTURED = Captured(OVERLAY_DIGEST, hashlib.sha256(b"content").hexdigest())


def test_what_is_remembered_of_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETSCLONE_STATE", str(FOLDER / "state"))
    assert recall("ets", "primary") == Memory(NEWEST, CAPTURED)
    assert recall("ets", "secondary") == Memory(Known(1, "0" * 64), None)
    assert recall("other", "primary") == Memory()


def test_roles_are_remembered_in_the_same_words(state_folder: Path) -> None:
    remember_newest("ets", "primary", NEWEST)
    remember_capture("ets", "primary", CAPTURED)
    remember_newest("ets", "secondary", Known(1, "0" * 64))
    for role in ("primary", "secondary"):
        path = Path("roles/ets") / f"{role}.json"
        assert (state_folder / path).read_bytes() == (FOLDER / "state" / path).read_bytes()


CLONED = CloneFacts(
    source=DiskIdentity("source.img", 2 << 20, file=(65024, 2146610), volume=4856062479548919773),
    target=DiskIdentity(
        "/tmp/disks/target.img", 2 << 20, file=(65024, 2146609), volume=4856062479548919773
    ),
    fingerprint="e62878e5c31b1f9e4821d3a76c37456cc05861fd746a2c1b3cc08d802110f256",
    finished=True,
)


def test_the_record_of_a_clone(tmp_path: Path) -> None:
    golden = FOLDER / "clone/clone.json"
    record = CloneRecord(tmp_path / "map", tmp_path / "digests", golden)
    assert record.load() == CLONED
    again = replace(record, facts_path=tmp_path / "clone.json")
    again.save(CLONED)
    assert json.loads(again.facts_path.read_bytes()) == json.loads(golden.read_bytes())


# --- on a disk that is rebuilt --------------------------------------------------------------------------------------

BEFORE = Standing(0o755, 0, 0, 1_782_000_000_123_456_789)
AFTER = Standing(
    0o2750,
    1000,
    4_294_967_294,
    -1_500_000_000,
    (("system.posix_acl_default", bytes(range(0, 256, 51))), ("user.\udcff", b"")),
    ("schg", "nodump"),
)
JOURNAL = Journal(
    "2026-11-28T12:00:00+00:00",
    "primary, generation 6",
    (b"/", b"/v\xffr"),
    Steps(
        (
            Swap(b"/etc/hostname", b"/", old=True, new=True),
            Swap(b"/etc/new", b"/", old=False, new=True),
            Swap(b'/etc/old "x"\n', b"/", old=True, new=False, flags=("sappnd", "schg")),
            Swap(b"/v\xffr/x", b"/v\xffr", old=True, new=True),
        ),
        (Stay(b"/", BEFORE, BEFORE), Stay(b"/etc", BEFORE, AFTER)),
        (Lock(b"/etc/hostname", ("schg",)), Lock(b"/etc/new", ("sappnd", "noatime"))),
    ),
)


WITH_CODE = replace(
    JOURNAL,
    version=2,
    steps=replace(
        JOURNAL.steps,
        code=(BootCode(0, b"\xeb\x63"), BootCode(1 << 20, bytes(3))),
        lost=("the initramfs: there is no room for a copy of 40.0 MiB",),
    ),
)
WITH_SEEN = replace(
    WITH_CODE,
    version=3,
    steps=replace(
        WITH_CODE.steps,
        was=(
            Seen(b"/etc/hostname", Kind.FILE, 7, hashlib.sha256(b"primary").hexdigest(), BEFORE),
            Seen(b'/etc/old "x"\n', Kind.FOLDER, standing=AFTER),
            Seen(b'/etc/old "x"\n/y', Kind.CHAR_DEVICE, content="1:3", standing=BEFORE),
            Seen(b"/v\xffr/x", Kind.FIFO),
        ),
        put=(
            Seen(b"/etc/hostname", Kind.SYMLINK, 5, hashlib.sha256(b"other").hexdigest(), BEFORE),
            Seen(b"/etc/new", Kind.FILE, 0, hashlib.sha256().hexdigest(), AFTER),
        ),
    ),
)


OF_A_PAIR = replace(WITH_SEEN, pair="school")


@pytest.mark.parametrize("journal", [JOURNAL, WITH_CODE, WITH_SEEN, OF_A_PAIR])
def test_the_journal_of_a_rebuild(journal: Journal) -> None:
    pair = "-pair" if journal.pair else ""
    golden = FOLDER / f"journal/version-{journal.version}{pair}.journal"
    lines = golden.read_bytes().splitlines(keepends=True)
    last = [Progress.BEGUN, Progress.APPLIED, Progress.UNDOING, Progress.DROPPING]
    steps = b"".join(lines[: -len(last)])
    assert parse_journal(steps) == journal
    for number, progress in enumerate(last, 1):
        until = b"".join(lines[: number - len(last)] if number < len(last) else lines)
        assert parse_journal(until) == replace(journal, progress=progress)
        assert parse_journal(until + b'{"progress":"app') == replace(journal, progress=progress)
    assert steps == head_line(journal) + step_lines(journal.steps)
    assert lines[-len(last) :] == [begun_line(steps), *map(progress_line, last[1:])]
