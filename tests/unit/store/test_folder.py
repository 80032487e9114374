import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import DeviceError, DigestMismatch, FormatError, StoreFull, StoreRefused
from etsclone.store import files
from etsclone.store.files import (
    LOCK_NAME,
    NewFile,
    aside,
    aside_name,
    copy_file,
    cut_off,
    replace_text,
    typed_errors,
)
from etsclone.store.folder import Store, create, open_store

ROLES = ("primary", "secondary")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Store:
    return create(path, "ets", "ltsp-isc-dhcp", ROLES)


@pytest.fixture
def writer(store: Store) -> Iterator[None]:
    """Another process that writes to the store: a lock of another open file is as good as one."""
    descriptor = os.open(store.path / LOCK_NAME, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def capture(store: Store, role: str, content: bytes = b"overlay") -> Path:
    with store.new_overlay(role) as new:
        new.file.write(content)
        new.commit()
    return new.generation.path


def tree(path: Path) -> dict[str, bytes]:
    found = (file for file in path.rglob("*") if file.is_file() and file.name != LOCK_NAME)
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


# --- the store itself -----------------------------------------------------------------------------------------------


def test_a_new_store_is_opened_again(store: Store) -> None:
    assert open_store(store.path) == store
    assert (store.pair, store.profile, store.roles) == ("ets", "ltsp-isc-dhcp", ROLES)
    assert store.signers_path.read_text() == ""
    folders = {entry.name for entry in store.path.iterdir() if entry.is_dir()}
    assert folders == {"primary", "secondary", "receipts", "drills"}


def test_nobody_else_can_look_into_a_store(store: Store) -> None:
    capture(store, "primary")
    store.write_receipt("receipt.json", b"{}")
    for entry in (store.path, *store.path.rglob("*")):
        assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry


def test_people_can_read_what_a_store_is(store: Store) -> None:
    text = (store.path / "brd.toml").read_text()
    assert (
        'format = 1\npair = "ets"\nprofile = "ltsp-isc-dhcp"\nroles = ["primary", "secondary"]\ncreated = 2'
        in text
    )


def test_a_store_is_made_in_an_empty_folder_and_on_a_fresh_medium(path: Path) -> None:
    (path / "lost+found").mkdir(parents=True)
    assert create(path, "ets", "p", ROLES).path == path


def test_a_folder_with_something_else_is_refused(path: Path) -> None:
    path.mkdir()
    (path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StoreRefused, match="not empty and no BRD store"):
        create(path, "ets", "p", ROLES)
    assert tree(path) == {"photo.jpg": b"x"}


def test_a_store_is_not_made_twice(store: Store) -> None:
    with pytest.raises(StoreRefused, match="is a BRD store already"):
        create(store.path, "other", "p", ROLES)
    assert open_store(store.path) == store


def test_a_folder_that_cannot_be_made_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="No such file or directory") as caught:
        create(path / "below", "ets", "p", ROLES)
    assert caught.value.hint == "is the medium mounted?"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="File exists"):
        create(tmp_path / "file", "ets", "p", ROLES)


@pytest.mark.parametrize(
    "roles", [(), ("primary", "primary"), ("receipts",), ("brd.toml",), ("../x",), ("Primary",)]
)
def test_roles_are_names_of_their_own(path: Path, roles: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"role|name"):
        create(path, "ets", "p", roles)
    assert not path.exists()


AGE = "age1qvr3y2l0e0ec2cekkke2zxce75wg2mkrxcwp0p07q8a8trghafkqg9pvcv"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICk113kggmCce96wcJSJxHX6XE6q4pXTaQAINM8qlCKJ"
COMMENT = r'the safe, "left" \\ drawer — £'


def test_recipients_are_kept(path: Path) -> None:
    store = create(path, "ets", "ltsp-isc-dhcp", ROLES, [AGE, f"{SSH} {COMMENT}"])
    assert open_store(path) == store
    assert store.recipients == (AGE, f"{SSH} {COMMENT}")


def test_recipients_come_and_go_and_a_store_without_stays_as_it_was(store: Store) -> None:
    before = (store.path / "brd.toml").read_bytes()
    assert b"recipients" not in before
    assert store.with_recipients([AGE, SSH]) == open_store(store.path)
    assert open_store(store.path).recipients == (AGE, SSH)
    assert open_store(store.path).with_recipients([]) == store
    assert (store.path / "brd.toml").read_bytes() == before


