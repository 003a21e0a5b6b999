"""A slide counted: looked over, measured, its fields read ahead and localized, the monolayer's cells classified.

One ``FieldRecord`` comes out, as for a photograph, with boxes in pixels of the slide.  The localizer, the crops and
the model are those of the ``FieldCounter`` that was asked; crops are classified as they come, so that a slide of any
size takes the same memory.  Which fields are of the monolayer is decided field by field from the red cells found there;
where none is, all are counted and the record says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.counting.cells import CellRecord, FieldRecord, SlideArea, cell_record
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.errors import BloodcellsError, Cancelled, UsageError
from napari_bloodcells.core.progress import check_cancelled
from napari_bloodcells.core.quality import check_quality
from napari_bloodcells.core.remote import is_address
from napari_bloodcells.core.slides.arrayslide import ArraySlide
from napari_bloodcells.core.slides.grid import EMPTY, FieldGrid, GridSettings, SlideField, Tile
from napari_bloodcells.core.slides.monolayer import MonolayerRule, by_promise
from napari_bloodcells.core.slides.opening import open_slide
from napari_bloodcells.core.slides.scale import SlideScale, slide_scale
from napari_bloodcells.core.slides.seams import BAND_UM, Found, join, owned_by
from napari_bloodcells.core.slides.slide import Slide
from napari_bloodcells.core.slides.survey import Survey, survey_slide

if TYPE_CHECKING:
    from torch import Tensor

    from napari_bloodcells.core.counting.pipeline import FieldCounter
    from napari_bloodcells.core.localize import Field

TASK = "slide"
CROPS = 512
"""So many crops wait before they are classified together."""
WORTH_TELLING = 0.1
"""A remark that holds for this share of the counted fields is one of the slide."""


def count_slide(counter: FieldCounter, job: FieldJob, settings: GridSettings | None = None) -> FieldRecord:
    """Count one slide; what goes wrong with it is the status of its record.

    Raises
    ------
    Cancelled
        The progress of ``counter`` asked to stop.
    """
    try:
        _check(counter, job)
        with open_slide(job.source if isinstance(job.source, ArraySlide) else str(job.source)) as slide:
            return _SlideCount(counter, job, slide, settings or GridSettings()).record()
    except Cancelled:
        raise
    except BloodcellsError as error:
        return FieldRecord(job.image, status=str(error))
    except MemoryError:
        return FieldRecord(job.image, status=f"{job.image}: is too large for the memory of this machine.")
    except Exception as error:  # one slide must not take the others with it, whatever it holds
        return FieldRecord(job.image, status=f"{job.image}: could not be counted ({type(error).__name__}: {error}).")


def _check(counter: FieldCounter, job: FieldJob) -> None:
    if is_address(job.source):
        raise UsageError(
            f"{job.image}: is a whole slide; these are read from files of this machine, so fetch it first."
        )
    if job.boxes is not None:
        raise UsageError(f"{job.image}: is a whole slide; its cells are found, no boxes can be given for it.")
    if counter.setup.boxes in ("xml", "whole"):
        raise UsageError(f"{job.image}: is a whole slide; its cells must be found (--boxes find), not taken as given.")


@dataclass
class _Kept:
    """The white cells kept so far, and what was seen beside them."""

    fields: list[SlideField] = field(default_factory=list)
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    owned: list[NDArray[np.bool_]] = field(default_factory=list)
    probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    distances: list[NDArray[np.float32]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    waiting: list[Tensor] = field(default_factory=list)
    n_cells: int = 0
    n_red: int = 0
    n_platelets: int = 0


class _SlideCount:
    """One slide under way."""

    def __init__(self, counter: FieldCounter, job: FieldJob, slide: Slide, settings: GridSettings) -> None:
        self.counter, self.job, self.slide, self.settings = counter, job, slide, settings
        self.rule = MonolayerRule()
        self.progress = counter.progress
        self.wanted = counter.setup.cells_wanted

    def record(self) -> FieldRecord:
        """Count and sum up."""
        slide, times = self.slide, self.counter.times
        with times.stage("read"):
            survey = survey_slide(slide, self.progress)
        blank = FieldRecord(self.job.image, width=slide.width, height=slide.height, warnings=self._warnings())
        if survey.stained.max() <= EMPTY:
            return replace(blank, problems=("not a stained smear",))
        with times.stage("localize"):
            scale = slide_scale(slide, survey, self.counter.localizer, self.counter.setup.um_per_pixel)
        grid = FieldGrid.of((slide.width, slide.height), scale.um_per_pixel, self.settings)
        stained = grid.stained_fields(survey)
        kept = self._counted(grid, stained, survey, scale, self.rule)
        problems = scale.problems
        if not kept.fields:
            kept = self._counted(grid, stained, survey, scale, None)
            problems += ("no monolayer: red cells lie too densely or too thinly everywhere; all fields are counted",)
        n = len(kept.fields)
        problems += tuple(f"{text}: {k} of {n} fields" for text, k in kept.remarks.items() if k >= WORTH_TELLING * n)
        return replace(
            blank,
            um_per_pixel=scale.um_per_pixel,
            n_rbc=kept.n_red if scale.red_cells_found else None,
            n_platelets=kept.n_platelets if scale.red_cells_found else None,
            problems=problems,
            cells=self._cells(grid, kept),
            slide=_area(grid, stained, kept.fields, scale),
        )

    def _warnings(self) -> tuple[str, ...]:
        if self.job.annotation is None:
            return ()
        return ("its XML is not used: the cells of a whole slide are found",)

    def _counted(
        self,
        grid: FieldGrid,
        stained: Sequence[SlideField],
        survey: Survey,
        scale: SlideScale,
        rule: MonolayerRule | None,
    ) -> _Kept:
        """Go through the fields; without a ``rule`` all of them are kept."""
        kept = _Kept()
        shares = {place: float(survey.part(*place.own).mean()) for place in stained}
        if self.wanted is None:
            tiles = grid.tiles(stained, self.settings)
        else:
            order = by_promise(np.array([shares[place] for place in stained]))
            tiles = [Tile((stained[i],), stained[i].region) for i in order.tolist()]
        self.progress.start(TASK, len(stained))
        for place, pixels in self._fields(tiles):
            check_cancelled(self.progress)
            with self.counter.times.stage("localize"):
                found = self.counter.localizer.find(pixels, um_per_pixel=scale.um_per_pixel)
            red = _moved(found.rbc.xyxy, place)
            red = red[owned_by(red, place.own)]
            area = place.area * scale.um_per_pixel**2
            if rule is None or rule.holds(shares[place], red if scale.red_cells_found else None, area):
                kept.n_red += len(red)
                self._keep(kept, place, pixels, found, scale.um_per_pixel)
            self.progress.advance(TASK, 1, cells=float(kept.n_cells))
            if self.wanted is not None and kept.n_cells >= self.wanted:
                break
        self._classify(kept)
        return kept

    def _fields(self, tiles: Sequence[Tile]) -> Iterator[tuple[SlideField, NDArray[np.uint8]]]:
        """Each field with its pixels; the next tile is read while the fields of one are looked at."""
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(self.slide.read, tile.region) for tile in tiles[:1]]
            for number, tile in enumerate(tiles):
                with self.counter.times.stage("read"):
                    pixels = coming.pop().result()
                coming += [pool.submit(self.slide.read, after.region) for after in tiles[number + 1 : number + 2]]
                x, y = tile.region[:2]
                for place in tile.fields:
                    left, top, right, bottom = place.region
                    yield place, np.ascontiguousarray(pixels[top - y : bottom - y, left - x : right - x])

    def _keep(
        self, kept: _Kept, place: SlideField, pixels: NDArray[np.uint8], found: Field, um_per_pixel: float
    ) -> None:
        """Keep a field's own white cells, and those just beyond its seams."""
        from napari_bloodcells.core.crops import cut_crops

        small = _moved(found.platelets.xyxy, place)
        kept.n_platelets += int(owned_by(small, place.own).sum())
        kept.fields.append(place)
        kept.remarks.update(check_quality(pixels, um_per_pixel).problems)
        boxes = _moved(found.wbc.xyxy, place)
        near = owned_by(boxes, place.own, BAND_UM / um_per_pixel)
        boxes, owned = boxes[near], owned_by(boxes[near], place.own)
        kept.boxes.append(boxes)
        kept.scores.append(found.wbc.scores[near])
        kept.owned.append(owned)
        kept.n_cells += int(owned.sum())
        if len(boxes):
            with self.counter.times.stage("crop"):
                spec, device = self.counter.model.info.crop, self.counter.model.device
                kept.waiting.append(cut_crops(pixels, found.wbc.xyxy[near], spec, um_per_pixel, device))
        if sum(len(crops) for crops in kept.waiting) >= CROPS:
            self._classify(kept)

    def _classify(self, kept: _Kept) -> None:
        import torch

        if not kept.waiting:
            return
        with self.counter.times.stage("classify"):
            prediction = self.counter.model.predict(torch.cat(kept.waiting))
        kept.probabilities.append(prediction.probabilities)
        kept.distances.append(prediction.distance)
        kept.waiting.clear()

    def _cells(self, grid: FieldGrid, kept: _Kept) -> tuple[CellRecord, ...]:
        """Every cell once, from left to right."""
        from napari_bloodcells.core.counting.located import reading_order

        if not kept.probabilities:
            return ()
        boxes = np.concatenate(kept.boxes)
        field_of = np.repeat(np.arange(len(kept.fields)), [len(part) for part in kept.boxes])
        found = Found(boxes, np.concatenate(kept.scores), field_of, np.concatenate(kept.owned))
        once = join(found, grid.hold((boxes[:, :2] + boxes[:, 2:]) / 2, kept.fields))
        once = once[reading_order(boxes[once])]
        probabilities, distances = np.concatenate(kept.probabilities), np.concatenate(kept.distances)
        return tuple(
            cell_record(boxes[i], probabilities[i], float(distances[i]), self.counter.verdict, "found")
            for i in once.tolist()
        )


def _moved(xyxy: NDArray[np.float32], place: SlideField) -> NDArray[np.float64]:
    """Boxes of a field's region in pixels of the slide."""
    return xyxy.astype(np.float64).reshape(-1, 4) + np.array([*place.region[:2], *place.region[:2]], np.float64)


def _area(
    grid: FieldGrid, stained: Sequence[SlideField], counted: Sequence[SlideField], scale: SlideScale
) -> SlideArea:
    rows, columns = grid.shape
    drawn = [["."] * columns for _ in range(rows)]
    for mark, fields in (("o", stained), ("#", counted)):
        for place in fields:
            drawn[place.row][place.column] = mark
    mm2 = scale.um_per_pixel**2 / 1e6
    return SlideArea(
        field_side=grid.side,
        fields=tuple("".join(row) for row in drawn),
        counted_mm2=round(sum(place.area for place in counted) * mm2, 3),
        stained_mm2=round(sum(place.area for place in stained) * mm2, 3),
        scale_from=scale.source,
    )
