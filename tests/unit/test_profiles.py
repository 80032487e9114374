"""Finding, merging and refusing profiles; and those that come with the package."""

import re
from pathlib import Path

import pytest

from etsclone import profiles
from etsclone.errors import FormatError, UsageError
from etsclone.model.profile import Check
from etsclone.model.scope import Claim
from etsclone.profiles import load_profile, profile_folders

BASE = """
format = 1
name = "base"
description = "a base"
roles = ["primary", "secondary"]
checks = [{name = "names", argv = ["hostname", "--fqdn"]}]
[scope]
role = ["/etc/hostname", "/etc/hosts"]
disk = ["/etc/fstab"]
volatile = ["/var/log"]
"""

SHIPPED = sorted(path.stem for path in profile_folders()[1].glob("*.toml"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "base.toml").write_text(BASE)
    monkeypatch.setattr(profiles, "SITE_PROFILES", folder)
    return folder


def write(site: Path, name: str, text: str) -> None:
    (site / f"{name}.toml").write_text(f'format = 1\nname = "{name}"\n{text}')


@pytest.mark.usefixtures("site")
def test_a_profile_by_itself() -> None:
    profile = load_profile("base")
    assert (profile.name, profile.description, profile.roles) == (
        "base",
        "a base",
        ("primary", "secondary"),
    )
    assert profile.scope.role == ("/etc/hostname", "/etc/hosts")
    assert profile.checks == (Check("names", ("hostname", "--fqdn")),)


def test_lists_are_joined_and_values_overridden(site: Path) -> None:
    write(
        site,
        "web",
        'extends = ["base"]\ndescription = "a web server"\nroles = ["left", "right"]\n'
        'checks = [{name = "web", argv = ["true"]}]\n'
        '[scope]\nrole = ["/etc/web", "/etc/hosts"]\nvolatile = ["/var/cache"]\n',
    )
    profile = load_profile("web")
    assert profile.description == "a web server"
    assert profile.roles == ("left", "right")
    assert profile.scope.role == ("/etc/hostname", "/etc/hosts", "/etc/web")
    assert profile.scope.disk == ("/etc/fstab",)
    assert profile.scope.volatile == ("/var/log", "/var/cache")
    assert [check.name for check in profile.checks] == ["names", "web"]


def test_a_check_may_need_and_write_to_what_it_names(site: Path) -> None:
    write(
        site,
        "web",
        'extends = ["base"]\nchecks = [{name = "web", argv = ["a", "-t"], scratch = ["/run/a"], needs = ["/etc/a"]}]',
    )
    assert load_profile("web").checks[-1] == Check("web", ("a", "-t"), ("/run/a",), ("/etc/a",))


def test_a_base_that_is_reached_twice_counts_once(site: Path) -> None:
    write(site, "left", 'extends = ["base"]\n')
    write(site, "right", 'extends = ["base"]\n')
    write(site, "both", 'extends = ["left", "right"]\n')
    profile = load_profile("both")
    assert profile.scope.role == ("/etc/hostname", "/etc/hosts")
    assert len(profile.checks) == 1


def test_the_digest_covers_every_file_that_has_a_say(site: Path) -> None:
    write(site, "web", 'extends = ["base"]\n')
    before = load_profile("web").sha256
    assert load_profile("web").sha256 == before
    (site / "base.toml").write_text(BASE + "# a comment\n")
    assert load_profile("web").sha256 != before


def test_the_sites_own_profile_beats_the_shipped_one(site: Path) -> None:
    write(site, "base-debian", 'extends = ["base"]\ndescription = "ours"\n')
    assert load_profile("base-debian").description == "ours"
    # Also where a shipped profile extends it.
    assert load_profile("ltsp-isc-dhcp").scope.role[0] == "/etc/hostname"


@pytest.mark.usefixtures("site")
def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no profile webb") as caught:
        load_profile("webb")
    assert "base, base-debian" in caught.value.hint


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("name", ["../base", "/etc/passwd", "", "Base", "a b", ".hidden"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        load_profile(name)


def test_circles_are_refused(site: Path) -> None:
    write(site, "one", 'extends = ["two"]\n')
    write(site, "two", 'extends = ["one"]\n')
    with pytest.raises(FormatError, match="one extends itself by way of one and two") as told:
        load_profile("one")
    assert "a name of its own" in told.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("= 3", "is no TOML", id="no TOML"),
        pytest.param('name = "bad"', "does not say `format = 1`", id="no format"),
        pytest.param('format = 2\nname = "bad"', "does not say `format = 1`", id="newer format"),
        pytest.param('format = 1\nname = "other"', "its name must be bad", id="other name"),
        pytest.param("format = 1", "its name must be bad", id="no name"),
        pytest.param('format = 1\nname = "bad"\nscopes = 1', "scopes is unknown", id="unknown key"),
        pytest.param('format = 1\nname = "bad"\nroles = "a"', "roles is unknown, or no list", id="type"),
        pytest.param('format = 1\nname = "bad"\nextends = [1]', "extends is no list of texts", id="extends"),
        pytest.param('format = 1\nname = "bad"\nroles = [1, 2]', "roles is no list of texts", id="roles"),
        pytest.param('format = 1\nname = "bad"', "names two roles or more", id="no roles"),
        pytest.param('format = 1\nname = "bad"\nroles = ["a"]', "two roles or more", id="one role"),
        pytest.param('format = 1\nname = "bad"\nroles = ["a", "B"]', "not a name", id="role name"),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\n[scope]\nrules = []',
            "unknown list in scope: rules",
            id="scope list",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\n[scope]\nrole = "/etc"',
            "scope.role is no list of texts",
            id="scope type",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\n[scope]\nrole = ["etc"]',
            "no absolute path",
            id="pattern",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\nchecks = [{name = "x"}]',
            "a check has a name and an argv",
            id="check",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\nchecks = [{name = "x", argv = [], needs = []}]',
            "a check has a name and an argv",
            id="empty check",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\nchecks = [{name = "x", argv = ["x"], user = "y"}]',
            "may have scratch and needs",
            id="check key",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\nchecks = [{name = "x", argv = ["x"], needs = ["etc"]}]',
            "not an absolute path: etc",
            id="check needs",
        ),
        pytest.param(
            'format = 1\nname = "bad"\nroles = ["a", "b"]\nchecks = [{name = "x", argv = ["x"], scratch = ["/../b"]}]',
            "not an absolute path: /../b",
            id="check scratch",
        ),
    ],
)  # fmt: skip
def test_what_is_no_profile(site: Path, text: str, message: str) -> None:
    (site / "bad.toml").write_text(text)
    with pytest.raises(FormatError, match=message):
        load_profile("bad")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_load_and_never_claim_what_is_bound_to_the_disk(name: str) -> None:
    profile = load_profile(name)
    assert profile.description
    assert profile.roles == ("primary", "secondary")
    for path in (b"/etc/fstab", b"/etc/crypttab", b"/boot/grub/grub.cfg", b"/etc/initramfs-tools"):
        assert profile.scope.claim(path) is not Claim.ROLE
    # Each server has a key of its own; the list of whom to believe is the same on both, and watched.
    assert profile.scope.claim(b"/etc/etsclone/primary.key") is Claim.DISK
    assert profile.scope.claim(b"/etc/etsclone/allowed_signers") not in (Claim.DISK, Claim.ROLE)
    assert profile.scope.claim(b"/etc/hostname") is Claim.ROLE
    assert profile.scope.claim(b"/etc/machine-id") is Claim.ROLE
    assert profile.scope.claim(b"/var/log/journal/0123") is Claim.VOLATILE


def test_the_example_of_the_docs_is_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/profiles.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "school.toml").write_text(example)
    monkeypatch.setattr(profiles, "SITE_PROFILES", tmp_path)
    profile = load_profile("school")
    assert profile.scope.claim(b"/etc/door/door.conf") is Claim.ROLE
    assert profile.scope.claim(b"/etc/dhcp/dhcpd.conf") is Claim.ROLE
    assert profile.checks[-1].needs == ("/etc/door/door.conf",)


def test_secrets_are_joined_and_must_be_patterns(site: Path) -> None:
    write(site, "web", 'extends = ["base"]\nsecrets = ["/etc/web/*.conf"]\n')
    write(site, "shop", 'extends = ["web"]\nsecrets = ["/srv/shop", "/etc/web/*.conf"]\n')
    assert load_profile("shop").secrets == ("/etc/web/*.conf", "/srv/shop")
    assert load_profile("base").secrets == ()
    for wrong in ('["relative"]', '"/etc/x"', "[1]"):
        write(site, "bad", f'extends = ["base"]\nsecrets = {wrong}\n')
        with pytest.raises(FormatError):
            load_profile("bad")
