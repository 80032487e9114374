"""How commands tell of a disk, and why they refuse one: in a line for people, as JSON facts for programs."""

import os
from collections.abc import Mapping, Sequence

from etsclone.model.disk import Disk
from etsclone.model.plan import Refusal
from etsclone.units import human


def disk_facts(disk: Disk) -> dict[str, object]:
    """A disk as JSON facts; sizes in bytes."""
    return {
        "path": os.path.abspath(disk.path),
        "stable_path": disk.stable_path,
        "model": disk.model,
        "serial": disk.identity.serial,
        "wwn": disk.identity.wwn,
        "size": disk.size,
        "sector_size": disk.sector_size,
        "transport": disk.transport,
        "rotational": disk.rotational,
        "read_only": disk.read_only,
        "contents": disk.summary,
        "table": {"label": disk.table.label, "uuid": disk.table.uuid} if disk.table else None,
        "partitions": [
            {
                "number": part.number,
                "device": part.device,
                "start": part.start,
                "size": part.size,
                "type": part.type,
                "uuid": part.uuid,
                "name": part.name,
                "content": part.content.type,
                "filesystem_uuid": part.content.uuid,
                "label": part.content.label,
            }
            for part in disk.partitions
        ],
        "uses": [{"device": use.device, "how": use.how, "where": use.where} for use in disk.uses],
    }


def refusal_facts(refusals: Sequence[Refusal]) -> list[Mapping[str, str]]:
    """Refusals as JSON facts."""
    return [
        {"guard": each.guard.value, "message": each.message, "hint": each.hint} for each in refusals
    ]


def disk_line(disk: Disk) -> str:
    """A disk in one line, so that a person recognises it: path, size, model, serial, contents."""
    words = [
        disk.path,
        human(disk.size),
        disk.transport,
        disk.model,
        disk.identity.serial and f"S/N {disk.identity.serial}",
    ]
    return f"{'  '.join(word for word in words if word)}  [{disk.summary}]"
