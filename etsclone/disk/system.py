"""The system that a disk carries: find its root, mount it and what belongs beneath it, from this disk alone."""

import contextlib
import functools
import itertools
import logging
import os
import stat
from collections.abc import Iterator, Mapping

from etsclone.disk.discoverable import discoverable
from etsclone.disk.filesystems import awaits_replay, mounted_filesystem
from etsclone.disk.fstab import CryptEntry, FstabEntry, parse_crypttab, parse_fstab
from etsclone.disk.luks import Keys
from etsclone.disk.marks import MARKS, read_key, read_texts
from etsclone.disk.mounts import mount_folder
from etsclone.disk.roots import (
    CRYPTTAB,
    FSTAB,
    MDADM_CONF,
    ROOT_TYPES,
    Root,
    find_roots,
    is_candidate,
)
from etsclone.disk.specs import (
    AUTO,
    INSIDE,
    Volume,
    Words,
    is_firm,
    matching,
    name_of,
    only_array,
    parse_mdadm_conf,
    stem_of,
)
from etsclone.disk.stack import Stack, opened
from etsclone.disk.stems import Lines, fits, is_claimed, own_stems
from etsclone.errors import (
    CommandFailed,
    KeyRefused,
    NoSystem,
    RootNotMounted,
    SourceRefused,
    UnsafePath,
)
from etsclone.model.disk import Disk
from etsclone.model.quarantine import IN_QUARANTINE
from etsclone.units import counted

_LOOKED_AT = 4096
"""So many names in the topmost folder of a filesystem say what it is for."""

logger = logging.getLogger(__name__)

_BY_HAND = "mount the whole system by hand and use --root DIR"
_PROOF = (
    f"in its fstab, name what is on this disk by UUID=, and mark what is not nofail; or {_BY_HAND}"
)


@contextlib.contextmanager
def mounted_system(
    disk: Disk,
    *,
    writable: bool,
    pristine: bool = False,
    keys: Keys | None = None,
    where: str = "",
) -> Iterator[str]:
    """Mount the system of a disk and yield the folder of its root; everything is unmounted and closed in the end.

    Args:
        disk: a snapshot with partition nodes.
        writable: mount for writing.
        pristine: do not even replay a journal (only without `writable`).
        keys: what opens encrypted volumes.
        where: the folder to mount at; a new one if it is empty.

    Raises:
        NoSystem: when the disk holds none.
        RootNotMounted: when it holds more than one, or is in quarantine.
        SourceRefused: when its fstab mounts what is not on this disk, or a twin is in the way, or a journal would have
            to be replayed on a disk that cannot be written to.
        KeyRefused: when an encrypted volume is needed, and nothing opens it.
        UnsafePath: when a mount point is, or lies behind, a symbolic link.
    """
    if disk.content.type == IN_QUARANTINE:
        raise RootNotMounted(
            f"{disk.path} is a clone in quarantine",
            hint=f"`etsclone release {disk.path}` makes it a disk like others",
        )
    read_only = pristine or _is_read_only(disk.device)
    with contextlib.ExitStack() as stack:
        layers = stack.enter_context(opened(disk, keys or Keys(), read_only=read_only))
        root = _find_root(disk, layers)
        folder = where or stack.enter_context(mount_folder())

        def mount(
            volume: Volume, where: str, subvolume: tuple[str, ...], *, writable: bool = writable
        ) -> None:
            device, kind = volume.device, volume.content.type
            mounting = mounted_filesystem(
                device, kind, where, writable=writable, pristine=pristine, subvolume=subvolume
            )
            try:
                stack.enter_context(mounting)
            except CommandFailed as error:
                if writable or pristine or not read_only or not awaits_replay(device, kind, where):
                    raise
                raise SourceRefused(
                    f"{disk.path} was not cleanly unmounted: the journal of a filesystem ({kind}) on it must be"
                    " replayed first",
                    hint=f"etsclone mount {disk.path} DIR --rw; etsclone umount DIR",
                ) from error

        mount(root.volume, folder, root.subvolume)
        system = _System(disk, layers, folder, root.volume)
        for entry in system.entries:
            volume = system.volume_of(entry)
            if volume is not None:
                mount(
                    volume,
                    _mount_point(folder, entry.where),
                    entry.subvolume,
                    writable=writable and not (volume.read_only and entry.spec.startswith(AUTO)),
                )
        yield folder


@contextlib.contextmanager
def mounted_alone(device: str, kind: str, *, writable: bool) -> Iterator[str]:
    """Mount one filesystem of blkid's type `kind`, and yield the folder; read-only, not even its journal is replayed.

    Raises:
        CommandFailed: when it cannot be mounted.
    """
    with (
        mount_folder() as folder,
        mounted_filesystem(device, kind, folder, writable=writable, pristine=not writable),
    ):
        yield folder


