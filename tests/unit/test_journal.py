"""Journals as text: what was written is read, and what no rebuild writes is refused before anything depends on it."""

import json
from dataclasses import replace

import pytest

from etsclone.errors import FormatError
from etsclone.model.journal import (
    Journal,
    Lock,
    Progress,
    Seen,
    Standing,
    Stay,
    Steps,
    Swap,
    begun_line,
    head_line,
    parse_journal,
    progress_line,
    step_lines,
)
from etsclone.model.keep import BootCode
from etsclone.model.tree import Kind

PLAIN = Standing(0o2755, 0, 2**32 - 2, -1, (("user.\udcff", b"\0\xff"),), ("schg",))
JOURNAL = Journal(
    "2026-11-28T12:00:00Z",
    "primary, generation 3",
    (b"/", b"/v\xffr"),
    Steps(
        (Swap(b"/v\xffr/x", b"/v\xffr", old=True, new=False, flags=("sappnd",)),),
        (Stay(b"/etc", PLAIN, replace(PLAIN, mtime_ns=2**63 * 10**9 - 1)),),
        (Lock(b"/etc/x", ("schg",)),),
    ),
    Progress.APPLIED,
)
WITH_CODE = replace(
    JOURNAL,
    version=2,
    steps=replace(JOURNAL.steps, code=(BootCode(0, b"\0\xff"),), lost=("the initramfs",)),
)
SEEN = Seen(b"/etc/x\xff", Kind.FILE, 3, "0a" * 32, PLAIN)
WITH_SEEN = replace(
    WITH_CODE,
    version=3,
    steps=replace(
        WITH_CODE.steps,
        was=(SEEN, Seen(b"/etc/null", Kind.CHAR_DEVICE, content="1:3")),
        put=(Seen(b"/boot/efi", Kind.FOLDER), Seen(b"/etc/link", Kind.SYMLINK, 1, "00" * 32)),
    ),
)


def written(journal: Journal) -> bytes:
    steps = head_line(journal) + step_lines(journal.steps)
    return steps + begun_line(steps) + progress_line(journal.progress)


def of_stay(standing: Standing) -> bytes:
    return written(replace(JOURNAL, steps=Steps(stays=(Stay(b"/etc", PLAIN, standing),))))


OF_A_PAIR = replace(WITH_SEEN, pair="school")


@pytest.mark.parametrize("journal", [JOURNAL, WITH_CODE, WITH_SEEN, OF_A_PAIR])
def test_what_is_written_is_read(journal: Journal) -> None:
    assert parse_journal(written(journal)) == journal


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, size=-1),
        replace(SEEN, content="0A" * 32),
        replace(SEEN, content="00" * 33),
        replace(SEEN, content="1:x"),
        replace(SEEN, path=b"etc/x"),
        replace(SEEN, standing=replace(PLAIN, mode=0o10000)),
    ],
)
def test_what_nothing_can_be_is_refused(seen: Seen) -> None:
    for steps in (Steps(was=(seen,)), Steps(put=(seen,))):
        with pytest.raises(FormatError, match="is damaged"):
            parse_journal(written(replace(WITH_SEEN, steps=steps)))


def test_an_older_etsclone_would_not_compare_it() -> None:
    with pytest.raises(FormatError, match="is damaged"):
        parse_journal(written(replace(WITH_SEEN, version=2)))


@pytest.mark.parametrize(
    "journal",
    [
        replace(WITH_CODE, version=1),  # an older etsclone would not bring it back
        replace(JOURNAL, version=4),
        replace(WITH_CODE, steps=Steps(code=(BootCode(-1, b"x"),))),
        replace(WITH_CODE, steps=Steps(code=(BootCode(2**63, b"x"),))),
        replace(WITH_CODE, steps=Steps(lost=("two\nlines",))),
    ],
)
def test_boot_code_that_no_disk_has_is_refused(journal: Journal) -> None:
    with pytest.raises(FormatError, match="is damaged"):
        parse_journal(written(journal))


@pytest.mark.parametrize(
    "standing",
    [
        replace(PLAIN, uid=2**80),
        replace(PLAIN, uid=-1),
        replace(PLAIN, gid=2**32 - 1),  # chown would leave the group alone
        replace(PLAIN, mtime_ns=2**63 * 10**9),
        replace(PLAIN, mtime_ns=-(2**63) * 10**9 - 1),
        replace(PLAIN, mode=0o10000),
        replace(PLAIN, xattrs=(("user.\0", b""),)),
        replace(PLAIN, xattrs=(("\ud800", b""),)),
        replace(PLAIN, xattrs=(("user." + "x" * 251, b""),)),
        replace(PLAIN, xattrs=(("user.x", bytes(65537)),)),
    ],
)
def test_numbers_that_no_file_can_have_are_refused(standing: Standing) -> None:
    """They would fail in the middle, when paths have changed hands already."""
    with pytest.raises(FormatError, match="is damaged"):
        parse_journal(of_stay(standing))


@pytest.mark.parametrize("words", ["\x1b]0;x\x07", "two\nlines", "\u202e", "x" * 1001])
def test_words_are_a_line_of_plain_text(words: str) -> None:
    """They are shown before somebody says yes."""
    for journal in (replace(JOURNAL, label=words), replace(JOURNAL, began=words)):
        with pytest.raises(FormatError, match="plain text"):
            parse_journal(written(journal))


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"[[]]", b"1", b"null", b"{" * 10**5, b"[" * 10**5, b"9" * 5000, b"\xff"]
)
def test_lines_that_are_none(line: bytes) -> None:
    for before in (b"", head_line(JOURNAL)):
        with pytest.raises(FormatError, match="is damaged") as caught:
            parse_journal(before + line + b"\n")
        assert len(caught.value.message) < 300
        assert caught.value.message.isprintable()


def test_a_complaint_is_short_and_plain() -> None:
    head = json.loads(head_line(JOURNAL)) | {"journal": "\x1b" * 10**5}
    with pytest.raises(FormatError) as caught:
        parse_journal(json.dumps(head).encode() + b"\n")
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()
