"""The files of a clone as they will be: the overlay's in the scope, the disk's around it, and edits on top."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etsclone.model.edit import Edit, merged
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.planned import PlannedFiles
from etsclone.overlay.scan import scan
from etsclone.plan.tree import plan_tree

SCOPE = Scope(("/etc", "/srv/new/role"), ("/etc/fstab",))


class Disk:
    """The files of a folder, as `boot.files.SystemFiles` has those of a root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: bytes) -> bytes | None:
        found = self._root / os.fsdecode(path[1:])
        return found.read_bytes() if found.is_file() and not found.is_symlink() else None

    def is_folder(self, path: bytes) -> bool:
        found = self._root / os.fsdecode(path[1:])
        return found.is_dir() and not found.is_symlink()

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        found = self._root / os.fsdecode(folder[1:])
        return tuple(sorted(map(os.fsencode, os.listdir(found)))) if found.is_dir() else ()


def put(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    files = {
        "etc/hostname": "secondary",
        "etc/fstab": "the disk's",
        "etc/gone": "x",
        "usr/x": "all",
        ".etsclone-staging/0": "left",
    }
    return put(tmp_path / "clone", files)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[Payload]:
    role = put(
        tmp_path / "role",
        {"etc/hostname": "primary", "etc/net/x": "eth0 eth1", "srv/new/role/y": "y"},
    )
    os.link(role / "etc/net/x", role / "etc/linked")
    with (role / "etc/sparse").open("xb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 16)
        file.write(b"island")
    packed = io.BytesIO()
    write_payload(packed, str(role), scan(str(role), SCOPE).scope)
    packed.seek(0)
    with read_payload(packed, SCOPE) as read:
        yield read


@pytest.fixture
def files(clone: Path, payload: Payload) -> PlannedFiles:
    return PlannedFiles(Disk(clone), SCOPE, payload)


def test_the_scope_is_the_overlays_and_the_rest_the_disks(files: PlannedFiles) -> None:
    assert files.read(b"/etc/hostname") == b"primary"
    assert files.read(b"/etc/linked") == files.read(b"/etc/net/x") == b"eth0 eth1"
    assert files.read(b"/etc/gone") is None
    assert files.read(b"/etc/fstab") == b"the disk's"
    assert files.read(b"/usr/x") == b"all"
    sparse = files.read(b"/etc/sparse")
    assert sparse is not None
    assert sparse == bytes(1 << 16) + b"island" + bytes((1 << 20) - (1 << 16) - 6)


def test_folders_list_what_will_be_there(files: PlannedFiles) -> None:
    assert files.names(b"/etc") == (b"fstab", b"hostname", b"linked", b"net", b"sparse")
    assert files.names(b"/etc/net") == (b"x",)
    assert files.names(b"/etc/hostname") == files.names(b"/etc/nothing") == ()
    assert files.names(b"/srv/new") == (b"role",)
    assert files.names(b"/") == (b"etc", b"srv", b"usr")


def test_folders_are_told_from_links_and_files(files: PlannedFiles, clone: Path) -> None:
    (clone / "linked").symlink_to("usr")
    (clone / "etc/net").symlink_to("/usr")
    for folder in (b"/etc", b"/etc/net", b"/srv", b"/srv/new/role", b"/usr"):
        assert files.is_folder(folder), folder
    for other in (b"/linked", b"/usr/x", b"/etc/fstab", b"/etc/linked", b"/etc/gone", b"/nothing"):
        assert not files.is_folder(other), other


def test_what_is_edited_is_rebuilt_so(files: PlannedFiles, clone: Path) -> None:
    edit = Edit(b"/etc/linked", b"eth0 eth1", b"enp1s0 enp2s0", ("names of the NICs",))
    files.take(edit)
    files.take(Edit(b"/etc/fstab", b"the disk's", b"mended", ("why",)))
    assert files.read(b"/etc/net/x") == edit.after
    assert files.read(b"/etc/fstab") == b"mended"
    seen = scan(str(clone), SCOPE)
    plan = plan_tree(seen.scope, files.payload.tree, SCOPE, seen.outside)
    apply_plan(str(clone), plan, files.payload)
    verify_scope(str(clone), files.payload.tree, SCOPE)
    assert (clone / "etc/net/x").read_bytes() == edit.after
    assert (clone / "etc/net/x").samefile(clone / "etc/linked")


def test_an_edit_of_what_is_not_there_is_a_mistake(files: PlannedFiles) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        files.take(Edit(b"/etc/hostname", b"secondary", b"x", ()))


def test_edits_of_one_path_are_one() -> None:
    edits = [
        Edit(b"/a", b"1", b"2", ("one",)),
        Edit(b"/b", b"1", b"2", ()),
        Edit(b"/a", b"2", b"3", ("two",)),
        Edit(b"/b", b"2", b"1", ()),
    ]
    assert merged(edits) == (Edit(b"/a", b"1", b"3", ("one", "two")),)