@pytest.mark.parametrize(
    "recipients",
    [
        ["age1"],
        [AGE, AGE],
        [SSH, f"{SSH} with a comment"],
        [f"{SSH} \x1b[31m"],
        [f"{SSH} \u2028"],
        [f"{AGE}\n{SSH}"],
        ["ssh-rsa AAAA"],
        [f"ssh-ed25519 {number:068d}" for number in range(33)],
    ],
)
def test_what_is_no_list_of_recipients_is_refused(store: Store, recipients: list[str]) -> None:
    before = (store.path / "brd.toml").read_bytes()
    with pytest.raises(ValueError, match="recipient"):
        store.with_recipients(recipients)
    assert (store.path / "brd.toml").read_bytes() == before


@pytest.mark.parametrize("text", ['"age1"', '["age1"]', "[1]", f'["{AGE}", "{AGE}"]', "true"])
def test_malformed_recipients_are_told(store: Store, text: str) -> None:
    with (store.path / "brd.toml").open("a") as file:
        file.write(f"recipients = {text}\n")
    with pytest.raises(FormatError, match="recipient"):
        open_store(store.path)


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(StoreRefused, match="is no BRD store") as caught:
            open_store(where)
        assert "brd init" in caught.value.hint


def test_a_store_of_a_newer_format_is_told(store: Store) -> None:
    (store.path / "brd.toml").write_text('format = 2\nroles = "sealed"\n')
    with pytest.raises(StoreRefused, match="made by a newer etsclone"):
        open_store(store.path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("format = 1", "format = true"),
        ("format = 1", "format = 0"),
        ("format = 1", "format = '1'"),
        ("format = 1\n", ""),
        ("format = 1", "format = 1\nextra = 2"),
        ('pair = "ets"\n', ""),
        ('pair = "ets"', "pair = 3"),
        ('pair = "ets"', 'pair = "../ets"'),
        ('["primary", "secondary"]', '"primary"'),
        ('["primary", "secondary"]', "[]"),
        ('["primary", "secondary"]', "[1]"),
        ('["primary", "secondary"]', '["primary", "drills"]'),
        ("created = 2", "created = '2"),
        ("created = 2", "created = 2026-01-01 #"),
        ("# A store", "A store"),
        ("# A store", "# \xff"),
    ],
)
def test_a_malformed_store_is_told(store: Store, old: str, new: str) -> None:
    config = store.path / "brd.toml"
    text = config.read_text()
    assert old in text
    config.write_bytes(text.replace(old, new).encode("latin-1"))
    with pytest.raises(FormatError, match="does not have its format"):
        open_store(store.path)


def test_power_may_fail_while_a_store_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 20):
        path.mkdir()
        with monkeypatch.context() as patch:
            fail_after(patch, step)
            try:
                create(path, "ets", "p", ROLES)
            except PowerCut:
                done = False
            else:
                done = True
        if (path / "brd.toml").exists():
            capture(open_store(path), "primary")
        else:
            create(path, "ets", "p", ROLES)
        if done:
            return
        remove(path)
    pytest.fail("never came to its end")


# --- generations ----------------------------------------------------------------------------------------------------


def test_generations_count_up(store: Store) -> None:
    assert store.generations("primary") == ()
    paths = [capture(store, "primary", content) for content in (b"1", b"2", b"3")]
    assert [path.name for path in paths] == [f"primary-00000{number}.brd" for number in (1, 2, 3)]
    assert [(item.role, item.number, item.path) for item in store.generations("primary")] == [
        ("primary", number, path) for number, path in enumerate(paths, start=1)
    ]
    assert store.generations("secondary") == ()
    assert (store.overlay("primary"), store.overlay("primary", 1)) == (paths[2], paths[0])


def test_the_writer_sees_its_number_and_its_predecessor(store: Store) -> None:
    with store.new_overlay("primary") as new:
        assert (new.generation.number, new.previous) == (1, None)
    first = capture(store, "primary")
    with store.new_overlay("primary") as new:
        assert new.generation.number == 2
        assert new.previous is not None
        assert new.previous.path == first


def test_numbers_go_on_after_old_generations_are_gone(store: Store) -> None:
    capture(store, "primary").unlink()
    capture(store, "primary")
    capture(store, "primary")
    store.overlay("primary", 1).unlink()
    assert [item.number for item in store.generations("primary")] == [2]
    assert capture(store, "primary").name == "primary-000003.brd"


