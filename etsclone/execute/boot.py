"""How the disk of a system will boot once a rebuild plan is executed: looked at, judged, and seen to."""

import os
import shlex
from dataclasses import dataclass, replace

from etsclone.boot.confined import run_confined
from etsclone.boot.initramfs import LIMIT, Budget
from etsclone.boot.initramfsnames import (
    MOST_IMAGES,
    OF_DISKS,
    OF_NETWORKS,
    initramfs_images,
    is_initramfs,
    is_made_apart,
    matching,
    telling_files,
)
from etsclone.boot.loaders import read_boot_sector, read_esps
from etsclone.chroot import in_chroot
from etsclone.disk import md
from etsclone.disk.layers import layers_of
from etsclone.disk.mounts import mounts_of_system, system_mounts
from etsclone.errors import BootLoaderRefused, CannotBoot, FormatError, TargetChanged
from etsclone.execute.bootkeep import Work, keep_for, with_code
from etsclone.execute.rebuild import RebuildPlan, files_after
from etsclone.model.boot import BootReport, Esp, Finding, Names
from etsclone.model.disk import Disk, DiskIdentity, Partition
from etsclone.model.keep import NOTHING, Keep
from etsclone.model.tree import join
from etsclone.plan.bootcheck import check_boot, check_menu, with_edits
from etsclone.plan.bootentries import BootEntry, boot_entry
from etsclone.plan.bootids import is_stale, unknown_inside, unknown_names
from etsclone.plan.bootwork import BootCommand, has_hooks, initramfs_work, loader_work, menu_stays
from etsclone.plan.nics import unbound_inside
from etsclone.run import run

_VEILED = frozenset({"LVM2_member", "crypto_LUKS", "linux_raid_member", "zfs_member", "drbd"})
"""Contents that hold volumes with names of their own."""

_EFI_VARIABLES = "/sys/firmware/efi/efivars"
_MACHINES = {"x86_64": 0x8664, "aarch64": 0xAA64}
"""What PE headers say, by the kernel's word for this machine."""

_PATIENCE = 1800.0
"""Seconds for one program; to make several initramfs on a slow machine takes minutes."""


@dataclass(frozen=True, slots=True)
class BootSurvey:
    """How a disk boots, and what is to be run and made for that.

    `stale` are the initramfs that name what is not on it, or interfaces as they were bound before; `remakes` are the
    initramfs that the commands make anew. `keep` is what is kept before the commands, for an undo. `menu_stays` tells
    that a boot loader is installed, and its menu left as it is.
    """

    disk: DiskIdentity
    report: BootReport
    stale: tuple[bytes, ...] = ()
    commands: tuple[BootCommand, ...] = ()
    entry: BootEntry | None = None
    keep: Keep = NOTHING
    remakes: tuple[bytes, ...] = ()
    menu_stays: bool = False

    @property
    def due(self) -> bool:
        """Whether there is anything to be done."""
        return bool(self.commands or self.entry)


def names_on(disk: Disk, root: str) -> Names:
    """What the parts of a disk are called, whose system is mounted at `root`."""
    whole = Partition(0, disk.device, 0, disk.size, "", content=disk.content)
    parts = disk.partitions or (whole,)
    by_number = {os.stat(part.device).st_rdev: part for part in parts if part.device}
    top = os.path.realpath(root)
    mounts = {mount.where: by_number.get(mount.device) for mount in mounts_of_system()}
    return Names(
        parts,
        root=mounts.get(top),
        boot=mounts.get(f"{top}/boot", mounts.get(top)),
        whole=not any(part.content.type in _VEILED for part in parts),
        serial=disk.identity.serial,
    )


def survey_boot(
    disk: Disk, root: str, plan: RebuildPlan, *, loader: bool, entry: str
) -> BootSurvey:
    """Look at a disk whose system is mounted at `root`, and at that system as the plan will leave it.

    Args:
        disk: a snapshot of it.
        root: where its system is mounted.
        plan: what will be changed.
        loader: whether the boot loader is to be installed again.
        entry: the label of a boot entry that is to be made for this machine; empty for none.

    Raises:
        DeviceError: when the disk cannot be read.
        BootLoaderRefused: when what is asked for cannot be done.
    """
    names, sector = names_on(disk, root), read_boot_sector(disk)
    esps = tuple(with_edits(esp, plan.edits) for esp in read_esps(disk))
    report = check_boot(sector, esps, names)
    made = _entry(disk, esps, names, entry) if entry else None
    esp_folder = _esp_folder(names, root)
    layers = _below_boot(disk, root)[1] if loader else frozenset()
    top = os.path.realpath(root)
    mounts = [os.fsencode(each.removeprefix(top)) for each in system_mounts(root)]

    def inside() -> tuple[BootSurvey, tuple[Work, ...]]:
        files = files_after(plan)
        found = [*check_menu(files), *unknown_names(files, names)]
        stale = []
        names_in_boot = files.names(b"/boot")
        left_out = sum(map(is_initramfs, names_in_boot)) - MOST_IMAGES
        if left_out > 0:
            message = f"{left_out} more initramfs than {MOST_IMAGES} are not looked into"
            found.append(Finding(message, "remove old kernels", b"/boot"))
        budget = Budget(2 * LIMIT)
        for path in initramfs_images(names_in_boot):
            try:
                contents = telling_files(path, budget, (*OF_DISKS, *OF_NETWORKS))
            except FormatError as error:
                found.append(Finding(error.message, "make it anew", path))
                continue
            disks, copies = matching(contents, OF_DISKS), matching(contents, OF_NETWORKS)
            found += unknown_inside(path, disks, names) + unbound_inside(files, path, contents)
            # What dracut thinks of by itself (ifname= in etc/cmdline.d), it would think of again.
            due = is_stale(files, disks, names) or unbound_inside(files, path, copies)
            stale += [path] if due else []
        # What opens a root on LVM, LUKS or md is not seen where these programs run: it would be left out.
        plain = names.whole and names.root is not None
        images = tuple(
            join(b"/boot", name)
            for name in names_in_boot
            if is_initramfs(name) and not is_made_apart(name)
        )
        remade = initramfs_work(files, images) if plain and {*images} & {*stale} else ()
        installed = loader_work(files, disk, sector, names, esp_folder, layers) if loader else ()
        works = Work("the initramfs", remade), Work("the boot loader", installed)
        keep = keep_for([work for work in works if work.commands], plan.scope, mounts)
        if remade and has_hooks(files):
            lost = "what scripts in /etc/initramfs/post-update.d change: nobody knows what that is"
            keep = replace(keep, lost=(*keep.lost, lost))
        whole = BootReport(report.ways, (*report.findings, *found))
        commands = (*remade, *installed)
        remakes = images if remade else ()
        stays = bool(installed) and menu_stays(names, layers)
        survey = BootSurvey(
            disk.identity, whole, tuple(stale), commands, made, keep, remakes, stays
        )
        return survey, works

    survey, works = in_chroot(root, inside)
    return replace(survey, keep=with_code(survey.keep, works, disk))


