"""Counting from Python: tables, samples, failures, labels, given boxes, and no dependence on how it was computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.core.crops import cut_crops
from napari_bloodcells.core.datasets import scale_of_red_cells
from napari_bloodcells.core.errors import BloodcellsError, BundleError, Cancelled, OutputError, UsageError
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.voc import read_voc

CSVS = ("cells.csv", "images.csv", "differential.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CSVS}


def run(source: Path, model: Path, output: Path, **options: object) -> CountResult:
    return count(source, str(model), "auto", "cpu", options=CountOptions(output=output, **options))


@pytest.fixture(scope="module")
def reference(smears: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    run(smears, tiny_model, folder)
    return folder


def test_every_box_of_the_xml_is_a_row_of_cells(smears: Path, tiny_model: Path) -> None:
    result = count(smears, str(tiny_model), "xml", "cpu")
    truth = pd.concat(
        [pd.read_csv(smears / s / "truth.csv").assign(image=lambda t, s=s: f"{s}/" + t["image"]) for s in "ab"]
    )
    sides = ["image", "x_min", "y_min", "x_max", "y_max"]
    drawn = truth[sides].sort_values(sides).to_numpy()
    counted = result.cells[sides].sort_values(sides).to_numpy()
    assert len(drawn) >= 30
    assert (drawn[:, 0] == counted[:, 0]).all()
    assert np.abs(drawn[:, 1:].astype(float) - counted[:, 1:].astype(float)).max() < 0.51
    assert set(result.cells["box_source"]) == {"xml"}


def test_columns_are_those_that_are_documented(reference: Path) -> None:
    cells = (reference / "cells.csv").read_text().splitlines()[0]
    assert cells.startswith("image,cell,x_min,y_min,x_max,y_max,class,confidence,p_neutrophil,p_eosinophil,p_basophil,")
    images = (reference / "images.csv").read_text().splitlines()[0]
    assert images.startswith("image,status,n_wbc,neutrophil,eosinophil,basophil,lymphocyte,monocyte,unidentified,")
    differential = (reference / "differential.csv").read_text().splitlines()[0]
    assert differential.startswith("sample,class,count,percent,ci_low,ci_high")


def test_each_sub_folder_is_a_sample_and_all_is_their_sum(reference: Path) -> None:
    table = pd.read_csv(reference / "differential.csv").pivot(index="class", columns="sample", values="count")
    assert list(table.columns) == ["a", "all", "b"]
    assert (table["a"] + table["b"] == table["all"]).all()
    cells, images = (pd.read_csv(reference / f"{name}.csv") for name in ("cells", "images"))
    assert table["all"].drop("platelets found").sum() == len(cells)
    assert table.loc["platelets found", "all"] == images["n_platelets"].sum() > 0


def test_the_probabilities_are_the_models_on_the_crop_of_the_box(smears: Path, tiny_model: Path) -> None:
    """The whole way by hand for one image; fails where a box is shifted, a channel exchanged or a class swapped."""
    from napari_bloodcells.core.bundle import load_model

    result = count(smears, str(tiny_model), "xml", "cpu")
    model = load_model(tiny_model, "cpu")
    rows = result.cells[result.cells["image"] == "a/" + sorted(p.name for p in (smears / "a").glob("*.png"))[0]]
    image = read_image(smears / rows["image"].iloc[0])
    red = read_voc(smears / Path(rows["image"].iloc[0]).with_suffix(".xml")).boxes.named("RBC")
    scale = scale_of_red_cells(red, *image.shape[:2])
    boxes = rows[["x_min", "y_min", "x_max", "y_max"]].to_numpy(np.float32)
    columns = [f"p_{name}" for name in model.info.class_names]

    def by_hand(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return model.predict(cut_crops(image, boxes, model.info.crop, scale)).probabilities

    found = rows[columns].to_numpy()
    assert np.abs(by_hand(image, boxes) - found).max() < 1e-4  # four decimals
    assert list(rows["class"]) == [model.info.class_names[i] for i in found.argmax(1)]
    assert np.abs(by_hand(image, boxes + 1) - found).max() > 1e-3
    assert np.abs(by_hand(image[:, :, ::-1], boxes) - found).max() > 1e-3
    assert np.abs(by_hand(image, boxes)[:, ::-1] - found).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 64}, {"workers": 1}, {"format": "csv", "recursive": True}],
    ids=str,
)
def test_results_do_not_depend_on_how_they_are_computed(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    run(smears, tiny_model, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(reference)


def test_results_do_not_depend_on_worker_processes(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.count.FEW", 0)
    result = run(smears, tiny_model, tmp_path / "out", workers=3, batch_size=2)
    assert result.run["workers"] == 3
    assert contents(tmp_path / "out") == contents(reference)


def test_results_do_not_depend_on_the_order_of_the_files(smears: Path, tiny_model: Path) -> None:
    files = sorted(smears.rglob("*.png"))
    forward = count(files, str(tiny_model), "xml", "cpu")
    backward = count(files[::-1], str(tiny_model), "xml", "cpu")
    pd.testing.assert_frame_equal(forward.cells, backward.cells)
    pd.testing.assert_frame_equal(forward.images, backward.images)


def test_a_file_given_twice_is_counted_once(smears: Path, tiny_model: Path) -> None:
    file = min(smears.rglob("*.png"))
    assert len(count([file, file], str(tiny_model), "xml", "cpu").images) == 1


def test_files_that_cannot_be_read_are_named_and_the_rest_is_counted(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(smears / "a", folder)
    good = sorted(folder.glob("*.png"))
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    good[1].with_suffix(".xml").write_text("<annotation><object>")
    result = count(folder, str(tiny_model), "auto", "cpu")
    status = result.images.set_index("image")["status"]
    assert (status == "ok").sum() == len(good) - 1
    for name in ("cut.png", "empty.jpg", "text.jpg"):
        assert status[name].startswith(f"{name}: "), status[name]
    assert good[1].with_suffix(".xml").name in status[good[1].name]
    assert set(result.cells["image"]) <= set(status[status == "ok"].index)
    assert result.images.set_index("image").loc["cut.png"].drop("status").drop(["problems", "warnings"]).isna().all()


def test_arrays_are_counted_like_files(smears: Path, tiny_model: Path) -> None:
    file = min(smears.rglob("*.png"))
    from_file = count(file, str(tiny_model), "classical", "cpu")
    from_array = count({file.name: read_image(file)}, str(tiny_model), "classical", "cpu")
    pd.testing.assert_frame_equal(from_file.cells, from_array.cells)
    assert count([read_image(file)], str(tiny_model), "classical", "cpu").images["image"].tolist() == ["array 1"]


def test_given_boxes_are_classified_in_their_order(smears: Path, tiny_model: Path) -> None:
    file = min(smears.rglob("*.png"))
    boxes = Boxes(np.array([[100, 100, 160, 160], [20, 20, 80, 80]]), source="drawn")
    result = count([read_image(file)], str(tiny_model), boxes, "cpu")
    assert result.cells["x_min"].tolist() == [100, 20]
    assert set(result.cells["box_source"]) == {"drawn"}


def test_a_whole_image_is_one_cell(smears: Path, tiny_model: Path) -> None:
    result = count(smears / "a", str(tiny_model), "whole", "cpu")
    assert result.cells["cell"].tolist() == [1] * 6
    assert set(result.cells["box_source"]) == {"whole"}


def test_an_unsure_cell_is_unidentified_and_apart_from_the_differential(smears: Path, tiny_model: Path) -> None:
    sure = count(smears, str(tiny_model), "xml", "cpu")
    limit = float(sure.cells["confidence"].median())
    result = count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(threshold=limit))
    unsure = sure.cells["confidence"] < limit
    assert (result.cells["class"] == "unidentified").tolist() == unsure.tolist()
    block = result.differentials[result.differentials["sample"] == "all"].set_index("class")
    assert block.loc["unidentified", "count"] == unsure.sum()
    assert np.isnan(block.loc["unidentified", "percent"])
    assert block["percent"].sum() == pytest.approx(100, abs=0.05)


def test_the_label_of_the_data_set_stands_beside_the_class(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    for name, file in zip(("monocyte", "lymphocyte"), sorted((smears / "a").glob("*.png")), strict=False):
        (folder / name).mkdir(parents=True)
        shutil.copy(file, folder / name)
    result = count(folder, str(tiny_model), "whole", "cpu")
    assert [Path(i).parent.name for i in result.cells["image"]] == result.cells["label"].tolist()


def test_nothing_is_written_into_the_input_or_over_a_former_result(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="inside of the images"):
        run(smears, tiny_model, smears / "a" / "out")
    assert not (smears / "a" / "out").exists()
    run(smears / "a", tiny_model, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="not overwritten"):
        run(smears / "b", tiny_model, tmp_path)
    with pytest.raises(OutputError, match="not overwritten"):
        count(smears / "b", str(tiny_model), "xml", "cpu").to_csv(tmp_path)
    assert contents(tmp_path) == before
    run(smears / "b", tiny_model, tmp_path, overwrite=True)
    assert contents(tmp_path) != before


def test_formula_names_are_neutralized_in_every_table(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "=sample").mkdir(parents=True)
    (folder / "plain").mkdir()
    shutil.copy(min(smears.rglob("*.png")), folder / "=sample" / "@x.png")
    shutil.copy(min(smears.rglob("*.png")), folder / "plain" / "y.png")
    count(folder, str(tiny_model), "whole", "cpu").to_csv(tmp_path / "out")
    for name in CSVS:
        text = (tmp_path / "out" / name).read_text()
        assert "'=sample" in text
        assert "\n=" not in text


def test_anonymous_results_hold_no_file_name(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Smith-John"
    shutil.copytree(smears / "a", folder / "ward-7")
    (folder / "ward-7" / "Smith-broken.jpg").write_text("hello")
    run(folder, tiny_model, tmp_path / "out", anonymous=True)
    for file in (tmp_path / "out").iterdir():
        text = file.read_text()
        assert "Smith" not in text, file.name
        assert "ward" not in text, file.name
        assert str(tmp_path) not in text, file.name
    images = pd.read_csv(tmp_path / "out" / "images.csv")
    assert images["image"].tolist() == [f"sample 1/field {i}" for i in range(1, 8)]


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_every_format_holds_the_same_cells(smears: Path, tiny_model: Path, tmp_path: Path, format: str) -> None:
    from napari_bloodcells.core.counting.output import read_table

    result = run(smears / "a", tiny_model, tmp_path, format=format)
    back = read_table(tmp_path / f"cells.{format}")
    assert back["image"].tolist() == result.cells["image"].tolist()
    assert np.allclose(back["confidence"], result.cells["confidence"])


def test_run_json_tells_model_options_and_times(reference: Path, tiny_model: Path) -> None:
    run = json.loads((reference / "run.json").read_text())
    info = json.loads((tiny_model / "model.json").read_text())
    assert run["model"]["sha256"] == info["sha256"]
    assert [entry["name"] for entry in run["model"]["scheme"]["classes"]][:2] == ["neutrophil", "eosinophil"]
    assert run["model"]["confusion"] is None
    assert run["images"] == {"given": 12, "read": 12, "failed": 0}
    assert run["versions"]["napari-bloodcells"]
    assert run["device"] == "cpu"


class StopAfter(Silent):
    """Asks to stop after ``n`` images."""

    def __init__(self, n: int) -> None:
        self.left = n

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.left -= n

    def cancelled(self) -> bool:
        return self.left <= 0


def test_a_cancelled_count_goes_on_where_it_stopped(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path
) -> None:
    options = CountOptions(output=tmp_path / "out", batch_size=1)
    with pytest.raises(Cancelled):
        count(smears, str(tiny_model), "auto", "cpu", StopAfter(5), options)
    kept = sorted((tmp_path / "out" / ".partial").glob("*.jsonl"))
    assert len(kept) == 5
    before = [file.stat().st_mtime_ns for file in kept]
    with pytest.raises(OutputError, match="--resume"):
        run(smears, tiny_model, tmp_path / "out", batch_size=1)
    assert [file.stat().st_mtime_ns for file in kept] == before
    run(smears, tiny_model, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(reference)
    assert not (tmp_path / "out" / ".partial").exists()


def test_a_finished_run_is_not_counted_again_but_another_one_is_refused(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference, tmp_path / "out")
    result = run(smears, tiny_model, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(reference)
    assert len(result.cells) == len(pd.read_csv(reference / "cells.csv"))
    with pytest.raises(OutputError, match="threshold differs"):
        run(smears, tiny_model, tmp_path / "out", resume=True, threshold=0.9)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sources": "nowhere"}, UsageError, "no such file"),
        ({"sources": []}, UsageError, "Nothing to count"),
        ({"boxes": "guess"}, UsageError, "boxes must be"),
        ({"model": "no-such-model"}, BundleError, "no such model"),
        ({"device": "abacus"}, UsageError, "device"),
        ({"options": CountOptions(threshold=1.5)}, UsageError, "threshold"),
        ({"options": CountOptions(um_per_pixel=90)}, UsageError, "um_per_pixel"),
        ({"options": CountOptions(batch_size=-5)}, UsageError, "batch_size must be above zero, not -5"),
        ({"options": CountOptions(workers=-1)}, UsageError, "workers must be 0"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_in_one_line(
    smears: Path, tiny_model: Path, changes: dict[str, object], error: type[BloodcellsError], words: str
) -> None:
    values = {"sources": smears, "model": str(tiny_model), "boxes": "xml", "device": "cpu", "options": None, **changes}
    with pytest.raises(error, match=words) as caught:
        count(values["sources"], values["model"], values["boxes"], values["device"], options=values["options"])
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BloodcellsError, match="no images"):
        count(tmp_path, str(tiny_model), "whole", "cpu")


def test_a_folder_without_images_is_named_plainly(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BloodcellsError, match=r"^empty: no images there"):
        count([str(tmp_path / "empty")], str(tiny_model), "whole", "cpu")
