"""What `rebuild` tells before and after: the plan, and in sections what else was found; for people and for programs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.receipt import UNSIGNED
from etsclone.commands.system import System
from etsclone.execute.rebuild import RebuildPlan
from etsclone.model.tree import printable
from etsclone.overlay.container import VerifiedOverlay
from etsclone.units import counted


@dataclass(frozen=True, slots=True)
class Section:
    """One finding about the disk or the machine: its JSON facts under a name, and lines; none when all is said."""

    name: str
    facts: Mapping[str, object] | None
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A plan with what it is for and what was found."""

    plan: RebuildPlan
    overlay: VerifiedOverlay
    system: System
    signed: bool
    """Whether its receipt will be."""
    sections: tuple[Section, ...] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        header, plan = self.overlay.header, self.plan
        yield f"overlay  generation {header.generation} of {header.role} of pair {header.pair}"
        yield (
            f"         captured on {header.host} at {header.created:%Y-%m-%d %H:%M:%S} UTC,"
            f" signed by {self.overlay.signer.fingerprint}"
        )
        yield f"target   {disk_line(self.system.disk) if self.system.disk else self.system.folder}"
        yield ""
        yield from map(str, (*plan.tree.changes, *plan.due_edits))
        if plan.steps:
            yield f"\n{counted(len(plan.tree.changes), 'change')}; {_around(len(plan.outer_edits))}"
        else:
            yield "its scope equals the overlay already"
        for section in self.sections:
            if section.lines:
                yield ""
                yield from section.lines
        if not self.signed:
            yield ""
            yield UNSIGNED

    def facts(self) -> dict[str, object]:
        """For programs."""
        header, disk = self.overlay.header, self.system.disk
        return {
            "target": disk_facts(disk) if disk else None,
            "root": None if disk else self.system.folder,
            "pair": header.pair,
            "role": header.role,
            "generation": header.generation,
            "overlay": self.overlay.digest,
            "signer": self.overlay.signer.fingerprint,
            "changes": [
                {
                    "action": change.action.value,
                    "path": os.fsdecode(change.path),
                    "reason": change.reason,
                }
                for change in self.plan.tree.changes
            ],
            "edits": [
                {"path": os.fsdecode(edit.path), "reasons": list(edit.reasons)}
                for edit in self.plan.due_edits
            ],
            "signed": self.signed,
            **{section.name: section.facts for section in self.sections},
        }


def untried_section(plan: RebuildPlan) -> Section:
    """Where only the rebuild can tell that names are one to a filesystem: a plan writes nothing to try them."""
    paths = [printable(path) for path in plan.untried]
    line = (
        f"whether names in {', '.join(paths)} are one to that filesystem, or impossible, shows when they are tried:"
        " before anything changes, and then the rebuild is refused"
    )
    return Section("untried_names", {"folders": paths}, (line,) if paths else ())


def _around(edits: int) -> str:
    if not edits:
        return "nothing outside the role's scope is touched"
    return f"outside the role's scope {counted(edits, 'file', 'is', 'are')} edited"
