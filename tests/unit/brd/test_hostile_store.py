"""A store on a medium that anybody wrote to: links, pipes and endless files in the places of its own."""

import io
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from stores import START, Made, contents, copy, etsclone, flaws, prune, refuses, verify

from etsclone.commands.history import trust_or_copy
from etsclone.commands.trust import load_trust
from etsclone.errors import StoreRefused, TrustRefused
from etsclone.execute.mirror import execute_mirror, plan_mirror
from etsclone.regular import UnfitFileError, open_regular, read_regular
from etsclone.store.folder import Store, open_store
from etsclone.units import GIB


def become_link(path: Path) -> None:
    """The bytes are still to be had, elsewhere."""
    elsewhere = path.parents[1] / "elsewhere"
    if path.exists():
        shutil.copy(path, elsewhere)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)


def become_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def become_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def become_endless(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 * GIB)


UNFIT = {
    "it is a symbolic link, no regular file": become_link,
    "it is a named pipe, no regular file": become_pipe,
    "it is a folder, no regular file": become_folder,
}
UNREADABLE = {**UNFIT, "it has more than": become_endless}
unfit = pytest.mark.parametrize(("says", "become"), UNFIT.items())
unreadable = pytest.mark.parametrize(("says", "become"), UNREADABLE.items())

Become = Callable[[Path], None]


@unfit
def test_a_lock_that_is_none(says: str, become: Become, made: Made, tmp_path: Path) -> None:
    (made.path / ".lock").unlink()
    become(made.path / ".lock")
    refuses(prune(made, "--keep-last", "1", "--yes"), 3, f".lock: {says}")
    assert not (tmp_path / "elsewhere").exists()


@unfit
def test_a_lock_of_the_records_that_is_none(says: str, become: Become, made: Made) -> None:
    become(made.path / "receipts/.lock")
    with pytest.raises(StoreRefused, match=says):
        made.store.write_receipt("rebuild.json", b"{}")
    assert not (made.path / "elsewhere").exists()


@unfit
def test_a_record_of_a_check_that_is_none(says: str, become: Become, made: Made) -> None:
    made.check("primary", START + timedelta(days=9))
    assert verify(made).code == 0
    become(made.store.checked_path("primary"))
    result = verify(made, "--json")
    refuses(result, 4, "does not verify")
    assert flaws(result) == [("damaged", "primary", 5)]
    assert says in result.facts["problems"][0]["message"]


@unreadable
def test_a_list_of_signers_that_is_none(says: str, become: Become, made: Made) -> None:
    become(made.trust)
    with pytest.raises(TrustRefused, match=says):
        load_trust(made.trust, follow=False)
    with pytest.raises(TrustRefused, match=says):
        trust_or_copy(Namespace(trust=None, revoked=None), made.store)


@unreadable
def test_to_a_list_of_signers_that_is_none_nothing_is_added(
    says: str, become: Become, made: Made, tmp_path: Path
) -> None:
    assert etsclone("brd", "keygen", tmp_path / "key", "--no-passphrase").code == 0
    become(made.trust)
    result = etsclone("brd", "trust", made.path, "--role", "primary", tmp_path / "key.pub")
    refuses(result, 3, says)


def test_a_named_list_of_signers_may_be_a_link_but_not_endless(made: Made, tmp_path: Path) -> None:
    named = tmp_path / "signers"
    named.symlink_to(made.trust)
    assert etsclone("brd", "verify", made.path, "--trust", named).code == 0
    become_endless(made.trust)
    refuses(prune(made, "--keep-last", "1", "--yes"), 3, "it has more than")


@unreadable
def test_settings_that_are_none(says: str, become: Become, made: Made) -> None:
    become(made.path / "brd.toml")
    refuses(verify(made), 3, f"brd.toml: {says}")


@pytest.mark.parametrize("command", ["show", "verify"])
def test_an_overlay_that_is_a_pipe(command: str, made: Made, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.brd")
    words = ("--trust", made.trust) if command == "verify" else ()
    refuses(etsclone("brd", command, tmp_path / "x.brd", *words), 2, "it is a named pipe")


def test_links_to_a_store_and_to_an_overlay_are_somebodys_own_names(
    made: Made, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(made.path)
    assert etsclone("brd", "verify", tmp_path / "link", "--trust", made.trust).code == 0
    (tmp_path / "x.brd").symlink_to(made.store.overlay("primary"))
    assert etsclone("brd", "verify", tmp_path / "x.brd", "--trust", made.trust).code == 0


def test_a_copy_takes_nothing_from_elsewhere(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert copy(made, target).code == 0
    before = contents(target)
    become_link(made.path / "allowed_signers")
    (tmp_path / "elsewhere").write_text("a secret of this machine\n")
    named = etsclone(
        "brd", "copy", made.path, target, "--take-settings", "--trust", target / "allowed_signers"
    )
    refuses(named, 3, "it is a symbolic link")
    assert contents(target) == before


@pytest.mark.parametrize("name", ["receipts/rebuild.json", "drills/log", "allowed_signers"])
@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_copy_takes_nothing_endless(
    name: str, words: tuple[str, ...], made: Made, tmp_path: Path
) -> None:
    trusted = Path(shutil.copy(made.trust, tmp_path / "trusted"))
    become_endless(made.path / name)
    result = etsclone("brd", "copy", made.path, tmp_path / "target", "--trust", trusted, *words)
    refuses(result, 3, f"{made.path / name}: it has more than")
    assert not (tmp_path / "target").exists()


def test_a_copy_takes_no_more_of_what_grows(made: Made, tmp_path: Path) -> None:
    """Nothing of it stays, and of what is endless no end is waited for."""
    target = tmp_path / "target"
    assert copy(made, target).code == 0
    (made.path / "receipts/rebuild.json").write_text("{}")
    plan = plan_mirror(made.store, open_store(target), ())
    become_endless(made.path / "receipts/rebuild.json")
    before = contents(target)
    with pytest.raises(StoreRefused, match="it has more than"):
        execute_mirror(made.store, open_store(target), plan)
    assert contents(target) == before


@pytest.mark.parametrize(
    ("folder", "write"),
    [
        ("primary", lambda store: store.new_overlay("primary").__enter__()),
        ("receipts", lambda store: store.write_receipt("rebuild.json", b"{}")),
    ],
)
def test_folders_elsewhere_are_neither_swept_nor_written_to(
    folder: str, write: Callable[[Store], object], made: Made, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (made.path / folder).rename(elsewhere)
    (made.path / folder).symlink_to(elsewhere)
    (elsewhere / ".x.new").write_text("somebody's")
    before = contents(elsewhere)
    with pytest.raises(StoreRefused, match="it is a symbolic link, no folder"):
        write(made.store)
    assert contents(elsewhere) == before


def test_a_folder_in_place_of_what_a_killed_writer_left(made: Made) -> None:
    (made.path / ".x.new").mkdir()
    refuses(prune(made, "--keep-last", "1", "--yes"), 3, ".x.new: Is a directory")


# --- the opener -----------------------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    with io.FileIO(descriptor, "r+") as file:
        file.write(b"12345")
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(descriptor)
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(UnfitFileError, match="it has more than 4 bytes"):
        read_regular(path, 4)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 5, follow=True) == b"12345"
    for device in ("/dev/null", "/dev/tty"):
        with pytest.raises(UnfitFileError, match="it is a device"):
            open_regular(Path(device))
    with pytest.raises(UnfitFileError, match="it is a folder"):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
