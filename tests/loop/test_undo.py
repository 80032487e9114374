"""Rebuilds undone, committed, interrupted, as a user types it: the disk is one role or the other, never both."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from oracle import Sight, links, look

from etsclone.model.journal import begun_line
from etsclone.overlay import rounds, swapping
from etsclone.overlay.rounds import unfinished_rebuild
from etsclone.units import human

from .killing import changes_of, run_all_killed_before, run_killed_inside
from .small_system import etsclone, role_files
from .test_rebuild import KEPT, Pair, made, mounted, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]  # fixtures

pytestmark = pytest.mark.loop

Picture = tuple[Sight, set[frozenset[bytes]]]


def picture(image: Path) -> Picture:
    """All that a disk's system is, with what is kept."""
    with mounted(image, "ro,noload") as root:
        return look(root), links(root)


def system_of(found: Picture) -> Picture:
    """Without what is kept."""
    sight, names = found
    return (
        {path: seen for path, seen in sight.items() if not path.startswith(KEPT)},
        {frozenset(path for path in group if not path.startswith(KEPT)) for group in names}
        - {frozenset()},
    )


def options(pair: Pair) -> tuple[str | Path, ...]:
    return "--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes"


def in_place(pair: Pair, root: Path) -> tuple[str | Path, ...]:
    return "rebuild", "--root", root, *options(pair)


def test_undone_it_is_what_it_was(pair: Pair) -> None:
    disk = pair.disk("secondary")
    before = picture(disk)
    assert rebuild(pair, disk, "primary").returncode == 0
    assert system_of(picture(disk)) != before
    shown = ok("rebuild", disk, "--undo", "--dry-run")
    assert "rebuild  to primary, generation 1" in shown
    size = sum(map(len, role_files("secondary").values()))
    assert f"kept     {human(size)} of files as they were before" in shown
    assert json.loads(ok("rebuild", disk, "--undo", "--dry-run", "--json"))["size"] == size
    assert "replace /etc/hostname  (as it was before)" in shown
    assert "remove  /etc/ssh/ssh_host_ed25519_primary  (was not there before)" in shown
    assert "create  /etc/ssh/ssh_host_ed25519_secondary  (was removed)" in shown
    done = json.loads(ok("rebuild", disk, "--undo", "--yes", "--json").splitlines()[-1])
    receipt = json.loads(Path(done["receipt"]).read_text())
    assert (receipt["receipt"], receipt["label"], receipt["verified"]) == (
        "undo",
        "primary, generation 1",
        True,
    )
    assert receipt["signed"] is False
    assert picture(disk) == before
    refuses(etsclone("rebuild", disk, "--undo", "--yes"), 3, "keeps nothing")


def test_receipts_of_undoing_and_committing_are_kept_in_the_store(pair: Pair) -> None:
    disk, key = pair.disk("secondary"), pair.folder / "primary.key"
    for what, more in (("undo", ("--key", key)), ("commit", ())):
        done = rebuild(pair, disk, "primary", *more)
        assert ("will not be signed: --key" in done.stdout) is not bool(more)
        assert ("unsigned receipt: " in done.stdout) is not bool(more)
        shown = ok("rebuild", disk, f"--{what}", "--dry-run", "--store", pair.store, *more)
        assert ("will not be signed: --key" in shown) is not bool(more)
        told = ok("rebuild", disk, f"--{what}", "--yes", "--store", pair.store, *more)
        assert ("unsigned receipt: " in told) is not bool(more)
        (receipt,) = (pair.store / "receipts").glob(f"{what}-*.json")
        facts = json.loads(receipt.read_text())
        assert (facts["what"], facts["verified"], facts["signed"]) == (what, True, bool(more))
        assert receipt.with_name(f"{receipt.name}.sig").exists() is bool(more)
    refuses(etsclone("rebuild", disk, "--undo", "--store", pair.folder), 3, "store")


@pytest.mark.parametrize("what", ["undo", "commit"])
def test_the_store_of_another_pair_gets_no_receipt(pair: Pair, what: str) -> None:
    disk, other = pair.disk("secondary"), pair.folder / "other"
    ok("brd", "init", other, "--pair", "office", "--profile", "ltsp-isc-dhcp")
    assert rebuild(pair, disk, "primary").returncode == 0
    before = picture(disk)
    for more in ("--yes", "--dry-run"):
        done = etsclone("rebuild", disk, f"--{what}", "--store", other, more)
        refuses(done, 3, f"was of pair school, and {other} is the store of pair office")
    assert not list((other / "receipts").iterdir())
    assert picture(disk) == before
    told = ok("rebuild", disk, f"--{what}", "--yes", "--json", "--store", pair.store)
    assert json.loads(told.splitlines()[-1])["pair"] == "school"


