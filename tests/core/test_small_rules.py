"""Corners of the small rooms: values that mean nothing, tables without rows, fits of nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.bundle import MAX_METADATA, load_model, read_info
from napari_bloodcells.core.central import _nearest_to_center
from napari_bloodcells.core.classes import load_scheme, parse_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import open_datasets
from napari_bloodcells.core.differential import differentials
from napari_bloodcells.core.errors import BundleError, DataSetError, ImageError, UsageError
from napari_bloodcells.core.images import read_image_bytes
from napari_bloodcells.core.localize.score import average_precision
from napari_bloodcells.core.models.layers import glorot_, norm_layer
from napari_bloodcells.core.pixels import to_rgb8
from napari_bloodcells.core.slides.monolayer import MonolayerRule, overlapping
from napari_bloodcells.core.statistics.compare import cohen_kappa, differences, passing_bablok
from napari_bloodcells.core.statistics.correction import saerens
from napari_bloodcells.core.statistics.metrics import wilson
from napari_bloodcells.core.statistics.reference import parse_ranges
from napari_bloodcells.core.statistics.remarks import remarks
from napari_bloodcells.core.tiff import as_shown, bits_in_use, channel_pages
from napari_bloodcells.core.training.recipe import load_recipe
from napari_bloodcells.core.training.temperature import fit_temperature


def test_boxes_labels_and_scores_fit_together() -> None:
    with pytest.raises(ValueError, match="2 boxes, 1 labels and 2 scores do not fit together"):
        Boxes(np.zeros((2, 4)), ("WBC",))


def test_where_nothing_is_stained_nothing_is_in_the_middle() -> None:
    assert _nearest_to_center(np.zeros((9, 9), np.bool_)) is None


@pytest.mark.parametrize("name", [5, "", "  ", None])
def test_a_scheme_has_a_name(name: object) -> None:
    with pytest.raises(UsageError, match='mine: "name" must be a text'):
        parse_scheme({"name": name, "classes": [{"name": "blast"}]}, "mine")


@pytest.mark.parametrize("change", [{"scale": "cm"}, {"size": 0}])
def test_a_crop_that_cannot_be_cut_is_no_crop(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scale must be um, box or image|above zero"):
        CropSpec(**change)


def test_a_share_of_a_class_that_is_none_is_no_share() -> None:
    cells = pd.DataFrame({"image": ["a"], "cell": [1], "class": ["neutrophil"]})
    block = differentials(cells, load_scheme("wbc5"))[0]
    assert block.share("neutrophil").count == 1
    with pytest.raises(KeyError, match="blast"):
        block.share("blast")


def test_figures_of_nothing() -> None:
    assert cohen_kappa(np.zeros((2, 2))).n == 0
    assert math.isnan(cohen_kappa(np.zeros((2, 2))).value)
    assert wilson(0.5, 0) == (0.0, 1.0)
    assert average_precision([]) == 0.0
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == 1.0
    assert overlapping(np.zeros((1, 4))) == 0.0
    with pytest.raises(DataSetError, match="no data were given"):
        open_datasets([])


def test_a_line_through_points_above_each_other_has_no_slope() -> None:
    line = passing_bablok("x", [1, 1, 1, 1], [1, 2, 3, 4])
    assert math.isnan(line.slope)
    assert math.isnan(line.intercept)
    assert line.n == 4


def test_smears_that_only_one_counted_are_not_compared() -> None:
    rows = [
        {"image": "a/1.png", "cell": 1, "class": "neutrophil"},
        {"image": "b/1.png", "cell": 1, "class": "monocyte"},
    ]
    both, one = pd.DataFrame(rows), pd.DataFrame(rows[:1])
    assert {d.sample for d in differences(both, one, load_scheme("wbc5"))} == {"a", "all"}


def test_proportions_are_given_back_when_the_steps_are_used_up() -> None:
    shares = [[0.9, 0.1]] * 3 + [[0.1, 0.9]]
    one, many = saerens(shares, [0.5, 0.5], steps=1), saerens(shares, [0.5, 0.5])
    assert one.tolist() == pytest.approx([0.7, 0.3])
    assert many[0] > one[0]


def test_ranges_are_a_list() -> None:
    with pytest.raises(UsageError, match='mine: reference ranges need a list "ranges"'):
        parse_ranges({"ranges": {}}, "mine")


def test_images_without_notes_on_quality_have_none() -> None:
    cells = pd.DataFrame({"image": ["a"], "cell": [1], "class": ["neutrophil"]})
    images = pd.DataFrame({"image": ["a", "b"], "status": ["ok", "b: is empty (0 bytes)."]})
    block = differentials(cells, load_scheme("wbc5"), images)[0]
    said = remarks(block, cells, images)
    assert "1 of 2 images could not be read and is not in the count." in said
    assert not any("quality" in text for text in said)


def test_a_field_in_which_nothing_finds_red_cells_is_judged_by_its_stain() -> None:
    rule = MonolayerRule()
    assert rule.holds(rule.most_stained, None, 1e4)
    assert not rule.holds(rule.most_stained + 0.01, None, 1e4)


def test_layers_without_a_norm_or_a_bias() -> None:
    assert isinstance(norm_layer("none", 8), torch.nn.Identity)
    torch.manual_seed(0)
    layer = torch.nn.Linear(30, 30, bias=False)
    glorot_(layer)
    assert float(layer.weight.detach().abs().max()) <= math.sqrt(6 / 60)
    assert layer.bias is None


def test_arrays_with_channels_first_or_empty_axes() -> None:
    picture = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    assert np.array_equal(to_rgb8(picture[None, None], "a"), picture)
    assert np.array_equal(to_rgb8(np.moveaxis(np.tile(picture, (3, 2, 1)), -1, 0), "a"), np.tile(picture, (3, 2, 1)))
    with pytest.raises(ImageError, match="has shape 2x6x10x3"):
        to_rgb8(np.zeros((2, 6, 10, 3), np.uint8), "a")


def test_bytes_that_are_none_are_no_image() -> None:
    with pytest.raises(ImageError, match=r"^a\.jpg: is empty \(0 bytes\)"):
        read_image_bytes(b"", "a.jpg")


def page(**values: Any) -> Any:
    usual = {"planarconfig": 1, "samplesperpixel": 3, "colormap": None, "bitspersample": 8, "extrasamples": ()}
    usual["compression"] = 1  # none
    kind = SimpleNamespace(name=values.pop("photometric", "RGB"))
    return SimpleNamespace(**{**usual, "photometric": kind, "dtype": np.dtype(np.uint8), "tags": {}, **values})


def test_more_channels_than_a_photograph_has_are_refused() -> None:
    with pytest.raises(ImageError, match="a: has 5 channels; a photograph has 1 or 3"):
        as_shown(np.zeros((1, 1, 4, 4, 5), np.uint8), page(extrasamples=(2,)), "a")


@pytest.mark.parametrize("extra", [(0,), (2, 2)])
def test_channels_that_nobody_calls_transparency_are_left_out(extra: tuple[int, ...]) -> None:
    array = np.arange(2 * 2 * (3 + len(extra)), dtype=np.uint8).reshape(1, 2, 2, -1)
    assert np.array_equal(as_shown(array, page(extrasamples=extra), "a"), array[0, ..., :3])


def test_premultiplied_colors_become_straight() -> None:
    pixels = np.array([[[50, 100, 0, 128], [10, 20, 30, 255], [0, 0, 0, 0], [200, 0, 0, 100]]], np.uint8)
    shown = as_shown(pixels[None], page(extrasamples=(1,)), "a")
    assert shown.tolist() == [[[99, 199, 0, 128], [10, 20, 30, 255], [0, 0, 0, 0], [255, 0, 0, 100]]]


@pytest.mark.parametrize(("bits", "kind", "found"), [(12, np.uint16, 12), (4, np.uint8, 4), (16, np.uint16, None)])
def test_bits_in_use_are_what_the_file_says(bits: int, kind: type, found: int | None) -> None:
    assert bits_in_use(page(bitspersample=bits, dtype=np.dtype(kind))) == found


def test_stacks_with_more_than_three_channels_are_no_color_picture() -> None:
    series = [SimpleNamespace(axes="ZCYX", shape=(2, 3, 4, 4), pages=[])]
    tif = SimpleNamespace(pages=[0] * 6, is_ome=True, is_imagej=False, series=series)
    assert channel_pages(tif) == []
    tif.series = [SimpleNamespace(axes="CYX", shape=(4, 4, 4), pages=[])]
    assert channel_pages(tif) == []


def test_a_section_of_a_recipe_is_a_section(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('arch = "cnn3"\noptimizer = 3\n')
    with pytest.raises(UsageError, match="r: optimizer is a section with settings of its own"):
        load_recipe(tmp_path / "r.toml")


def test_a_bundle_is_found_by_its_metadata_too(tiny_model: Path, tmp_path: Path) -> None:
    assert read_info(tiny_model / "model.json") == read_info(tiny_model)
    assert read_info(tiny_model / "model.safetensors") == read_info(tiny_model)
    with pytest.raises(BundleError, match=r"holds no model\.json and model\.safetensors"):
        load_model(tmp_path, "cpu")
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(BundleError, match=r"notes\.txt: no model bundle; name its folder or its \.safetensors file"):
        load_model(tmp_path / "notes.txt", "cpu")


def test_metadata_in_a_head_have_a_limit(tmp_path: Path) -> None:
    from benchmarks.reliability.fuzz import as_bundle

    header = {
        "__metadata__": {"bloodcells": " " * (MAX_METADATA + 1)},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    (tmp_path / "m.safetensors").write_bytes(as_bundle(json.dumps(header).encode()))
    with pytest.raises(BundleError, match=r"m\.safetensors: its metadata are larger than 4 MB"):
        load_model(tmp_path / "m.safetensors", "cpu")


@pytest.mark.parametrize("crop", [{"side_um": 2000.0}, {"context": 30.0}])
def test_a_crop_beyond_all_sense_is_refused(tiny_model: Path, crop: dict[str, float], tmp_path: Path) -> None:
    text = json.loads((tiny_model / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(text | {"crop": text["crop"] | crop}))
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    with pytest.raises(BundleError, match="side or context of the crop is out of range"):
        read_info(tmp_path)
