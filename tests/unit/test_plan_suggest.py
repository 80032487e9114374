"""The profile lines that are proposed: they claim all that was unclaimed, and no more than is sensible."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.diff import Change, Course, Difference, PackageChange
from etsclone.model.scope import Claim, Scope
from etsclone.model.tree import Kind
from etsclone.plan.suggest import suggestion


def changed(path: str | bytes) -> Difference:
    raw = path if isinstance(path, bytes) else path.encode()
    return Difference(raw, Change.CHANGED, Kind.FILE, ("content",))


def lists(*paths: str | bytes) -> dict[str, list[str]]:
    return tomllib.loads(suggestion([changed(path) for path in paths]))


@pytest.mark.parametrize(
    ("path", "where", "pattern"),
    [
        ("/etc/login.defs", "role", "/etc/login.defs"),
        ("/etc/tool.pid", "volatile", "/etc/tool.pid"),
        ("/var/spool/x/y", "volatile", "/var/spool/x/y"),
        ("/boot/grub/grub.cfg", "disk", "/boot/grub/grub.cfg"),
        ("/etc/etsclone", "disk", "/etc/etsclone"),
        ("/etc/etsclone/primary.key", "disk", "/etc/etsclone/primary.key"),
        ("/srv/a*b", "role", "/srv/a[*]b"),
        ("/srv/a[b]", "role", "/srv/a[[]b]"),
        (b"/srv/\xff", "role", "/srv/?"),
        ("/srv/\u00e9 #\"'", "role", "/srv/\u00e9 #\"'"),
        ("/srv/new\nline", "role", "/srv/new?line"),
        ("/var/lib/x/0123456789abcdef0123456789abcdef/y", "role", "/var/lib/x/*/y"),
    ],
)
def test_one_path(path: str | bytes, where: str, pattern: str) -> None:
    assert lists(path) == {where: [pattern]}


def test_many_siblings_are_claimed_together() -> None:
    assert lists(*(f"/etc/tool/{name}" for name in "abc")) == {"role": ["/etc/tool"]}
    assert lists(*(f"/var/lib/s/{name}.tdb" for name in "abc")) == {"role": ["/var/lib/s/*.tdb"]}
    assert len(lists(*(f"/etc/{name}" for name in "abcdef"))["role"]) == 6
    assert len(lists("/etc/tool/a", "/etc/tool/b")["role"]) == 2


def test_packages_are_named_in_comments() -> None:
    change = PackageChange("dhcpd", "amd64", Course.UPGRADED, ("1",), ("2",))
    text = suggestion([], [change])
    assert text.startswith("# no pattern can claim packages: dhcpd 1 -> 2")
    assert tomllib.loads(text) == {}


bytes_of_names = st.binary(min_size=1, max_size=6).filter(
    lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")
)
odd = st.sampled_from([b"*", b"[", b"[!a]", b"?", b"]", b"etc", b"var", b"run", b"x.log", b"\xc3"])
paths = st.lists(st.one_of(odd, bytes_of_names), min_size=1, max_size=4).map(
    lambda names: b"/" + b"/".join(names)
)


@given(st.lists(paths, min_size=1, max_size=12, unique=True))
def test_every_difference_is_claimed(found: list[bytes]) -> None:
    told = tomllib.loads(suggestion([changed(path) for path in sorted(found)]))
    assert set(told) <= {"role", "disk", "volatile"}
    scope = Scope(*(tuple(told.get(name, ())) for name in ("role", "disk", "volatile")))
    for path in found:
        assert scope.claim(path) is not Claim.NOBODY
    assert all(pattern.isprintable() for patterns in told.values() for pattern in patterns)
