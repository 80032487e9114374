"""Copies what one store has and another lacks; each file is read back before it gets its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etsclone.errors import TargetChanged, VerificationFailed
from etsclone.model.brd import CONFIG
from etsclone.model.history import Link
from etsclone.overlay.checked import peek_check
from etsclone.store.folder import Generation, Store, read_settings


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What the target lacks: generations, oldest first, and other files of the source.

    `settings` are files of the source that the target has with other content: which of both is the newer one no file
    tells, so `files` has them only when the source's are to be taken.
    """

    generations: tuple[Link, ...]
    files: tuple[Path, ...]
    settings: tuple[Path, ...] = ()


def plan_mirror(
    source: Store, target: Store | None, generations: Sequence[Link], *, take_settings: bool = False
) -> MirrorPlan:
    """What to copy: these generations, the files that `target` lacks, check records that are newer than its own.

    The target's brd.toml and allowed_signers are replaced only with `take_settings`.

    Raises:
        StoreRefused, DeviceError: when one of the stores cannot be read, or the source's files are larger than any is.
    """
    kept = (source.path / CONFIG, source.signers_path)
    changing = [*kept, *(source.checked_path(role) for role in source.roles)]
    files = [path for path in changing if _differs(path, source, target)]
    settings = tuple(path for path in files if path in kept and target and _is_set(target, path))
    if not take_settings:
        files = [path for path in files if path not in settings]
    there = {path.relative_to(target.path) for path in target.records()} if target else set()
    files += [path for path in source.records() if path.relative_to(source.path) not in there]
    for path in files:
        source.check_size(path)
    return MirrorPlan(tuple(generations), tuple(files), settings)


def execute_mirror(source: Store, target: Store, plan: MirrorPlan) -> int:
    """Copy what the plan says and return how many bytes that were. Interrupted, it is completed by the next plan.

    Raises:
        TargetChanged: when something is no longer in the source.
        DigestMismatch: when the target's medium does not give back what was written.
        StoreFull, StoreRefused, DeviceError: when something cannot be read or written.
    """
    size = 0
    with target.lock():
        try:
            for link in plan.generations:
                item = Generation(link.role, link.number, Path(link.path))
                size += target.take(item, link.size)
            for path in plan.files:
                size += target.take_file(source, path)
        except FileNotFoundError as error:
            raise TargetChanged(
                f"{error.filename} was pruned or removed meanwhile", hint="run the command again"
            ) from error
    return size


def _differs(path: Path, source: Store, target: Store | None) -> bool:
    """Whether a file of the source has to replace the target's. A check record does so only when it is newer."""
    other = _at(target, source, path) if target else None
    if not path.is_file():
        return False
    if other is None or not other.is_file():
        return True
    if path.suffix != ".checked":
        return read_settings(path) != read_settings(other)
    try:
        return peek_check(path).checked > peek_check(other).checked
    except VerificationFailed:
        return False  # which of them is damaged, `brd verify` tells


def _is_set(target: Store, path: Path) -> bool:
    """Whether a store has this file. An empty one was made with the store, and the copy of it was interrupted."""
    there = target.path / path.name
    return there.is_file() and there.stat().st_size > 0


def _at(target: Store, source: Store, path: Path) -> Path:
    """Where the target has a file of the source."""
    return target.path / path.relative_to(source.path)
