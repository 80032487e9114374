"""Which packages a system has, and which paths they brought."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,255}")
"""Both of Debian (deb-control(5)) and of RPM. No colon and no comma: they part names from other things."""

_VERSION = re.compile(r"[A-Za-z0-9+.:~^_-]{1,255}")
"""Debian's (deb-version(7)) and RPM's, with its epoch and release."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """An installed package. `arch` is as its packager writes it, such as `amd64`, `all`, `noarch`.

    Raises:
        ValueError: when a word is none that a package manager would take.
    """

    name: str
    arch: str
    version: str

    def __post_init__(self) -> None:
        if not (_NAME.fullmatch(self.name) and _NAME.fullmatch(self.arch)):
            raise ValueError(f"no name of a package: {self.name!r} {self.arch!r}")
        if not _VERSION.fullmatch(self.version):
            raise ValueError(f"no version of a package: {self.version!r}")


@dataclass(frozen=True, slots=True)
class Installed:
    """The packages of a system, sorted, and by path which package brought it.

    `owners` lacks what several packages bring, such as most folders, and configuration files: those are their
    administrator's, whoever brought them.
    """

    packages: tuple[Package, ...] = ()
    owners: Mapping[bytes, str] = field(default_factory=dict, repr=False)


NO_PACKAGES = Installed()
"""Of a system whose packages are not known, or that has none."""
