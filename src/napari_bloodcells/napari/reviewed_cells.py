"""Cells that a person looked at, as a data set for training: from open layers, or from the journals in a folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.core.errors import BloodcellsError, DataSetError, ImageError
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.fields import METADATA, Fields, fields_of
from napari_bloodcells.napari.journal import SUFFIX, read_journal, user_folder
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import review_of_frame

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_bloodcells.core.datasets.base import DataSet, Sample

_LOG = logging.getLogger(__name__)
NONE_REVIEWED = (
    "no cell was looked at yet; name some cells in the Differential count widget (Enter confirms the class of a cell "
    "that is right)."
)
NO_CELLS = "no cell of a photograph; count some photographs in the Differential count widget first."


def reviewed_samples(review: Review, files: dict[str, Path], *, unseen: bool = False) -> list[Sample]:
    """The reviewed cells of one review whose class is one of the scheme; ``files`` gives the photograph of a field.

    With ``unseen`` all its cells without their classes, but for those that were called no white cell.

    Cells of one photograph form a group, so that training never tests on a neighbor.  They keep the scale at which
    they were counted, where the review tells it.
    """
    from napari_bloodcells.core.datasets.base import Sample

    scales = dict(zip(review.images, review.info.get("um_per_pixel", ()), strict=False))
    samples = []
    for cell in review.cells:
        name = review.images[cell.image]
        file = files.get(name)
        if file is None or not _learned_from(cell, review, unseen):
            continue
        label = None if unseen else cell.name
        samples.append(Sample(file, cell.box, label, f"reviewed:{file}", "reviewed", um_per_pixel=scales.get(name)))
    return samples


@dataclass(frozen=True)
class OpenReview:
    """The cells of one open layer as they stood when they were asked for, and the image under them."""

    review: Review
    fields: Fields


def open_reviews(layers: LayerList, *, unseen: bool = False) -> list[OpenReview]:
    """The reviews of all open cell layers, without a look at a pixel: ``reviews_data`` reads, in whatever thread.

    Raises
    ------
    DataSetError
        No open layer holds a reviewed cell (with ``unseen``: any cell).
    """
    found: list[OpenReview] = []
    for layer in layers:
        if layer.__class__.__name__ != "Shapes" or not {"image", "cell", "class", "reviewed"} <= set(layer.features):
            continue
        known = layer.metadata.get(METADATA, {})
        review = review_of_frame(layer.features, list(known.get("images", ())) or None, info=known)
        fields = _fields_under(layers, known, review)
        if fields is None:
            _LOG.info("%s: its image is not open; left out.", layer.name)
        elif any(_learned_from(cell, review, unseen) for cell in review.cells):
            found.append(OpenReview(review, fields))
    if not found:
        raise DataSetError(f"open layers: {NO_CELLS if unseen else NONE_REVIEWED}")
    return found


def reviews_data(found: Sequence[OpenReview], *, unseen: bool = False, progress: Progress | None = None) -> DataSet:
    """The reviewed cells of open layers; with ``unseen`` all their cells, without their classes.

    A field that has no file (an array, a sample) is written as PNG into the plugin's own folder first.

    Raises
    ------
    ImageError, Cancelled
        A layer is no color photograph; ``progress`` asked to stop.
    """
    progress = progress or Silent()
    samples: list[Sample] = []
    progress.start("reading the fields", len(found))
    for one in found:
        one.fields.refuse_grey()
        places = sorted({c.image for c in one.review.cells if _learned_from(c, one.review, unseen)})
        samples += reviewed_samples(one.review, _files(one, places, progress), unseen=unseen)
        progress.advance("reading the fields")
    return _data_set(samples, Path.cwd(), "open layers", NO_CELLS if unseen else NONE_REVIEWED)


def folder_data(folder: Path) -> DataSet | Path:
    """The reviewed cells of the journals in a folder; the folder itself where it holds none (class folders, VOC).

    Raises
    ------
    DataSetError
        There are journals, but no reviewed cell in them.
    """
    journals = sorted(folder.rglob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
    if not journals:
        return folder
    samples: list[Sample] = []
    for journal in journals:
        try:
            review = read_journal(journal)
        except BloodcellsError as error:
            _LOG.warning("%s Left out.", error)
            continue
        told = dict(zip(review.images, (Path(p) for p in review.info.get("paths", ())), strict=False))
        beside = {name: journal.parent / name for name in review.images}
        files = {name: told[name] if name in told and told[name].is_file() else beside[name] for name in review.images}
        samples += reviewed_samples(review, {name: path for name, path in files.items() if path.is_file()})
    latest = {(s.image, s.box): s for s in samples}  # a cell stands in the journals of all series with its photograph
    return _data_set(latest.values(), folder, folder.name)


def class_counts(data: DataSet) -> str:
    """How many cells of each class there are, in one line."""
    return ", ".join(f"{n} {name}" for name, n in data.counts().items())


def _learned_from(cell: Cell, review: Review, unseen: bool) -> bool:
    named = cell.reviewed and cell.name in review.scheme.names
    return named or (unseen and cell.name != NOT_A_WBC)


def _fields_under(layers: LayerList, known: dict[str, Any], review: Review) -> Fields | None:
    """The image of a cell layer: the very layer, else one of the name that it had, else one with the same fields."""
    found: list[tuple[bool, bool, bool, Fields]] = []
    for image in layers:
        if image.__class__.__name__ != "Image":
            continue
        try:
            fields = fields_of(image, look=False)
        except ImageError:
            continue
        same = str(image.unique_id) == known.get("image_id")
        found.append((same, image.name == known.get("image_layer"), fields.names == review.images, fields))
    best = max(found, key=lambda one: one[:3], default=None)
    return best[3] if best is not None and any(best[:3]) else None


def _files(one: OpenReview, places: Sequence[int], progress: Progress) -> dict[str, Path]:
    """A file for each of the fields ``places``, by its name in the review (the layer may have another name now)."""
    fields, names = one.fields, one.review.images
    if fields.paths:
        own = dict(zip(fields.names, fields.paths, strict=True))
        return {name: own.get(name, path) for name, path in zip(names, fields.paths, strict=False)} | own
    from PIL import Image

    home = user_folder().parent / "fields"
    home.mkdir(parents=True, exist_ok=True)
    files = {}
    for index in places:
        check_cancelled(progress)
        if index >= len(fields):  # the layer has fewer planes than it had
            continue
        field = fields.read(index)
        path = home / f"{hashlib.sha256(field.tobytes()).hexdigest()[:16]}.png"
        if not path.exists():
            Image.fromarray(field).save(path)
        files[names[index]] = path
    return files


def _data_set(samples: Iterable[Sample], root: Path, name: str, none: str = NONE_REVIEWED) -> DataSet:
    from napari_bloodcells.core.datasets.base import DataSet

    found = tuple(samples)
    if not found:
        raise DataSetError(f"{name}: {none}")
    return DataSet(name, root, found, "reviewed")
