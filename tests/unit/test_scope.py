"""Scope patterns against a slow matcher that works component by component."""

import os
import re
from functools import cache

import pytest
from documents import FORMAT
from hypothesis import example, given
from hypothesis import strategies as st

from etsclone.model.scope import Claim, PatternError, Scope, pattern_regex

LETTERS = "ab.[]!-\n\\é"
names = st.text(LETTERS, min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
plain = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
components = st.one_of(
    st.just("**"), st.sampled_from(["*", "?", "a*", "*b", "[ab]", "[!a]", "a?b", "[a-b]*"]), plain
)
patterns = st.lists(components, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def component_matches(pattern: str, name: bytes) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(component_matches(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    if not name:
        return False
    if pattern[0] == "[":
        inner, _, rest = pattern[1:].partition("]")
        found = chr(name[0]) in inner.lstrip("!").replace("a-b", "ab")
        return found != inner.startswith("!") and component_matches(rest, name[1:])
    return (pattern[0] == "?" or pattern[0].encode() == name[:1]) and (
        component_matches(pattern[1:], name[1:])
    )


def matches(pattern: list[str], path: list[bytes]) -> bool:
    """Whether a pattern claims a path: a pattern that is used up claims all that is left."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(matches(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and component_matches(pattern[0], path[0]) and matches(pattern[1:], path[1:])


def naive(pattern: str, path: str) -> bool:
    return matches(pattern.split("/")[1:], path.encode().split(b"/")[1:])


@given(patterns, paths)
def test_a_pattern_claims_what_the_slow_matcher_says(pattern: str, path: str) -> None:
    assert bool(re.fullmatch(pattern_regex(pattern), path.encode(), re.DOTALL)) == naive(
        pattern, path
    )


# --- patterns of many wildcards -----------------------------------------------------------------------------------

BYTES = frozenset(b"abc-]\xc3\xa9\xff")
# What each token of a pattern takes: for each byte of a name, which it may be. A star has nothing to say.
TOKENS: dict[str, tuple[frozenset[int], ...]] = {
    "*": (),
    "?": (BYTES,),
    "a": (frozenset(b"a"),),
    "b": (frozenset(b"b"),),
    "\udcff": (frozenset(b"\xff"),),
    "\xe9": (frozenset(b"\xc3"), frozenset(b"\xa9")),
    "[ab]": (frozenset(b"ab"),),
    "[!a]": (BYTES - frozenset(b"a"),),
    "[a-b]": (frozenset(b"ab"),),
    "[]a]": (frozenset(b"]a"),),
    "[!]a]": (BYTES - frozenset(b"]a"),),
    "[\udcff-]": (frozenset(b"\xff-"),),
    "[!\xe9]": (BYTES - frozenset(b"\xc3\xa9"),),
}
Tokens = tuple[str, ...]
ANY_NUMBER: Tokens = ("**",)
tokens = st.one_of(st.just("*"), st.sampled_from(sorted(TOKENS)))
tokened = st.lists(tokens, min_size=1, max_size=7).map(tuple).filter(lambda it: it != ("*", "*"))
wild_patterns = st.lists(st.one_of(st.just(ANY_NUMBER), tokened), min_size=1, max_size=6).map(tuple)
few = st.lists(st.sampled_from(sorted(BYTES)), min_size=1, max_size=6).map(bytes)
wild_paths = st.lists(few, min_size=1, max_size=6).map(tuple)


@cache
def token_matches(pattern: Tokens, name: bytes) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(token_matches(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    wanted = TOKENS[pattern[0]]
    return (
        len(name) >= len(wanted)
        and all(byte in each for byte, each in zip(name, wanted, strict=False))
        and token_matches(pattern[1:], name[len(wanted) :])
    )


@cache
def wild_matches(pattern: tuple[Tokens, ...], path: tuple[bytes, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == ANY_NUMBER:
        return any(wild_matches(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and token_matches(pattern[0], path[0]) and wild_matches(pattern[1:], path[1:])


@cache
def wild_way(above: tuple[Tokens, ...], path: tuple[bytes, ...]) -> bool:
    """Whether a folder lies on the way to what a pattern may match: `above` is the pattern without its last part."""
    if not path or (above and above[0] == ANY_NUMBER):
        return True
    return bool(above) and token_matches(above[0], path[0]) and wild_way(above[1:], path[1:])


def written(pattern: tuple[Tokens, ...]) -> str:
    return "".join("/" + "".join(part) for part in pattern)


@given(wild_patterns, wild_paths)
@example((("*", "a", "*", "a"),), (b"aba",))
@example((ANY_NUMBER, ("*", "a"), ANY_NUMBER, ("a",), ("b",)), (b"ba", b"a", b"a", b"b"))
@example((ANY_NUMBER, ("a", "*"), ANY_NUMBER, ("b",)), (b"ab", b"b"))
@example((ANY_NUMBER, ("*", "a"), ANY_NUMBER, ("b",)), (b"ab", b"aa", b"b"))
def test_many_wildcards_claim_what_the_slow_matcher_says(
    pattern: tuple[Tokens, ...], path: tuple[bytes, ...]
) -> None:
    text, whole, claimed = written(pattern), b"/" + b"/".join(path), wild_matches(pattern, path)
    assert bool(re.fullmatch(pattern_regex(text), whole, re.DOTALL)) == claimed
    assert (whole in Scope((text,))) == claimed
    # Beneath what is hidden nobody looks.
    above = b"/".join((b"", *path[:-1])) or b"/"
    volatile = Scope((), volatile=(text,))
    if volatile.claim(above) is Claim.NOBODY:
        assert volatile.hidden_in(above).leave([path[-1]]) == ([] if claimed else [path[-1]])
    assert Scope((text,)).may_hold(whole) == (claimed or wild_way(pattern[:-1], path))


HOSTILE = {
    "stars": ("/srv/" + "*a" * 100 + "b", b"/srv/" + b"a" * 250),
    "stars-in-each-part": ("/*a*a*a*a*b" * 50, b"/srv" + b"/aaaaaaaaaa" * 300),
    "double-stars": ("/srv" + "/**/a" * 100 + "/b", b"/srv" + b"/a" * 2000),
    "double-stars-in-a-row": ("/srv" + "/**" * 1000 + "/b", b"/srv" + b"/a" * 2000),
    "both": ("/**/*a*a*a*a*b" * 50, b"/srv" + b"/aaaaaaaaaa" * 300),
    "deep": ("/a" * 10_000 + "/*b", b"/a" * 2000),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pattern_is_answered(attack: str) -> None:
    """Nothing is timed: an expression that tries all ways would not end within anybody's life."""
    pattern, path = HOSTILE[attack]
    scope = Scope((pattern,), volatile=(pattern, pattern + "/x"))
    assert scope.claim(path) is Claim.NOBODY
    Scope((pattern,)).may_hold(path)
    assert scope.hidden_in(path).leave([b"x"]) == [b"x"]


# --- the three lists -----------------------------------------------------------------------------------------------


@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=2), paths)
def test_disk_and_volatile_beat_role(role: list[str], disk: list[str], path: str) -> None:
    scope = Scope(tuple(role), tuple(disk))
    expected = (
        Claim.DISK
        if any(naive(pattern, path) for pattern in disk)
        else Claim.ROLE
        if any(naive(pattern, path) for pattern in role)
        else Claim.NOBODY
    )
    assert scope.claim(path.encode()) is expected
    assert (path.encode() in scope) == (expected is Claim.ROLE)


@given(st.lists(patterns, max_size=3), paths)
def test_a_folder_that_holds_something_in_scope_is_looked_into(role: list[str], path: str) -> None:
    scope = Scope(tuple(role))
    if path.encode() in scope:
        parts = path.split("/")
        for count in range(1, len(parts)):
            assert scope.may_hold("/".join(parts[:count]).encode() or b"/")


def test_a_folder_without_anything_in_scope_is_passed_by() -> None:
    scope = Scope(("/etc/ssh/ssh_host_*", "/srv/**/local.conf"), volatile=("/srv/cache",))
    assert not scope.may_hold(b"/var")
    assert not scope.may_hold(b"/etc/apt")
    assert not scope.may_hold(b"/srv/cache")
    assert scope.may_hold(b"/srv/a/b/c")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/etc/hosts", "/etc/hosts", "/etc/hosts.allow"),
        ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_rsa_key.pub", "/etc/ssh/sshd_config"),
        ("/etc/samba", "/etc/samba/smb.conf", "/etc/samba-old"),
        ("/srv/*/conf", "/srv/a/conf/deep/er", "/srv/a/b/conf"),
        ("/srv/**/conf", "/srv/conf", "/srv/a/confs"),
        ("/etc/[!.]*", "/etc/a", "/etc/.pwd.lock"),
        ("/etc/a?c", "/etc/abc", "/etc/ac"),
        ("/etc/[a", "/etc/[a", "/etc/a"),
        ("/etc/a.c", "/etc/a.c", "/etc/abc"),
        ("/etc/a\nb", "/etc/a\nb/c", "/etc/a"),
    ],
)
def test_patterns_that_people_write(pattern: str, inside: str, outside: str) -> None:
    scope = Scope((pattern,))
    assert inside.encode() in scope
    assert outside.encode() not in scope


