"""Batch and Train, driven by their buttons."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_bloodcells.core.bundle import read_info
from napari_bloodcells.core.errors import Cancelled, DataSetError
from napari_bloodcells.napari import catalog
from napari_bloodcells.napari.batch_table import IMAGE_ROLE
from napari_bloodcells.napari.batch_widget import BatchWidget, free_output
from napari_bloodcells.napari.journal import Journal
from napari_bloodcells.napari.reviewed_cells import folder_data, open_reviews, reviewed_samples, reviews_data
from napari_bloodcells.napari.train_widget import ADAPT, CALIBRATE, TrainWidget, recipe_names
from napari_bloodcells.napari.worker import TaskWidget, ThreadProgress

pytestmark = pytest.mark.gui


@pytest.fixture
def batch(make_napari_viewer: Any, tiny_model: Path) -> tuple[Any, BatchWidget]:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 900)
    _, widget = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Batch")
    widget.model.refresh(str(tiny_model))
    widget.boxes.setCurrentIndex(widget.boxes.findData("auto"))
    return viewer, widget


def test_a_folder_is_counted_sample_by_sample_and_an_image_opened_with_its_cells(
    batch: tuple[Any, BatchWidget], smears: Path, wait_for: Any, qtbot: Any, shoot: Any, tmp_path: Path
) -> None:
    viewer, widget = batch
    widget.folder.choose(smears)
    assert widget.output.path == smears.with_name(f"{smears.name}-differential")
    widget.output.choose(tmp_path / "out")
    widget.report.setChecked(True)
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"cells.csv", "images.csv", "run.json", "index.html"} <= written, widget.run_bar.said.text()
    tree = widget.table
    assert [tree.topLevelItem(k).text(0) for k in range(3)] == ["a", "b", "all"]
    sample = tree.topLevelItem(0)
    assert sample.childCount() == 6
    cells = widget.result.cells
    assert int(sample.text(1)) + int(sample.text(tree.columnCount() - 1)) == cells["image"].str.startswith("a/").sum()
    name = sample.child(2).data(0, IMAGE_ROLE)
    tree.itemActivated.emit(sample.child(2), 0)
    assert [layer.name for layer in viewer.layers] == [name, f"{name} cells"]
    assert len(viewer.layers[1].data) == (cells["image"] == name).sum()
    assert sample.child(2).text(0) == name.split("/")[-1]
    shoot(viewer, "batch")
    assert free_output(smears).name == f"{smears.name}-differential"
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running)
    assert widget.output.path == smears.with_name(f"{smears.name}-differential"), "what is there is not written over"
    assert (widget.output.path / "cells.csv").read_bytes() == (tmp_path / "out" / "cells.csv").read_bytes()


def test_a_stopped_batch_goes_on_where_it_stopped(
    batch: tuple[Any, BatchWidget], smears: Path, wait_for: Any, qtbot: Any, tmp_path: Path
) -> None:
    _, widget = batch
    widget.folder.choose(smears)
    widget.output.choose(tmp_path / "out")
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(widget.run_bar.cancel, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running)
    assert widget.result is None
    assert not (tmp_path / "out" / "cells.csv").exists()
    assert widget.go_on_button.isEnabled()
    qtbot.mouseClick(widget.go_on_button, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running)
    assert len(widget.result.images) == 12


def test_a_run_that_a_crash_stopped_is_offered_to_go_on(
    batch: tuple[Any, BatchWidget], smears: Path, tmp_path: Path, qtbot: Any
) -> None:
    _, widget = batch
    widget.folder.choose(smears)
    assert not widget.go_on_button.isEnabled()
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    (tmp_path / "out" / ".partial" / "plan.json").write_text("{}")
    widget.output.choose(tmp_path / "out")
    assert widget.go_on_button.isEnabled()
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    assert not widget.task.is_running
    assert "press Go on" in widget.run_bar.said.text()
    widget.output.choose(tmp_path / "new")
    assert not widget.go_on_button.isEnabled()


def test_a_result_is_announced_also_where_another_folder_was_chosen_meanwhile(
    batch: tuple[Any, BatchWidget], smears: Path, wait_for: Any, tmp_path: Path
) -> None:
    _, widget = batch
    widget.folder.choose(smears / "a")
    widget.output.choose(tmp_path / "out")
    widget.run_bar.run.click()
    widget.output.choose("")
    wait_for(lambda: not widget.task.is_running)
    assert widget.run_bar.said.text().endswith("cells in 6 images; tables in out.")


def test_the_threshold_of_the_preferences_holds_for_windows_that_are_open(
    batch: tuple[Any, BatchWidget], smears: Path, wait_for: Any, tmp_path: Path
) -> None:
    from napari.settings import get_plugin_settings

    viewer, widget = batch
    _, counting = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Differential count")
    assert counting.form.request().threshold is None
    get_plugin_settings("napari-bloodcells").counting.threshold = 1.0
    assert counting.form.request().threshold == 1
    widget.folder.choose(smears / "a")
    widget.output.choose(tmp_path / "out")
    widget.run_bar.run.click()
    wait_for(lambda: not widget.task.is_running)
    assert set(widget.result.cells["class"]) == {"unidentified"}


@pytest.mark.parametrize("kind", [BatchWidget, TrainWidget])
def test_a_widget_that_is_closed_stops_what_it_runs(
    kind: type[TaskWidget], make_napari_viewer: Any, wait_for: Any
) -> None:
    widget = kind(make_napari_viewer())
    stopped: list[bool] = []

    def work(progress: ThreadProgress) -> None:
        while not progress.cancelled():
            time.sleep(0.01)
        stopped.append(True)
        raise Cancelled

    widget.task.start(work, "a test")
    widget.close()
    wait_for(lambda: not widget.task.is_running, 10_000)
    assert stopped


def test_reviewed_cells_of_journals_become_a_data_set(make_review: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    review = make_review(["neutrophil", "lymphocyte", "monocyte"])
    journal = Journal(tmp_path / "a.jpg.bloodcells.jsonl", review)
    journal.start()
    with pytest.raises(DataSetError, match="no cell was looked at"):
        folder_data(tmp_path)
    review.classify([1], "basophil")
    review.confirm([2])
    review.classify([3], "not a WBC")
    data = folder_data(tmp_path)
    assert [(s.image.name, s.label) for s in data.samples] == [("a.jpg", "basophil"), ("a.jpg", "lymphocyte")]
    assert data.samples[0].box == review.cell(1).box
    assert {s.um_per_pixel for s in data.samples} == {None}
    review.info["um_per_pixel"] = [0.08]
    journal.start()
    assert {s.um_per_pixel for s in folder_data(tmp_path).samples} == {0.08}


def test_photographs_of_one_name_in_two_folders_are_two_groups(make_review: Any, tmp_path: Path) -> None:
    """Else most cells would seem to come from one slide."""
    for slide in "ab":
        (tmp_path / slide).mkdir()
        (tmp_path / slide / "field.png").write_bytes(b"x")
        review = make_review(["neutrophil", "lymphocyte"], ("field.png",))
        review.confirm([1, 2])
        Journal(tmp_path / slide / "field.png.bloodcells.jsonl", review).start()
    data = folder_data(tmp_path)
    assert len(data) == 4
    assert len(set(data.groups)) == 2


def test_a_folder_without_journals_is_left_to_the_core(tmp_path: Path) -> None:
    assert folder_data(tmp_path) == tmp_path


@pytest.fixture
def reviewed_viewer(make_napari_viewer: Any, make_review: Any) -> Any:
    """A viewer with six drawn fields of five cells, each cell named and looked at."""
    from napari_bloodcells.napari.cell_shapes import cell_layer_data
    from napari_bloodcells.synthetic import SmearSettings, draw_smear

    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    kinds = ("neutrophil", "lymphocyte", "eosinophil", "monocyte", "basophil")
    for seed in range(6):
        smear = draw_smear(seed, SmearSettings(cells=kinds, width=500, height=400))
        image = viewer.add_image(smear.image, rgb=True, name=f"field {seed}")
        review = make_review(list(smear.boxes.labels), (image.name,))
        review.move({k + 1: tuple(map(float, box)) for k, box in enumerate(smear.boxes.xyxy)})
        data, keywords = cell_layer_data(review, f"cells {seed}", False, image)
        viewer.add_shapes(data, **keywords)
    assert len(reviews_data(open_reviews(viewer.layers))) == 30
    return viewer


def open_train(viewer: Any, output: Path) -> TrainWidget:
    """The widget, docked, with a place for its result."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Train")
    assert isinstance(widget, TrainWidget)
    widget.output.choose(output)
    return widget


