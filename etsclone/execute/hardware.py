"""How a system will fit a machine once a rebuild plan is executed: the interfaces that it names, the drivers it has."""

from collections.abc import Sequence
from dataclasses import dataclass

from etsclone.boot.drivers import Drivers, drivers_of_system
from etsclone.chroot import in_chroot
from etsclone.execute.rebuild import RebuildPlan, files_after
from etsclone.model.hardware import Binding, Mentions, Nic
from etsclone.plan.nicmentions import mentions
from etsclone.plan.nics import bindings


@dataclass(frozen=True, slots=True)
class HardwareSurvey:
    """Where the system names interfaces by their addresses, where else it names some that the machine does not have,
    and the drivers of the kernel that it boots, if any."""

    bindings: tuple[Binding, ...]
    mentions: Mentions
    drivers: Drivers | None


def survey_hardware(root: str, plan: RebuildPlan, machine: Sequence[Nic]) -> HardwareSurvey:
    """Look at the system mounted at `root` from inside; `machine` are the interfaces of the one that will boot it."""

    def inside() -> HardwareSurvey:
        files = files_after(plan)
        found = mentions(files, [nic.mac for nic in machine])
        return HardwareSurvey(bindings(files), found, drivers_of_system())

    return in_chroot(root, inside)
