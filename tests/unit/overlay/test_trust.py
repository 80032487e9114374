import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError, SignatureInvalid, TrustRefused
from etsclone.model.brd import NAMESPACE, Signer
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.trust import Trust, add_signer, matches, parse_public_key, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]

MESSAGE = b"a header"
NOON = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
ECDSA = (
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBDkOXK8WbbMceGyvwOkA4YuBM9Tw02bn585aYDGgW0kopmL5"
    "Jbpf7K1zunkGdDVR2slWCx9VLqxmPCRI22tsAMk="
)


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local time zone for us and for the programs that we call."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def decide(text: str, key: SigningKey, role: str, at: datetime) -> str:
    """What we say: "trusted", "untrusted", or "malformed"."""
    try:
        Trust.parse(text).signer_for(key.public_key, role, NAMESPACE, at)
    except FormatError:
        return "malformed"
    except (SignatureInvalid, TrustRefused):
        return "untrusted"
    return "trusted"


class Judge:
    """The real ssh-keygen, deciding over the same signature."""

    def __init__(self, folder: Path, run: SshKeygen, key: SigningKey) -> None:
        self.folder, self.run = folder, run
        (folder / "sig").write_bytes(sign(MESSAGE, key))

    def trusts(self, text: str, role: str, at: datetime) -> bool:
        signers = self.folder / "allowed_signers"
        signers.write_text(text)
        arguments = ("-f", signers, "-I", role, "-n", NAMESPACE, "-s", self.folder / "sig")
        when = f"verify-time={at:%Y%m%d%H%M%S}Z"
        done = self.run("-Y", "verify", "-O", when, *arguments, message=MESSAGE)
        return done.returncode == 0


@pytest.fixture
def judge(tmp_path: Path, ssh_keygen: SshKeygen, key: SigningKey) -> Judge:
    return Judge(tmp_path, ssh_keygen, key)


@pytest.fixture
def line(key: SigningKey) -> str:
    return public_key_line(key.public_key).strip()


# Each case: the text with KEY for our key and OTHER for another one, and whether it is trusted for "primary" at NOON.
AGREED = {
    "plain": ("primary KEY", True),
    "no line end": ("primary KEY\n", True),
    "windows line ends": ("# c\r\nprimary KEY\r\n", True),
    "tabs and blanks": ("  primary\t \tKEY \t comment of words ", True),
    "comments and blank lines": ("# primary\n\n   \n\t# x\nprimary KEY\n", True),
    "commented out": ("#primary KEY\n", False),
    "several principals": ("secondary,primary KEY", True),
    "other principal": ("secondary KEY", False),
    "prefix of the principal": ("prim KEY", False),
    "other case": ("Primary KEY", False),
    "star": ("* KEY", True),
    "wildcards": ("pri*,x KEY", True),
    "question marks": ("pr?mar? KEY", True),
    "too many question marks": ("primary? KEY", False),
    "brackets are no wildcard": ("[p]rimary KEY", False),
    "negated": ("*,!primary KEY", False),
    "negated first": ("!primary,* KEY", False),
    "negated other": ("*,!secondary KEY", True),
    "only negated": ("!secondary KEY", False),
    "negated here, allowed there": ("!primary KEY\nprimary KEY", True),
    "empty principal in the list": (",primary KEY", True),
    "other key": ("primary OTHER", False),
    "second line": ("primary OTHER\nprimary KEY", True),
    "first of the two roles": ("primary KEY\nsecondary OTHER", True),
    "swapped": ("secondary KEY\nprimary OTHER", False),
    "namespace": (f'primary namespaces="{NAMESPACE}" KEY', True),
    "namespace in a list": (f'primary namespaces="git,{NAMESPACE}" KEY', True),
    "namespace wildcard": ('primary namespaces="brd@*" KEY', True),
    "namespace negated": (f'primary namespaces="*,!{NAMESPACE}" KEY', False),
    "namespace of another": ('primary namespaces="git" KEY', False),
    "namespace empty": ('primary namespaces="" KEY', False),
    "option in capitals": (f'primary NAMESPACES="{NAMESPACE}" KEY', True),
    "other namespace, then ours": ('primary namespaces="git" KEY\nprimary KEY', True),
    "authority": ("primary cert-authority KEY", False),
    "authority and plain": ("primary cert-authority KEY\nprimary KEY", True),
    "authority with options": (f'primary cert-authority,namespaces="{NAMESPACE}" KEY', False),
    "valid": ('primary valid-after="20260101Z",valid-before="20270101Z" KEY', True),
    "valid with blanks in an option": ('primary namespaces="a b,*" KEY', True),
    "not yet": ('primary valid-after="20270101Z" KEY', False),
    "no more": ('primary valid-before="20260101Z" KEY', False),
    "from this second": ('primary valid-after="20260701120000Z" KEY', True),
    "from the next second": ('primary valid-after="20260701120001Z" KEY', False),
    "until this second": ('primary valid-before="20260701120000Z" KEY', True),
    "until the second before": ('primary valid-before="20260701115959Z" KEY', False),
    "to the minute": ('primary valid-after="202607011200Z" KEY', True),
    "small z": ('primary valid-before="20260701120000z" KEY', True),
    "UTC in letters": ('primary valid-before="20260701115959UTC" KEY', False),
    "expired line, valid line": ('primary valid-before="20260101Z" KEY\nprimary KEY', True),
    "another kind of key": (f"primary {ECDSA}\nprimary KEY", True),
}


