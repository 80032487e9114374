"""`--grow`: telling what will grow."""

from collections.abc import Sequence
from dataclasses import replace

from etsclone.model.disk import Disk
from etsclone.model.plan import ClonePlan, Growth, UsedMap
from etsclone.plan.clone import content_partitions
from etsclone.units import human

_NO_ROOM = "nothing grows: there is no room behind it on the target"
_NO_VOLUME = "no logical volume grows with it: lvextend --resizefs enlarges the one that you choose"


def noted(
    maps: Sequence[UsedMap], source: Disk, growth: Growth | None, *, wished: bool
) -> Sequence[UsedMap]:
    """The maps with what is to be said of the growing beside them."""
    if not wished:
        return maps
    if growth is None:
        return _with_note(maps, content_partitions(source)[-1].number, _NO_ROOM)
    if growth.step.content == "LVM2_member":
        return _with_note(maps, growth.step.partition, _NO_VOLUME)
    return maps


def grow_lines(plan: ClonePlan) -> list[str]:
    """What grows and moves, for people."""
    step = plan.grow
    if step is None:
        return []
    sizes = f"from {human(step.old_size)} to {human(step.place.size)}"
    lines = [f"partition {step.partition} ({step.content}) is enlarged {sizes} and then checked"]
    if step.moved:
        place = f"byte {step.moved.old.start} to byte {step.moved.new.start}"
        lines += [
            f"partition {step.moved.partition} (swap) moves from {place}, without what it holds"
        ]
    return lines


def size_on_target(plan: ClonePlan, used: UsedMap) -> str:
    """The size of a partition, for people: on the source, and on the target where it differs."""
    step = plan.grow
    if step is None or step.partition != used.partition:
        return human(used.size)
    return f"{human(used.size)} -> {human(step.place.size)}"


def grow_facts(plan: ClonePlan) -> dict[str, object] | None:
    """What grows and moves, for programs; None when nothing does."""
    step = plan.grow
    if step is None:
        return None
    moved = step.moved
    return {
        "partition": step.partition,
        "content": step.content,
        "start": step.place.start,
        "old_size": step.old_size,
        "new_size": step.place.size,
        "moved": {
            "partition": moved.partition,
            "old_start": moved.old.start,
            "new_start": moved.new.start,
            "size": moved.new.size,
        }
        if moved
        else None,
    }


def _with_note(maps: Sequence[UsedMap], number: int, note: str) -> list[UsedMap]:
    return [
        replace(each, note="; ".join(filter(None, (each.note, note))))
        if each.partition == number
        else each
        for each in maps
    ]