@pytest.mark.parametrize(
    "name",
    [
        "primary-1.brd",
        "primary-0000001.brd",
        "primary-000000.brd",
        "primary-00000a.brd",
        "primary-00000\u0661.brd",
        "secondary-000001.brd",
        "primary-000001.brd.bak",
        "primary-000001.brd\n",
        "xprimary-000001.brd",
        "Primary-000001.brd",
        ".primary-000001.brd",
        "primary-000001.BRD",
        aside_name("primary-000001.brd"),
    ],
)
def test_only_exact_names_are_generations(store: Store, name: str) -> None:
    (store.path / "primary" / name).write_bytes(b"x")
    assert store.generations("primary") == ()


def test_a_folder_is_no_generation(store: Store) -> None:
    (store.path / "primary" / "primary-000001.brd").mkdir()
    assert store.generations("primary") == ()


def test_roles_are_those_of_the_pair(store: Store) -> None:
    store.check_role("secondary")
    for ask in (
        store.check_role,
        store.generations,
        store.overlay,
        lambda role: capture(store, role),
    ):
        with pytest.raises(StoreRefused, match="pair ets has no role 'spare'") as caught:
            ask("spare")
        assert caught.value.hint == "its roles are primary, secondary"


def test_what_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(StoreRefused, match="role primary was never captured") as caught:
        store.overlay("primary")
    assert "brd capture" in caught.value.hint
    capture(store, "primary")
    capture(store, "primary")
    with pytest.raises(StoreRefused, match="no generation 7 of role primary") as caught:
        store.overlay("primary", 7)
    assert caught.value.hint == "there is 1, 2"


def test_a_store_whose_empty_folders_were_lost_in_copying_still_works(store: Store) -> None:
    (store.path / "primary").rmdir()
    (store.path / "receipts").rmdir()
    assert store.generations("primary") == ()
    assert capture(store, "primary").exists()
    assert store.write_receipt("a.json", b"{}").exists()


# --- writing --------------------------------------------------------------------------------------------------------


