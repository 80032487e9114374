"""Which packages a system has, read from its package manager's records as data: nothing of the system is ever run.

dpkg's records are text (deb-control(5), dpkg-query(1)): `status` names the packages, `info/NAME.list` their paths.
Those of rpm are a database that only rpm itself reads; they are copied out and shown to the rpm of *this* system.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby

from etsclone.errors import UnsafePath
from etsclone.model.packages import Installed, Package
from etsclone.model.tree import join
from etsclone.overlay.files import chunks, opened_file, opened_folder, opened_root
from etsclone.run import run

DPKG = b"/var/lib/dpkg"
LIST = re.compile(rb"([A-Za-z0-9][A-Za-z0-9+.-]*)(?::[a-z0-9-]+)?\.list")
"""The names of the files that list the paths of a package."""

_ABSENT = (b"not-installed", b"config-files")
"""States (the third word of Status) in which nothing of a package is there but its configuration."""


def dpkg_packages(root: str) -> Installed:
    """What dpkg has installed in the system below `root`; nothing when it has no dpkg.

    Paths are as they are in the tree, also where a list says `/bin/ls` and /bin is a link to usr/bin.

    Raises:
        OSError: when the records cannot be read.
    """
    with opened_root(root) as top:
        try:
            with opened_folder(top, DPKG) as folder:
                status = _read(folder, b"status")
            with opened_folder(top, DPKG + b"/info") as info:
                packages, configuration = _status(status)
                return Installed(packages, _owners(info, top_links(top), configuration))
        except (FileNotFoundError, UnsafePath):
            return Installed()


def _status(text: bytes) -> tuple[tuple[Package, ...], set[bytes]]:
    """The packages, and the paths that are their configuration (`Conffiles`)."""
    packages: set[Package] = set()
    configuration: set[bytes] = set()
    for paragraph in text.split(b"\n\n"):
        fields = dict(_fields(paragraph))
        state = fields.get(b"Status", b"").split(b" ")[-1]
        configuration.update(
            line.split(b" ")[1]
            for line in fields.get(b"Conffiles", b"").split(b"\n")
            if b" " in line.strip()
        )
        words = (fields.get(key, b"") for key in (b"Package", b"Architecture", b"Version"))
        if state not in _ABSENT:
            with suppress(ValueError):  # no package that dpkg would have taken: nothing to tell
                packages.add(Package(*(word.decode() for word in words)))
    return tuple(sorted(packages)), configuration


def _fields(paragraph: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values; what follows in lines of their own keeps its leading space."""
    for part in re.split(rb"\n(?! )", paragraph):
        name, _, value = part.partition(b":")
        yield name, value.strip(b" ")


def _owners(info: int, links: dict[bytes, bytes], configuration: set[bytes]) -> dict[bytes, str]:
    owners: dict[bytes, str] = {}
    shared: set[bytes] = set(configuration)
    for name, files in groupby(sorted(map(os.fsencode, os.listdir(info))), _listed):
        if name is None:
            continue
        lines = b"\n".join([_read(info, file) for file in files]).split(b"\n")
        paths = dict.fromkeys(lines, name)
        shared |= owners.keys() & paths.keys()
        owners |= paths
    for path in shared | {b"", b"/", b"/."}:
        owners.pop(path, None)
    linked = tuple(link + b"/" for link in links)
    for path in [path for path in owners if path.startswith(linked)]:
        owners[_resolved(path, links)] = owners.pop(path)
    return owners


def _listed(file: bytes) -> str | None:
    """The package whose list a file is: its name alone, since all architectures of one are upgraded together."""
    match = LIST.fullmatch(file)
    return match[1].decode() if match else None


def top_links(top: int) -> dict[bytes, bytes]:
    """The links at the top of the tree that lead to a folder of it: /bin, /lib and the like of a merged /usr."""
    links: dict[bytes, bytes] = {}
    for name in map(os.fsencode, os.listdir(top)):
        with suppress(OSError):
            target = os.readlink(name, dir_fd=top)
            links[b"/" + name] = b"/" + target.lstrip(b"/")
    return links


def _resolved(path: bytes, links: dict[bytes, bytes]) -> bytes:
    """A path that begins with one of the links, as it is in the tree."""
    end = path.index(b"/", 1)
    return join(links[path[:end]], path[end + 1 :])


def _read(folder: int, name: bytes) -> bytes:
    with opened_file(folder, name) as descriptor:
        return b"".join(bytes(piece) for piece in chunks(descriptor))


# --- rpm -----------------------------------------------------------------------------------------------------------

RPM = (b"/usr/lib/sysimage/rpm", b"/var/lib/rpm")
_DATABASES = (b"rpmdb.sqlite", b"rpmdb.sqlite-wal", b"Packages.db", b"Packages")
_QUERY = (
    r"P\t%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n"
    r"[F\t%{=NAME}\t%{FILEFLAGS:fflags}\t%{FILENAMES}\n]"
)


def has_rpm_database(root: str) -> bool:
    """Whether there is an RPM database in the system below `root`."""
    with opened_root(root) as top:
        return any(_databases(top))


def copy_rpm_database(root: str, into: int) -> None:
    """Copy the RPM database of the system below `root` into the opened folder `into`.

    Raises:
        OSError: when it cannot be read or written.
    """
    with opened_root(root) as top:
        for name, source in _databases(top):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            copy = os.open(name, flags, 0o600, dir_fd=into)
            with os.fdopen(copy, "wb") as out:
                out.writelines(chunks(source))


def _databases(top: int) -> Iterator[tuple[bytes, int]]:
    """The names of the database's files, and each opened until the next is asked for."""
    for folder in RPM:
        for name in _DATABASES:
            with (
                suppress(FileNotFoundError, UnsafePath),
                opened_folder(top, folder) as records,
                opened_file(records, name) as source,
            ):
                yield name, source


def rpm_packages(database: str) -> Installed:
    """What the RPM database in the folder `database` says, by the rpm of this system, which sees nothing else.

    Raises:
        MissingProgram: when there is no rpm here.
        CommandFailed: when it cannot read the database.
    """
    words = ["--dbpath", database, "--query", "--all", "--queryformat", _QUERY]
    lines = [line.split("\t", 3) for line in run("rpm", words).stdout.split("\n") if line]
    packages: set[Package] = set()
    for line in lines:
        if line[0] == "P":
            with suppress(
                ValueError
            ):  # keys of package signers are listed too; they have no architecture
                packages.add(Package(*line[1:]))
    return Installed(tuple(sorted(packages)), _unique(line for line in lines if line[0] == "F"))


def _unique(lines: Iterable[list[str]]) -> dict[bytes, str]:
    """Owners by path, without configuration (flag c) and without what several packages have."""
    owners: dict[bytes, str] = {}
    shared: set[bytes] = set()
    for _, name, flags, text in lines:
        path = os.fsencode(text)
        if "c" in flags or owners.setdefault(path, name) != name:
            shared.add(path)
    for path in shared:
        owners.pop(path, None)
    return owners
