"""`--new-ids`: what of a disk's boot loader and initramfs cannot follow, told before anything is copied."""

from etsclone.model.boot import BootSector
from etsclone.model.ids import GROUP_NAME, Identify
from etsclone.plan.references import names_old

_LONGEST = 120

_BOOTS = {GROUP_NAME: "may not"}
"""Some find a volume group by what the kernel's command line says, which follows."""


def loader_notes(step: Identify, sector: BootSector) -> tuple[str, ...]:
    """What is to be said of the boot code of a disk, which is copied as it is.

    Args:
        step: what changes.
        sector: the source's boot code, and where its GRUB looks for its files.
    """
    if not sector.grub:
        return ()
    anew = (
        "install it anew: `etsclone rebuild --bootloader` where the root is a plain partition, else grub-install in the"
        " clone, mounted by a rescue system"
    )
    if sector.core is None:
        told = "whether GRUB in the boot sector names an old identifier cannot be told; if so,"
        return (f"{told} {anew}",)
    for text in (sector.core.prefix, sector.core.config):
        if names_old({b"": text.encode()}, step.mapping, step.names):
            shown = ascii(text)[1:-1][:_LONGEST]
            told = f"GRUB in the boot sector looks for its files by an old identifier ({shown}):"
            return (f"{told} the clone does not boot, or boots its source, until you {anew}",)
    return ()


def container_notes(step: Identify) -> tuple[str, ...]:
    """What is to be said of a root in a container that is called otherwise, one line each."""
    anew = (
        "boot until that is made anew, which is not done here: from a rescue system, in the mounted clone,"
        " `dracut --force --regenerate-all` or what else made it"
    )
    return tuple(
        f"partition {each.partition}: {each.what} {each.old} is {each.new} on the clone;"
        " if the root of its system is in there, its initramfs have to name it. Those of initramfs-tools will;"
        f" with another the clone {_BOOTS.get(each.what, 'will not')} {anew}"
        for each in step.containers
    )