def test_train_on_the_open_layers_shows_curves_and_offers_the_model(
    reviewed_viewer: Any, wait_for: Any, qtbot: Any, shoot: Any, tmp_path: Path
) -> None:
    widget = open_train(reviewed_viewer, tmp_path / "mine")
    widget.method.setCurrentIndex(widget.method.findData("cnn3"))
    assert not widget.model.isEnabled()
    assert not widget.curves.isHidden()
    chosen = widget.model.name
    widget.epochs.setValue(2)
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running, 300_000)
    assert (tmp_path / "mine" / "model.json").exists(), widget.run_bar.said.text()
    assert len(widget.curves.steps["loss"]) > 1
    assert len(widget.curves.steps["val_loss"]) == 2
    assert np.isfinite([v for _, v in widget.curves.steps["loss"]]).all()
    assert str(tmp_path / "mine") in catalog.model_names()
    assert widget.model.combo.findData(str(tmp_path / "mine")) >= 0
    assert widget.model.name == chosen
    qtbot.wait(600)
    shoot(reviewed_viewer, "train")


def test_calibrate_on_the_open_layers_gives_a_model_that_the_next_count_can_use_at_once(
    reviewed_viewer: Any, tiny_model: Path, wait_for: Any, count: Any, qtbot: Any, shoot: Any, tmp_path: Path
) -> None:
    _, counting = reviewed_viewer.window.add_plugin_dock_widget("napari-bloodcells", "Differential count")
    widget = open_train(reviewed_viewer, tmp_path / "my microscope")
    assert widget.method.currentData() == CALIBRATE
    assert widget.curves.isHidden()
    widget.model.refresh(str(tiny_model))
    before = counting.form.model.name
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running, 300_000)
    said = widget.run_bar.said.text()
    assert "before it was" in said, said
    assert counting.form.model.name == before  # offered, not forced on anybody
    counting.form.model.combo.setCurrentIndex(counting.form.model.combo.findText("my microscope"))
    counting.form.choose_image(reviewed_viewer.layers["field 3"])
    counting.form.boxes.setCurrentIndex(counting.form.boxes.findData("classical"))
    review = count(counting)
    assert counting.form.model.name == str(tmp_path / "my microscope")
    assert review.info["model"]["sha256"] == read_info(tmp_path / "my microscope").sha256
    assert sum(cell.reviewed for cell in review.cells) == 5
    shoot(reviewed_viewer, "calibrated")


