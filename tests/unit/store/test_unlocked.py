"""Writers whom no lock keeps apart, as on some network shares; and readers, who take none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etsclone.errors import StoreRefused, TargetChanged
from etsclone.store import files
from etsclone.store.files import NewFile, aside, aside_name, copy_file
from etsclone.store.folder import Store, create


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on a filesystem that grants every lock to everybody."""
    monkeypatch.setattr(files, "_lock", lambda *_, **__: None)
    return create(tmp_path / "store", "ets", "ltsp-isc-dhcp", ("primary", "secondary"))


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.path.glob("*/*") if path.name != files.LOCK_NAME)


def test_what_was_swept_away_is_no_generation(store: Store) -> None:
    with (  # noqa: PT012 - only the commit can raise it
        pytest.raises(StoreRefused, match="was taken away while it was written"),
        store.new_overlay("primary") as one,
    ):
        one.file.write(b"one")
        with store.new_overlay("secondary") as other:
            other.file.write(b"other")
            other.commit()
        one.commit()
    assert names(store) == ["secondary-000001.brd"]
    with store.new_overlay("primary") as again:
        again.file.write(b"one")
        again.commit()
    assert names(store) == ["primary-000001.brd", "secondary-000001.brd"]


def test_of_two_writers_of_one_generation_the_later_one_wins(store: Store) -> None:
    with store.new_overlay("primary") as later:
        pass
    with (  # noqa: PT012 - only the commit can raise it
        pytest.raises(StoreRefused, match="was taken away while it was written") as caught,
        store.new_overlay("primary") as one,
    ):
        one.file.write(b"half of the one")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NewFile, "discard", lambda _: None)  # it is still at work
            with store.new_overlay("primary") as later:
                later.file.write(b"the later one")
                later.file.flush()
        one.commit()
    assert "let them write one after the other" in caught.value.hint
    assert names(store) == [aside_name("primary-000001.brd")]
    later.commit()
    assert names(store) == ["primary-000001.brd"]
    assert later.generation.path.read_bytes() == b"the later one"


def test_what_is_cut_off_while_it_is_copied_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"whole" * 1000)

    @contextmanager
    def pruning(path: Path, *, replace: bool = False) -> Iterator[NewFile]:
        os.truncate(source, 100)
        with aside(path, replace=replace) as new:
            yield new

    monkeypatch.setattr(files, "aside", pruning)
    with pytest.raises(TargetChanged, match="was pruned or removed meanwhile"):
        copy_file(source, target, size=5000)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("others", [None, b"half of it"])
def test_a_medium_is_not_blamed_for_what_another_writer_did(
    others: bytes | None, tmp_path: Path
) -> None:
    target = tmp_path / "primary-000001.brd"
    with aside(target) as new:
        new.file.write(b"the whole of it")
        taken = target.with_name(aside_name(target.name))
        taken.unlink()
        if others:
            taken.write_bytes(others)
        with pytest.raises(StoreRefused, match="was taken away while it was written"):
            new.read_back()
    assert os.listdir(tmp_path) == ([taken.name] if others else [])
