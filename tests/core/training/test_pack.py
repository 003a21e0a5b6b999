"""Packs: the same crops as counting cuts, in order, from the cache the second time, new when anything changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec, cut_crops
from napari_bloodcells.core.datasets import DataSet, Sample
from napari_bloodcells.core.errors import Cancelled, ImageError
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training import pack
from napari_bloodcells.core.training.pack import pack_crops
from napari_bloodcells.synthetic import SmearSettings, draw_smear

SPEC = CropSpec(size=24)
SCHEME = load_scheme("wbc5")


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    samples = []
    for i in range(3):
        array = np.full((100, 120, 3), 240, np.uint8)
        array[30:60, 40:70] = (90 + 10 * i, 50, 140)
        path = tmp_path / f"field_{i}.png"
        Image.fromarray(array).save(path)
        samples.append(Sample(path, (40, 30, 70, 60), "neutrophil", f"a:{i}", "a", um_per_pixel=0.4))
        samples.append(Sample(path, (10, 10, 40, 50), "blast", f"a:{i}", "a", split="TEST"))
    return DataSet("a", tmp_path, tuple(samples), "voc")


def cut(sample: Sample) -> torch.Tensor:
    image = np.array(Image.open(sample.image))
    return cut_crops(image, np.array([sample.box]), SPEC, sample.um_per_pixel)[0]


def test_the_crops_are_those_that_counting_cuts_in_the_order_of_the_samples(dataset, tmp_path):
    found = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    assert torch.equal(found.crops, torch.stack([cut(s) for s in dataset.samples]))
    assert found.groups == ("a:0", "a:0", "a:1", "a:1", "a:2", "a:2")
    assert found.splits[:2] == ("", "TEST")


def test_a_label_outside_of_the_scheme_is_minus_one(dataset, tmp_path):
    labels = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache").labels.tolist()
    assert labels == [SCHEME.index("neutrophil"), -1] * 3


def test_the_extent_is_the_box_in_pixels_of_the_crop(dataset, tmp_path):
    extent = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache").extent.tolist()
    assert extent[0] == pytest.approx(30 * 0.4 / 20 * 24)  # 12 um of 20
    assert extent[1] == pytest.approx(14 / 20 * 24)  # no scale: the box is 14 um


def test_the_second_time_no_photograph_is_read(dataset, tmp_path, monkeypatch):
    first = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    monkeypatch.setattr(pack, "read_image", lambda path: pytest.fail(f"{path} was read again"))
    second = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    assert torch.equal(first.crops, second.crops)
    assert torch.equal(first.extent, second.extent)


def test_a_changed_photograph_is_cut_again(dataset, tmp_path):
    pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    Image.fromarray(np.full((100, 120, 3), 77, np.uint8)).save(dataset.samples[0].image, compress_level=0)
    assert torch.equal(pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache").crops[0], cut(dataset.samples[0]))


HARM = {
    "cut off": lambda file: os.truncate(file, 200),
    "empty": lambda file: os.truncate(file, 0),
    "deleted": lambda file: file.unlink(),
    "no array": lambda file: file.write_bytes(b"thesis"),
    "of other cells": lambda file: np.save(file, np.load(file)[:2]),
    "of another type": lambda file: np.save(file, np.load(file).astype(np.float64)),
}


@pytest.mark.parametrize("name", ["crops.npy", "extent.npy"])
@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_damaged_pack_is_cut_again_and_kept(dataset, tmp_path, harm, name, monkeypatch):
    first = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    (file,) = tmp_path.glob(f"cache/packs/*/{name}")
    harm(file)
    again = pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
    assert torch.equal(again.crops, first.crops)
    assert torch.equal(again.extent, first.extent)
    monkeypatch.setattr(pack, "read_image", lambda path: pytest.fail(f"{path} was read again"))
    pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_done_without(dataset, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")) == 6


def test_a_stopped_packing_leaves_nothing_behind(dataset, tmp_path):
    class Stop(Silent):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        pack_crops(dataset, SPEC, SCHEME, Stop(), cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/packs/*"))


@pytest.mark.parametrize(
    ("source", "width", "height", "um"),
    [
        ("pbc", 224, 224, 37.3),
        ("pbc", 360, 363, 37.3),
        ("pbc", 366, 369, 37.3),
        ("jtsc", 88, 120, 22.2),
        ("chula", 1440, 900, 145.5),
        ("pbc", 640, 480, None),
        ("bccd", 1280, 960, None),
        ("mine", 224, 224, None),
    ],
)
def test_a_known_source_has_its_scale_where_its_images_have_its_size(source, width, height, um):
    sample = Sample(Path("x.jpg"), None, "neutrophil", f"{source}:1", source)
    scale = pack.sample_scale(sample, np.zeros((height, width, 3), np.uint8))
    assert scale == (None if um is None else pytest.approx(um / width))


def test_a_field_is_measured_and_a_picture_of_one_cell_is_not(tmp_path):
    """0.2 um a pixel, and no red cell is boxed; the same picture taken as one cell keeps its 14 um."""
    smear = draw_smear(3, SmearSettings(width=320, height=240, um_per_pixel=0.2, cells=2))
    Image.fromarray(smear.image).save(tmp_path / "f.png")
    boxes = [tuple(map(float, box)) for box in smear.boxes.xyxy]
    samples = [Sample(tmp_path / "f.png", box, "neutrophil", "g", "mine") for box in [*boxes, (0.0, 0.0, 320.0, 240.0)]]
    data = DataSet("mine", tmp_path, tuple(samples), "voc")
    extent = pack_crops(data, SPEC, SCHEME, cache=tmp_path / "cache").extent.tolist()
    longest = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
    assert extent[:2] == pytest.approx([side * 0.2 / 20 * 24 for side in longest], rel=0.12)
    assert extent[2] == pytest.approx(14 / 20 * 24)


def test_a_photograph_that_is_gone_is_named(dataset, tmp_path):
    dataset.samples[2].image.unlink()
    with pytest.raises(ImageError, match=r"field_1.png: cannot be read .*put the photograph back"):
        pack_crops(dataset, SPEC, SCHEME, cache=tmp_path / "cache")
