"""Rebuilds on a filesystem that folds names; a program, too, so that a VM whose kernel has such can run it.

python3 folded.py FOLDER        # the cases, each in a new folder; prints what became of each as JSON
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from etsclone.errors import EtscloneError, ScopeConflict
from etsclone.model.scope import Scope
from etsclone.model.tree import printable
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.foreseen import foresee_names
from etsclone.overlay.kept import kept_folders, undo
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.restored import verify_restored
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree

SCOPE = Scope(("/etc", "/srv/role"), ("/etc/fstab", "/etc/disk"))
COMPOSED, DECOMPOSED = "etc/caf\u00e9", "etc/cafe\u0301"
Picture = dict[str, tuple[int, int, str]]
"""Mode, time and content by path, as the folders list them."""


@dataclass(frozen=True)
class Case:
    """Files of a disk and of the role that it becomes, besides what every case has; a folder ends in a slash."""

    disk: tuple[str, ...]
    role: tuple[str, ...]
    twins: tuple[str, str] | None = None
    """What would be one where names fold, and must be refused there."""


CASES = {
    "the-disk's-own-file": Case(("etc/fstab",), ("etc/FSTAB",), ("etc/fstab", "etc/FSTAB")),
    "the-disk's-own-folder": Case(("etc/disk/x",), ("etc/Disk/x",), ("etc/disk", "etc/Disk")),
    "nobody's-folder": Case(("srv/ROLE/x",), ("srv/role/x",), ("srv/ROLE", "srv/role")),
    "nobody's-folder-on-the-way": Case(("SRV/x",), ("srv/role/x",), ("SRV", "srv")),
    "one-is-there": Case(("etc/Hosts",), ("etc/Hosts", "etc/hosts"), ("etc/Hosts", "etc/hosts")),
    "two-come": Case((), ("etc/Hosts", "etc/hosts"), ("etc/Hosts", "etc/hosts")),
    "two-folders-come": Case((), ("etc/A/x", "etc/a/y"), ("etc/A", "etc/a")),
    "two-for-one": Case(("etc/HOSTS",), ("etc/Hosts", "etc/hosts"), ("etc/Hosts", "etc/hosts")),
    "two-in-a-new-folder": Case((), ("etc/new/A", "etc/new/a"), ("etc/new/A", "etc/new/a")),
    "composed-and-not": Case((), (COMPOSED, DECOMPOSED), (COMPOSED, DECOMPOSED)),
    "sharp-s": Case((), ("etc/STRASSE", "etc/stra\u00dfe"), ("etc/STRASSE", "etc/stra\u00dfe")),
    "kelvin": Case(("etc/disk/x",), ("etc/DIS\u212a",), ("etc/disk", "etc/DIS\u212a")),
    "nothing-that-shows": Case((), ("etc/ab", "etc/a\u200db"), ("etc/ab", "etc/a\u200db")),
    "other-case": Case(("etc/hosts",), ("etc/Hosts",)),
    "other-case-back": Case(("etc/Hosts", "etc/z"), ("etc/hosts", "etc/Z")),
    "other-composition": Case((COMPOSED,), (DECOMPOSED,)),
    "other-spelling": Case(("etc/stra\u00dfe",), ("etc/STRASSE",)),
    "other-case-of-a-folder": Case(("etc/conf.d/a", "etc/conf.d/b"), ("etc/Conf.d/A", "etc/Conf.d/c")),
    "a-file-becomes-a-folder": Case(("etc/conf",), ("etc/CONF/x",)),
    "a-folder-becomes-a-file": Case(("etc/conf/x",), ("etc/CONF",)),
    "below-a-folder-that-stays": Case(("etc/a/x", "etc/a/y"), ("etc/a/X", "etc/a/y")),
    "nothing-folded": Case(("etc/a", "etc/fstab"), ("etc/b", "etc/c/d")),
}  # fmt: skip


@dataclass
class Outcome:
    """What became of a case: whether its twins are one there, why it was refused, and all that must hold."""

    folds: bool = False
    foreseen: str = ""
    """What the plan alone tells: `refused`, `untried`, or nothing."""
    refused: str = ""
    typed: bool = False
    """Whether what refused it was `ScopeConflict`, with a hint."""
    untouched: bool = False
    right: bool = False
    undone: bool = False
    failed: str = ""


def build(root: Path, files: tuple[str, ...]) -> None:
    """Files as every filesystem can hold them: root's, private, with even times."""
    for name in ("etc/stays", *files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for path in sorted(root.rglob("*"), reverse=True):
        path.chmod(0o700)
        os.utime(path, ns=(10**18, 10**18 + 2 * 10**9 * len(path.name)))


def picture(root: Path) -> Picture:
    seen = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = "" if path.is_dir() else path.read_text()
        seen[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return seen


def in_scope(seen: Picture) -> Picture:
    return {path: facts for path, facts in seen.items() if os.fsencode("/" + path) in SCOPE}


@contextmanager
def payload_of(files: tuple[str, ...]) -> Iterator[tuple[Payload, Picture]]:
    """What is captured on a filesystem that folds nothing, and how it looks there."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), files)
        packed = io.BytesIO()
        write_payload(packed, folder, scan(folder, SCOPE).scope)
        packed.seek(0)
        with read_payload(packed, SCOPE) as payload:
            yield payload, in_scope(picture(Path(folder)))


def planned(root: Path, payload: Payload) -> TreePlan:
    """As a rebuild plans it, but for what names can tell."""
    seen = scan(str(root), SCOPE)
    return plan_tree(seen.scope, payload.tree, SCOPE, seen.outside, kept_folders(str(root)))


def apply(root: Path, payload: Payload) -> None:
    """As a rebuild does it: plan, then execute."""
    apply_plan(str(root), planned(root, payload), payload)


def foreseen(root: Path, payload: Payload) -> str:
    """What a dry run tells of names."""
    try:
        return "untried" if foresee_names(str(root), planned(root, payload)) else ""
    except ScopeConflict:
        return "refused"


def are_one(root: Path, twins: tuple[str, str]) -> bool:
    """Whether the last names of two paths are one in a new folder, tried without anything of etsclone."""
    root.mkdir()
    (root / Path(twins[0]).name).mkdir()
    try:
        (root / Path(twins[1]).name).mkdir()
    except FileExistsError:
        return True
    return False


def outcome(case: Case, root: Path) -> Outcome:
    """Rebuild the empty folder `root`, and undo that."""
    build(root, case.disk)
    told = Outcome()
    if case.twins:
        above = (root / case.twins[0]).parents
        probe = next(folder for folder in above if folder.is_dir()) / "probe"
        told.folds = are_one(probe, case.twins)
        shutil.rmtree(probe)
        os.utime(probe.parent, ns=(10**18, 10**18))
    before = picture(root)
    with payload_of(case.role) as (payload, wanted):
        told.foreseen = foreseen(root, payload)
        if picture(root) != before:
            told.failed = "planning has written"
        try:
            apply(root, payload)
        except EtscloneError as error:
            told.refused = str(error)
            told.typed = isinstance(error, ScopeConflict) and bool(error.hint)
            told.untouched = picture(root) == before
            return told
        try:
            verify_scope(str(root), payload.tree, SCOPE)
            after = picture(root)
            own = {path for path in before if path not in in_scope(before)}
            told.right = in_scope(after) == wanted and all(
                after[path] == before[path] for path in own
            )
            verify_restored(str(root), undo(str(root)))
            told.undone = picture(root) == before
        except (EtscloneError, OSError) as error:
            told.failed = repr(error)
    return told


def outcomes(new_root: Callable[[str], Path]) -> dict[str, Outcome]:
    """All cases; `new_root` makes an empty folder that folds names in what is made in it."""
    return {name: outcome(case, new_root(name)) for name, case in CASES.items()}


def wrong(told: Outcome, case: Case) -> str:
    """What is wrong with an outcome; empty when nothing is."""
    if case.twins and told.folds:
        named = all(printable(f"/{twin}") in told.refused for twin in case.twins)
        right = named and told.typed and told.untouched and told.foreseen != ""
    else:
        right = not told.refused and told.right and told.undone and told.foreseen != "refused"
    return "" if right and not told.failed else str(told)


if __name__ == "__main__":

    def _new_root(name: str) -> Path:
        made = Path(sys.argv[1], name)
        made.mkdir(0o700)
        for below in sys.argv[2:]:
            (made / below).mkdir()
            subprocess.run(["chattr", "+F", made / below], check=True)
        return made

    found = outcomes(_new_root)
    sys.stdout.write(json.dumps({name: asdict(each) for name, each in found.items()}) + "\n")
