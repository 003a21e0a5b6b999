"""All reviews of one viewer: which layer belongs to which review, image and journal, and what happens to them.

A cell layer that comes into the viewer (from a count, a reader, a journal) is adopted: it gets its review, its keys
and its journal; when it is removed it is let go, and the journal stays on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.cell_shapes import empty, fill, first_part
from napari_bloodcells.napari.fields import METADATA, Fields, fields_of
from napari_bloodcells.napari.journal import Journal, journal_matches, journal_path, read_journal
from napari_bloodcells.napari.lettering import Lettering
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import review_of_frame

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes

CELL_FEATURES = {"image", "cell", "class"}
KEPT = ("model", "boxes", "fields", "slides", "um_per_pixel")
"""What the metadata of a cell layer say of the count that its cells are from."""
_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Desk:
    """The reviews of a viewer.

    Parameters
    ----------
    viewer : ViewerModel
    say : callable
        Shows a short line to the reviewer.

    Signals
    -------
    opened, closed : CellLayer
    restored : Image
        Its review was kept, and is back.
    """

    viewer: ViewerModel
    say: Callable[[str], None]

    opened = Signal(object)
    closed = Signal(object)
    restored = Signal(object)

    def __post_init__(self) -> None:
        self.layers: dict[Shapes, CellLayer] = {}
        self._journals: dict[Shapes, Journal] = {}
        self._placing = False
        self._lettering = Lettering()
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        self.viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of every layer; what was reviewed is in the journals."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in list(self.layers):
            self._let_go(layer)

    def of_image(self, image: Image) -> CellLayer | None:
        """The cell layer that lies on an image layer (compared by ``==``: napari hands plugins proxies of layers)."""
        for cells in self.layers.values():
            if cells.fields is not None and cells.fields.layer == image:
                return cells
        return None

    def placing(self, review: Review, fields: Fields) -> Iterator[None]:
        """Put a new review on the canvas, over its image, piece by piece (``Turns``); ``opened`` tells of the layer.

        What was reviewed before on that image (in the open layer, or in the journal) is carried over.  An open cell
        layer of the image is filled anew, so that it keeps its place among the layers.
        """
        review.reviewer = preferences.reviewing().reviewer or review.reviewer
        review.info["paths"] = [str(p) for p in fields.paths]
        former, path, kept = self.of_image(fields.layer), self._path(fields), 0
        if former is not None:
            kept = review.carry_over(former.review)
        elif journal_matches(path, review.images):
            kept = self._carry_over_kept(review, path)
        if kept:
            self.say(f"{kept} cells that were reviewed before keep what was said of them.")
        journal = Journal(path, review, self.say)
        if former is None:
            yield from self._adding(review, fields, journal, fresh=True)
            return
        layer = former.layer
        self._let_go(layer)
        empty(layer, review, fields)
        yield
        yield from self._filling(layer, review, fields, journal, fresh=True)

    def restoring(self, image: Image) -> Iterator[None]:
        """Bring back the review that was kept of an image, where there is one and it is not open, piece by piece."""
        if image not in self.viewer.layers or self.of_image(image) is not None:
            return
        try:
            fields = fields_of(image)
        except BloodcellsError:
            return
        path = self._path(fields)
        if not journal_matches(path, fields.names):
            return
        try:
            review = read_journal(path, preferences.reviewing().reviewer)
        except BloodcellsError as error:
            self.say(str(error))
            return
        yield from self._adding(review, fields, Journal(path, review, self.say), fresh=False)
        n = sum(cell.reviewed for cell in review.cells)
        self.say(f"The review of {image.name} was kept: {len(review)} cells, {n} of them looked at.")
        self.restored.emit(image)

    def adopt(self, layer: Layer) -> CellLayer | None:
        """Take up a Shapes layer whose features are a table of cells; None for any other layer."""
        if (
            layer in self.layers
            or layer.__class__.__name__ != "Shapes"
            or not set(layer.features.columns) >= CELL_FEATURES
        ):
            return None
        known = layer.metadata.get(METADATA, {})
        images = [str(name) for name in known.get("images", ())] or None
        try:
            info = {key: known[key] for key in KEPT if key in known}
            review = review_of_frame(layer.features, images, None, preferences.reviewing().reviewer, info)
        except (BloodcellsError, KeyError, ValueError) as error:
            _LOG.warning("%s: its features are no table of cells (%s).", layer.name, error)
            return None
        fields = self._fields_under(layer, review)
        journal = None if fields is None else Journal(self._path(fields), review, self.say)
        return self._tie(layer, review, fields, journal, fresh=None)

    def check(self) -> None:
        """What no event tells (``CellLayer.check``); to be called a few times a second."""
        for cells in self.layers.values():
            cells.check()

    def _carry_over_kept(self, review: Review, path: Path) -> int:
        try:
            return review.carry_over(read_journal(path))
        except BloodcellsError as error:
            self.say(str(error))
            return 0

    def _adding(self, review: Review, fields: Fields, journal: Journal, fresh: bool) -> Iterator[None]:
        data, keywords = first_part(review, fields)
        self._placing = True
        try:
            layer = self.viewer.add_shapes(data or None, **keywords)
        finally:
            self._placing = False
        try:
            yield
        finally:
            layer.visible = True  # drawn for the first time in a turn of its own: it compiles half a dozen shaders
        yield
        yield from self._filling(layer, review, fields, journal, fresh)

    def _filling(self, layer: Shapes, review: Review, fields: Fields, journal: Journal, fresh: bool) -> Iterator[None]:
        for _ in fill(layer, review, fields.series):
            yield
            if layer not in self.viewer.layers:  # the reviewer took it away meanwhile
                return
        self._tie(layer, review, fields, journal, fresh)

    def _tie(
        self, layer: Shapes, review: Review, fields: Fields | None, journal: Journal | None, fresh: bool | None
    ) -> CellLayer:
        chosen = preferences.reviewing()
        cells = CellLayer(self.viewer, layer, review, fields, chosen.uncertain_below, self._lettering)
        self.layers[layer] = cells
        keys = preferences.class_keys(review.scheme, chosen.keys)
        ReviewActions(review, keys, cells.go_to, self.say).bind(layer)
        if journal is not None:
            self._journals[layer] = journal
            self._keep(journal, fresh)
        layer.mode = "select"
        self.viewer.layers.selection.active = layer
        self.opened.emit(cells)
        return cells

    def _keep(self, journal: Journal, fresh: bool | None) -> None:
        """Start the journal now, go on with the one that is there, or (a table was opened) with the first change."""
        try:
            if fresh is None:
                journal.start_on_change()
            elif fresh:
                journal.start()
            else:
                journal.resume()
        except BloodcellsError as error:
            self.say(str(error))

    def _fields_under(self, layer: Layer, review: Review) -> Fields | None:
        """The image of an adopted layer: the one that it names, else one with the same fields, else the topmost."""
        wanted = layer.metadata.get(METADATA, {}).get("image_layer")
        best: Fields | None = None
        for image in reversed([x for x in self.viewer.layers if x.__class__.__name__ == "Image"]):
            try:
                fields = fields_of(image)
            except BloodcellsError:
                continue
            if fields.series != (layer.ndim > 2) or len(fields) < len(review.images):
                continue
            if image.name == wanted or fields.names == review.images:
                return fields
            best = best or (fields if wanted is None else None)
        return best

    def _path(self, fields: Fields) -> Path:
        folder = preferences.reviewing().sidecar_folder or None
        digest = b"" if fields.paths else fields.digest()
        return journal_path(list(fields.paths), digest, folder)

    def _on_inserted(self, event: Any) -> None:
        if not self._placing:
            self.adopt(event.value)

    def _on_removed(self, event: Any) -> None:
        self._let_go(event.value)

    def _let_go(self, layer: Any) -> None:
        cells = self.layers.pop(layer, None)
        if cells is None:
            return
        journal = self._journals.pop(layer, None)
        if journal is not None:
            journal.stop()
        cells.close()
        self.closed.emit(cells)
