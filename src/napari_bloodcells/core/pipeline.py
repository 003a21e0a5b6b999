"""From jobs to records: read -> localize -> crop -> classify, each stage on its own terms.

A ``FieldCounter`` holds the localizer and the model and takes a shard of jobs.  Images are read ahead, a bounded number
of them, by threads (Pillow decodes outside of Python's lock) where the network runs on a GPU; on a CPU every worker
process reads its own.  Each image is localized and cropped by itself and its pixels are let go at once; the crops of
a whole shard are classified together, in the model's fixed micro-batches, so that a result does not depend on what
else is in the shard.  An error travels with its image, in the order of the jobs.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, iou
from napari_bloodcells.core.cells import CellRecord, FieldRecord, Verdict, cell_record
from napari_bloodcells.core.errors import AnnotationError, BloodcellsError, DataWarning, UsageError
from napari_bloodcells.core.images import DEFAULT_MAX_PIXELS
from napari_bloodcells.core.jobs import FieldJob

if TYPE_CHECKING:
    from torch import Tensor

    from napari_bloodcells.core.bundle import Model
    from napari_bloodcells.core.localize import Field, Localizer

BOX_CHOICES = ("auto", "xml", "find", "classical", "whole")
STAGES = ("read", "localize", "crop", "classify")
READ_AHEAD = 4
"""Images that wait, read, per reading thread."""


@dataclass(frozen=True)
class CounterSetup:
    """All that a worker needs to build its ``FieldCounter``; small, so it can be sent anywhere.

    Attributes
    ----------
    model, device : str
        As ``load_model`` takes them.
    boxes : str
        ``auto`` (XML where there is one, else found), ``xml``, ``find``, ``classical``, ``whole``, or the folder of
        a localizer.
    threshold : float or None
        Least confidence of a class; None for the bundle's.
    find_threshold : float or None
        Least confidence of a found box; None for the localizer's.
    um_per_pixel : float or None
        Overrules the measured scale.
    max_pixels : int
        Larger images are refused.
    readers : int
        Threads that read ahead; 0 reads in line.
    """

    model: str = "default"
    device: str = "auto"
    boxes: str = "auto"
    threshold: float | None = None
    find_threshold: float | None = None
    um_per_pixel: float | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    readers: int = 0

    @property
    def localizer(self) -> str:
        """The localizer that the boxes ask for."""
        return "default" if self.boxes in ("auto", "xml", "find", "whole") else self.boxes


@dataclass
class StageTimes:
    """Seconds spent in each stage, and images and cells that went through."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    images: int = 0
    cells: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def add(self, other: StageTimes) -> None:
        """Add the figures of another worker."""
        for name, seconds in other.seconds.items():
            self.seconds[name] += seconds
        self.images += other.images
        self.cells += other.cells


@dataclass(frozen=True)
class Located:
    """One image after localizing and cropping; its pixels are gone."""

    record: FieldRecord
    boxes: Boxes
    labels: tuple[str | None, ...]
    crops: Tensor | None