def test_adapt_on_the_open_layers_is_that_of_the_command(
    reviewed_viewer: Any, wait_for: Any, qtbot: Any, shoot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_bloodcells.core import adapt

    monkeypatch.setattr(adapt, "LEAST", 20)
    widget = open_train(reviewed_viewer, tmp_path / "adapted")
    widget.method.setCurrentIndex(widget.method.findData(ADAPT))
    assert widget.curves.isHidden()
    assert widget.model.isEnabled()
    assert widget.source.currentText() == "all cells of the open layers"
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait_for(lambda: not widget.task.is_running, 300_000)
    said = widget.run_bar.said.text()
    assert "cells have another class now" in said, said
    cells = reviews_data(open_reviews(reviewed_viewer.layers, unseen=True), unseen=True)
    assert {sample.label for sample in cells.samples} == {None}
    found = adapt.adapt("default", cells, tmp_path / "again")
    assert f"{found.n_changed} of {sum(found.after.values())} cells" in said
    assert read_info(tmp_path / "again").sha256 == read_info(tmp_path / "adapted").sha256
    shoot(reviewed_viewer, "adapted")


def test_without_names_every_cell_but_those_that_are_none_is_taken(make_review: Any, tmp_path: Path) -> None:
    review = make_review(["lymphocyte", "lymphocyte", "neutrophil"], ("a.jpg",))
    review.classify([3], "not a WBC")
    files = {"a.jpg": tmp_path / "a.jpg"}
    assert [s.label for s in reviewed_samples(review, files, unseen=True)] == [None, None]


def test_calibrate_is_the_first_choice_and_every_recipe_can_be_trained(make_napari_viewer: Any) -> None:
    widget = TrainWidget(make_napari_viewer())
    assert widget.method.itemData(0) == CALIBRATE
    assert widget.method.itemData(1) == ADAPT
    assert {widget.method.itemData(k) for k in range(2, widget.method.count())} == set(recipe_names())
    assert "cnn6" in recipe_names()


def test_training_without_a_reviewed_cell_says_what_to_do(make_napari_viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    widget = TrainWidget(make_napari_viewer())
    qtbot.addWidget(widget)
    widget.output.choose(tmp_path / "mine")
    qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    assert "no cell was looked at" in widget.run_bar.said.text()
    assert not widget.task.is_running
