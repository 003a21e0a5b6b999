"""Fixtures shared by all tests: the real data where it is at hand, and no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("BLOODCELLS_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
"""The suite runs on the CPU, also where there is a GPU, as its bits are promised there; ``tests/gpu`` asks for one."""

ROOT = Path(__file__).resolve().parents[1]


def find_shared_data() -> Path | None:
    """The folder of real data: ``$BLOODCELLS_DATA``, or ``../shared/data`` beside the checkout."""
    named = os.environ.get("BLOODCELLS_DATA")
    for folder in ([Path(named)] if named else []) + [ROOT.parent / "shared" / "data"]:
        if (folder / "bccd").is_dir():
            return folder
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    folder = find_shared_data()
    if folder is None:
        pytest.skip("the real data are not here: put them in ../shared/data or name their folder in BLOODCELLS_DATA")
    return folder


class NetworkAskedError(BaseException):
    """The network was asked for; no ``Exception``, so that no ``except Exception`` of the code under test hides it."""


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """The whole suite runs with the network refused: only loopback and Unix sockets connect.

    ``docs/reliability.md`` promises that nothing is fetched unless ``fetch`` was asked for; a test that reaches out
    fails here with the address that it wanted.
    """
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def refuse_far(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if host not in ("localhost", "::1", "0.0.0.0") and not host.startswith("127."):
                raise NetworkAskedError(f"the network was asked for {host}: nothing may be fetched unasked")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        refuse_far(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        refuse_far(self, address)
        return connect_ex(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small network with random weights (seed 0), five classes: quick, and right only by chance."""
    import torch

    from napari_bloodcells.core.bundle import save_bundle
    from napari_bloodcells.core.classes import load_scheme
    from napari_bloodcells.core.crops import CropSpec
    from napari_bloodcells.core.models import build
    from napari_bloodcells.core.schema import BundleInfo, scheme_info

    torch.manual_seed(0)
    scheme = load_scheme("wbc5")
    module = build("cnn3", len(scheme))
    info = BundleInfo(name="tiny", arch="cnn3", scheme=scheme_info(scheme), crop=CropSpec(), input_size=(50, 50))
    with torch.no_grad():
        module.head.weight *= 6  # probabilities that differ from cell to cell
    return save_bundle(tmp_path_factory.mktemp("models") / "tiny", module, info)


@pytest.fixture(scope="session")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn fields of three cells each with VOC XML, in two samples ``a`` and ``b``."""
    from napari_bloodcells.synthetic import SmearSettings, write_folder

    folder = tmp_path_factory.mktemp("smears")
    settings = SmearSettings(width=320, height=240, um_per_pixel=0.2)
    for seed, sample in ((0, "a"), (100, "b")):
        write_folder(folder / sample, 6, seed, settings)
    return folder
