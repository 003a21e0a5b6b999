"""A slide counted: looked over, measured, its fields read ahead and localized, the monolayer's cells classified.

One ``FieldRecord`` comes out, as for a photograph, with boxes in pixels of the slide.  The localizer, the crops and
the model are those of the ``FieldCounter`` that was asked; the crops of some fields are classified together, so that a
slide of any size takes the same memory, and what is finished is kept on disk where the job says so (``kept.py``).
Which fields are of the monolayer is decided field by field from the red cells found there; where none is, all are
counted and the record says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.counting.cells import CellRecord, FieldRecord, SlideArea, cell_record
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.errors import BloodcellsError, Cancelled, OutputError, UsageError
from napari_bloodcells.core.progress import check_cancelled
from napari_bloodcells.core.quality import check_quality
from napari_bloodcells.core.remote import is_address
from napari_bloodcells.core.slides.arrayslide import ArraySlide
from napari_bloodcells.core.slides.grid import EMPTY, FieldGrid, GridSettings, SlideField, Tile
from napari_bloodcells.core.slides.kept import PART, KeptFields
from napari_bloodcells.core.slides.monolayer import MonolayerRule, by_promise
from napari_bloodcells.core.slides.opening import open_slide
from napari_bloodcells.core.slides.scale import SlideScale, slide_scale
from napari_bloodcells.core.slides.seams import BAND_UM, Found, join, owned_by
from napari_bloodcells.core.slides.seen import SeenField
from napari_bloodcells.core.slides.slide import Slide
from napari_bloodcells.core.slides.survey import Survey, survey_slide

if TYPE_CHECKING:
    from torch import Tensor

    from napari_bloodcells.core.counting.pipeline import FieldCounter

TASK = "slide"
WORTH_TELLING = 0.1
"""A remark that holds for this share of the counted fields is one of the slide."""


def count_slide(counter: FieldCounter, job: FieldJob, settings: GridSettings | None = None) -> FieldRecord:
    """Count one slide; what goes wrong with it is the status of its record.

    Raises
    ------
    Cancelled
        The progress of ``counter`` asked to stop.
    OutputError
        What is finished cannot be kept (a full disk), or another run has taken the output folder over.
    """
    try:
        _check(counter, job)
        with open_slide(job.source if isinstance(job.source, ArraySlide) else str(job.source)) as slide:
            return _SlideCount(counter, job, slide, settings or GridSettings()).record()
    except (Cancelled, OutputError):  # of the run, not of this slide
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


class _SlideCount:
    """One slide under way."""

    def __init__(self, counter: FieldCounter, job: FieldJob, slide: Slide, settings: GridSettings) -> None:
        self.counter, self.job, self.slide, self.settings = counter, job, slide, settings
        self.rule = MonolayerRule()
        self.progress = counter.progress
        self.wanted = counter.setup.cells_wanted
        self.kept = KeptFields(job.kept)

    def record(self) -> FieldRecord:
        """Count and sum up."""
        slide = self.slide
        blank = FieldRecord(self.job.image, width=slide.width, height=slide.height, warnings=self._warnings())
        look = self._look_over()
        if look is None:
            return replace(blank, problems=("not a stained smear",))
        survey, scale = look
        grid = FieldGrid.of((slide.width, slide.height), scale.um_per_pixel, self.settings)
        stained = grid.stained_fields(survey)
        counted = self._counted(grid, stained, survey, scale, self.rule)
        problems = scale.problems
        if not counted:
            counted = self._counted(grid, stained, survey, scale, None)
            problems += ("no monolayer: red cells lie too densely or too thinly everywhere; all fields are counted",)
        n = len(counted)
        remarks = Counter(text for one in counted for text in one.remarks)
        problems += tuple(f"{text}: {k} of {n} fields" for text, k in remarks.items() if k >= WORTH_TELLING * n)
        places = [grid.field(*one.place) for one in counted]
        return replace(
            blank,
            um_per_pixel=scale.um_per_pixel,
            n_rbc=sum(one.n_red for one in counted) if scale.red_cells_found else None,
            n_platelets=sum(one.n_platelets for one in counted) if scale.red_cells_found else None,
            problems=problems,
            cells=self._cells(grid, places, counted),
            slide=_area(grid, stained, places, scale),
        )

    def _warnings(self) -> tuple[str, ...]:
        unused = "its XML is not used: the cells of a whole slide are found"
        return (*self.slide.remarks, *([] if self.job.annotation is None else [unused]))

    def _look_over(self) -> tuple[Survey, SlideScale] | None:
        """Where the slide is stained, and its scale; None where it is empty."""
        if (look := self.kept.look()) is not None:
            return look
        with self.counter.times.stage("read"):
            survey = survey_slide(self.slide, self.progress)
        if survey.stained.max() <= EMPTY:
            return None
        with self.counter.times.stage("localize"):
            scale = slide_scale(self.slide, survey, self.counter.localizer, self.counter.setup.um_per_pixel)
        self.kept.write_look(survey, scale)
        return survey, scale

    def _counted(
        self,
        grid: FieldGrid,
        stained: Sequence[SlideField],
        survey: Survey,
        scale: SlideScale,
        rule: MonolayerRule | None,
    ) -> list[SeenField]:
        """Go through the fields and return those that are counted; without a ``rule`` all of them are."""
        shares = {place: float(survey.part(*place.own).mean()) for place in stained}
        order = list(stained)
        if self.wanted is not None:
            order = [stained[i] for i in by_promise(np.array(list(shares.values()))).tolist()]
        kind = "all" if rule is None else "monolayer"
        seen = self.kept.fields(kind, order)
        if len(seen) < len(order) and not self._enough(sum(one.n_cells for one in seen)):
            seen = seen[: len(seen) // PART * PART]
        n_cells = sum(one.n_cells for one in seen)
        self.progress.start(TASK, len(order))
        if seen:
            self.progress.advance(TASK, len(seen), cells=float(n_cells))
        part: list[tuple[SeenField, Tensor | None]] = []
        coming = [] if self._enough(n_cells) else order[len(seen) :]
        for place, pixels in self._fields(self._tiles(grid, coming)):
            check_cancelled(self.progress)
            part.append(self._look(place, pixels, scale, shares[place], rule))
            n_cells += part[-1][0].n_cells
            self.progress.advance(TASK, 1, cells=float(n_cells))
            done = self._enough(n_cells) or len(seen) + len(part) == len(order)
            if len(part) == PART or done:
                finished = self._classified(part)
                self.kept.write_fields(kind, len(seen) // PART, finished)
                seen += finished
                part.clear()
            if done:
                break
        return [one for one in seen if one.counted]

    def _enough(self, n_cells: int) -> bool:
        return self.wanted is not None and n_cells >= self.wanted

    def _tiles(self, grid: FieldGrid, fields: Sequence[SlideField]) -> list[Tile]:
        """What is read at once: neighbors, or one field after the other where the best come first."""
        if self.wanted is None:
            return grid.tiles(fields, self.settings)
        return [Tile((place,), place.region) for place in fields]

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

    def _look(
        self,
        place: SlideField,
        pixels: NDArray[np.uint8],
        scale: SlideScale,
        share: float,
        rule: MonolayerRule | None,
    ) -> tuple[SeenField, Tensor | None]:
        """A field with its own white cells and those just beyond its seams, yet to be classified, and their crops."""
        from napari_bloodcells.core.crops import cut_crops

        um = scale.um_per_pixel
        with self.counter.times.stage("localize"):
            found = self.counter.localizer.find(pixels, um_per_pixel=um)
        red = _moved(found.rbc.xyxy, place)
        red = red[owned_by(red, place.own)]
        known_red = red if scale.red_cells_found else None
        if rule is not None and not rule.holds(share, known_red, place.area * um**2):
            return SeenField(place.row, place.column), None
        boxes = _moved(found.wbc.xyxy, place)
        near = owned_by(boxes, place.own, BAND_UM / um)
        seen = SeenField(
            place.row,
            place.column,
            counted=True,
            n_red=len(red),
            n_platelets=int(owned_by(_moved(found.platelets.xyxy, place), place.own).sum()),
            remarks=check_quality(pixels, um).problems,
            boxes=boxes[near],
            scores=found.wbc.scores[near],
            owned=owned_by(boxes[near], place.own),
        )
        if not near.any():
            return seen, None
        with self.counter.times.stage("crop"):
            spec, device = self.counter.model.info.crop, self.counter.model.device
            return seen, cut_crops(pixels, found.wbc.xyxy[near], spec, um, device)

    def _classified(self, part: Sequence[tuple[SeenField, Tensor | None]]) -> list[SeenField]:
        """The fields of a part with what the model says of their cells."""
        import torch

        crops = [cut for _, cut in part if cut is not None]
        if not crops:
            return [one for one, _ in part]
        with self.counter.times.stage("classify"):
            prediction = self.counter.model.predict(torch.cat(crops))
        finished, start = [], 0
        for one, _ in part:
            rows = slice(start, start + len(one.boxes))
            said, far = prediction.probabilities[rows], prediction.distance[rows]
            finished.append(replace(one, probabilities=said, distances=far) if len(one.boxes) else one)
            start = rows.stop
        return finished

    def _cells(
        self, grid: FieldGrid, places: Sequence[SlideField], counted: Sequence[SeenField]
    ) -> tuple[CellRecord, ...]:
        """Every cell once, from left to right."""
        from napari_bloodcells.core.counting.located import reading_order

        held = [one for one in counted if len(one.boxes)]
        if not held:
            return ()
        boxes = np.concatenate([one.boxes for one in held])
        field_of = np.repeat(np.arange(len(held)), [len(one.boxes) for one in held])
        scores, owned = (np.concatenate([getattr(one, name) for one in held]) for name in ("scores", "owned"))
        found = Found(boxes, scores, field_of, owned)
        once = join(found, grid.hold((boxes[:, :2] + boxes[:, 2:]) / 2, places))
        once = once[reading_order(boxes[once])]
        probabilities = np.concatenate([one.probabilities for one in held])
        distances = np.concatenate([one.distances for one in held])
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