def test_without_commit_nothing_stays(store: Store) -> None:
    before = tree(store.path)
    with store.new_overlay("primary") as new:
        new.file.write(b"half")
    assert tree(store.path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_failure_leaves_nothing_and_frees_the_store(
    store: Store, error: type[BaseException]
) -> None:
    before = tree(store.path)

    def interrupted() -> NoReturn:
        with store.new_overlay("primary") as new:
            new.file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert tree(store.path) == before
    capture(store, "primary")


def test_what_a_killed_writer_left_is_removed(store: Store) -> None:
    (store.path / "primary" / aside_name("primary-000001.brd")).write_bytes(
        b"half of a large overlay"
    )
    path = capture(store, "primary", b"whole")
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_files_of_one_folder_are_written_at_the_same_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first.map", tmp_path / "second.map"
    with aside(first, replace=True) as one, aside(second, replace=True) as other:
        one.file.write(b"one")
        replace_text(second, "not yet")
        other.file.write(b"other")
        one.commit()
        assert first.read_bytes() == b"one"
    assert tree(tmp_path) == {"first.map": b"one", "second.map": b"not yet"}


def test_a_planted_link_is_not_written_through(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (store.path / "primary" / aside_name("primary-000001.brd")).symlink_to(victim)
    assert capture(store, "primary", b"whole").read_bytes() == b"whole"
    assert victim.read_bytes() == b"precious"


def test_an_existing_generation_is_never_replaced(store: Store) -> None:
    with store.new_overlay("primary") as new:
        new.file.write(b"mine")
        new.generation.path.write_bytes(b"theirs")  # by somebody who does not know of the lock
        with pytest.raises(StoreRefused, match="exists already"):
            new.commit()
    assert tree(store.path / "primary") == {"primary-000001.brd": b"theirs"}


@pytest.mark.usefixtures("writer")
def test_two_writers_do_not_meet(store: Store) -> None:
    for attempt in (lambda: capture(store, "primary"), lambda: store.lock().__enter__()):
        with pytest.raises(StoreRefused, match="another process is writing"):
            attempt()
    assert store.write_receipt("a.json", b"{}").read_bytes() == b"{}"


def test_a_writer_holds_the_store(store: Store) -> None:
    with store.new_overlay("primary"), pytest.raises(StoreRefused, match="another process"):
        capture(store, "secondary")
    capture(store, "secondary")


def test_text_is_replaced_in_one_step(store: Store) -> None:
    with store.lock():
        replace_text(store.signers_path, "primary ssh-ed25519 AAAA ä\n")
    assert store.signers_path.read_text(encoding="utf-8") == "primary ssh-ed25519 AAAA ä\n"
    assert stat.S_IMODE(store.signers_path.stat().st_mode) == 0o600


def test_receipts_are_never_overwritten(store: Store) -> None:
    store.write_receipt("20261122T030405Z-clone.json", b"first")
    with pytest.raises(StoreRefused, match="exists already"):
        store.write_receipt("20261122T030405Z-clone.json", b"second")
    assert tree(store.path / "receipts") == {"20261122T030405Z-clone.json": b"first"}


@given(
    st.text(max_size=5).filter(lambda name: not name.isascii())
    | st.sampled_from(["", ".x", "..", "a/b", "a\n"])
)
def test_receipts_have_plain_names(name: str) -> None:
    store = Store(Path("/nonexistent"), "ets", "p", ROLES, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the name of a receipt"):
        store.write_receipt(name, b"")


def test_a_copied_file_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 3_000_000)
    assert copy_file(source, target) == 3_000_000
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(StoreRefused, match="exists already"):
        copy_file(source, target)
    sync = NewFile._sync

    def worn_out(new: NewFile) -> None:
        sync(new)
        aside_path = new.target.with_name(aside_name(new.target.name))
        aside_path.write_bytes(b"y" + aside_path.read_bytes()[1:])

    monkeypatch.setattr(NewFile, "_sync", worn_out)
    with pytest.raises(DigestMismatch, match="cannot be read back"):
        copy_file(source, tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


def test_a_file_is_cut_off_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"0123456789")
    assert cut_off(tmp_path / "old", "new", 4).read_bytes() == b"0123"
    assert cut_off(tmp_path / "new", "new", 2).read_bytes() == b"01"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_no_link_is_cut_off(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        cut_off(tmp_path / "link", "new", 0)
    assert victim.read_bytes() == b"precious"


def test_a_lock_sweeps_what_killed_writers_left(store: Store) -> None:
    capture(store, "primary")
    before = tree(store.path)
    for folder in (store.path, store.path / "primary", store.path / "secondary"):
        (folder / aside_name("primary-000009.brd")).write_bytes(b"half")
    with store.lock():
        assert tree(store.path) == before


# --- media that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EROFS, StoreRefused),
        (errno.EACCES, StoreRefused),
        (errno.EIO, DeviceError),
        (errno.ENODEV, DeviceError),
        (errno.EINVAL, OSError),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_what_the_system_says_becomes_what_we_say(
    store: Store, number: int, expected: type[Exception], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store.path)

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected):
            capture(store, "primary")
    assert tree(store.path) == before


def test_a_full_medium_is_told_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_open_private", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(StoreFull, match="no space left"), aside(tmp_path / "target") as new:
        new.file.write(bytes(100_000))


def test_a_full_medium_is_told_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_open_private", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with aside(tmp_path / "target") as new:
        new.file.write(b"few bytes stay in the buffer")
        with pytest.raises(StoreFull):
            new.commit()
    assert not (tmp_path / "target").exists()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="strange") as caught, typed_errors(tmp_path):
        raise OSError(errno.ELOOP, "strange")
    assert type(caught.value) is OSError


# --- power cuts -----------------------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """Nothing runs after this, no `finally` either: see `fail_after`."""


def fail_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the medium stop working for good at its `steps`-th change."""
    left = steps

    def cut(name: str) -> None:
        real = getattr(os, name)

        def step(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                raise PowerCut
            return real(*arguments, **options)

        patch.setattr(os, name, step)

    for name in ("mkdir", "unlink", "rename", "fsync"):
        cut(name)


def remove(path: Path) -> None:
    for entry in sorted(path.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    path.rmdir()


def test_power_may_fail_at_any_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    capture(store, "primary", b"the first")
    for step in range(1, 10):
        with monkeypatch.context() as patch:
            fail_after(patch, step)
            try:
                capture(store, "primary", b"whole")
            except PowerCut:
                done = False
            else:
                done = True
        contents = [
            item.path.read_bytes() for item in open_store(store.path).generations("primary")
        ]
        assert contents[0] == b"the first"
        assert set(contents[1:]) <= {b"whole"}
        if done:
            assert len(contents) >= 2
            return
    pytest.fail("never came to its end")