def _esp_folder(names: Names, root: str) -> str | None:
    """Where in a mounted system an EFI system partition is."""
    top = os.path.realpath(root)
    numbers = {os.stat(part.device).st_rdev for part in names.esps if part.device}
    return next(
        (
            mount.where[len(top) :]
            for mount in mounts_of_system()
            if mount.device in numbers and mount.where.startswith(f"{top}/")
        ),
        None,
    )


def _below_boot(disk: Disk, root: str) -> tuple[str, frozenset[str]]:
    """What the /boot of the system mounted at `root` is on: its device, and the layers between that and its disk.

    Raises:
        BootLoaderRefused: when it lies on another disk, too.
        CommandFailed: when device-mapper does not tell.
    """
    top = os.path.realpath(root)
    mounts = {mount.where: mount for mount in mounts_of_system()}
    mount = mounts.get(f"{top}/boot") or mounts[top]
    layers = layers_of(mount.device)
    nodes = (disk.device, *(part.device for part in disk.partitions if part.device))
    if not layers.bases <= {os.stat(node).st_rdev for node in nodes}:
        raise BootLoaderRefused(
            f"the /boot of its system does not lie on {disk.path} alone",
            hint="name the disk in place of --root, or install its boot loader by hand",
        )
    return mount.source, layers.kinds


def _devices_for_grub(disk: Disk, volume: str) -> tuple[dict[str, str], dict[str, str]]:
    """Nodes and links of a /dev in which GRUB is installed, with the volume that has /boot (see `run_confined`)."""
    nodes = {
        each: each for each in (disk.device, *(part.device for part in disk.partitions)) if each
    }
    links = {
        f"disk/by-{kind}/{name}": f"../../{part.device.removeprefix('/dev/')}"
        for part in disk.partitions
        for kind, name in (("uuid", part.content.uuid), ("partuuid", part.uuid.lower()))
        if part.device and name
    }
    name = volume.removeprefix("/dev/")
    if name.startswith(md.MARK):
        # It knows arrays by such paths, and follows a link to one (grub-core/osdep/{linux,unix}/getroot.c).
        return nodes | {f"/dev/md/{name}": volume}, links | {name: f"md/{name}"}
    return nodes | ({volume: volume} if volume else {}), links


def _entry(disk: Disk, esps: tuple[Esp, ...], names: Names, label: str) -> BootEntry:
    if not os.path.isdir(_EFI_VARIABLES):
        raise BootLoaderRefused(
            "this machine was not started by UEFI: it keeps no boot entries",
            hint="run the command on the machine itself, started in UEFI mode; or use --bootloader",
        )
    if disk.identity.file is not None:
        raise BootLoaderRefused(
            f"{disk.path} is an image file: a firmware boots disks",
            hint="give the boot entry to the machine that the disk will be in",
        )
    return boot_entry(disk, esps, names, label, _MACHINES.get(os.uname().machine, 0))


def do_boot_work(disk: Disk, root: str, survey: BootSurvey) -> None:
    """Run the commands of a survey in the system mounted for writing at `root`, and make its boot entry.

    Raises:
        TargetChanged: when it is not the disk that was looked at.
        CannotBoot: when one of them fails; all can be done again.
        CommandFailed: when efibootmgr fails, or a command does not end.
        MissingProgram: when there is no efibootmgr here.
    """
    if disk.identity != survey.disk:
        raise TargetChanged(
            f"{disk.path} is not the disk that was looked at", hint="start again: `etsclone disks`"
        )
    # It is mounted anew, under other names than when it was looked at.
    volume = _below_boot(disk, root)[0] if survey.menu_stays else ""
    nodes, links = _devices_for_grub(disk, volume)
    for command in survey.commands:
        argv = command.on(disk.device)
        mounts = system_mounts(root)
        ended = run_confined(
            root, argv, devices=nodes, links=links, seconds=_PATIENCE, mounts=mounts
        )
        if ended.status != 0:
            said = "; ".join(ended.said.strip().splitlines()[-3:]) or "it said nothing"
            # What it said may quote configuration: receipts, which hold the message, go without it.
            raise CannotBoot(
                f"{argv[0]} of the clone failed with status {ended.status}",
                hint=f"{said}; the command was: {shlex.join(argv)}",
            )
    os.sync()  # what was written by way of a filesystem is to be looked at on the disk
    if survey.entry and (words := survey.entry.due(run("efibootmgr", ["--verbose"]).stdout)):
        run("efibootmgr", words)