PATTERNS = FORMAT.read_text().split("\n### Patterns\n")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| `(/[^`]*)` \| ([^|]*)\| ([^|]*)\|$", PATTERNS, re.MULTILINE)


def test_the_document_has_examples() -> None:
    assert len(ROWS) == len(re.findall(r"^\| `/", PATTERNS, re.MULTILINE)) >= 37


@pytest.mark.parametrize(("pattern", "inside", "outside"), ROWS)
def test_the_examples_of_the_document(pattern: str, inside: str, outside: str) -> None:
    for wanted, told in ((True, inside), (False, outside)):
        paths = [path.encode() for path in re.findall(r"`([^`]+)`", told)]
        assert {path: path in Scope((pattern,)) for path in paths} == dict.fromkeys(paths, wanted)
        volatile = Scope((), volatile=(pattern,))
        for path in paths:
            assert (volatile.claim(path) is Claim.VOLATILE) == wanted
            folder, name = os.path.split(path)
            if name and volatile.claim(folder) is Claim.NOBODY:
                assert volatile.hidden_in(folder).leave([name]) == ([] if wanted else [name])


def test_names_that_are_no_text_match_wildcards() -> None:
    assert b"/etc/\xff\xfe" in Scope(("/etc/*",))
    assert b"/etc/\xff" in Scope(("/etc/\udcff",))


def test_the_root_is_nobodys() -> None:
    assert Scope(("/**",)).claim(b"/") is Claim.NOBODY


@pytest.mark.parametrize(
    "pattern", ["etc", "", "/", "/etc/", "//etc", "/etc/../var", "/etc/./a", "/..", "etc/hosts"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(PatternError):
        Scope((pattern,))
