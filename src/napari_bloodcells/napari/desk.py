"""All reviews of one viewer: which layer belongs to which review, image and journal, and what happens to them.

A cell layer that comes into the viewer (from a count, a reader, a journal) is adopted: it gets its review, its keys
and its journal; when it is removed it is let go, and the journal stays on disk.  Each journal has one layer: what is
changed on a second layer of a photograph, or without its photograph, is not kept, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.carried import Carried, content
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.cell_shapes import cell_layer_data, empty, fill, first_part, refill, table_as_it_lies
from napari_bloodcells.napari.fields import METADATA, Fields, fields_of
from napari_bloodcells.napari.journal import Journal, journal_path
from napari_bloodcells.napari.kept import Kept, kept_review, know
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
        What was kept of its review is back.
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

    def placing(self, review: Review, fields: Fields) -> Generator[None, None, str]:
        """Put a new review on the canvas, over its image, piece by piece (``Turns``); ``opened`` tells of the layer.

        What was reviewed before on that image (in the open layer, or in a journal) is carried over, which the line
        that is returned tells.  An open cell layer of the image is filled anew, so that it keeps its place among the
        layers.
        """
        review.reviewer = preferences.reviewing().reviewer or review.reviewer
        know(review, fields)
        former, path, carried = self.of_image(fields.layer), self._path(fields), Carried()
        if former is not None:
            _rename(former.review, fields)
            carried = review.carry_over(former.review)
        elif (kept := self._kept(path, fields)) is not None:
            carried = review.carry_over(kept.review)
        said = [str(carried)]
        twin = self._twin(path, None if former is None else former.layer)
        journal = None if twin is not None else Journal(path, review, self.say)
        if twin is not None:
            said.append(_not_kept(fields.layer.name, twin))
        told = " ".join(filter(None, said))
        if told:
            self.say(told)
        if former is None:
            yield from self._adding(review, fields, journal, fresh=True)
            return told
        layer = former.layer
        keywords = cell_layer_data(review, layer.name, fields.series, fields.layer)[1]
        self._let_go(layer)
        self._hold_keys(layer, review)
        empty(layer, keywords)
        yield
        yield from self._filling(layer, review, fields, journal, fresh=True)
        return told

    def restoring(self, image: Image, fields: Fields) -> Iterator[None]:
        """Bring back the review that was kept of an image, where there is one and it is not open, piece by piece."""
        if image not in self.viewer.layers or self.of_image(image) is not None:
            return
        path = self._path(fields)
        if (left := self._left_alone(path)) is not None:
            left.fields = fields
            self.opened.emit(left)
            return
        kept = None if self._twin(path) is not None else self._kept(path, fields)
        if kept is None:
            return
        review, fresh = kept.review, False if kept.whole else None
        if not kept.whole:
            know(review, fields)
        yield from self._adding(review, fields, Journal(path, review, self.say), fresh)
        n = sum(cell.reviewed for cell in review.cells)
        some = "" if kept.images == len(fields) else f" on {kept.images} of {len(fields)} photographs"
        self.say(f"The review of {image.name} was kept: {len(review)} cells{some}, {n} of them looked at.")
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
            review = review_of_frame(table_as_it_lies(layer), images, None, preferences.reviewing().reviewer, info)
        except (BloodcellsError, KeyError, ValueError) as error:
            _LOG.warning("%s: its features are no table of cells (%s).", layer.name, error)
            return None
        fields = self._fields_under(layer, review)
        if fields is None:
            cells = self._tie(layer, review, None, None, fresh=None)
            self.say(f"{layer.name}: the photograph is not open, so what you change is not kept; save the layer.")
            return cells
        _rename(review, fields)
        know(review, fields)
        path = self._path(fields)
        twin, fresh = self._twin(path), None
        kept = None if self.of_image(fields.layer) is not None else self._kept(path, fields)
        carried, shown = Carried(), content(review)
        if kept is not None:
            if not any(c.machine or c.reviewed for c in review.cells):
                review.use_scheme(kept.review.scheme)  # boxes of a VOC file: the review says what they can be called
            carried = review.carry_over(kept.review)
            if kept.whole and twin is None and sorted(content(review)) == sorted(content(kept.review)):
                review, fresh = kept.review, False  # the table brings nothing new: its journal goes on
        changed = content(review) != shown
        if changed:
            refill(layer, review, fields.series)
        journal = None if twin is not None else Journal(path, review, self.say)
        cells = self._tie(layer, review, fields, journal, fresh)
        if changed and str(carried):
            self.say(str(carried))
            self.restored.emit(fields.layer)
        if twin is not None:
            self.say(_not_kept(layer.name, twin))
        return cells

    def check(self) -> None:
        """What no event tells (``CellLayer.check``); to be called a few times a second."""
        for cells in self.layers.values():
            cells.check()

    def _kept(self, path: Path, fields: Fields) -> Kept | None:
        try:
            return kept_review(path, fields, preferences.reviewing().reviewer)
        except BloodcellsError as error:
            self.say(str(error))
            return None

    def _twin(self, path: Path, layer: Shapes | None = None) -> Shapes | None:
        """The layer, other than ``layer``, whose changes go into the journal at ``path``."""
        return next((other for other, j in self._journals.items() if j.path == path and other is not layer), None)

    def _left_alone(self, path: Path) -> CellLayer | None:
        """The cells of the photograph whose journal is at ``path``, where they stayed when its image was taken away."""
        for layer, journal in self._journals.items():
            cells = self.layers[layer]
            if journal.path == path and cells.fields is not None and cells.fields.layer not in self.viewer.layers:
                return cells
        return None

    def _adding(self, review: Review, fields: Fields, journal: Journal | None, fresh: bool | None) -> Iterator[None]:
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

    def _filling(
        self, layer: Shapes, review: Review, fields: Fields, journal: Journal | None, fresh: bool | None
    ) -> Iterator[None]:
        self._hold_keys(layer, review)
        layer.editable = False  # a box that is drawn among those that come would be taken for one of them
        try:
            for _ in fill(layer, review, fields.series):
                yield
                if layer not in self.viewer.layers:  # the reviewer took it away meanwhile
                    return
            layer.editable = True
            self._tie(layer, review, fields, journal, fresh)
        finally:
            if layer not in self.layers:
                ReviewActions.unbind(layer)

    def _tie(
        self, layer: Shapes, review: Review, fields: Fields | None, journal: Journal | None, fresh: bool | None
    ) -> CellLayer:
        uncertain_below = preferences.reviewing().uncertain_below
        cells = CellLayer(self.viewer, layer, review, fields, uncertain_below, self._lettering)
        self.layers[layer] = cells
        self._actions(review, cells.go_to).bind(layer)
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

    def _actions(self, review: Review, go_to: Callable[[int], None]) -> ReviewActions:
        return ReviewActions(
            review, preferences.class_keys(review.scheme, preferences.reviewing().keys), go_to, self.say
        )

    def _hold_keys(self, layer: Shapes, review: Review) -> None:
        """Until its cells are there, keys change nothing on a layer: neither its former review nor its shapes."""
        for key in self._actions(review, lambda _: None).table():
            layer.bind_key(key, lambda _: self.say("The cells are just being put on the canvas."), overwrite=True)

    def _fields_under(self, layer: Layer, review: Review) -> Fields | None:
        """The image of an adopted layer: that from which it was made, else the topmost that it names, or that has the
        same fields and files."""
        known = layer.metadata.get(METADATA, {})
        paths = tuple(str(path) for path in known.get("paths", ()))
        images = [x for x in reversed(self.viewer.layers) if x.__class__.__name__ == "Image"]
        for image in sorted(images, key=lambda x: str(x.unique_id) != known.get("image_id")):
            try:
                fields = fields_of(image, look=False)
            except BloodcellsError:
                continue
            if fields.series != (layer.ndim > 2) or len(fields) < len(review.images):
                continue
            if str(image.unique_id) == known.get("image_id"):  # whatever it is called now
                return fields
            if paths and fields.paths and paths != tuple(map(str, fields.paths)):
                continue  # a photograph of that name in another folder
            if image.name == known.get("image_layer") or fields.names == review.images:
                return fields
        return None

    def _path(self, fields: Fields) -> Path:
        folder = preferences.reviewing().sidecar_folder or None
        digest = b"" if fields.paths else fields.digest()
        return journal_path(list(fields.paths), digest, folder)

    def _on_inserted(self, event: Any) -> None:
        if not self._placing:
            self.adopt(event.value)

    def _on_removed(self, event: Any) -> None:
        journal = self._journals.get(event.value)
        self._let_go(event.value)
        if journal is not None:
            self._hand_on(journal.path, event.value.name)

    def _hand_on(self, path: Path, gone: str) -> None:
        """The journal of a layer that was removed goes to another one of its photograph, where there is one.

        It begins with the next change there (the former journal is put aside): a viewer that is emptied layer by layer
        leaves it as it is.
        """
        for layer, cells in self.layers.items():
            if layer not in self._journals and cells.fields is not None and self._path(cells.fields) == path:
                self._journals[layer] = Journal(path, cells.review, self.say)
                self._keep(self._journals[layer], fresh=None)
                self.say(f"{layer.name}: {gone} was removed, so what you change here is kept from now on.")
                return

    def _let_go(self, layer: Any) -> None:
        cells = self.layers.pop(layer, None)
        if cells is None:
            return
        journal = self._journals.pop(layer, None)
        if journal is not None:
            journal.stop()
        cells.close()
        ReviewActions.unbind(layer)
        self.closed.emit(cells)


def _rename(review: Review, fields: Fields) -> None:
    """Fields without a file are called like their layer, which may have got another name since."""
    if not fields.paths and len(review.images) == len(fields):
        review.images = fields.names


def _not_kept(name: str, twin: Shapes) -> str:
    return f"{name}: is open twice; only changes on {twin.name} are kept, those on this layer are not: save it."
