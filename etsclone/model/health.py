"""Whether what was rebuilt is sound, as data: filesystems that were checked, and the profile's checks."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What came of looking. The values are the words that people and programs read."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It was not looked at, and the finding says why: that is neither good nor bad."""
    NOTHING = "nothing to check"
    """What the check is about is not there, as the profile says that it may be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at (a filesystem, a check of the profile), what came of it, and in a few words why.

    `output` are the last lines that the program wrote, when it failed. They may quote configuration: they are shown to
    whoever runs the command, and kept nowhere.
    """

    name: str
    verdict: Verdict
    why: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """All findings; `unseen` are sentences about what was not looked at at all, `notes` what else there is to say."""

    filesystems: tuple[Finding, ...] = ()
    checks: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool | None:
        """Whether all was looked at and is sound; None when nothing is known to be wrong, but not all was looked at."""
        if self.failed:
            return False
        sound = any(each.verdict is Verdict.OK for each in (*self.filesystems, *self.checks))
        return True if sound and not self.unchecked else None

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What was not looked at, and why."""
        skipped = (
            f"{each.name}: {each.why}"
            for each in (*self.filesystems, *self.checks)
            if each.verdict is Verdict.SKIPPED
        )
        return (*self.unseen, *skipped)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What is not sound."""
        return tuple(
            each for each in (*self.filesystems, *self.checks) if each.verdict is Verdict.FAILED
        )
