"""Output folders and files: made, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.files import make_folder, write_atomic


def test_a_folder_is_made_with_those_above_it_and_may_be_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        assert make_folder(tmp_path / "a" / "b").is_dir()


def test_a_folder_below_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"note\.txt.*no folder can be made there"):
        make_folder(tmp_path / "note.txt" / "out")
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", b"one")
    with pytest.raises(OutputError, match="already there"):
        write_atomic(tmp_path / "a.txt", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"one"