class FieldCounter:
    """Counts images with one model and one localizer on one device.

    Parameters
    ----------
    setup : CounterSetup
    model : Model, optional
        A loaded model to use instead of ``setup.model``.
    """

    def __init__(self, setup: CounterSetup, model: Model | None = None) -> None:
        from napari_bloodcells.core.bundle import load_model

        self.setup = setup
        self.model = model if model is not None else load_model(setup.model, setup.device)
        info = self.model.info
        threshold = info.min_confidence if setup.threshold is None else setup.threshold
        limit = float("inf") if info.max_distance is None else info.max_distance
        self.verdict = Verdict(info.class_names, threshold, limit)
        self.times = StageTimes()
        self._localizer: Localizer | None = None

    @property
    def localizer(self) -> Localizer:
        """The localizer, loaded when it is first needed."""
        if self._localizer is None:
            from napari_bloodcells.core.localize import load_localizer

            setup = self.setup
            self._localizer = load_localizer(setup.localizer, str(self.model.device), setup.find_threshold)
        return self._localizer

    def count(self, jobs: Sequence[FieldJob]) -> list[FieldRecord]:
        """Count the images of ``jobs``: one record each, in their order, whatever happens to an image."""
        located = [self._locate(job, image) for job, image in self._read_ahead(jobs)]
        cells = iter(self._classify(located))
        records = [replace(item.record, cells=tuple(next(cells) for _ in range(len(item.boxes)))) for item in located]
        self.times.images += len(records)
        self.times.cells += sum(len(record.cells) for record in records)
        return records

    def _read(self, job: FieldJob) -> NDArray[np.uint8] | BloodcellsError:
        from napari_bloodcells.core.images import read_image, to_rgb8

        try:
            if isinstance(job.source, np.ndarray):
                return to_rgb8(job.source, job.image)
            return read_image(job.source, max_pixels=self.setup.max_pixels)
        except BloodcellsError as error:
            return error
        except MemoryError:
            return BloodcellsError(f"{job.image}: is too large for the memory of this machine.")

    def _read_ahead(self, jobs: Sequence[FieldJob]) -> Iterator[tuple[FieldJob, NDArray[np.uint8] | BloodcellsError]]:
        if self.setup.readers < 1:
            for job in jobs:
                with self.times.stage("read"):
                    image = self._read(job)
                yield job, image
            return
        waiting: deque[tuple[FieldJob, Future[NDArray[np.uint8] | BloodcellsError]]] = deque()
        with ThreadPoolExecutor(self.setup.readers) as pool:
            for job in jobs:
                waiting.append((job, pool.submit(self._read, job)))
                if len(waiting) >= READ_AHEAD * self.setup.readers:
                    yield from self._next_read(waiting)
            while waiting:
                yield from self._next_read(waiting)

    def _next_read(
        self, waiting: deque[tuple[FieldJob, Future[NDArray[np.uint8] | BloodcellsError]]]
    ) -> Iterator[tuple[FieldJob, NDArray[np.uint8] | BloodcellsError]]:
        job, future = waiting.popleft()
        with self.times.stage("read"):
            image = future.result()
        yield job, image

    def _locate(self, job: FieldJob, image: NDArray[np.uint8] | BloodcellsError) -> Located:
        if isinstance(image, BloodcellsError):
            return failed(job, image)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", DataWarning)
            try:
                with self.times.stage("localize"):
                    boxes, labels, field = self._boxes(job, image)
                with self.times.stage("crop"):
                    crops = self._crop(image, boxes, field.um_per_pixel)
            except BloodcellsError as error:
                return failed(job, error)
        record = FieldRecord(
            image=job.image,
            width=image.shape[1],
            height=image.shape[0],
            um_per_pixel=field.um_per_pixel,
            n_rbc=len(field.rbc) if len(field.rbc) else None,
            n_platelets=len(field.platelets) if len(field.rbc) else None,
            problems=field.problems,
            warnings=tuple(str(w.message) for w in caught if issubclass(w.category, DataWarning)),
        )
        return Located(record, boxes, labels, crops)

    def _boxes(self, job: FieldJob, image: NDArray[np.uint8]) -> tuple[Boxes, tuple[str | None, ...], Field]:
        """Boxes to classify, in reading order, what the data set calls them, and the field they lie in."""
        scale = self.setup.um_per_pixel
        if job.boxes is not None:
            boxes, field = job.boxes, self.localizer.find(image, um_per_pixel=scale)
        elif self.setup.boxes == "whole":
            boxes, field = whole_field(image, scale)
        elif job.annotation is not None and self.setup.boxes in ("auto", "xml"):
            boxes, field = self._annotated(job.annotation, image)
        elif self.setup.boxes == "xml":
            raise AnnotationError(f"{job.image}: has no XML; take --boxes auto to have its cells found.")
        else:
            field = self.localizer.find(image, um_per_pixel=scale)
            boxes = field.wbc
        if job.boxes is None:
            boxes = boxes.take(reading_order(boxes.xyxy)) if boxes.source == "found" else boxes
        return boxes, match_labels(boxes, job.labels), field

    def _annotated(self, path: str, image: NDArray[np.uint8]) -> tuple[Boxes, Field]:
        from napari_bloodcells.core.voc import read_voc

        annotation = read_voc(path)
        height, width = image.shape[:2]
        if annotation.width and annotation.height and (annotation.width, annotation.height) != (width, height):
            size = f"{annotation.width} x {annotation.height}"
            raise AnnotationError(
                f"{annotation.path.name}: is for an image of {size} pixels, but its image has {width} x {height}; "
                "take --boxes find, or put the image back to its size."
            )
        field = self.localizer.find(image, um_per_pixel=self.setup.um_per_pixel)
        white = [i for i, label in enumerate(annotation.boxes.labels) if not is_other_cell(label)]
        red, small = (annotation.boxes.named(name) for name in ("RBC", "Platelets"))
        if len(red):
            field = replace(field, rbc=red, platelets=small)
        return annotation.boxes.take(white), field

    def _crop(self, image: NDArray[np.uint8], boxes: Boxes, um_per_pixel: float | None) -> Tensor | None:
        from napari_bloodcells.core.crops import cut_crops

        if not len(boxes):
            return None
        return cut_crops(image, boxes.xyxy, self.model.info.crop, um_per_pixel, self.model.device)

    def _classify(self, located: Sequence[Located]) -> list[CellRecord]:
        import torch

        crops = [item.crops for item in located if item.crops is not None]
        if not crops:
            return []
        with self.times.stage("classify"):
            prediction = self.model.predict(torch.cat(crops))
        rows = [
            (box, item.boxes.source, label)
            for item in located
            for box, label in zip(item.boxes.xyxy, item.labels, strict=True)
        ]
        return [
            cell_record(box, p, float(far), self.verdict, source, label)
            for (box, source, label), p, far in zip(rows, prediction.probabilities, prediction.distance, strict=True)
        ]


