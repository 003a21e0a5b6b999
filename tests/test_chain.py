"""The whole chain, from files on disk to the differential, against known truth.

On drawn fields every cell is known, on three photographs of BCCD the published box and type.  These tests fail where
a class is swapped, a box is shifted by one pixel, or red and blue are exchanged; ``test_the_truth_would_notice``
shows that they do, by doing each of these to the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_bloodcells import count, load_model
from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.synthetic import SmearSettings, write_folder

SIDES = ["x_min", "y_min", "x_max", "y_max"]
REAL = {
    "BloodImage_00000": ((260, 177, 491, 376), "neutrophil"),
    "BloodImage_00009": ((23, 137, 255, 423), "eosinophil"),
    "BloodImage_00020": ((352, 364, 475, 447), "lymphocyte"),
}
"""Fields of BCCD with one white cell: its published box, and its type in the published table."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten fields, four cells each, all five classes, with VOC XML and ``truth.csv``."""
    folder = tmp_path_factory.mktemp("drawn")
    shares = dict.fromkeys(("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"), 1.0)
    write_folder(folder, 10, 40, SmearSettings(cells=4, differential=shares, um_per_pixel=0.1))
    return folder


def truth_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "truth.csv")


def matched(cells: pd.DataFrame, truth: pd.DataFrame, overlap: float = 0.5) -> pd.DataFrame:
    """Each true cell with the counted one on it: columns ``true``, ``counted`` (None where missed) and ``iou``."""
    rows = []
    for _, cell in truth.iterrows():
        here = cells[cells["image"].map(lambda name: Path(name).name) == cell["image"]]
        shares = iou(cell[SIDES].to_numpy(np.float32)[None], here[SIDES].to_numpy(np.float32))[0]
        hit = int(shares.argmax()) if len(shares) else -1
        found = hit >= 0 and shares[hit] >= overlap
        rows.append((cell["class"], here["class"].iloc[hit] if found else None, shares[hit] if found else 0.0))
    return pd.DataFrame(rows, columns=["true", "counted", "iou"])


def probabilities(result: CountResult) -> np.ndarray:
    return result.cells[[f"p_{name}" for name in result.scheme.names]].to_numpy()


def test_every_drawn_cell_with_a_box_is_counted_once_where_it_is(drawn: Path) -> None:
    truth = truth_of(drawn)
    result = count(drawn, boxes="xml", device="cpu")
    assert len(result.cells) == len(truth)
    pairs = matched(result.cells, truth, 0.9)
    assert pairs["counted"].notna().all()
    scale = result.images["um_per_pixel"]
    assert scale.between(0.09, 0.11).all()


def test_the_drawn_cells_are_found_without_their_boxes(drawn: Path) -> None:
    truth = truth_of(drawn)
    result = count(drawn, boxes="find", device="cpu")
    pairs = matched(result.cells, truth)
    assert pairs["counted"].notna().mean() >= 0.9
    assert len(result.cells) <= 1.1 * len(truth)
    assert pairs.loc[pairs["counted"].notna(), "iou"].median() >= 0.75


def test_the_default_model_names_most_drawn_cells_and_counts_add_up(drawn: Path) -> None:
    result = count(drawn, boxes="xml", device="cpu")
    pairs = matched(result.cells, truth_of(drawn), 0.9)
    named = pairs[pairs["counted"] != "unidentified"]
    assert (named["true"] == named["counted"]).mean() >= 0.6
    block = result.differentials[result.differentials["sample"] == "all"].set_index("class")["count"]
    assert block.drop("platelets found").sum() == len(result.cells)
    for name, n in result.cells["class"].value_counts().items():
        assert block[name] == n == result.images[name].sum()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda image: image[:, :, ::-1], id="red and blue exchanged"),
        pytest.param(lambda image: np.roll(image, (1, 1), (0, 1)), id="every box shifted by one pixel"),
        pytest.param(lambda image: image[::-1], id="turned upside down"),
    ],
)
def test_the_truth_would_notice(drawn: Path, tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """The probabilities of the chain are those of a picture as it is, to four decimals, and of no other."""
    file = sorted(drawn.glob("*.png"))[0]
    for name, image in (("as_is", np.asarray(Image.open(file))), ("spoilt", spoil(np.asarray(Image.open(file))))):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(np.ascontiguousarray(image)).save(folder / file.name)
        (folder / file.with_suffix(".xml").name).write_bytes(file.with_suffix(".xml").read_bytes())
    whole = count(drawn, boxes="xml", device="cpu")
    wanted = probabilities(whole)[(whole.cells["image"] == file.name).to_numpy()]
    as_is, spoilt = (probabilities(count(tmp_path / name, boxes="xml", device="cpu")) for name in ("as_is", "spoilt"))
    assert (as_is == wanted).all()
    assert np.abs(spoilt - wanted).max() > 5e-4


def test_classes_stand_in_the_order_of_the_models_outputs(drawn: Path) -> None:
    model = load_model("default", "cpu")
    result = count(drawn, model=model, boxes="xml")
    names = np.array(model.info.class_names)
    sure = result.cells["class"] != "unidentified"
    assert (names[probabilities(result).argmax(1)] == result.cells["class"])[sure].all()
    assert np.allclose(result.cells["confidence"], probabilities(result).max(1))


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_three_photographs_with_known_answers(shared_data: Path, name: str) -> None:
    box, label = REAL[name]
    image = shared_data / "bccd" / "JPEGImages" / f"{name}.jpg"
    for boxes, overlap in (("xml", 0.999), ("find", 0.6)):
        cells = count([image], boxes=boxes, device="cpu").cells
        shares = iou(np.array([box], np.float32), cells[SIDES].to_numpy(np.float32))[0]
        assert shares.max() >= overlap, (boxes, cells[SIDES])
        assert (shares > 0.3).sum() == 1
        assert cells["class"].iloc[int(shares.argmax())] == label


@pytest.mark.data
def test_all_boxes_of_bccd_are_counted_and_their_types_stand_beside(shared_data: Path, tmp_path: Path) -> None:
    """364 images with XML hold 372 white cells; 96, 280 and 329 have no XML, so their cells are found."""
    result = count(shared_data / "bccd", device="cpu")
    assert len(result.images) == 367
    assert not len(result.failed)
    assert (result.cells["box_source"] == "xml").sum() == 372
    found = {Path(name).stem for name in result.cells.loc[result.cells["box_source"] == "found", "image"]}
    assert found <= {"BloodImage_00096", "BloodImage_00280", "BloodImage_00329"}
    labels = result.cells["label"].value_counts()
    assert labels["neutrophil"] >= 200
    assert any("00338" in text for text in result.images["warnings"].fillna(""))