@pytest.mark.parametrize("name", AGREED)
def test_we_decide_as_ssh_keygen_does(
    name: str, line: str, key: SigningKey, other_key: SigningKey, judge: Judge
) -> None:
    text, trusted = AGREED[name]
    text = text.replace("KEY", line).replace("OTHER", public_key_line(other_key.public_key).strip())
    assert decide(text, key, "primary", NOON) == ("trusted" if trusted else "untrusted")
    assert judge.trusts(text, "primary", NOON) == trusted


REFUSED_BY_BOTH = {
    "no key": "primary",
    "key without base64": "primary ssh-ed25519",
    "base64 without padding": "primary ssh-rsa AAAAB3NzaC1yc2E",
    "key of another type than it says": "primary ssh-rsa BASE64",
    "cut off": "primary ssh-ed25519 CUT",
    "unknown type": "primary ssh-future BASE64",
    "unknown option": "primary verify-required KEY",
    "option without quotes": "primary namespaces=git KEY",
    "option without its end": 'primary namespaces="git KEY',
    "options with a blank": 'primary cert-authority, namespaces="x" KEY',
    "comma at the end": "primary cert-authority, KEY",
    "no time": 'primary valid-after="tomorrow" KEY',
    "empty time": 'primary valid-after="" KEY',
    "a time with a dash": 'primary valid-after="2026-01-01" KEY',
    "thirteen digits": 'primary valid-after="2026010112000" KEY',
    "month 13": 'primary valid-after="20261301" KEY',
    "the epoch": 'primary valid-after="19700101Z" KEY',
    "before the epoch": 'primary valid-after="19690101Z" KEY',
    "namespaces twice": 'primary namespaces="*",namespaces="*" KEY',
    "time twice": 'primary valid-after="20200101",valid-after="20200101" KEY',
    "ends before it begins": 'primary valid-after="20270101",valid-before="20260101" KEY',
    "ends when it begins": 'primary valid-after="20260701120000Z",valid-before="20260701120000Z" KEY',
}


@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_malformed_lines_are_refused_by_both(
    name: str, line: str, key: SigningKey, judge: Judge
) -> None:
    base64 = line.split()[1]
    text = (
        REFUSED_BY_BOTH[name]
        .replace("KEY", line)
        .replace("BASE64", base64)
        .replace("CUT", base64[:-4])
    )
    assert decide(text, key, "primary", NOON) == "malformed"
    assert not judge.trusts(text, "primary", NOON)


REFUSED_BY_US = {
    "a malformed line after a good one": "primary KEY\nnonsense",
    "a malformed line for others": "primary KEY\nsecondary ssh-ed25519 AAAA",
    "quoted principals": '"primary" KEY',
    "backslashes in options": 'primary namespaces="*\\"" KEY',
    "control characters": "primary KEY \x1b[31mred",
    "a flag twice": "secondary cert-authority,cert-authority KEY",
}


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_we_leave_nothing_to_guess(name: str, line: str, key: SigningKey) -> None:
    assert decide(REFUSED_BY_US[name].replace("KEY", line), key, "primary", NOON) == "malformed"


def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(FormatError, match="line 3 of the allowed signers"):
        Trust.parse(f"# text\nprimary {line}\nprimary\n")


@pytest.mark.parametrize(
    "time_text", ["20260701", "202607011330", "20260701140000", "202601011200", "20260101"]
)
def test_local_times_are_those_of_ssh_keygen_even_in_summer(
    time_text: str, zone: str, line: str, key: SigningKey, judge: Judge
) -> None:
    text = f'primary valid-after="{time_text}" {line}'
    (listing,) = Trust.parse(text).listings
    start = listing.valid_after
    assert start is not None
    for at in (start, start - timedelta(seconds=1)):
        assert judge.trusts(text, "primary", at) == (at == start), zone
        assert decide(text, key, "primary", at) == ("trusted" if at == start else "untrusted")


