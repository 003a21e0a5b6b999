"""Images at an address: fsspec's memory and local file systems, and a web server on this machine."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from napari_bloodcells.core.count import count
from napari_bloodcells.core.errors import ImageError, UsageError
from napari_bloodcells.core.remote import list_images, read_remote


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(smears: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(smears))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def in_memory(smears: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for file in smears.rglob("*.png"):
        system.pipe(f"/smears/{file.relative_to(smears).as_posix()}", file.read_bytes())
    yield "memory://smears"
    system.rm("/smears", recursive=True)


def same_cells(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    return len(a) > 0 and a.reset_index(drop=True).equals(b.reset_index(drop=True))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_remote_folder_is_counted_as_a_local_one(smears: Path, tiny_model: Path, in_memory: str, kind: str) -> None:
    address = in_memory if kind == "memory" else smears.as_uri()
    local = count(smears, str(tiny_model), "find", "cpu")
    remote = count(address, str(tiny_model), "find", "cpu")
    assert remote.images["image"].tolist() == local.images["image"].tolist()
    assert same_cells(remote.cells, local.cells)


def test_a_file_on_a_web_server_is_counted(smears: Path, tiny_model: Path, served: str) -> None:
    name = min((smears / "a").glob("*.png")).name
    remote = count(f"{served}/a/{name}", str(tiny_model), "find", "cpu")
    local = count(smears / "a" / name, str(tiny_model), "find", "cpu")
    assert same_cells(remote.cells, local.cells)


def test_a_folder_on_a_web_server_is_listed(smears: Path, served: str) -> None:
    assert sorted(list_images(f"{served}/a/")) == sorted(p.name for p in (smears / "a").glob("*.png"))


@pytest.mark.parametrize(
    ("address", "words"),
    [("memory://nowhere", "cannot be listed|no images"), ("nosuch://bucket/x", "no address that fsspec knows")],
)
def test_a_wrong_address_is_one_line(tiny_model: Path, address: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        count(address, str(tiny_model), "find", "cpu")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_too_large_is_named(in_memory: str) -> None:
    address = next(iter(list_images(in_memory).values()))
    with pytest.raises(ImageError, match="more than the limit"):
        read_remote(address, 100)
    with pytest.raises(ImageError, match=r"gone\.jpg: cannot be fetched"):
        read_remote("memory://smears/gone.jpg", 100)


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
