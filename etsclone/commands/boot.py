"""What `rebuild` shows of how the disk will boot, and does about it when asked."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from etsclone.commands.rebuild_shown import Section
from etsclone.commands.system import System
from etsclone.errors import BootLoaderRefused, CannotBoot, EtscloneError
from etsclone.execute.boot import BootSurvey, do_boot_work, names_on, survey_boot
from etsclone.execute.rebuild import Editor, RebuildPlan, verify_rebuild
from etsclone.model.keep import NOTHING, Keep
from etsclone.model.tree import printable
from etsclone.plan.bootids import boot_editor

_MENU_STAYS = "GRUB's menu stays as it is: `update-grub` makes it anew, on the system when it runs"


def add_boot(parser: ArgumentParser) -> None:
    """Give a command `--bootloader` and `--boot-entry`."""
    parser.add_argument(
        "--bootloader",
        action="store_true",
        help="install the clone's boot loader again, with the clone's own programs",
    )
    parser.add_argument(
        "--boot-entry",
        action="store_true",
        help="make a boot entry of this machine's UEFI for the disk: on the machine that is to boot it",
    )


def boot_editors(system: System) -> tuple[Editor, ...]:
    """Who mends names of parts that are not on the system's disk; nobody where the disk is not known."""
    return (boot_editor(names_on(system.disk, system.folder)),) if system.disk else ()


def boot_look(system: System, plan: RebuildPlan) -> BootSurvey | None:
    """How the disk of a mounted system boots once a plan is executed; None where the disk is not known.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    if system.disk is None:
        return None
    return survey_boot(system.disk, system.folder, plan, loader=False, entry="")


def boot_survey(system: System, plan: RebuildPlan, arguments: Namespace) -> BootSurvey | None:
    """The same, with what the command line wants to be done for it.

    Raises:
        DeviceError: when the disk cannot be read.
        BootLoaderRefused: when what is asked for cannot be done.
    """
    asked = arguments.bootloader or arguments.boot_entry
    if system.disk is None:
        if asked:
            raise BootLoaderRefused(
                f"on which disk {system.folder} lies is not plain to see",
                hint="name the disk in place of --root",
            )
        return None
    label = f"etsclone {arguments.role}" if arguments.boot_entry else ""
    return survey_boot(system.disk, system.folder, plan, loader=arguments.bootloader, entry=label)


def keeping(plan: RebuildPlan, survey: BootSurvey | None) -> RebuildPlan:
    """A plan that keeps, too, what is done for booting once it is executed, as far as that can be."""
    return replace(plan, keep=survey.keep if survey else NOTHING)


def seen_to_boot(
    survey: BootSurvey | None,
    plan: RebuildPlan,
    arguments: Namespace,
    mounted: Callable[[bool], AbstractContextManager[System]],
) -> tuple[BootSurvey | None, EtscloneError | None]:
    """Do what a survey says is to be done, and look again.

    Args:
        survey: made before the plan was executed.
        plan: what was executed.
        arguments: the command's.
        mounted: mounts the system of the disk, for writing or not.

    Returns:
        How the disk boots now, and what went wrong, to be raised when the rebuild itself has been told.

    Raises:
        ComparisonFailed: when the scope is no longer what the overlay holds.
    """
    if survey is None or not survey.due:
        return survey, None
    trouble: EtscloneError | None = None
    with mounted(True) as system:
        try:
            if system.disk:
                do_boot_work(system.disk, system.folder, survey)
        except EtscloneError as error:
            trouble = error
    with mounted(False) as system:
        # What was edited may have been written anew by now: it is the boot survey that judges it.
        done = replace(plan, edits=())
        verify_rebuild(system.folder, done, system.skip)
        now = boot_look(system, done)
    if trouble is None and arguments.bootloader and now and not now.report.ways:
        trouble = CannotBoot("the disk does not boot, for all that was done", hint=_why(now))
    left = [path for path in now.stale if path in survey.remakes] if now else []
    if trouble is None and now and left:
        images = ", ".join(map(printable, left))
        trouble = CannotBoot(
            f"the initramfs was made anew, and still does not fit the system: {images}",
            hint=_why(now),
        )
    if now:
        now = replace(
            now,
            commands=survey.commands,
            entry=survey.entry,
            keep=survey.keep,
            menu_stays=survey.menu_stays,
        )
    return now, trouble


def _why(survey: BootSurvey) -> str:
    return "; ".join(map(str, survey.report.findings))


def boot_section(survey: BootSurvey | None, trouble: EtscloneError | None = None) -> Section:
    """How a disk boots, what is wrong with that, and what will be done about it, or what of that failed."""
    if survey is None:
        return Section("boot", None)
    lines = boot_lines(survey)
    lines += map(str, survey.commands)
    if survey.menu_stays:
        lines.append(f"         {_MENU_STAYS}")
    if kept := _kept(survey.keep):
        lines.append(f"         kept before that, for --undo: {', '.join(kept)}")
    lines += [f"         --undo will not bring back {each}" for each in survey.keep.lost]
    lines += [str(survey.entry)] if survey.entry else []
    facts = _facts(survey) | {"failed": trouble.message if trouble else None}
    return Section("boot", facts, lines)


def boot_lines(survey: BootSurvey | None, trouble: EtscloneError | None = None) -> list[str]:
    """How a disk boots, and all that is wrong with that, for people."""
    if survey is None:
        return []
    report = survey.report
    lines = [
        f"boot     {'; '.join(map(str, report.ways)) or 'nothing on this disk boots it as it is'}"
    ]
    for finding in report.findings:
        lines.append(f"         {finding}")
        lines += [f"           {finding.hint}"] if finding.hint else []
    return lines + ([f"         failed: {trouble.message}"] if trouble else [])


def _kept(keep: Keep) -> list[str]:
    return [*map(printable, keep.paths), *(["boot code"] if keep.code else [])]


def _facts(survey: BootSurvey) -> dict[str, object]:
    return {
        "ways": [
            {"firmware": way.firmware.value, "loader": way.loader} for way in survey.report.ways
        ],
        "findings": [
            {
                "path": os.fsdecode(finding.path) or None,
                "message": finding.message,
                "hint": finding.hint,
            }
            for finding in survey.report.findings
        ],
        "stale_initramfs": [os.fsdecode(path) for path in survey.stale],
        "commands": [list(command.argv) for command in survey.commands],
        "menu_stays": survey.menu_stays,
        "kept": _kept(survey.keep),
        "lost": list(survey.keep.lost),
        "entry": survey.entry.loader if survey.entry else None,
    }