_PRINCIPALS = st.lists(
    st.sampled_from(["primary", "!primary", "pri*", "*", "!*", "p?imary", "x"]),
    min_size=1,
    max_size=3,
)
_OPTIONS = st.lists(
    st.sampled_from(
        [
            "cert-authority",
            'namespaces="brd@*"',
            'namespaces="x,!b*"',
            'valid-after="2026"',
            'valid-after="20260701Z"',
            'valid-before="20260701Z"',
            'valid-before="20260801Z"',
            "",
            "x",
        ]
    ),
    max_size=2,
)


@given(lines=st.lists(st.tuples(_PRINCIPALS, _OPTIONS, st.booleans()), min_size=1, max_size=2))
def test_whoever_we_trust_is_trusted_by_ssh_keygen(
    lines: list[tuple[list[str], list[str], bool]],
    key: SigningKey,
    other_key: SigningKey,
    judge: Judge,
) -> None:
    keys = {True: public_key_line(key.public_key), False: public_key_line(other_key.public_key)}
    text = "".join(
        f"{','.join(who)} {','.join(options)} {keys[mine]}" for who, options, mine in lines
    )
    ours, theirs = decide(text, key, "primary", NOON), judge.trusts(text, "primary", NOON)
    assert theirs if ours == "trusted" else ours == "malformed" or not theirs


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    for whole in (text, f"primary {text}", f"primary {text} ssh-ed25519 {text}"):
        with contextlib.suppress(FormatError):
            Trust.parse(whole)


# --- the life of a key: docs/keys.md ---------------------------------------------------------------------------------


MAY, JUNE = (datetime(2026, month, 15, tzinfo=UTC) for month in (5, 6))


def test_a_key_is_rotated_and_what_it_signed_stays_readable(
    line: str, key: SigningKey, other_key: SigningKey, judge: Judge
) -> None:
    """The old key ends when the new one begins; each is trusted for its own time."""
    new = public_key_line(other_key.public_key).strip()
    text = f'primary valid-before="20260601Z" {line}\nprimary valid-after="20260601Z" {new}\n'
    for signer, at, expected in (
        (key, MAY, "trusted"),
        (key, JUNE, "untrusted"),
        (other_key, MAY, "untrusted"),
        (other_key, JUNE, "trusted"),
    ):
        assert decide(text, signer, "primary", at) == expected
        (judge.folder / "sig").write_bytes(sign(MESSAGE, signer))
        assert judge.trusts(text, "primary", at) == (expected == "trusted")


def test_a_stolen_key_is_removed_not_retired(line: str, key: SigningKey, judge: Judge) -> None:
    """Its thief chooses the time that is signed, so a retired key would still sign for the time before."""
    retired = f'primary valid-before="20260601Z" {line}\n'
    assert decide(retired, key, "primary", MAY) == "trusted"
    assert judge.trusts(retired, "primary", MAY)
    assert decide(f"#{retired}primary {ECDSA}", key, "primary", MAY) == "untrusted"
    assert not judge.trusts(f"#{retired}primary {ECDSA}", "primary", MAY)
    with pytest.raises(SignatureInvalid, match="revoked"):
        Trust.parse(retired, line).signer_for(key.public_key, "primary", NAMESPACE, MAY)


# --- messages -------------------------------------------------------------------------------------------------------


def test_the_message_tells_why_a_key_is_not_trusted(key: SigningKey, line: str) -> None:
    cases = {
        "is not known": f"primary {ECDSA}",
        "for other purposes than brd@etsclone": f'primary namespaces="git" {line}',
        "may sign for secondary and spare, not for primary": f"secondary {line}\nspare {line}",
        "not trusted for signatures of 2026-07-01 12:00:00 UTC": f'primary valid-before="20260101" {line}',
    }
    for message, text in cases.items():
        with pytest.raises(SignatureInvalid, match=message):
            Trust.parse(text).signer_for(key.public_key, "primary", NAMESPACE, NOON)


def test_an_empty_list_trusts_nobody(key: SigningKey) -> None:
    with pytest.raises(TrustRefused):
        Trust.parse("# nothing\n").signer_for(key.public_key, "primary", NAMESPACE, NOON)


def test_any_role_and_any_time_can_be_asked_for(key: SigningKey, line: str) -> None:
    trust = Trust.parse(f'a,b valid-before="20200101" {line}')
    assert trust.signer_for(key.public_key, None, NAMESPACE, None) == Signer("a,b", key.fingerprint)


