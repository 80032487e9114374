"""What stands at a path, so that it is known again."""

import os
from pathlib import Path

import pytest

from etsclone.errors import TargetChanged
from etsclone.overlay.files import opened_root
from etsclone.overlay.seen import sight


def test_what_goes_away_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "etc" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text(name)
    listdir = os.listdir

    def listed_and_removed(folder: int) -> list[str]:
        names = listdir(folder)
        (tmp_path / "etc/b").unlink()
        return names

    with opened_root(str(tmp_path)) as top:
        assert set(sight(top, b"/etc", b"/etc")) == {b"/etc", b"/etc/a", b"/etc/b"}
        assert sight(top, b"/usr", b"/usr") == {}
        monkeypatch.setattr("etsclone.overlay.seen.os.listdir", listed_and_removed)
        with pytest.raises(TargetChanged, match="/etc changed while it was looked at"):
            sight(top, b"/etc", b"/etc")
