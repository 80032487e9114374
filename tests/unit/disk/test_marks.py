"""What is taken for the root of a system."""

from pathlib import Path

from etsclone.disk.marks import has_marks


def test_a_root_holds_its_marks_itself(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root, elsewhere):
        (folder / "etc").mkdir(parents=True)
        (folder / "etc/fstab").touch()
        (folder / "etc/passwd").symlink_to("/nowhere")
    assert has_marks(str(root))
    (root / "etc").rename(root / "other")
    assert not has_marks(str(root))
    (root / "etc").symlink_to(elsewhere / "etc")
    assert not has_marks(str(root))