@pytest.mark.parametrize(
    ("value", "patterns", "expected"),
    [
        ("a", "a", True),
        ("", "", True),
        ("a", "", False),
        ("ab", "a?", True),
        ("axb", "a.b", False),
        ("a\nb", "a*", True),
        ("abcbd", "a*b*d", True),
        ("abc", "*,!a*", False),
        ("[a]", "[a]", True),
        ("a", "[a]", False),
        ("[ab", "[a*", True),
        pytest.param("a" * 200, "*a" * 50 + "b", False, id="many-stars"),
    ],
)
def test_pattern_lists(value: str, patterns: str, *, expected: bool) -> None:
    assert matches(value, patterns) is expected


# --- adding ---------------------------------------------------------------------------------------------------------


def test_a_new_key_gets_a_line_of_its_own(line: str) -> None:
    text = add_signer("# ours\n", "primary", f"{line} root@srv1\n")
    assert text == f'# ours\nprimary namespaces="{NAMESPACE}" {line} root@srv1\n'
    assert add_signer("# no line end", "primary", line).splitlines()[0] == "# no line end"


def test_a_known_key_gets_the_role_on_its_line(line: str, other_key: SigningKey) -> None:
    other = public_key_line(other_key.public_key, "other").strip()
    text = f"# keep\n\n  primary\t{line} words words\r\nspare {other}\n"
    assert add_signer(text, "secondary", line) == text.replace(
        "  primary\t", "  primary,secondary\t"
    )


def test_adding_twice_changes_nothing(line: str) -> None:
    text = add_signer("", "primary", line)
    assert add_signer(text, "primary", f"{line} another comment") == text
    assert add_signer(f"* {line}", "primary", line) == f"* {line}"


def test_a_key_for_other_purposes_gets_a_line_of_its_own(line: str) -> None:
    for text in (f'primary namespaces="git" {line}\n', f"primary cert-authority {line}\n"):
        assert (
            add_signer(text, "primary", line) == f'{text}primary namespaces="{NAMESPACE}" {line}\n'
        )


def test_a_role_goes_onto_a_line_that_holds_at_the_time(line: str) -> None:
    ended = f'primary valid-before="20260101Z" {line}\n'
    text = f"{ended}spare {line}\n"
    assert add_signer(text, "primary", line, MAY) == f"{ended}spare,primary {line}\n"
    assert add_signer(f"{ended}* {line}\n", "primary", line, MAY) == f"{ended}* {line}\n"
    for role in ("primary", "secondary"):
        with pytest.raises(TrustRefused, match=r"line 1 .* only until 2026-01-01 00:00:00 UTC"):
            add_signer(ended, role, line, MAY)


def test_why_a_key_may_not_sign_now(key: SigningKey, line: str) -> None:
    ask = ("primary", MAY)
    assert Trust.parse(f"primary {line}").signer_now(key.public_key, *ask).principal == "primary"
    for text, why in {
        f'primary valid-before="20260101Z" {line}': "not trusted for signatures of 2026-05",
        f"secondary {line}": "may sign for secondary, not for primary",
        f"primary {ECDSA}": "is not known",
    }.items():
        with pytest.raises(TrustRefused, match=f"nothing that is signed with .*{why}") as caught:
            Trust.parse(text).signer_now(key.public_key, *ask)
        assert "capture" not in caught.value.hint
    with pytest.raises(TrustRefused, match="is revoked"):
        Trust.parse(f"primary {line}", line).signer_now(key.public_key, *ask)
    with pytest.raises(TrustRefused, match="list of allowed signers is empty"):
        Trust.parse("").signer_now(key.public_key, *ask)


def test_a_denial_is_never_overruled(line: str) -> None:
    with pytest.raises(TrustRefused, match="line 1 of the allowed signers denies primary"):
        add_signer(f"secondary,!primary {line}\n", "primary", line)


@pytest.mark.parametrize("role", ["a,b", "*", "!primary", "", "a b", "Primary", "primary\n"])
def test_a_role_is_a_name(role: str, line: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        add_signer("", role, line)


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", "ssh-ed25519 AAAA", ECDSA, "primary KEY", "KEY\nKEY", "KEY \x07"]
)
def test_only_one_ed25519_public_key_is_taken(text: str, line: str) -> None:
    with pytest.raises(FormatError):
        parse_public_key(text.replace("KEY", line))


@given(roles=st.lists(st.sampled_from(["primary", "secondary", "spare"]), max_size=6))
def test_whoever_was_added_is_trusted_and_nobody_else(roles: list[str], key: SigningKey) -> None:
    text = ""
    for role in roles:
        text = add_signer(text, role, public_key_line(key.public_key))
    for role in ("primary", "secondary", "spare"):
        assert (decide(text, key, role, NOON) == "trusted") == (role in roles)
    assert text.count("\n") <= 1
