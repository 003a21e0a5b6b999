"""What lies below an address: slides by their names, and addresses that lead back to where they came from."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.jobs import collect_jobs
from napari_bloodcells.core.remote import read_remote
from napari_bloodcells.core.remotefolder import list_remote


class HostSystem(MemoryFileSystem):
    """As FTP and HDFS are: the host stands in the address, and not in the paths of the file system."""

    protocol = "hosted"
    hosts: tuple[str, ...] = ()

    def __init__(self, host: str = "", **options: Any) -> None:
        super().__init__(**options)
        if host != "server:21":
            raise ConnectionError(f"no host {host!r}")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        rest = path.removeprefix("hosted://")
        return "/" + (rest.partition("/")[2] if rest != path else rest).strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": path.removeprefix("hosted://").partition("/")[0]}


@pytest.fixture
def hosted(smears: Path) -> Iterator[str]:
    fsspec.register_implementation("hosted", HostSystem, clobber=True)
    system = fsspec.filesystem("memory")
    for file in (smears / "a").iterdir():
        part = "Annotations" if file.suffix == ".xml" else "JPEGImages"
        system.pipe(f"/voc/{part}/{file.name}", file.read_bytes())
    yield "hosted://server:21/voc"
    system.rm("/voc", recursive=True)


def zipped(folder: Path, place: Path) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return place


@pytest.mark.parametrize("below", ["", "a", "a/"])
def test_photographs_in_an_archive_are_counted_with_their_xml(
    smears: Path, tiny_model: Path, tmp_path: Path, below: str
) -> None:
    archive = zipped(smears, tmp_path / "smears.zip")
    remote = count(f"zip://{below}::{archive.as_uri()}", str(tiny_model), "xml", "cpu")
    local = count(smears / below, str(tiny_model), "xml", "cpu")
    assert remote.images["image"].tolist() == local.images["image"].tolist()
    assert (remote.images["status"] == "ok").all()
    assert remote.cells.equals(local.cells)


def test_a_single_photograph_in_an_archive_or_a_cache_is_read(smears: Path, tmp_path: Path) -> None:
    archive = zipped(smears, tmp_path / "smears.zip")
    single = collect_jobs(f"zip://a/smear_0000.png::{archive.as_uri()}").jobs
    assert [(job.image, job.annotation) for job in single] == [
        ("smear_0000.png", f"zip://a/smear_0000.xml::{archive.as_uri()}")
    ]
    listed = list_remote(f"simplecache://::{(smears / 'a').as_uri()}")
    assert [file.name for file in listed.images] == [f"smear_000{n}.png" for n in range(6)]
    wanted = (smears / "a" / "smear_0000.png").read_bytes()
    assert read_remote(listed.images[0].address, 10**6) == wanted
    assert read_remote(str(single[0].source), 10**6) == wanted


def test_the_host_of_an_address_stays_in_those_of_its_files(hosted: str) -> None:
    jobs = collect_jobs(f"{hosted}/JPEGImages").jobs
    assert len(jobs) == 6
    assert jobs[0].source == f"{hosted}/JPEGImages/smear_0000.png"
    assert jobs[0].annotation == f"{hosted}/Annotations/smear_0000.xml"
    assert collect_jobs(f"{hosted}/").jobs[0].source == jobs[0].source
    assert read_remote(str(jobs[0].source), 10**6).startswith(b"\x89PNG")


def test_whole_slides_at_an_address_are_refused_by_name(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    photograph = (smears / "a" / "smear_0000.png").read_bytes()
    for name in ("1.png", "2.svs", "deep/3.NDPI", "4.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(photograph)
    archive = zipped(tmp_path / "in", tmp_path / "in.zip")
    for address in ((tmp_path / "in").as_uri(), f"zip://::{archive.as_uri()}"):
        images = count(address, str(tiny_model), "find", "cpu").images.set_index("image")
        assert sorted(images.index) == ["1.png", "2.svs", "deep/3.NDPI"]
        assert images["status"]["1.png"] == "ok"
        for name in ("2.svs", "deep/3.NDPI"):
            assert images["status"][name].startswith(f"{name}: is a whole slide; these are read from files of this")