def failed(job: FieldJob, error: BloodcellsError) -> Located:
    """An image that could not be counted, with the error in words."""
    return Located(FieldRecord(job.image, status=str(error)), Boxes(), (), None)


def whole_field(image: NDArray[np.uint8], um_per_pixel: float | None = None) -> tuple[Boxes, Field]:
    """``image`` (H, W, 3) taken as one cell: the box of the cell in its middle, as training takes it."""
    from napari_bloodcells.core.central import central_box
    from napari_bloodcells.core.localize import Field

    box = Boxes(central_box(image)[None], ("WBC",), source="whole")
    return box, Field.of(image.shape, box, um_per_pixel=um_per_pixel)


def is_other_cell(label: str) -> bool:
    """Whether a box of a VOC file holds a red cell or a platelet, which are not classified.

    >>> [is_other_cell(name) for name in ("WBC", "neutrophil", "RBC", "Platelets", "red blood cells")]
    [False, False, True, True, True]
    """
    plain = label.casefold().replace("_", " ").strip().removesuffix("s")
    return plain in ("rbc", "platelet", "red blood cell", "red cell", "erythrocyte", "thrombocyte", "plt")


def reading_order(xyxy: NDArray[np.float32]) -> NDArray[np.intp]:
    """Order of boxes (N, 4) from left to right: the number of a cell does not hang on its score."""
    center = xyxy[:, :2] + xyxy[:, 2:]
    order: NDArray[np.intp] = np.lexsort((center[:, 1], center[:, 0]))
    return order


def match_labels(
    boxes: Boxes, labels: Sequence[tuple[tuple[float, float, float, float] | None, str]]
) -> tuple[str | None, ...]:
    """What the data set calls each box: the type of its own box that overlaps by half or more.

    A type without a box belongs to the only cell of the image; where several were found, to none of them.

    >>> field = Boxes([[0, 0, 10, 10], [50, 50, 60, 60]])
    >>> match_labels(field, [((1, 0, 10, 10), "monocyte")]), match_labels(field, [(None, "monocyte")])
    (('monocyte', None), (None, None))
    """
    if not len(boxes) or not labels:
        return (None,) * len(boxes)
    known = [(box, name) for box, name in labels if box is not None]
    result: list[str | None] = [None] * len(boxes)
    if known:
        overlap = iou(boxes.xyxy, np.array([box for box, _ in known], np.float32))
        for cell in range(len(boxes)):
            best = int(overlap[cell].argmax())
            if overlap[cell, best] >= 0.5:
                result[cell] = known[best][1]
    elif len(boxes) == 1 and len(labels) == 1:
        result[0] = labels[0][1]
    return tuple(result)


def check_setup(setup: CounterSetup) -> None:
    """Refuse values that cannot be meant, before anything heavy is loaded."""
    from pathlib import Path

    if setup.boxes not in BOX_CHOICES and not Path(setup.boxes).is_dir():
        raise UsageError(f"boxes must be {', '.join(BOX_CHOICES)} or the folder of a localizer, not {setup.boxes!r}.")
    for name, value in (("threshold", setup.threshold), ("find_threshold", setup.find_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} must lie between 0 and 1, not at {value:g}.")
    if setup.um_per_pixel is not None and not 0.005 <= setup.um_per_pixel <= 5:
        raise UsageError(f"um_per_pixel must lie between 0.005 and 5 um, not at {setup.um_per_pixel:g}.")
    if setup.max_pixels < 1:
        raise UsageError(f"max_pixels must be above zero, not {setup.max_pixels}.")