class _System:
    """What the system's own files say of the volumes of its disk: `entries` are mounted beneath its root."""

    def __init__(self, disk: Disk, layers: Stack, folder: str, root: Volume) -> None:
        self._disk = disk
        self._layers = layers
        self._folder = folder
        texts = read_texts(folder, [FSTAB, CRYPTTAB, *MDADM_CONF])
        listed = parse_fstab(texts[FSTAB])
        types = (name for volume in (*layers.volumes, *layers.locked) for name in volume.names)
        self.entries = tuple(entry for entry in listed if entry.where != "/")
        if not listed:
            self.entries = discoverable(
                folder, frozenset(name for name in types if name.startswith(AUTO))
            )
        encrypted = parse_crypttab(texts[CRYPTTAB])
        self._encrypted = list(encrypted)
        self._lines = Lines(listed, encrypted, root)
        self._words = self._what_is_called(texts)

    def _what_is_called(self, texts: Mapping[str, str]) -> Words:
        lines = self._lines
        aliases = {
            alias: name
            for path in MDADM_CONF
            for alias, name in parse_mdadm_conf(texts[path]).items()
        }
        stems = own_stems(lines, self._layers.volumes, aliases, self._disk.identity, _names_on)
        aliases |= {
            f"/dev/mapper/{each.name}": f"{INSIDE}{name_of(each.spec)}"
            for each in lines.encrypted
            if not stem_of(each.spec) or stem_of(each.spec) in stems
        }
        arrays = {name for name in map(name_of, lines.specs) if name.startswith(("MD=", "MDUUID="))}
        return Words(aliases, stems, arrays.pop() if len(arrays) == 1 else "")

    def volume_of(self, entry: FstabEntry) -> Volume | None:
        """The volume of *this* disk that a line means; a twin disk with the same UUID is never looked at.

        None when there is no such volume, and the line says that the system boots without it (`nofail`): that is told.

        Raises:
            SourceRefused: when it is not on this disk, or nothing proves that it is.
            KeyRefused: when it may be encrypted, and nothing opens it.
        """
        found = self._matching(entry)
        while not found and self._unlock_next():
            found = self._matching(entry)
        if len(found) == 1:
            return found[0]
        stem = stem_of(entry.spec)
        doubt = bool(stem) and stem not in self._words.stems
        why = (
            f"nothing proves that {stem} is {self._disk.path}"
            if doubt
            else f"{self._disk.path} has {'more than one' if found else 'no'} such volume"
        )
        if not found and entry.optional:
            _tell(f"{entry.spec} is not mounted at {entry.where}: {why}")
            return None
        raise SourceRefused(
            f"the system's fstab mounts {entry.spec} at {entry.where}, and {why}",
            hint="; ".join((_PROOF if doubt else _BY_HAND, *self._layers.missing)),
        )

    def _matching(self, entry: FstabEntry) -> tuple[Volume, ...]:
        volumes = self._layers.volumes
        found = matching(entry.spec, volumes, self._words)
        if found and is_firm(entry.spec):
            return found
        # What only seems to be meant must at least be of the right kind, and nothing else.
        return tuple(
            volume
            for volume in found or only_array(entry.spec, volumes, self._words)
            if fits(entry.type, volume.content.type)
            and not is_claimed(entry, volume, self._lines, self._words)
        )

    def _unlock_next(self) -> bool:
        """Open the next volume of crypttab that is still locked; tells whether there was one."""
        while self._encrypted:
            entry = self._encrypted.pop(0)
            for volume in matching(entry.spec, self._layers.locked, self._words):
                self._layers.unlock(volume, self._key_of(entry))
                return True
        return False

    def _key_of(self, entry: CryptEntry) -> bytes:
        return read_key(self._folder, entry.key_file) if entry.key_file else b""


def _find_root(disk: Disk, layers: Stack) -> Root:
    found = find_roots(layers.volumes)
    refused: KeyRefused | None = None
    # The root itself may be encrypted; what else is, only the root tells.
    for volume in [] if found else sorted(layers.locked, key=_is_no_root):
        before = len(layers.volumes)
        try:
            layers.unlock(volume)
        except KeyRefused as error:
            refused = error
            continue
        found = find_roots(layers.volumes[before:])
        if found:
            break
    if not found and refused:
        raise refused
    if not found:
        looked_at = sum(map(is_candidate, layers.volumes))
        raise NoSystem(
            f"no root of a system was found on {disk.path}",
            hint="; ".join(
                (
                    f"looked for {' and '.join(MARKS)} on {counted(looked_at, 'filesystem')}",
                    *layers.missing,
                )
            ),
        )
    if len(found) > 1:
        raise RootNotMounted(
            f"{disk.path} holds more than one system ({', '.join(root.where for root in found)})",
            hint="mount the right one by hand and use --root DIR",
        )
    return found[0]


def _is_no_root(volume: Volume) -> bool:
    return not ROOT_TYPES & volume.names


@functools.cache
def _tell(what: str) -> None:
    """Tell it once: a command may mount its disk several times."""
    logger.warning("%s", what)


def _names_on(volume: Volume) -> frozenset[str]:
    try:
        with (
            mounted_alone(volume.device, volume.content.type, writable=False) as folder,
            os.scandir(folder) as listed,
        ):
            return frozenset(each.name for each in itertools.islice(listed, _LOOKED_AT))
    except CommandFailed:
        return frozenset()


def _is_read_only(device: str) -> bool:
    try:
        with open(f"/sys/class/block/{os.path.basename(device)}/ro", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _mount_point(root: str, where: str) -> str:
    path = root
    for component in where.strip("/").split("/"):
        path = os.path.join(path, component)
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            raise SourceRefused(
                f"the system's fstab mounts at {where}, which does not exist"
            ) from error
        if not stat.S_ISDIR(mode) or component == "..":
            raise UnsafePath(
                f"the system's fstab mounts at {where}, which leads through a symbolic link or a file",
                hint="mount the whole system by hand and use --root DIR",
            )
    return path
