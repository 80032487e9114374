"""What the documents tell a person to type, and the files that they print."""

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
FORMAT = DOCS / "brd-format.md"

_FILE = re.compile(
    r"^`(?P<name>[^`]+)`, (?P<size>[0-9,]+) bytes, sha256 `(?P<sha256>[0-9a-f]{64})`(?:, in (?P<form>\w+))?:\n\n"
    r"(?P<block>(?:    .*\n)+)",
    re.MULTILINE,
)
_ROW = re.compile(r"^\| `([^`]+)` \| ([0-9,]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
_BLOCK = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)
_FORMS: dict[str | None, Callable[[str], bytes]] = {
    None: str.encode,
    "hex": bytes.fromhex,
    "base64": base64.b64decode,
}


def section(path: Path, title: str) -> str:
    """The text of a section, its subsections included."""
    return f"{path.read_text()}\n".split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    """The indented blocks of a text, without their indentation."""
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in _BLOCK.findall(text)]


def printed_files(text: str) -> dict[str, bytes]:
    """The files that a text holds, each of which must have the size and digest that stand above it."""
    files: dict[str, bytes] = {}
    for match in _FILE.finditer(text):
        [block] = commands(match["block"])
        data = _FORMS[match["form"]](block)
        told = (int(match["size"].replace(",", "")), match["sha256"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == told, match["name"]
        files[match["name"]] = data
    return files


def told_files(text: str) -> dict[str, tuple[int, str]]:
    """Sizes and digests of the files that a table of a text names."""
    return {name: (int(size.replace(",", "")), sha256) for name, size, sha256 in _ROW.findall(text)}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a person could not type it either."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def typed(block: str, folder: Path) -> str:
    """What a block of commands prints, each of which must succeed."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
