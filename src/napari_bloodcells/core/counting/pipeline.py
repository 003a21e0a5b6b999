"""From jobs to records: read -> localize -> crop -> classify, each stage on its own terms.

A ``FieldCounter`` holds the localizer and the model and takes a shard of jobs.  Images are read ahead, a bounded number
and bulk of them, by threads (Pillow decodes outside of Python's lock) where the network runs on a GPU; on a CPU every
worker process reads its own.  Pictures are read at half size where that holds all that the crops need (``picture.py``).
Each image is localized and cropped by itself and its pixels are let go at once; the crops of several are classified
together and let go as soon as some hundreds have gathered, in the model's fixed micro-batches, so that a result does
not depend on what else is in the shard, nor the memory on its size.  An error travels with its image, in the order of
the jobs; but where the device or the network failed, which says nothing of the image, the run ends, to be resumed.
Several threads may each have a counter: nothing is caught or kept for the process as a whole.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.counting.cells import OK, CellRecord, FieldRecord, Verdict, cell_record
from napari_bloodcells.core.counting.copies import file_digest
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.located import (
    Located,
    enlarged,
    failed,
    match_labels,
    reading_order,
    whole_field,
    without_names,
)
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.counting.setup import CounterSetup, StageTimes
from napari_bloodcells.core.devices import outage
from napari_bloodcells.core.errors import AnnotationError, BloodcellsError, Cancelled, OutageError
from napari_bloodcells.core.find import SLIDE_SUFFIXES
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.quality import check_quality
from napari_bloodcells.core.remote import file_name, is_address, read_remote
from napari_bloodcells.core.slides import is_slide

if TYPE_CHECKING:
    from torch import Tensor

    from napari_bloodcells.core.bundle import BundleInfo, Model, Prediction
    from napari_bloodcells.core.counting.shelf import LentShelf
    from napari_bloodcells.core.localize import Field, Localizer

Read: TypeAlias = tuple[FieldJob, "Picture | BloodcellsError"]

GROUP, GROUP_BYTES = 8, 16_000_000
"""Images that are localized together, at most so many and so large."""
READ_AHEAD = 4
"""Images that wait, read, per reading thread: at most so many,"""
AHEAD_BYTES = 2**28
"""and together at most so large, in a process; two may always wait."""
AT_ONCE = 512
"""Crops that are classified as soon as they have gathered, and before it is asked whether to stop: whole micro-batches
of the model."""
FINE_ENOUGH = 0.8
"""A reduced picture serves where its pixels are this much finer than those of the crops (BCCD at half size: 0.6)."""


@dataclass(frozen=True)
class _Cells:
    """Boxes to classify, what the data set calls them, the field they lie in, what was odd about their XML, and their
    crops."""

    boxes: Boxes
    labels: tuple[str | None, ...]
    field: Field
    remarks: tuple[str, ...]
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
        self.progress: Progress = Silent()
        self.shelf: LentShelf | None = None
        self._halves = halves(setup, info)
        self._largest = 0
        self._localizer: Localizer | None = None

    @property
    def localizer(self) -> Localizer:
        """The localizer, loaded when it is first needed: whole cells and fields with all boxes need none."""
        if self._localizer is None:
            from napari_bloodcells.core.localize import load_localizer

            setup = self.setup
            self._localizer = load_localizer(setup.localizer, str(self.model.device), setup.find_threshold)
        return self._localizer

    def twin(self) -> FieldCounter:
        """A counter with the same networks and times of its own, for another thread."""
        other = copy.copy(self)
        other.times = StageTimes()
        return other

    def count(self, jobs: Sequence[FieldJob]) -> list[FieldRecord]:
        """Count the images of ``jobs``: one record each, in their order, whatever happens to an image.

        Whole slides among them are counted one by one, and tell ``self.progress`` of every field.

        Raises
        ------
        OutageError
            The device failed, or the host of an address cannot be reached any more.
        Cancelled
            ``self.progress`` asked to stop.
        """
        if any(self._finds(job) for job in jobs):  # with boxes given too, unless their scale is
            _ = self.localizer  # one that cannot be loaded ends the run, not each image
        slides = {n: self._slide(job) for n, job in enumerate(jobs) if _is_slide(job)}
        fields = iter(self._fields([job for n, job in enumerate(jobs) if n not in slides]))
        records = [slides[n] if n in slides else next(fields) for n in range(len(jobs))]
        self.times.images += len(records)
        self.times.cells += sum(len(record.cells) for record in records)
        return records

    def _slide(self, job: FieldJob) -> FieldRecord:
        from napari_bloodcells.core.slides.counting import count_slide

        record = count_slide(self, job)
        if record.status != OK and (stopped := outage(record.status, self.model.device)) is not None:
            raise stopped
        if job.maybe_copy and record.status == OK and isinstance(job.source, str):
            record = replace(record, digest=file_digest(job.source))
        return without_names(job, record)

    def _fields(self, jobs: Sequence[FieldJob]) -> list[FieldRecord]:
        """Count photographs; of their crops are held those of one, and fewer than ``AT_ONCE`` of those before it."""
        located: list[Located] = []
        said: list[Prediction] = []
        crops: list[Tensor] = []
        with closing(self._read_ahead(jobs)) as reading:
            for group in _groups(reading):
                for item in self._locate_group(group):
                    located.append(replace(item, crops=None))
                    crops += [] if item.crops is None else [item.crops]
                    del item  # else its crops would be held beside those of the next one
                    said += self._classify(crops, AT_ONCE)
        said += self._classify(crops, 1)
        cells = iter(self._cell_records(located, said))
        return [
            without_names(job, replace(item.record, cells=tuple(next(cells) for _ in range(len(item.boxes)))))
            for job, item in zip(jobs, located, strict=True)
        ]

    def _read(self, job: FieldJob) -> Picture | BloodcellsError:
        if self.shelf is not None and (picture := self.shelf.take(job.image)) is not None:
            return picture
        try:
            if isinstance(job.source, str):
                return Picture.of_file(job.source, self.setup.max_pixels, self._halves, job.maybe_copy)
            return Picture.of_array(np.asarray(job.source), job.image)
        except BloodcellsError as error:
            return error
        except MemoryError:
            return BloodcellsError(f"{job.image}: is too large for the memory of this machine.")
        except Exception as error:  # whatever stands behind a lazy array raises what it likes
            return BloodcellsError(f"{job.image}: cannot be read ({type(error).__name__}: {error}).")

    def _read_ahead(self, jobs: Sequence[FieldJob]) -> Generator[Read, None, None]:
        if self.setup.readers < 1:
            for job in jobs:
                with self.times.stage("read"):
                    image = self._read(job)
                yield job, image
            return
        coming = deque(jobs)
        waiting: deque[tuple[FieldJob, Future[Picture | BloodcellsError]]] = deque()
        pool = ThreadPoolExecutor(self.setup.readers)
        try:
            while coming or waiting:
                while coming and self._has_room([future for _, future in waiting]):
                    waiting.append((coming[0], pool.submit(self._read, coming.popleft())))
                job, future = waiting.popleft()
                with self.times.stage("read"):
                    image = future.result()
                self._largest = max(self._largest, _held(image))
                yield job, image
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _has_room(self, waiting: Sequence[Future[Picture | BloodcellsError]]) -> bool:
        """Whether one more may be read ahead; what is not read yet may be as large as the largest so far."""
        if len(waiting) < 2:
            return True
        if len(waiting) >= READ_AHEAD * self.setup.readers or not self._largest:
            return False
        read = [_held(future.result()) for future in waiting if future.done()]
        return sum(read) + self._largest * (len(waiting) - len(read) + 1) <= AHEAD_BYTES

    def _locate_group(self, group: Sequence[Read]) -> Iterator[Located]:
        """Localize and crop a few images one by one, the first looks of those whose cells must be found together."""
        ahead: dict[int, Field] = {}
        many = getattr(self._localizer, "find_many", None) if len(group) > 1 else None
        for reduce in (1, 2):
            alike = {
                i: picture.pixels
                for i, (job, picture) in enumerate(group)
                if isinstance(picture, Picture) and picture.reduce == reduce and job.boxes is None and self._finds(job)
            }
            if many is not None and alike:
                scale = self.setup.um_per_pixel
                try:
                    with self._computing("localize"):
                        fields = many(list(alike.values()), um_per_pixel=None if scale is None else scale * reduce)
                    ahead.update(zip(alike, fields, strict=True))
                except OutageError:
                    raise
                except Exception:  # then one by one, each with its own error
                    continue
        for i, (job, picture) in enumerate(group):
            check_cancelled(self.progress)
            yield self._locate(job, picture, ahead.get(i))

    def _locate(self, job: FieldJob, picture: Picture | BloodcellsError, found: Field | None) -> Located:
        if isinstance(picture, OutageError):
            raise picture
        if isinstance(picture, BloodcellsError):
            return failed(job, picture)
        try:
            cells = self._cells(job, picture, found)
            if picture.reduce > 1 and not self._fine_enough(picture, cells.field):
                with self.times.stage("read"):
                    picture = picture.whole()
                cells = self._cells(job, picture, None)
        except (Cancelled, OutageError):  # of the run, not of this image
            raise
        except BloodcellsError as error:
            return failed(job, error)
        except Exception as error:  # one image must not take the others with it, whatever it holds
            return failed(job, BloodcellsError(f"{job.image}: could not be counted ({type(error).__name__}: {error})."))
        field = cells.field
        scale = None if field.um_per_pixel is None else field.um_per_pixel * picture.reduce
        record = FieldRecord(
            image=job.image,
            width=picture.width,
            height=picture.height,
            um_per_pixel=field.um_per_pixel,
            n_rbc=len(field.rbc) if len(field.rbc) else None,
            n_platelets=len(field.platelets) if len(field.rbc) else None,
            problems=(*check_quality(picture.pixels, scale).problems, *field.problems),
            warnings=(*picture.remarks, *cells.remarks),
            digest=picture.digest,
        )
        return Located(record, cells.boxes, cells.labels, cells.crops)

    @contextmanager
    def _computing(self, stage: str) -> Iterator[None]:
        """Take the time of the block; where the device fails in it, raise ``OutageError``."""
        with self.times.stage(stage):
            try:
                yield
            except RuntimeError as error:
                if (stopped := outage(error, self.model.device)) is not None:
                    raise stopped from None
                raise

    def _cells(self, job: FieldJob, picture: Picture, found: Field | None) -> _Cells:
        with self._computing("localize"):
            boxes, field, remarks = self._boxes(job, picture, found)
            labels = match_labels(boxes, job.labels)
        check_cancelled(self.progress)
        with self._computing("crop"):
            crops = self._crop(picture, boxes, field.um_per_pixel)
        return _Cells(boxes, labels, field, remarks, crops)

    def _fine_enough(self, picture: Picture, field: Field) -> bool:
        """Whether crops of the reduced picture hold as much as those of the whole one."""
        spec = self.model.info.crop
        if spec.scale != "um" or field.um_per_pixel is None:
            return False
        return field.um_per_pixel * picture.reduce <= FINE_ENOUGH * spec.side_um / spec.size

    def _boxes(self, job: FieldJob, picture: Picture, found: Field | None) -> tuple[Boxes, Field, tuple[str, ...]]:
        """Boxes to classify, in pixels of the whole picture, the field they lie in, and what was odd about their XML;
        ``found`` is taken as it is."""
        from napari_bloodcells.core.localize import Field

        scale = self.setup.um_per_pixel
        if job.boxes is not None:
            given = Field.of((picture.height, picture.width), job.boxes, um_per_pixel=scale)
            return job.boxes, given if scale is not None else self._find(picture), ()
        if self.setup.boxes == "whole":
            return *whole_field(picture, scale, self.model.info.crop.scale), ()
        if job.annotation is not None and self.setup.boxes in ("auto", "xml"):
            return self._annotated(job.annotation, picture)
        if self.setup.boxes == "xml":
            raise AnnotationError(f"{job.image}: has no XML; take --boxes auto to have its cells found.")
        field = self._find(picture) if found is None else enlarged(found, picture)
        return field.wbc.take(reading_order(field.wbc.xyxy)), field, ()

    def _find(self, picture: Picture) -> Field:
        """What the localizer finds, in pixels of the whole picture."""
        scale = self.setup.um_per_pixel
        field = self.localizer.find(picture.pixels, um_per_pixel=None if scale is None else scale * picture.reduce)
        return enlarged(field, picture)

    def _finds(self, job: FieldJob) -> bool:
        """Whether the cells of an image have to be found."""
        if job.boxes is not None:
            return self.setup.um_per_pixel is None
        if self.setup.boxes in ("auto", "xml") and job.annotation is not None:
            return False
        return self.setup.boxes not in ("xml", "whole")

    def _annotated(self, path: str, picture: Picture) -> tuple[Boxes, Field, tuple[str, ...]]:
        from napari_bloodcells.core.datasets import scale_of_red_cells
        from napari_bloodcells.core.datasets.folder import box_kind
        from napari_bloodcells.core.localize import Field
        from napari_bloodcells.core.voc import MAX_BYTES, annotation_of_bytes, read_annotation

        if is_address(path):
            annotation = annotation_of_bytes(read_remote(path, MAX_BYTES, AnnotationError), file_name(path))
        else:
            annotation = read_annotation(path)
        height, width = picture.height, picture.width
        annotation.check_size(height, width)
        kinds = [box_kind(label) or "WBC" for label in annotation.boxes.labels]
        white, red, small = (
            annotation.boxes.take([i for i, kind in enumerate(kinds) if kind == name])
            for name in ("WBC", "RBC", "Platelets")
        )
        scale = self.setup.um_per_pixel or scale_of_red_cells(red, height, width)
        if scale is not None:
            return white, Field.of((height, width), white, red, small, scale), annotation.remarks
        return white, self._find(picture), annotation.remarks

    def _crop(self, picture: Picture, boxes: Boxes, um_per_pixel: float | None) -> Tensor | None:
        from napari_bloodcells.core.crops import cut_crops

        if not len(boxes):
            return None
        scale = None if um_per_pixel is None else um_per_pixel * picture.reduce
        spec = self.model.info.crop
        return cut_crops(picture.pixels, boxes.xyxy / np.float32(picture.reduce), spec, scale, self.model.device)

    def _classify(self, crops: list[Tensor], least: int) -> Iterator[Prediction]:
        """Classify ``AT_ONCE`` crops after the other, taken out of ``crops``, until fewer than ``least`` stay."""
        while sum(map(len, crops)) >= least:
            check_cancelled(self.progress)
            with self._computing("classify"):
                said = self.model.predict(_take(crops, AT_ONCE))
            yield said

    def _cell_records(self, located: Sequence[Located], said: Sequence[Prediction]) -> list[CellRecord]:
        """The cells of all images, one after the other; ``said`` has them in the same order."""
        if not said:
            return []
        probabilities = np.concatenate([part.probabilities for part in said])
        distances = np.concatenate([part.distance for part in said])
        rows = [
            (box, item.boxes.source, label)
            for item in located
            for box, label in zip(item.boxes.xyxy, item.labels, strict=True)
        ]
        return [
            cell_record(box, p, float(far), self.verdict, source, label)
            for (box, source, label), p, far in zip(rows, probabilities, distances, strict=True)
        ]


def halves(setup: CounterSetup, info: BundleInfo) -> bool:
    """Whether large photographs are read at half size first: where crops have a scale, and cells are found."""
    return setup.boxes != "whole" and info.crop.scale == "um"


def _is_slide(job: FieldJob) -> bool:
    """Whether an image is a slide; one at an address, which can only be refused, by its suffix."""
    if is_address(job.source):
        return PurePosixPath(file_name(str(job.source))).suffix.casefold() in SLIDE_SUFFIXES
    return is_slide(job.source)


def _held(read: Picture | BloodcellsError) -> int:
    """Bytes of memory that what was read takes."""
    return read.held if isinstance(read, Picture) else 0


def _take(crops: list[Tensor], n: int) -> Tensor:
    """The first ``n`` crops, or all where they are fewer, which are taken out of ``crops``."""
    import torch

    parts: list[Tensor] = []
    while crops and n > 0:
        first = crops.pop(0)
        parts.append(first[:n])
        if len(rest := first[n:]):
            crops.insert(0, rest if len(rest) > n else rest.clone())  # a small rest would hold the memory of all
        n -= len(parts[-1])
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _groups(read: Iterable[Read]) -> Iterator[list[Read]]:
    """Few images at a time: ``GROUP`` of them, or fewer large ones, so that their pixels never add up."""
    group: list[Read] = []
    pixels = 0
    for item in read:
        group.append(item)
        pixels += item[1].pixels.size if isinstance(item[1], Picture) else 0
        if len(group) == GROUP or pixels > GROUP_BYTES:
            yield group
            group, pixels = [], 0
    if group:
        yield group