def test_a_rebuild_of_another_pair_is_not_finished_with_this_store(pair: Pair) -> None:
    disk, other = pair.disk("secondary"), pair.folder / "other"
    shutil.copytree(pair.store, other)
    named = other / "brd.toml"
    named.write_text(named.read_text().replace('"school"', '"office"'))
    words = "rebuild", disk, *options(pair)
    assert run_killed_inside(swapping, "_take_over", 2, *words) < 0
    before = picture(disk)
    again = ("--role", "primary", "--trust", pair.trust, "--yes")
    refuses(etsclone("rebuild", disk, "--store", other, *again), 3, "was of pair school, and")
    assert picture(disk) == before
    assert "is finished" in ok(*words)


def test_a_journal_that_names_no_pair_is_told(pair: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        journal = root / KEPT.decode()[1:] / "000001/journal"
        head, *steps, begun, applied = journal.read_bytes().splitlines(keepends=True)
        facts = json.loads(head)
        assert facts.pop("pair") == "school"
        lines = json.dumps(facts).encode() + b"\n" + b"".join(steps)
        journal.write_bytes(lines + begun_line(lines) + applied)
        assert begun != begun_line(lines)
    done = ok("rebuild", disk, "--undo", "--yes", "--store", pair.store)
    assert "not known: of which pair the rebuild by an older etsclone was" in done


def test_two_rebuilds_are_undone_one_after_the_other(pair: Pair) -> None:
    disk = pair.disk("secondary")
    before = picture(disk)
    assert rebuild(pair, disk, "primary").returncode == 0
    first = system_of(picture(disk))
    assert rebuild(pair, disk, "secondary").returncode == 0
    ok("rebuild", disk, "--undo", "--yes")
    assert system_of(picture(disk)) == first
    ok("rebuild", disk, "--undo", "--yes")
    assert picture(disk) == before


def test_committed_nothing_is_kept(pair: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    new = system_of(picture(disk))
    facts = json.loads(ok("rebuild", disk, "--commit", "--yes", "--json").splitlines()[-1])
    assert facts["kept"] == 1
    assert json.loads(Path(facts["receipt"]).read_text())["receipt"] == "commit"
    assert picture(disk) == new
    refuses(etsclone("rebuild", disk, "--commit", "--yes"), 3, "keeps nothing")


def test_an_undo_that_cannot_bring_all_back_is_refused(pair: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        (root / ".etsclone-staging/000001/old/000000").unlink()
    before = picture(disk)
    refuses(etsclone("rebuild", disk, "--undo", "--yes"), 3, "cannot be brought back: /etc/")
    assert picture(disk) == before


def test_a_mounted_tree_is_undone_in_place(pair: Pair) -> None:
    with mounted(pair.disk("secondary")) as root:
        before = look(root)
        ok(*in_place(pair, root))
        ok("rebuild", "--root", root, "--undo", "--yes")
        assert look(root) == before


def test_what_is_kept_is_rooms_of_its_own(pair: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk, "ro") as root:
        kept = root / ".etsclone-staging"
        assert [path.stat().st_mode & 0o777 for path in (kept, kept / "000001")] == [0o700, 0o700]
        assert kept.stat().st_uid == 0
    key = pair.folder / "primary.key"
    ok("brd", "capture", pair.store, "--role", "primary", "--key", key, "--disk", disk)


def test_undo_and_commit_ask(pair: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    before = disk.read_bytes()
    refuses(etsclone("rebuild", disk, "--undo", answer="no\n"), 3, "not confirmed")
    refuses(etsclone("rebuild", disk, "--commit", answer="no\n"), 3, "not confirmed")
    assert disk.read_bytes() == before


@pytest.mark.parametrize("more", [("--undo", "--role", "primary"), (), ("--undo", "--commit")])
def test_words_that_make_no_sense(pair: Pair, more: tuple[str, ...]) -> None:
    assert etsclone("rebuild", pair.disk("secondary"), "--yes", *more).returncode == 2


@pytest.fixture
def rotten(pair: Pair) -> Path:
    """A rebuilt disk on which other bytes are in one of the files that are kept, and nothing tells of it."""
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        rot(root)
    return disk


def rot(root: Path) -> None:
    kept = sorted((root / ".etsclone-staging/000001/old").iterdir())
    name = next(path for path in kept if path.is_file() and path.read_text() == "secondary\n")
    times = name.stat()
    name.write_text("SECONDARY\n")
    os.utime(name, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_kept_file_with_other_bytes_is_not_brought_back(rotten: Path) -> None:
    before = picture(rotten)
    for options in (("--dry-run",), ("--yes",)):
        refuses(etsclone("rebuild", rotten, "--undo", *options), 4, "/etc/hostname: other content")
        assert picture(rotten) == before
    words = ("rebuild", rotten, "--undo", "--dry-run", "--json")
    assert json.loads(etsclone(*words).stdout)["exit_code"] == 4
    assert json.loads(ok(*words, "--as-kept"))["damaged"] == ["/etc/hostname: other content"]


def test_a_kept_file_with_other_bytes_is_brought_back_if_that_is_wanted(rotten: Path) -> None:
    done = etsclone("rebuild", rotten, "--undo", "--as-kept", "--yes")
    assert "not what it was before the rebuild: /etc/hostname: other content" in done.stdout
    assert "as it was before, but for what is told above" in done.stdout
    refuses(done, 4, "some of that is not what it was")
    receipt = json.loads(Path(done.stdout.rsplit("receipt: ", 1)[1].strip()).read_text())
    assert (receipt["verified"], receipt["damaged"]) == (False, ["/etc/hostname: other content"])
    with mounted(rotten) as root:
        assert (root / "etc/hostname").read_text() == "SECONDARY\n"
        assert not (root / ".etsclone-staging").exists()


def test_as_kept_is_for_undo(pair: Pair) -> None:
    words = ("rebuild", pair.disk("secondary"), "--commit", "--as-kept", "--yes")
    refuses(etsclone(*words), 2, "--as-kept is for --undo")


def test_what_was_changed_since_is_shown_and_lost(pair: Pair) -> None:
    disk = pair.disk("secondary")
    before = picture(disk)
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        (root / "etc/hostname").write_text("by hand\n")
        (root / "etc/ssh/ssh_host_ed25519_secondary").write_text("by hand\n")
    shown = ok("rebuild", disk, "--undo", "--dry-run")
    assert "replace /etc/hostname  (as it was before; changed since the rebuild, is lost)" in shown
    key = "/etc/ssh/ssh_host_ed25519_secondary"
    assert f"create  {key}  (was removed; made since the rebuild, is lost)" in shown
    assert shown.count("is lost") == 2
    facts = json.loads(ok("rebuild", disk, "--undo", "--dry-run", "--json"))
    assert facts["changed_since"] == {
        "/etc/hostname": "changed since the rebuild, is lost",
        key: "made since the rebuild, is lost",
    }
    ok("rebuild", disk, "--undo", "--yes")
    assert picture(disk) == before


# --- interrupted -----------------------------------------------------------------------------------------------------


@pytest.fixture
def half(pair: Pair) -> Path:
    """A disk whose rebuild was killed when some paths had changed hands, and others had not."""
    disk = pair.disk("secondary")
    with mounted(disk) as root:
        assert run_killed_inside(swapping, "_take_over", 3, *in_place(pair, root)) < 0
        assert unfinished_rebuild(str(root)) == "half way to primary, generation 1"
    return disk


def test_half_way_is_refused_as_such(pair: Pair, half: Path, tmp_path: Path) -> None:
    before = half.read_bytes()
    key = pair.folder / "primary.key"
    capture = ("brd", "capture", pair.store, "--role", "primary", "--key", key, "--disk", half)
    refuses(etsclone(*capture), 3, "half way to primary, generation 1")
    refuses(rebuild(pair, half, "primary", "--dry-run"), 3, "half way to primary, generation 1")
    target = tmp_path / "target.raw"
    refuses(etsclone("clone", half, target, "--yes"), 3, "half way to primary, generation 1")
    assert not target.exists()
    assert half.read_bytes() == before


def test_half_way_is_finished_first(pair: Pair, half: Path) -> None:
    done = rebuild(pair, half, "primary")
    assert done.returncode == 0, done.stderr
    assert "half way to primary, generation 1: that is finished first" in done.stdout
    assert "replace /etc/hostname  (as the rebuild began to)" in done.stdout
    assert "its scope equals the overlay already" in done.stdout
    (receipt,) = (pair.store / "receipts").glob("finish-*.json")
    facts = json.loads(receipt.read_text())
    assert (facts["label"], facts["progress"]) == ("primary, generation 1", "begun")
    assert (facts["verified"], facts["signed"]) == (False, False)
    assert "/etc/hostname" in [each["path"] for each in facts["changes"]]
    assert f"what was interrupted is finished; unsigned receipt: {receipt}\n" in done.stdout


def test_half_way_back_is_told_as_such(pair: Pair, made: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        undoing = ("rebuild", "--root", root, "--undo", "--yes")
        assert run_killed_inside(swapping, "_give_back", 3, *undoing) < 0
    where = "half way back from primary, generation 1"
    refuses(rebuild(pair, disk, "primary", "--dry-run"), 3, where)
    shown = ok("rebuild", disk, "--commit", "--dry-run")
    assert "was being undone, and that was interrupted" in shown
    assert "that is finished first" in shown
    assert "replace /etc/hostname  (as it was before)" in shown
    assert "cannot be undone any more" not in shown
    asked = etsclone("rebuild", disk, *options(pair)[:-1], answer="no\n")
    refuses(asked, 3, "not confirmed")
    assert f"{where}: that is finished first" in asked.stdout
    assert "replace /etc/hostname  (as it was before)" in asked.stdout
    ok("rebuild", disk, "--commit", "--yes")
    assert picture(disk) == picture(_copy(made.disk("secondary"), pair.folder))


@pytest.mark.parametrize("then", ["--undo", "--commit", "rebuild"])
def test_half_way_back_it_goes_on_where_something_is_damaged(pair: Pair, then: str) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        undoing = ("rebuild", "--root", root, "--undo", "--yes")
        assert run_killed_inside(swapping, "_give_back", 1, *undoing) < 0
        rot(root)
    store = ("--store", pair.store)
    words = options(pair) if then == "rebuild" else (then, "--yes", *store)
    done = etsclone("rebuild", disk, *words)
    damage = "/etc/hostname: other content"
    assert f"not what it was before the rebuild: {damage}\n" in done.stdout
    refuses(done, 4, "some of that is not what it was")
    what = {"rebuild": "finish"}.get(then, then.removeprefix("--"))
    (receipt,) = (pair.store / "receipts").glob(f"{what}-*.json")
    facts = json.loads(receipt.read_text())
    assert (facts["verified"], facts["damaged"]) == (False, [damage])
    with mounted(disk) as root:
        assert (root / "etc/hostname").read_text() == "SECONDARY\n"
        assert not (root / ".etsclone-staging").exists()
    assert rebuild(pair, disk, "primary").returncode == 0


def test_cut_off_before_it_compared_an_undo_is_not_called_verified(pair: Pair, made: Pair) -> None:
    disk = pair.disk("secondary")
    assert rebuild(pair, disk, "primary").returncode == 0
    with mounted(disk) as root:
        undoing = ("rebuild", "--root", root, "--undo", "--yes")
        assert run_killed_inside(rounds, "discard", 2, *undoing) < 0
    shown = ok("rebuild", disk, "--undo", "--yes", "--store", pair.store)
    assert "not known: whether what came back before is what it was" in shown
    assert "but for what is told above" in shown
    (receipt,) = (pair.store / "receipts").glob("undo-*.json")
    assert json.loads(receipt.read_text())["verified"] is False
    assert picture(disk) == picture(_copy(made.disk("secondary"), pair.folder))


def test_half_way_is_undone(pair: Pair, half: Path, made: Pair) -> None:
    shown = ok("rebuild", half, "--undo", "--yes")
    assert "was interrupted" in shown
    assert picture(half) == picture(_copy(made.disk("secondary"), pair.folder))


def test_half_way_is_committed(pair: Pair, half: Path, made: Pair) -> None:
    ok("rebuild", half, "--commit", "--yes")
    whole = _copy(made.disk("secondary"), pair.folder)
    assert rebuild(pair, whole, "primary").returncode == 0
    assert picture(half) == system_of(picture(whole))


def _copy(image: Path, folder: Path) -> Path:
    return Path(shutil.copy(image, folder / f"copy-of-{image.name}"))


def test_killed_at_any_moment(pair: Pair, made: Pair, full: bool) -> None:
    """Before whichever change the kill comes, what the next run leaves is the one or the other, to the nanosecond."""
    whole = _copy(made.disk("secondary"), pair.folder)
    old = picture(whole)
    ok("rebuild", whole, *options(pair))
    ok("rebuild", whole, "--commit", "--yes")
    new = picture(whole)
    chance, disk, cut = random.Random(5), pair.disk("secondary"), 0
    with mounted(_copy(disk, pair.folder)) as root:
        changes = changes_of(*in_place(pair, root))
    for number in range(100 if full else 15):
        shutil.copy(made.disk("secondary"), disk)
        with mounted(disk) as root:
            moment = chance.randint(1, changes)
            assert run_all_killed_before(moment, *in_place(pair, root)) < 0
            cut += unfinished_rebuild(str(root)) is not None
        if number % 2:
            ok("rebuild", disk, *options(pair))
            etsclone("rebuild", disk, "--commit", "--yes")
            assert picture(disk) == new, moment
        else:
            etsclone("rebuild", disk, "--undo", "--yes")
            assert picture(disk) == old, moment
    assert cut > number // 10
