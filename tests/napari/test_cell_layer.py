"""The cell layer and its review hold the same, whoever changes what: the canvas, a key, a table, undo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.cell_shapes import cell_layer_data
from napari_bloodcells.napari.fields import fields_of
from napari_bloodcells.napari.geometry import box_of, rectangle
from napari_bloodcells.napari.names_layer import FEW
from napari_bloodcells.napari.preferences import class_keys
from napari_bloodcells.napari.review import Review


def put_on_canvas(review: Review, series: bool = False, **image: Any) -> CellLayer:
    """A viewer model with an image and the cell layer of ``review`` on it."""
    viewer = ViewerModel()
    shape = (len(review.images), 200, 700, 3) if series else (200, 700, 3)
    noise = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    layer = viewer.add_image(noise, rgb=True, name="smear", **image)
    data, keywords = cell_layer_data(review, "cells", series, layer)
    return CellLayer(viewer, viewer.add_shapes(data or None, **keywords), review, fields_of(layer))


@pytest.fixture
def cells(review: Review) -> Iterator[CellLayer]:
    tied = put_on_canvas(review)
    yield tied
    assert_same(tied)


def assert_same(cells: CellLayer) -> None:
    """Boxes, classes and colors on the canvas are those of the review."""
    layer, review = cells.layer, cells.review
    assert layer.nshapes == len(review)
    assert sorted(cells.ids) == sorted(c.id for c in review.cells)
    expected = [review.cell(i) for i in cells.ids]
    assert [box_of(shape) for shape in layer.data] == [c.box for c in expected]
    assert list(layer.features["class"]) == [c.name for c in expected]
    assert list(layer.features["reviewed"]) == [c.reviewed for c in expected]
    colors = {**review.scheme.colors, "unidentified": "#999999", "not a WBC": "#404040"}
    wanted = [[int(colors[c.name][k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in expected]
    assert np.allclose(layer.edge_color[:, :3], np.reshape(wanted, (-1, 3)), atol=0.003)


def press(layer: Shapes, key: str) -> None:
    """What napari calls for a key on this layer."""
    from napari.utils.key_bindings import KeymapHandler

    handler = KeymapHandler()
    handler.keymap_providers = [layer]
    handler.press_key(key)
    handler.release_key(key)


def test_the_class_is_in_the_features_and_the_color_follows_it(cells: CellLayer) -> None:
    cells.review.classify([1, 2], "basophil")
    assert list(cells.layer.features["class"]) == ["basophil", "basophil", "monocyte"]
    assert list(cells.layer.features["machine_class"]) == ["neutrophil", "lymphocyte", "monocyte"]


@pytest.mark.parametrize(("key", "name"), [("B", "basophil"), ("U", "unidentified"), ("Delete", "not a WBC")])
def test_a_key_names_the_selected_cell_and_deletes_nothing(cells: CellLayer, key: str, name: str) -> None:
    bind(cells)
    cells.layer.selected_data = {1}
    press(cells.layer, key)
    assert [c.name for c in cells.review.cells] == ["neutrophil", name, "monocyte"]


@pytest.mark.parametrize("digit", list("1234567890"))
def test_digits_neither_delete_shapes_nor_change_the_tool(cells: CellLayer, digit: str) -> None:
    bind(cells)
    cells.layer.mode = "select"
    cells.layer.selected_data = {0}
    press(cells.layer, digit)
    assert str(cells.layer.mode) == "select"
    assert len(cells.review) == 3


def test_undo_and_redo_by_key(cells: CellLayer) -> None:
    bind(cells)
    cells.layer.selected_data = {0, 2}
    press(cells.layer, "L")
    press(cells.layer, "Control-Z")
    assert [c.name for c in cells.review.cells] == ["neutrophil", "lymphocyte", "monocyte"]
    press(cells.layer, "Control-Shift-Z")
    assert [c.name for c in cells.review.cells] == ["lymphocyte"] * 3


def test_space_walks_the_unreviewed_cells(cells: CellLayer) -> None:
    bind(cells)
    for expected in ({0}, {1}, {2}, {0}):
        press(cells.layer, "Space")
        assert {int(row) for row in cells.layer.selected_data} == expected
    cells.review.confirm([2])
    press(cells.layer, "Space")
    assert cells.review.selection == (3,)


def test_a_box_drawn_on_the_canvas_becomes_a_cell_of_its_own(cells: CellLayer) -> None:
    cells.layer.add(rectangle((300, 100, 350, 150)), shape_type="rectangle")
    new = cells.review.cells[-1]
    assert (new.box, new.source, new.number, new.name) == ((300, 100, 350, 150), "drawn", 4, "unidentified")
    assert cells.review.selection == (new.id,)
    cells.review.undo()
    assert len(cells.review) == 3


def test_an_ellipse_becomes_a_box_and_what_lies_outside_of_the_field_is_left_out(cells: CellLayer) -> None:
    cells.layer.add(rectangle((600, 150, 800, 300)), shape_type="ellipse")
    assert cells.review.cells[-1].box == (600, 150, 700, 200)
    cells.layer.add(rectangle((900, 300, 950, 350)), shape_type="rectangle")
    assert len(cells.review) == 4


def test_a_box_that_was_dragged_moves_in_the_review_and_undo_puts_it_back(cells: CellLayer) -> None:
    data = [shape.copy() for shape in cells.layer.data]
    data[1] += 7.5
    cells.layer.data = data
    assert cells.review.cell(2).box == (77.5, 27.5, 117.5, 67.5)
    cells.review.undo()
    assert cells.review.cell(2).box == (70, 20, 110, 60)


def test_shapes_that_napari_deletes_are_gone_from_the_review_and_undo_brings_them_back(cells: CellLayer) -> None:
    cells.layer.selected_data = {0, 2}
    cells.layer.remove_selected()
    assert [c.id for c in cells.review.cells] == [2]
    cells.review.undo()
    assert len(cells.review) == 3


def test_a_class_that_a_table_wrote_in_place_reaches_the_review(cells: CellLayer) -> None:
    column = cells.layer.features.columns.get_loc("class")
    cells.layer.features.iat[0, column] = "eosinophil"  # as napari's features table does, without an event
    cells.check()
    cell = cells.review.cell(1)
    assert (cell.name, cell.machine, cell.reviewed) == ("eosinophil", "neutrophil", True)
    cells.review.undo()
    assert cells.review.cell(1).name == "neutrophil"


def test_columns_that_are_no_opinion_cannot_be_edited(cells: CellLayer) -> None:
    column = cells.layer.features.columns.get_loc("machine_class")
    cells.layer.features.iat[0, column] = "basophil"
    cells.check()
    assert cells.layer.features["machine_class"].iloc[0] == "neutrophil"
    assert not cells.review.cell(1).reviewed


def test_selection_is_one_on_canvas_and_in_the_review(cells: CellLayer) -> None:
    cells.layer.selected_data = {1, 2}
    assert set(cells.review.selection) == {2, 3}
    cells.review.select([1])
    assert {int(r) for r in cells.layer.selected_data} == {0}


def test_boxes_lie_on_a_layer_with_scale_and_translation(review: Review) -> None:
    cells = put_on_canvas(review, scale=(0.5, 0.5), translate=(100, 30))
    low, high = cells.layer.extent.world
    assert low.tolist() == [100 + 0.5 * 19.5, 30 + 0.5 * 9.5]
    assert high.tolist() == [100 + 0.5 * 59.5, 30 + 0.5 * 169.5]
    cells.go_to(2)
    assert np.allclose(cells.viewer.scene.camera.center[-2:], (100 + 0.5 * 39.5, 30 + 0.5 * 89.5))


def test_in_a_series_each_plane_is_a_field(field_image: np.ndarray, make_review: Any) -> None:
    cells = put_on_canvas(make_review(["neutrophil"] * 4, ("a.jpg", "b.jpg", "c.jpg")), series=True)
    assert [int(shape[0, 0]) for shape in cells.layer.data] == [0, 1, 2, 0]
    cells.go_to(3)
    assert cells.viewer.dims.current_step[0] == 2
    cells.layer.add(rectangle((300, 100, 350, 150), 1), shape_type="rectangle")
    new = cells.review.cells[-1]
    assert (new.image, new.number) == (1, 2)


def test_a_plane_is_gone_to_also_beside_a_layer_with_more_axes(field_image: np.ndarray, make_review: Any) -> None:
    cells = put_on_canvas(make_review(["neutrophil"] * 4, ("a.jpg", "b.jpg", "c.jpg")), series=True)
    cells.viewer.add_image(np.zeros((6, 5, 40, 40)))
    cells.viewer.dims.set_point((0, 1), (1, 0))
    cells.go_to(3)
    assert cells.viewer.dims.current_step[:2] == (1, 2)


def test_names_lie_where_their_cells_do_on_a_layer_that_is_turned(make_review: Any) -> None:
    cells = put_on_canvas(make_review(["neutrophil"] * (FEW + 5)), scale=(0.1, 0.1), rotate=20, units=("um", "um"))
    points, layer = cells.names.points, cells.layer
    assert points.units == layer.units
    assert np.allclose(points.data_to_world((30.0, 50.0)), layer.data_to_world((30.0, 50.0)))


def test_many_cells_are_named_only_where_it_matters(make_review: Any) -> None:
    review = make_review(["neutrophil"] * (FEW + 40))
    cells = put_on_canvas(review)
    assert cells.names.points is not None
    named = len(cells.names.points.data)
    assert 0 < named < len(review)
    review.select([1])
    assert len(cells.names.points.data) == named + 1
    cells.close()
    assert cells.names.points is None
    assert_same(cells)


def bind(cells: CellLayer) -> None:
    keys = class_keys(cells.review.scheme)
    ReviewActions(cells.review, keys, cells.go_to, lambda text: None).bind(cells.layer)


def test_after_naming_a_cell_space_goes_to_the_one_that_followed_it_in_the_gallery(review: Review) -> None:
    """The named cell goes to its new class; the reviewer stays where the work was."""
    names = review.class_names()
    actions = ReviewActions(review, {}, lambda cell_id: review.select([cell_id]), lambda text: None)
    actions.order = lambda: [c.id for c in sorted(review.cells, key=lambda c: (names.index(c.name), c.id))]
    assert actions.order() == [1, 2, 3]
    review.select([1])
    actions.classify("monocyte")
    assert actions.order() == [2, 1, 3]
    actions.next(1)
    assert review.selection == (2,)
