"""Copies what one store has and another lacks; each file is read back before it gets its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etsclone.errors import TargetChanged, VerificationFailed
from etsclone.model.history import Link
from etsclone.overlay.checked import peek_check
from etsclone.store.folder import CONFIG, Generation, Store


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What the target lacks: generations, oldest first, and other files of the source."""

    generations: tuple[Link, ...]
    files: tuple[Path, ...]


def plan_mirror(source: Store, target: Store | None, generations: Sequence[Link]) -> MirrorPlan:
    """What to copy: these generations, and the files that `target` lacks or, of those that change, has otherwise.

    Raises:
        StoreRefused, DeviceError: when one of the stores cannot be read.
    """
    changing = [source.path / CONFIG, source.signers_path]
    changing += [source.checked_path(role) for role in source.roles]
    files = [path for path in changing if _differs(path, source, target)]
    there = {path.relative_to(target.path) for path in target.records()} if target else set()
    files += [path for path in source.records() if path.relative_to(source.path) not in there]
    return MirrorPlan(tuple(generations), tuple(files))


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
                size += target.take(Generation(link.role, link.number, Path(link.path)))
            for path in plan.files:
                size += target.take_file(source, path)
        except FileNotFoundError as error:
            raise TargetChanged(
                f"{error.filename} was pruned or removed meanwhile", hint="run the command again"
            ) from error
    return size


def _differs(path: Path, source: Store, target: Store | None) -> bool:
    """Whether a file of the source has to replace the target's. A check record does so only when it is newer."""
    other = target.path / path.relative_to(source.path) if target else None
    if not path.is_file():
        return False
    if other is None or not other.is_file():
        return True
    if path.suffix != ".checked":
        return path.read_bytes() != other.read_bytes()
    try:
        return peek_check(path).checked > peek_check(other).checked
    except VerificationFailed:
        return False  # which of them is damaged, `brd verify` tells
