"""Filesystems and swap space made with the UUID, label and features of others."""

from etsclone.disk import ext, xfs
from etsclone.disk.probe import read_content
from etsclone.errors import ComparisonFailed, FormatError
from etsclone.model.disk import Content
from etsclone.model.fit import Recipe
from etsclone.run import run
from etsclone.units import KIB

_PAGE = 4 * KIB


def read_recipe(device: str, content: Content, size: int) -> Recipe:
    """What the filesystem of a device (only looked at) was made with.

    Args:
        device: shows the partition.
        content: what blkid finds there.
        size: the partition's, in bytes.

    Raises:
        FormatError: when it cannot be made anew; the message is for a person.
        CommandFailed: when its tools cannot read it.
    """
    if content.type in ext.KINDS:
        printed = run("dumpe2fs", ["-h", device]).stdout
        return ext.parse(printed, content.type, content.uuid, content.label, size)
    if content.type in xfs.KINDS:
        printed = run("xfs_info", [device]).stdout
        return xfs.parse(printed, content.type, content.uuid, content.label, size)
    if content.type == "swap":
        return Recipe("swap", content.uuid, content.label, size, ())
    raise FormatError(f"{content.type or 'unknown content'} is not made anew")


def make(device: str, recipe: Recipe, size: int) -> None:
    """Make a filesystem on a device of `size` bytes.

    Raises:
        CommandFailed: when its tools cannot.
    """
    if recipe.kind == "swap":
        label = ["--label", recipe.label] if recipe.label else []
        run("mkswap", ["--uuid", recipe.uuid, *label, "--pagesize", str(_PAGE), device])
        return
    render = ext.commands if recipe.kind in ext.KINDS else xfs.commands
    for program, arguments in render(recipe, device, size):
        run(program, arguments)


def check(device: str, recipe: Recipe, size: int) -> None:
    """Check a filesystem with its own tool, and that it is what was asked for; nothing is written.

    Raises:
        CommandFailed: when it is not sound.
        ComparisonFailed: when it is another than the recipe says.
    """
    if recipe.kind in ext.KINDS:
        run("e2fsck", ["-f", "-n", device])
    elif recipe.kind in xfs.KINDS:
        run("xfs_repair", ["-n", device])
    content = read_content(device, 0, size)
    wanted = Content(recipe.kind, recipe.uuid, recipe.label)
    different = [] if content == wanted else [f"{content} for {wanted}"]
    if not different and recipe.kind != "swap":
        lasting = ext.lasting if recipe.kind in ext.KINDS else xfs.lasting
        made, asked = lasting(read_recipe(device, content, size)), lasting(recipe)
        different = [
            f"{name}: {made[name]} for {asked[name]}" for name in asked if made[name] != asked[name]
        ]
    if different:
        raise ComparisonFailed(
            f"the new {recipe.kind} is not like the source's ({'; '.join(different)})",
            hint="use a disk of at least the source's size, without --fit",
        )
