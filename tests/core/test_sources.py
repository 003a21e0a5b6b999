"""Data sets by name: copied from a mirror and checked, downloaded file by file and checked, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_bloodcells.core import sources as module
from napari_bloodcells.core.errors import DataSetError, UsageError
from napari_bloodcells.core.sources import Source, fetch, file_digest, find_source, folder_digest, known_files, sources


def mirror_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> Path:
    folder = tmp_path / "mirror" / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"picture")
    (folder / "labels.csv").write_text("image,class\na.png,neutrophil\n")
    number, digest = folder_digest(folder)
    mine = Source("mine", "test", "MIT", "https://example.org", url, "Ask.", number, digest)
    monkeypatch.setattr(module, "sources", lambda: (mine,))
    return folder.parent


def test_every_source_is_described() -> None:
    assert [s.name for s in sources()][:2] == ["bccd", "kaggle"]
    assert len(sources()) == 11
    for source in sources():
        assert len(source.digest) == 64
        assert source.license
        assert source.home
    assert [s.name for s in sources() if s.url] == ["bccd"]
    files = known_files("bccd")
    assert sum(path.endswith(".jpg") for path in files) == 367
    assert sum(path.endswith(".xml") for path in files) == 364


def test_a_mirror_is_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = mirror_with(tmp_path, monkeypatch)
    done: list[int] = []
    for number, start in enumerate((mirror, mirror / "mine")):
        output = fetch("mine", tmp_path / f"out{number}", mirror=start, advance=done.append)
        assert (output / "images" / "a.png").read_bytes() == b"picture"
    assert sum(done) == 4


@pytest.mark.parametrize("damage", ["changed", "missing", "more"])
def test_a_mirror_of_other_contents_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    mirror = mirror_with(tmp_path, monkeypatch)
    picture = mirror / "mine" / "images" / "a.png"
    if damage == "changed":
        picture.write_bytes(b"pictures")
    elif damage == "missing":
        picture.unlink()
    else:
        (picture.parent / "b.png").touch()
    with pytest.raises(DataSetError, match="mine: is not the known copy of mine"):
        fetch("mine", tmp_path / "out", mirror=mirror)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mirror"]


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = mirror_with(tmp_path, monkeypatch)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataSetError, match="out: is already there"):
        fetch("mine", tmp_path / "out", mirror=mirror)


def test_what_cannot_be_downloaded_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nope: no such data set; there are bccd, kaggle"):
        find_source("nope")
    mirror_with(tmp_path, monkeypatch)
    with pytest.raises(DataSetError, match=r"mine: cannot be downloaded by a program\. Ask\."):
        fetch("mine", tmp_path / "out")
    with pytest.raises(DataSetError, match="no such folder"):
        fetch("mine", tmp_path / "out", mirror=tmp_path / "absent")


def test_a_download_is_checked_against_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch itself downloads; only the web is replaced, by a downloader that copies from a folder."""
    import pooch

    mirror = mirror_with(tmp_path, monkeypatch, url="https://example.org/data/")
    folder = mirror / "mine"
    known = {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(module, "known_files", lambda name: known)

    def web(url: str, output_file: str, _: object, **__: object) -> None:
        Path(output_file).write_bytes((folder / url.removeprefix("https://example.org/data/")).read_bytes())

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: web)
    output = fetch("mine", tmp_path / "out")
    assert {p.relative_to(output).as_posix(): file_digest(p) for p in output.rglob("*") if p.is_file()} == known
    (output / "labels.csv").write_text("corrected by hand")
    with pytest.raises(DataSetError, match=r"out: labels\.csv are there with other contents .* not overwritten"):
        fetch("mine", output)
    assert (output / "labels.csv").read_text() == "corrected by hand"
    (output / "labels.csv").unlink()
    assert fetch("mine", output) == output  # what is missing is fetched, as after a download that was broken off
    (folder / "labels.csv").write_text("tampered")
    with pytest.raises(DataSetError, match=r"labels\.csv could not be downloaded: .*hash"):
        fetch("mine", tmp_path / "again")
    assert not (tmp_path / "again" / "labels.csv").exists()


@pytest.mark.data
def test_the_shared_copy_is_the_known_one(shared_data: Path) -> None:
    for name in ("jtsc", "ankara", "misp"):
        number, digest = folder_digest(shared_data / name)
        assert (number, digest) == (find_source(name).files, find_source(name).digest)
    known = known_files("bccd")
    for path in list(known)[::50]:
        assert file_digest(shared_data / "bccd" / path) == known[path]
