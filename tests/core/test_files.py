"""Output folders and files: made, or refused in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from napari_bloodcells.core.errors import BloodcellsError, ImageError, OutputError
from napari_bloodcells.core.files import make_folder, read_regular, whole_text, write_atomic
from napari_bloodcells.core.images import image_size, read_image


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


@pytest.mark.parametrize("name", ["1.jpg", "two  spaces.jpg", "two\nlines.jpg"])
def test_an_error_knows_where_its_file_lies_and_does_not_say_so_in_its_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "patient 7" / name
    path.parent.mkdir()
    path.write_bytes(b"")
    for read in (read_image, image_size, lambda p: read_regular(p, 10, ImageError)):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert "patient" not in str(caught.value)
        assert whole_text(caught.value) == f"{tmp_path}/patient 7/{name}: is empty (0 bytes).".replace("\n", "\\n")
    copy = pickle.loads(pickle.dumps(caught.value))  # as from a worker process
    assert whole_text(copy) == whole_text(caught.value)


def test_a_text_that_does_not_begin_with_its_file_stays_as_it_is() -> None:
    error = BloodcellsError("Nothing to count.")
    assert whole_text(error) == "Nothing to count."
    error.path = Path("a/1.jpg")
    assert whole_text(error) == "Nothing to count."
