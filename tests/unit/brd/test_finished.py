"""A system that no rebuild ever touched is captured without what reads journals, opens volumes or compares overlays."""

import subprocess
import sys
from pathlib import Path

import pytest

from etsclone.commands.finished import check_finished
from etsclone.errors import FormatError, KeptExposed
from etsclone.model.tree import STAGING
from etsclone.overlay.rounds import unfinished_rebuild

_SEEN = """
import sys
import etsclone.cli, etsclone.commands.brd.capture
from etsclone.commands.finished import check_finished
check_finished(sys.argv[1], "x")
late = {"etsclone.overlay.rounds", "etsclone.disk.system", "etsclone.disk.lvm", "etsclone.commands.brd.sides"}
print(sorted(late & sys.modules.keys()))
"""


def test_a_capture_imports_only_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SEEN, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_no_folder_holds_no_rebuild(tmp_path: Path) -> None:
    check_finished(str(tmp_path), "x")
    (tmp_path / STAGING.decode()).symlink_to("/nowhere")
    assert unfinished_rebuild(str(tmp_path)) is None
    check_finished(str(tmp_path), "x")


def test_a_journal_is_looked_at(tmp_path: Path) -> None:
    number = tmp_path / STAGING.decode() / "000001"
    number.mkdir(parents=True)
    (number / "journal").write_text("no journal\n")
    with pytest.raises((FormatError, KeptExposed)):
        unfinished_rebuild(str(tmp_path))
    with pytest.raises((FormatError, KeptExposed)):
        check_finished(str(tmp_path), "x")
