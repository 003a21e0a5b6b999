"""The drawn smears: their truth must be true, for every other test leans on it."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_bloodcells.core.errors import OutputError, UsageError
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.voc import read_voc
from napari_bloodcells.synthetic import (
    CELL_TYPES,
    NORMAL_ADULT,
    Ground,
    Optics,
    SmearSettings,
    Stain,
    draw_smear,
    write_folder,
)

WBC5 = CELL_TYPES[:5]
CLEAN = SmearSettings(rbc_coverage=0.0, platelets=0, stain=Stain(shift=0, tint=0), optics=Optics(0.0, 0.0, 0.0))


def density(image: NDArray[np.uint8], settings: SmearSettings = CLEAN) -> NDArray[np.float64]:
    """Optical density (H, W, 3) against the ground that was asked for."""
    return -np.log10(np.maximum(image, 1) / np.asarray(settings.stain.ground))


def lone_cell(name: str, seed: int) -> tuple[NDArray[np.float64], float]:
    """Optical density inside the outline of one cell alone on clean ground, (N, 3), and its diameter in um."""
    from dataclasses import replace

    smear = draw_smear(seed, replace(CLEAN, width=300, height=300, cells=(name,)))
    x0, y0, x1, y1 = smear.boxes.xyxy[0].astype(int)
    inside = density(smear.image)[y0:y1, x0:x1].reshape(-1, 3)
    return inside[inside[:, 1] > 0.05], (x1 - x0 + y1 - y0) / 2 * 0.1


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others() -> None:
    first, again, other = draw_smear(3), draw_smear(3), draw_smear(4)
    assert (first.image == again.image).all()
    assert (first.boxes.xyxy == again.boxes.xyxy).all()
    assert (first.image != other.image).any()


@pytest.mark.parametrize(("width", "height", "um"), [(640, 480, 0.1), (333, 251, 0.16), (900, 700, 0.06)])
def test_the_image_has_the_size_that_was_asked_for(width: int, height: int, um: float) -> None:
    smear = draw_smear(0, SmearSettings(width=width, height=height, um_per_pixel=um, cells=2))
    assert smear.image.shape == (height, width, 3)
    assert smear.image.dtype == np.uint8
    assert smear.um_per_pixel == um
    for boxes in (smear.boxes, smear.rbc, smear.platelets):
        assert (boxes.xyxy[:, :2] >= 0).all()
        assert (boxes.xyxy[:, 2:] <= [width, height]).all()
        assert (boxes.xyxy[:, 2:] > boxes.xyxy[:, :2]).all()


def test_exactly_the_cells_that_were_asked_for_are_drawn() -> None:
    assert draw_smear(1, SmearSettings(cells=CELL_TYPES, width=900, height=700)).boxes.labels == CELL_TYPES
    assert len(draw_smear(1, SmearSettings(cells=0)).boxes) == 0
    assert len(draw_smear(1, SmearSettings(cells=9)).boxes) == 9


def test_cells_drawn_by_share_follow_the_differential() -> None:
    tiny = SmearSettings(width=60, height=60, um_per_pixel=1.0, cells=50, rbc_coverage=0, platelets=0)
    names = [name for seed in range(8) for name in draw_smear(seed, tiny).boxes.labels]
    share = names.count("neutrophil") / len(names)
    spread = np.sqrt(0.6 * 0.4 / len(names))
    assert abs(share - NORMAL_ADULT["neutrophil"]) < 4 * spread
    assert set(names) <= set(NORMAL_ADULT)


@pytest.mark.parametrize("name", WBC5)
def test_a_box_fits_its_cell_to_the_pixel(name: str) -> None:
    from dataclasses import replace

    smear = draw_smear(11, replace(CLEAN, width=300, height=300, cells=(name,)))
    dark = density(smear.image)[..., 1] > 0.05
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(smear.boxes.xyxy[0], seen, atol=1.01)


def test_red_cells_are_seven_and_a_half_micrometers_across_at_any_scale() -> None:
    for um in (0.06, 0.1, 0.2):
        smear = draw_smear(2, SmearSettings(um_per_pixel=um, cells=0, platelets=0, width=800, height=800))
        whole = smear.rbc.xyxy[(smear.rbc.xyxy[:, :2] > 0).all(1) & (smear.rbc.xyxy[:, 2:] < 800).all(1)]
        across = (whole[:, 2:] - whole[:, :2]).mean() * um
        assert 7.0 < across < 8.0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("neutrophil", 11, 15),
        ("lymphocyte", 8, 12.5),
        ("monocyte", 13, 19),
        ("eosinophil", 11.5, 16),
        ("basophil", 10, 14),
        ("erythroblast", 7, 11.5),
    ],
)
def test_each_type_has_its_size(name: str, low: float, high: float) -> None:
    across = [lone_cell(name, seed)[1] for seed in range(6)]
    assert low < min(across)
    assert max(across) < high


def test_an_eosinophil_is_orange_red_and_a_basophil_blue_black() -> None:
    """Orange granules take blue light but little red; swapping red and blue would turn this round."""
    redness = {}
    for name in WBC5:
        cells = np.concatenate([lone_cell(name, seed)[0] for seed in range(4)])
        cytoplasm = cells[cells[:, 1] < 0.5]
        redness[name] = float((cytoplasm[:, 2] - cytoplasm[:, 0]).mean())
    assert redness["eosinophil"] > 0.03
    assert all(redness[name] < 0 for name in WBC5 if name != "eosinophil")
    dark = {name: float(np.mean([(lone_cell(name, s)[0][:, 1] > 0.5).mean() for s in range(4)])) for name in WBC5}
    assert dark["lymphocyte"] > 0.55 > dark["neutrophil"]
    assert dark["basophil"] > dark["eosinophil"]
    assert dark["basophil"] > dark["monocyte"]


def test_cells_at_the_border_are_cut_and_stay_more_than_half_inside() -> None:
    for seed in range(6):
        smear = draw_smear(seed, SmearSettings(cells=2, border=1.0))
        boxes = smear.boxes.xyxy
        touching = (boxes[:, :2] <= 0).any(1) | (boxes[:, 2] >= 640) | (boxes[:, 3] >= 480)
        assert touching.all()
        assert (boxes[:, 2:] - boxes[:, :2]).min() > 0.5 * 80


def test_touching_cells_touch_and_others_do_not() -> None:
    apart = SmearSettings(cells=3, width=900, height=900)
    for seed in range(5):
        assert _least_gap(draw_smear(seed, apart).boxes.xyxy) > 0
        pair = SmearSettings(cells=2, touching=1.0, width=900, height=900)
        boxes = draw_smear(seed, pair).boxes.xyxy
        centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(1)
        assert np.linalg.norm(centers[0] - centers[1]) < 1.15 * sizes.mean()


def _least_gap(boxes: NDArray[np.float32]) -> float:
    """Least distance (pixels) between the circles in the boxes of one field; above 0 where none touch."""
    centers, radii = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(1) / 2
    gap = np.linalg.norm(centers[:, None] - centers[None], axis=-1) - 0.9 * (radii[:, None] + radii[None])
    return float(gap[~np.eye(len(boxes), dtype=bool)].min())


@pytest.mark.parametrize(
    "settings",
    [
        SmearSettings(ground=Ground(dirt=6)),
        SmearSettings(ground=Ground(platelet_clumps=2)),
        SmearSettings(ground=Ground(writing="A17")),
        SmearSettings(optics=Optics(eyepiece=0.7)),
        SmearSettings(optics=Optics(jpeg=40)),
        SmearSettings(optics=Optics(uneven_light=0.5)),
        SmearSettings(stain=Stain(strength=1.5)),
    ],
    ids=["dirt", "clumps", "writing", "eyepiece", "jpeg", "light", "stain"],
)
def test_each_option_changes_the_picture_but_not_what_is_true(settings: SmearSettings) -> None:
    plain, other = draw_smear(9), draw_smear(9, settings)
    assert (plain.image != other.image).any()
    assert len(other.boxes) == 3
    if settings.optics.eyepiece is None:
        assert plain.boxes.labels == other.boxes.labels
        assert (plain.boxes.xyxy == other.boxes.xyxy).all()


def test_outside_of_the_eyepiece_it_is_black_and_no_cell_is_true_there() -> None:
    smear = draw_smear(5, SmearSettings(cells=5, optics=Optics(eyepiece=0.75)))
    assert smear.image[:20, :20].max() < 12
    middle = (smear.boxes.xyxy[:, :2] + smear.boxes.xyxy[:, 2:]) / 2
    assert (np.hypot(middle[:, 0] - 320, middle[:, 1] - 240) < 0.75 * 400).all()


def test_a_darker_stain_multiplies_the_optical_density() -> None:
    from dataclasses import replace

    pale = draw_smear(8, replace(CLEAN, stain=Stain(0.5, 0, tint=0)))
    full = draw_smear(8, CLEAN)
    x0, y0, x1, y1 = full.boxes.xyxy[0].astype(int)
    a, b = (density(s.image)[y0:y1, x0:x1, 0] for s in (pale, full))
    clear = b > 0.1
    assert np.median(b[clear] / a[clear]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"cells": ("neutrofil",)}, "neutrofil"),
        ({"differential": {"blast": 1.0}}, "blast"),
        ({"width": 0}, "0 x 480"),
        ({"um_per_pixel": 5.0}, "5.0 um"),
        ({"differential": {}}, "empty"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused_by_name(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SmearSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_a_folder_holds_images_xml_and_truth_that_agree(tmp_path: Path, suffix: str) -> None:
    settings = SmearSettings(cells=2, width=320, height=240)
    images = write_folder(tmp_path / "smears", n=2, seed=20, settings=settings, suffix=suffix)
    with (tmp_path / "smears" / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for i, path in enumerate(images):
        smear = draw_smear(20 + i, settings)
        got = read_image(path).astype(int)
        assert got.shape == smear.image.shape
        assert np.abs(got - smear.image).mean() < (3 if suffix == ".jpg" else 1e-9)
        annotation = read_voc(path.with_suffix(".xml"))
        assert annotation.problems == ()
        assert (annotation.width, annotation.height) == (320, 240)
        for label, box in zip(smear.boxes.labels, smear.boxes.xyxy, strict=True):
            assert box.tolist() in annotation.boxes.named(label).xyxy.tolist()
        assert len(annotation.boxes.named("RBC")) == len(smear.rbc)
        assert len(annotation.boxes.named("Platelets")) == len(smear.platelets)
        mine = [row for row in rows if row["image"] == path.name]
        assert [row["class"] for row in mine] == list(smear.boxes.labels)
        assert [float(mine[0][key]) for key in ("x_min", "y_min", "x_max", "y_max")] == smear.boxes.xyxy[0].tolist()


def test_a_folder_never_overwrites(tmp_path: Path) -> None:
    write_folder(tmp_path, n=1, xml=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["smear_0000.png", "truth.csv"]
    with pytest.raises(OutputError, match=r"truth\.csv: exists already"):
        write_folder(tmp_path, n=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.gif"):
        write_folder(tmp_path / "new", n=1, suffix=".gif")
    assert not (tmp_path / "new").exists()


def test_a_field_is_drawn_fast_enough_for_load_tests() -> None:
    draw_smear(0)
    seconds = []
    for seed in range(5):
        start = time.process_time()
        draw_smear(seed)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
