"""Images at an address: fsspec's memory and local file systems, and a web server on this machine."""

from __future__ import annotations

import errno
import functools
import shutil
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pandas as pd
import pytest

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.jobs import collect_jobs
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.errors import BloodcellsError, DataWarning, ImageError, OutageError, UsageError
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.remote import may_pass, read_heads, read_remote
from napari_bloodcells.core.remotefolder import list_remote
from napari_bloodcells.synthetic import SmearSettings, write_folder

CSVS = ("cells.csv", "images.csv", "differential.csv")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; refuses whatever has ``forbidden`` in its address, and answers other addresses with a page.

    ``busy`` says how often an address is answered with an error of the server first; ``asked`` counts the answers.
    """

    forbidden, page = "", b""
    busy: ClassVar[dict[str, int]] = {}
    asked: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self) -> None:
        if self.busy.get(self.path, 0) > self.asked[self.path]:
            self.send_error(503)
        else:
            super().do_HEAD()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.busy.get(self.path, 0) >= self.asked[self.path]:
            self.send_error(503)
        elif self.forbidden and self.forbidden in self.path:
            self.send_error(403)
        elif self.page and not Path(self.translate_path(self.path)).exists():
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(self.page)))
            self.end_headers()
            self.wfile.write(self.page)
        else:
            super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, forbidden: str = "", page: bytes = b"", busy: dict[str, int] | None = None) -> Iterator[str]:
    Quiet.asked.clear()
    kind = type("Handler", (Quiet,), {"forbidden": forbidden, "page": page, "busy": busy or {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def in_store(folder: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for file in folder.rglob("*.*"):
        if file.is_file():
            system.pipe(f"/store/{file.relative_to(folder).as_posix()}", file.read_bytes())
    yield "memory://store"
    system.rm("/store", recursive=True)


@contextmanager
def on_disk(folder: Path) -> Iterator[str]:
    yield folder.as_uri()


KINDS = {"memory": in_store, "file": on_disk, "http": serving}


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_bloodcells.core.remote.WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def served(smears: Path) -> Iterator[str]:
    with serving(smears) as address:
        yield address


@pytest.fixture
def in_memory(smears: Path) -> Iterator[str]:
    with in_store(smears) as address:
        yield address


@pytest.fixture
def voc(smears: Path, tmp_path: Path) -> Path:
    """Six fields as VOC lays them out, with names as people give them: one XML is missing, one has lost its field."""
    root = tmp_path / "voc"
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for number, file in enumerate(sorted((smears / "a").glob("*.png"))):
        shutil.copy(file, root / "JPEGImages" / f"Field {number}.png")
        shutil.copy(file.with_suffix(".xml"), root / "Annotations" / f"field_{number + (number == 5)}.xml")
    declared = (smears / "a" / "smear_0000.xml").read_text().replace("smear_0000.png", "Field 4.png")
    (root / "Annotations" / "field_4.xml").unlink()
    (root / "Annotations" / "0815.xml").write_text(declared)
    return root


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CSVS}


def same_cells(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    return len(a) > 0 and a.reset_index(drop=True).equals(b.reset_index(drop=True))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_remote_folder_is_counted_as_a_local_one(smears: Path, tiny_model: Path, in_memory: str, kind: str) -> None:
    address = in_memory if kind == "memory" else smears.as_uri()
    local = count(smears, str(tiny_model), "find", "cpu")
    remote = count(address, str(tiny_model), "find", "cpu")
    assert remote.images["image"].tolist() == local.images["image"].tolist()
    assert same_cells(remote.cells, local.cells)


@pytest.mark.parametrize("kind", KINDS)
def test_the_xml_beside_remote_photographs_is_used_as_that_of_local_ones(
    smears: Path, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    with KINDS[kind](smears) as address:
        count(address, str(tiny_model), "auto", "cpu", options=CountOptions(output=tmp_path / "remote"))
    count(smears, str(tiny_model), "auto", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert b",xml," in tables(tmp_path / "local")["cells.csv"]
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["", "JPEGImages"])
def test_annotations_beside_remote_photographs_are_paired_as_those_of_local_ones(
    voc: Path, tiny_model: Path, tmp_path: Path, kind: str, given: str
) -> None:
    with KINDS[kind](voc) as address:
        place = f"{address}/{given}".rstrip("/")
        remote = count(place, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "remote"))
    local = count(voc / given, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")
    assert (local.images["status"] == "ok").tolist() == [True] * 5 + [False]
    assert remote.run["warnings"] == local.run["warnings"]
    assert sorted(local.run["warnings"]) == [
        "Field 5.png: has no annotation file.",
        "field_6.xml: its image is not here; the annotation is left out.",
    ]


def test_no_xml_is_fetched_where_none_is_wanted(voc: Path, tiny_model: Path) -> None:
    with serving(voc, forbidden="nnotation") as address:
        remote = count(f"{address}/JPEGImages/", str(tiny_model), "whole", "cpu")
    assert set(remote.cells["box_source"]) == {"whole"}
    assert remote.run["warnings"] == []


@pytest.mark.parametrize("place", ["a/smear_0000.png", "JPEGImages/smear_0000.png"])
def test_a_single_remote_photograph_has_the_xml_beside_it(
    smears: Path, tiny_model: Path, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "single"
    (folder / place).parent.mkdir(parents=True)
    shutil.copy(smears / "a" / "smear_0000.png", folder / place)
    xml = folder / place if place.startswith("a/") else folder / "Annotations" / "smear_0000.xml"
    xml.parent.mkdir(exist_ok=True)
    shutil.copy(smears / "a" / "smear_0000.xml", xml.with_suffix(".xml"))
    local = count(folder / place, str(tiny_model), "xml", "cpu")
    with serving(folder) as address:
        remote = count(f"{address}/{place}?token=abc", str(tiny_model), "xml", "cpu")
    assert same_cells(remote.cells, local.cells)
    assert remote.images["image"].tolist() == ["smear_0000.png"]


@pytest.mark.parametrize(
    ("forbidden", "page", "told"),
    [
        ("", b"", []),
        ("", b" <!DOCTYPE html><title>Nothing here</title>", []),
        (".xml", b"", ["smear_0000.png: an XML beside it cannot be asked for"]),
    ],
)
def test_a_single_photograph_may_have_no_xml_and_what_cannot_be_asked_for_is_told(
    smears: Path, tmp_path: Path, forbidden: str, page: bytes, told: list[str]
) -> None:
    shutil.copy(smears / "a" / "smear_0000.png", tmp_path)
    with serving(tmp_path, forbidden, page) as address:
        listed = collect_jobs(f"{address}/smear_0000.png")
    assert [(job.image, job.annotation) for job in listed.jobs] == [("smear_0000.png", None)]
    assert [text.partition(" (403")[0] for text in listed.warnings] == told


def test_an_xml_that_cannot_be_fetched_fails_its_image_and_no_other(smears: Path, tiny_model: Path) -> None:
    with serving(smears / "a", forbidden="0002.xml") as address:
        remote = count(f"{address}/", str(tiny_model), "auto", "cpu")
    status = remote.images.set_index("image")["status"]
    assert status["smear_0002.png"].startswith("smear_0002.xml: cannot be fetched (403")
    assert "\n" not in status["smear_0002.png"]
    assert (status.drop("smear_0002.png") == "ok").all()
    assert "smear_0002.png" not in set(remote.cells["image"])


def test_a_folder_that_cannot_be_listed_is_told(smears: Path, voc: Path) -> None:
    with serving(smears, forbidden="/b") as address:
        listed = collect_jobs(f"{address}/")
        assert {job.image.partition("/")[0] for job in listed.jobs} == {"a"}
        assert [text.partition(" (")[0] for text in listed.warnings] == [f"{address}/b: cannot be listed"]
    with serving(voc, forbidden="/Annotations") as address:
        listed = collect_jobs(f"{address}/JPEGImages")
        assert [job.annotation for job in listed.jobs] == [None] * 6
        assert [text.partition(" (")[0] for text in listed.warnings] == [f"{address}/Annotations: cannot be listed"]


@pytest.mark.parametrize(
    "options", [{"workers": 2, "batch_size": 3}, {"cluster": "local:2"}], ids=["workers", "cluster"]
)
def test_workers_fetch_the_xml_themselves(
    smears: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.count.FEW", 0)
    count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "local"))
    with serving(smears) as address:
        count(address, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "remote", **options))
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_found_elsewhere_too(tiny_model: Path, smears: Path, tmp_path: Path, kind: str) -> None:
    for name, number in (("1", 1), ("2", 2), ("1b", 1)):
        shutil.copy(smears / "a" / f"smear_000{number}.png", tmp_path / f"{name}.png")
    with KINDS[kind](tmp_path) as address:
        result = count(address, str(tiny_model), "whole", "cpu")
    assert result.images["warnings"].tolist() == [
        "",
        "1b.png: is the same file as 1.png, byte for byte, and counted too.",
        "",
    ]


def test_a_file_on_a_web_server_is_counted(smears: Path, tiny_model: Path, served: str) -> None:
    name = min((smears / "a").glob("*.png")).name
    remote = count(f"{served}/a/{name}", str(tiny_model), "find", "cpu")
    local = count(smears / "a" / name, str(tiny_model), "find", "cpu")
    assert same_cells(remote.cells, local.cells)


def test_a_folder_on_a_web_server_is_listed(smears: Path, served: str) -> None:
    folder = list_remote(f"{served}/a/")
    assert [file.name for file in folder.images] == sorted(p.name for p in (smears / "a").glob("*.png"))
    assert [file.name for file in folder.annotations] == sorted(p.name for p in (smears / "a").glob("*.xml"))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_former_results_are_left_out_as_those_of_a_local_folder(
    smears: Path, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "smear"
    for place in ("images", "masks", "other/masks", "counted"):
        (folder / place).mkdir(parents=True)
        shutil.copy(smears / "a" / "smear_0001.png", folder / place / "1.png")
    (folder / "counted" / "run.json").write_text('{"fingerprint": {}}')
    (folder / "other" / "run.json").write_text('{"speed": 3}')
    with pytest.warns(DataWarning, match="counted: holds results of this program"):
        local = find_images([folder])
    with KINDS[kind](folder) as address:
        listed = collect_jobs(address)
        assert [job.image for job in listed.jobs] == [p.relative_to(folder).as_posix() for p in local]
        assert [job.image for job in listed.jobs] == ["images/1.png", "other/masks/1.png"]
        assert [text for text in listed.warnings if "holds results" in text]
        results = collect_jobs(f"{address}/counted")
        assert not results.jobs
        assert "counted: holds results of this program" in results.warnings[0]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_on_photographs_that_changed_elsewhere_is_not_resumed(
    smears: Path, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "smear"
    folder.mkdir()
    shutil.copy(smears / "a" / "smear_0001.png", folder / "1.png")
    options = CountOptions(output=tmp_path / "out", resume=True)
    with KINDS[kind](folder) as address:
        first = count(address, str(tiny_model), "whole", "cpu", options=options)
        assert same_cells(count(address, str(tiny_model), "whole", "cpu", options=options).cells, first.cells)
    shutil.copy(smears / "a" / "smear_0002.png", folder / "1.png")
    with KINDS[kind](folder) as address, pytest.raises(BloodcellsError, match="list of images"):
        count(address, str(tiny_model), "whole", "cpu", options=options)


@pytest.mark.parametrize(
    ("address", "words"),
    [("memory://nowhere", "cannot be listed|no images"), ("nosuch://bucket/x", "no address that fsspec knows")],
)
def test_a_wrong_address_is_one_line(tiny_model: Path, address: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        count(address, str(tiny_model), "find", "cpu")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_too_large_is_named(in_memory: str) -> None:
    address = list_remote(in_memory).images[0].address
    with pytest.raises(ImageError, match="more than the limit"):
        read_remote(address, 100)
    with pytest.raises(ImageError, match=r"gone\.jpg: cannot be fetched"):
        read_remote("memory://store/gone.jpg", 100)


@pytest.mark.parametrize("kind", KINDS)
def test_remote_jpegs_are_counted_to_the_same_bytes_as_local_ones(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "photographs"
    write_folder(folder / "fine", 2, 3, SmearSettings(), suffix=".jpg", xml=False)
    coarse = SmearSettings(um_per_pixel=0.3)
    write_folder(folder / "coarse", 1, 4, coarse, suffix=".jpg", xml=False)
    shutil.copy(min((folder / "fine").glob("*.jpg")), folder / "called.png")
    with KINDS[kind](folder) as address:
        count(address, str(tiny_model), "find", "cpu", options=CountOptions(output=tmp_path / "remote"))
    local = count(folder, str(tiny_model), "find", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert len(local.cells) > 8
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")


@pytest.mark.usefixtures("no_waits")
def test_what_a_busy_server_refuses_is_asked_for_again(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    busy = {"/smear_0000.png": 1, "/smear_0001.xml": 3, "/smear_0002.png": 3}
    with serving(smears / "a", busy=busy) as address:
        count(f"{address}/", str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "remote"))
    count(smears / "a", str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")


@pytest.mark.usefixtures("no_waits")
def test_a_server_that_stays_busy_is_asked_four_times_and_one_that_refuses_once(smears: Path) -> None:
    with serving(smears / "a", busy={"/smear_0000.png": 99}, forbidden="0001.png") as address:
        with pytest.raises(ImageError, match=r"^smear_0000\.png: cannot be fetched now \(503"):
            read_remote(f"{address}/smear_0000.png", 10**6)
        assert Quiet.asked["/smear_0000.png"] == 4
        for name in ("smear_0001.png", "gone.png"):
            with pytest.raises(ImageError, match=f"^{name}: cannot be fetched"):
                read_remote(f"{address}/{name}", 10**6)
            assert Quiet.asked[f"/{name}"] == 1
        Quiet.asked.clear()
        heads = read_heads([f"{address}/smear_000{n}.png" for n in range(3)], 8)
        assert isinstance(heads[f"{address}/smear_0002.png"], bytes)
        assert {Quiet.asked[f"/smear_000{n}.png"] for n in (1, 2)} == {1}
        assert Quiet.asked["/smear_0000.png"] == 4


@pytest.mark.usefixtures("no_waits")
def test_what_a_server_would_not_give_is_tried_again_when_the_run_is_resumed(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    options = CountOptions(output=remote, batch_size=2, resume=True)
    with serving(smears / "a", busy={"/smear_0002.png": 9, "/smear_0003.xml": 4}) as address:
        first = count(f"{address}/", str(tiny_model), "xml", "cpu", options=options)
        failed = first.images.loc[first.images["status"] != "ok", "image"]
        assert failed.tolist() == ["smear_0002.png", "smear_0003.png"]
        assert first.run["warnings"][-1] == "Files of 2 images cannot be fetched now; --resume tries them again."
        again = count(f"{address}/", str(tiny_model), "xml", "cpu", options=options)
        assert again.images.loc[again.images["status"] != "ok", "image"].tolist() == ["smear_0002.png"]
        Quiet.asked["/smear_0005.png"] = 0
        last = count(f"{address}/", str(tiny_model), "xml", "cpu", options=options)
        assert (last.images["status"] == "ok").all()
        assert Quiet.asked["/smear_0005.png"] == 0  # what was counted is not fetched again
    assert not (remote / ".partial").exists()
    count(smears / "a", str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert tables(remote) == tables(tmp_path / "local")


@pytest.mark.usefixtures("no_waits")
def test_a_review_is_not_written_over_by_images_that_are_tried_again(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = CountOptions(output=tmp_path, resume=True)
    with serving(smears / "a", busy={"/smear_0002.png": 9}) as address:
        count(f"{address}/", str(tiny_model), "xml", "cpu", options=options)
        cells = pd.read_csv(tmp_path / "cells.csv")
        cells.assign(machine_class=cells["class"], reviewed=1, reviewer="me", time="").to_csv(tmp_path / "cells.csv")
        with pytest.raises(UsageError, match="classes of a reviewer"):
            count(f"{address}/", str(tiny_model), "xml", "cpu", options=options)


@pytest.mark.usefixtures("no_waits")
def test_a_host_that_is_gone_ends_the_run_which_is_resumed(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    lost = fsspec.filesystem("memory")
    opened = type(lost)._open

    def refused(self: object, path: str, *given: object, **more: object) -> object:
        if path.endswith("0003.png"):
            raise ConnectionRefusedError(111, "Connection refused")
        return opened(self, path, *given, **more)

    options = CountOptions(output=tmp_path / "remote", batch_size=1)
    with in_store(smears / "a") as address:
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(type(lost), "_open", refused)
            with pytest.raises(OutageError, match=r"^smear_0003\.png: its host cannot be reached .*--resume"):
                count(address, str(tiny_model), "xml", "cpu", options=options)
        assert len(list((tmp_path / "remote" / ".partial").glob("*.jsonl"))) == 3
        count(address, str(tiny_model), "xml", "cpu", options=replace(options, resume=True))
    count(smears / "a", str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "local"))
    assert tables(tmp_path / "remote") == tables(tmp_path / "local")


class Answered(Exception):
    """What botocore raises."""

    def __init__(self, status: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Answered(503), True),
        (Answered(429), True),
        (Answered(403), False),
        (ConnectionResetError(), True),
        (OSError(errno.EBUSY, "slow down"), True),
        (OSError(errno.EACCES, "no"), False),
        (FileNotFoundError("a.jpg"), False),
    ],
)
def test_which_errors_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) == passes
    wrapped = FileNotFoundError("a.jpg")
    wrapped.__cause__ = error
    assert may_pass(wrapped) == passes


def test_a_query_is_in_no_message(smears: Path, tiny_model: Path) -> None:
    with serving(smears / "a", forbidden="0000.png") as address:
        with pytest.raises(ImageError, match=r"^smear_0000\.png: cannot be fetched \(403") as caught:
            read_remote(f"{address}/smear_0000.png?token=abc", 10**6)
        assert "abc" not in str(caught.value)
        with pytest.raises(ImageError, match=r"^gone\.png: cannot be fetched \(it is not there\)") as caught:
            read_remote(f"{address}/gone.png?token=abc", 10**6)


@pytest.mark.usefixtures("no_waits")
def test_a_host_that_refuses_is_said_to_and_not_that_the_file_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}/a.jpg"
    with pytest.raises(OutageError, match=r"^a\.jpg: its host cannot be reached \(Cannot connect to") as caught:
        read_remote(address, 10**6)
    assert "secret" not in str(caught.value)


def test_passwords_of_an_address_are_in_no_message(tiny_model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        count("nosuch://me:secret@host/smears?token=abc", str(tiny_model), "find", "cpu")
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r"napari-bloodcells\[remote\]"):
        count("s3://bucket/smears", str(tiny_model), "find", "cpu")
