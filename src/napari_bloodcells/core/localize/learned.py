"""The learned localizer: finds its own scale, then the cells.

First look: the image is brought to 8,560 pixels (107x80 for a 640x480 field), where the net sees cells of almost any
size well enough to measure them.  If a red cell is then 13 to 32 working pixels across, that was it (BCCD: 17);
otherwise the image is resampled to a comfortable scale and looked at once more.  Where nothing is seen, the image is
looked at in more detail before it is called empty.  Where the net is in doubt of a white cell, it looks again from a
little further off, and both scores count.  Everything is computed for one image alone, so the result cannot depend on
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_bloodcells.core.boxes import iou, touches_border
from napari_bloodcells.core.devices import pick_device
from napari_bloodcells.core.localize.base import RED_CELL_UM, Field, check_image, found, weighted_median
from napari_bloodcells.core.localize.decode import DecodeSettings, Found, decode
from napari_bloodcells.core.localize.evidence import Evidence, gather_evidence
from napari_bloodcells.core.localize.maps import MapMaker, Maps
from napari_bloodcells.core.localize.net import CLASSES, CellNet
from napari_bloodcells.core.localize.store import LocalizerInfo, home, read_localizer

WBC_PER_RED_CELL = 1.87
"""A white cell's box is this many red cells across: the median of the sources that box both (``core.crops``)."""


@dataclass(frozen=True)
class LookSettings:
    """Lengths are pixels of the working image."""

    first_look: int = 80 * 107
    """Pixels of the working image at first look; on validation fields 96 * 128 finds no more and takes a third longer,
    72 * 96 sends more fields to a second look (docs/finding.md)."""
    comfortable: tuple[float, float] = (13.0, 32.0)
    """Diameters of a red cell at which no second look is needed."""
    shrink_to: float = 20.0
    enlarge_to: float = 16.0
    """Diameter of a red cell at the second look, after too large and after too small a one."""
    looks: int = 4
    """The image is looked at no more often than this."""
    closer: float = 2.45
    """Magnification from one look to the next while nothing is seen."""
    largest_zoom: float = 4.0
    """The image is enlarged no further than this; beyond it there is nothing to see."""
    ruler_score: float = 0.35
    """Lowest score of a cell that serves as the ruler."""
    sure_score: float = 0.8
    """Lowest score of the red cells that are the ruler where specks outnumber them."""
    smallest: float = 0.5
    """A white cell's longer side is no shorter than this many red cells: 4 um (small lymphocytes have 6)."""
    speck: float = 1.4
    """Red cells of one field are alike to this factor; what is smaller than the sure ones by more is dust."""
    fewest_sure: int = 2
    """With fewer sure red cells than this, and fewer than ``enough_sure`` in all, the ruler may be heaps of far smaller
    ones: a closer look is taken."""
    enough_sure: int = 10
    """From so many sure red cells on a closer look, or a patch, is believed that they are smaller than it seemed."""
    patch: int = 640
    """Of an image with more pixels than ``unaided``, the scale must hold on patches of this side too: at first look
    such an image is so small that heaps of red cells may pass for red cells."""
    unaided: int = 1_250_000
    doubt: float = 1.5
    """Factor by which patches and image differ before the patches are believed."""
    doubtful: tuple[float, float] = (0.35, 0.55)
    """Scores between which a white cell is in doubt: such a field is looked at again."""
    further: float = 0.75
    """Magnification from the last look to that one."""
    not_seen: float = 0.03
    """Score of a white cell that is not seen there, less than the lowest that is decoded."""
    same_cell: float = 0.3
    """Overlap (IoU) from which the boxes of both looks are one cell."""
    window: int = 1024
    """Larger working images are put through the net in windows of this side, for the memory's sake."""
    halo: int = 96
    """What a window sees beyond its own part: as far as the net sees."""


@dataclass(frozen=True)
class _Look:
    """What one look gave: cells in pixels of the working image, and its scale (working pixels per image pixel)."""

    cells: tuple[Found, ...]
    zoom: tuple[float, float]
    size: tuple[int, int]
    red_cell: float | None
    from_red_cells: bool
    likely: int = 0
    sure: int = 0
    """Red cells that may serve as the ruler, and those of them that are surely such."""


class LearnedLocalizer:
    """Finds white cells, red cells and platelets with a trained network; see the module's text.

    Parameters
    ----------
    info, net
        From ``read_localizer``.
    device
        ``cpu``, ``cuda`` or ``mps``.
    threshold
        Calibrated score from which a white cell is reported; None takes the one of ``info``.
    """

    def __init__(
        self,
        info: LocalizerInfo,
        net: CellNet,
        device: str = "cpu",
        threshold: float | None = None,
        settings: LookSettings | None = None,
    ) -> None:
        self.name = info.name
        self.info = info
        self.settings = settings or LookSettings()
        self._maps = MapMaker(net, info.ranges, pick_device(device), self.settings.window, self.settings.halo)
        self.net = self._maps.net
        self.thresholds = (info.thresholds[0] if threshold is None else threshold, *info.thresholds[1:])
        self._decoding = DecodeSettings()

    def find(self, image: NDArray[np.uint8], *, um_per_pixel: float | None = None) -> Field:
        """Find the cells of one image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            RGB, of any size from one cell to a whole slide's tile.
        um_per_pixel : float, optional
            Overrules the scale that is measured.

        Returns
        -------
        Field
            In pixels of ``image``.
        """
        return self._field(check_image(image), um_per_pixel, None)

    def find_many(self, images: Sequence[NDArray[np.uint8]], *, um_per_pixel: float | None = None) -> list[Field]:
        """``find`` for several images: a third faster where the net takes ``BATCH`` first looks of one size at once.

        The batch is always full (the last one is filled up), so an image gives the same bits whatever its neighbors.
        """
        if self._maps.batch == 1:
            return [self.find(image, um_per_pixel=um_per_pixel) for image in images]
        first = [self._first_zoom(check_image(image), um_per_pixel) for image in images]
        maps = self._maps.of_many([_resized(image, zoom) for image, zoom in zip(images, first, strict=True)])
        return [self._field(image, um_per_pixel, found) for image, found in zip(images, maps, strict=True)]

    def _field(self, image: NDArray[np.uint8], um_per_pixel: float | None, first: Maps | None) -> Field:
        look = self._doubts_looked_at_again(image, self._search(image, um_per_pixel, first))
        zoom = np.array([*look.zoom, *look.zoom], np.float32)
        white = self._not_too_small(look)
        cells = [(boxes / zoom, scores) for boxes, scores in (white, *look.cells[1:])]
        evidence = gather_evidence(image, cells[0][0], *cells[1])
        kept = []
        for c, (boxes, scores) in enumerate(cells):
            sure = self._calibrated(scores, c, evidence if c == 0 else None)
            keep = sure >= self.thresholds[c]
            kept.append(found(boxes[keep], CLASSES[c], sure[keep]))
        measured = um_per_pixel
        problems: list[str] = []
        low, high = self.settings.comfortable
        if measured is None and look.from_red_cells and not 0.7 * low <= (look.red_cell or low) <= 1.4 * high:
            problems.append(
                "the scale is not sure, as no look at the red cells was a good one; --um-per-pixel gives it"
            )
        if measured is None and look.from_red_cells and look.red_cell is not None:
            measured = RED_CELL_UM / (look.red_cell / float(np.sqrt(zoom[0] * zoom[1])))
        elif measured is None:
            problems.append("fewer than three whole red cells: no scale measured, --um-per-pixel gives it")
        if not any(map(len, kept)):
            problems.append("no cells found: empty, out of focus or not a smear")
        return Field.of(image.shape, kept[0], kept[1], kept[2], measured, tuple(problems))

    def _doubts_looked_at_again(self, image: NDArray[np.uint8], look: _Look) -> _Look:
        """The look with white cells scored anew (mean log-odds of two looks) where one of them is in doubt."""
        rule = self.settings
        boxes, scores = look.cells[0]
        low, high = rule.doubtful
        if not ((scores > low) & (scores < high)).any():
            return look
        again = self._look(image, look.zoom[0] * rule.further)
        (x, y), (x_again, y_again) = look.zoom, again.zoom
        there, said = again.cells[0]
        back = np.array([x / x_again, y / y_again] * 2, np.float32)
        same = iou(boxes, there * back) > rule.same_cell
        second = np.where(same, said, rule.not_seen).max(1, initial=rule.not_seen)
        both = (_log_odds(scores) + _log_odds(second)) / 2
        score = (1 / (1 + np.exp(-both))).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        return replace(look, cells=((boxes[order], score[order]), *look.cells[1:]))

    def _not_too_small(self, look: _Look) -> Found:
        """The white cells but for whole ones that are smaller than any: dust, where red cells tell the scale."""
        boxes, scores = look.cells[0]
        if look.red_cell is None or not look.from_red_cells:
            return boxes, scores
        large = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= self.settings.smallest * look.red_cell
        keep = large | touches_border(boxes, look.size[1], look.size[0], 1.0)
        return boxes[keep], scores[keep]

    def cells_at(self, image: NDArray[np.uint8], zoom: float) -> tuple[Found, ...]:
        """Boxes (N, 4) in pixels of ``image`` and raw scores (N,) of each class, seen at one given ``zoom``."""
        look = self._look(image, zoom)
        scale = np.array([*look.zoom, *look.zoom], np.float32)
        return tuple((boxes / scale, scores) for boxes, scores in look.cells)

    def _first_zoom(self, image: NDArray[np.uint8], um_per_pixel: float | None) -> float:
        """Working pixels per image pixel at first look: the one look there is where the scale is known."""
        rule = self.settings
        height, width = image.shape[:2]
        low, high = rule.comfortable
        zoom = float(np.sqrt(rule.first_look / (height * width)))
        if um_per_pixel is None:
            return min(zoom, rule.largest_zoom)
        expected = RED_CELL_UM / um_per_pixel
        if low <= expected * zoom <= high:
            return zoom
        target = rule.shrink_to if expected * zoom > high else rule.enlarge_to
        return min(target / expected, rule.largest_zoom)

    def _search(self, image: NDArray[np.uint8], um_per_pixel: float | None, first: Maps | None) -> _Look:
        """Look until the scale is comfortable; ``first`` are the maps of the first look, where they are there."""
        rule = self.settings
        zoom = self._first_zoom(image, um_per_pixel)
        look = self._look(image, zoom, first)
        if um_per_pixel is not None:
            return look
        look = self._made_comfortable(image, zoom, look)
        if look.from_red_cells and look.sure < rule.fewest_sure and look.likely < rule.enough_sure:
            look = self._held_against_closer(image, look)
        if image.shape[0] * image.shape[1] > rule.unaided:
            return self._held_against_patches(image, look)
        return look

    def _made_comfortable(self, image: NDArray[np.uint8], zoom: float, look: _Look) -> _Look:
        """Looks after the first one, until the red cells have a comfortable size."""
        rule = self.settings
        low, high = rule.comfortable
        for _ in range(rule.looks - 1):
            if look.red_cell is None:
                closer = min(zoom * rule.closer, max(1.0, zoom))
            elif low <= look.red_cell <= high:
                break
            else:
                target = rule.shrink_to if look.red_cell > high else rule.enlarge_to
                closer = zoom * target / look.red_cell
            closer = min(closer, rule.largest_zoom)
            if abs(closer / zoom - 1) < 0.1:
                break
            zoom = closer
            look = self._look(image, zoom)
        return look

    def _held_against_closer(self, image: NDArray[np.uint8], look: _Look) -> _Look:
        """The look, or one from closer by where that shows red cells that are surely such: what was taken for a few of
        them were heaps of smaller ones."""
        rule = self.settings
        zoom = min(look.zoom[0] * rule.closer, rule.largest_zoom)
        closer = self._made_comfortable(image, zoom, self._look(image, zoom))
        return closer if self._is_comfortable(closer) and closer.sure >= rule.enough_sure else look

    def _is_comfortable(self, look: _Look) -> bool:
        """Whether red cells told the scale, at a size at which the net sees them well."""
        low, high = self.settings.comfortable
        return look.from_red_cells and look.red_cell is not None and low <= look.red_cell <= high

    def _held_against_patches(self, image: NDArray[np.uint8], look: _Look) -> _Look:
        """The look at a large image, or one at the scale that its patches agree on where that is another one, or where
        the looks came to an end before a comfortable one.

        Patches of an image whose red cells are larger than a fourth of a patch show too few of them to tell a scale, so
        there the image's own stays.
        """
        rule = self.settings
        sizes = []
        for patch in _patches(image, rule.patch):
            zoom = self._first_zoom(patch, None)
            seen = self._made_comfortable(patch, zoom, self._look(patch, zoom))
            if self._is_comfortable(seen) and seen.sure >= rule.enough_sure:
                sizes.append((seen.red_cell or 0.0) / seen.zoom[0])
        if len(sizes) < 2:
            return look
        usual = float(np.median(sizes))
        alike = [size for size in sizes if 1 / rule.doubt < size / usual < rule.doubt]
        own = (look.red_cell or 0.0) / look.zoom[0]
        agreed = self._is_comfortable(look) and 1 / rule.doubt < own / usual < rule.doubt
        if agreed or 2 * len(alike) <= len(sizes) or len(alike) < 2:
            return look
        return self._look(image, min(rule.enlarge_to / usual, rule.largest_zoom))

    def _look(self, image: NDArray[np.uint8], zoom: float, maps: Maps | None = None) -> _Look:
        """Cells of ``image`` at ``zoom`` working pixels per image pixel; ``maps`` where the net has seen it already."""
        height, width = image.shape[:2]
        size = max(round(width * zoom), 4), max(round(height * zoom), 4)
        heat, sides = self._maps.of(_resized(image, zoom)) if maps is None else maps
        cells = decode(heat, sides, self._decoding, size[1], size[0])
        red_cell, from_red_cells = self._ruler(cells, size)
        scores, rule = self._calibrated(cells[1][1], 1), self.settings
        likely, sure = (int((scores >= least).sum()) for least in (rule.ruler_score, rule.sure_score))
        return _Look(cells, (size[0] / width, size[1] / height), size, red_cell, from_red_cells, likely, sure)

    def _ruler(self, cells: tuple[Found, ...], size: tuple[int, int]) -> tuple[float | None, bool]:
        """Diameter of a red cell in working pixels, and whether three or more of them gave it.

        The median of the whole red cells, weighted by score; where there are fewer than three, the largest of what
        was found is taken for a white cell.  On an almost empty field specks outnumber the red cells, and are looked at
        ever more closely: there it is the median of those alike to what the sure ones cover most of.
        """
        rule = self.settings
        boxes, scores = cells[1]
        likely = self._calibrated(scores, 1)
        use = (likely >= rule.ruler_score) & ~touches_border(boxes, size[1], size[0], 1.0)
        if use.sum() >= 3:
            likely, score = likely[use], scores[use].astype(np.float64)
            sides = boxes[use, 2:] - boxes[use, :2]
            area = sides[:, 0] * sides[:, 1]
            diameter = np.sqrt(area)
            usual = weighted_median(diameter, score)
            sure = likely >= rule.sure_score
            if sure.any():
                covering = weighted_median(diameter[sure], (score * area)[sure])
                alike = sure & (diameter > covering / rule.speck) & (diameter < covering * rule.speck)
                if covering > rule.speck * usual and alike.sum() >= 3:
                    usual = weighted_median(diameter[alike], score[alike])
            return usual, True
        boxes, scores = cells[0]
        use = self._calibrated(scores, 0) >= rule.ruler_score
        if use.any():
            return float(np.median((boxes[use, 2:] - boxes[use, :2]).max(1))) / WBC_PER_RED_CELL, False
        return None, False

    def _calibrated(self, scores: NDArray[np.float32], c: int, evidence: Evidence | None = None) -> NDArray[np.float32]:
        rule = self.info.calibration[c]
        logit = _log_odds(scores) * rule.slope + rule.offset
        if evidence is not None:
            logit += rule.dark * evidence.dark - rule.red * evidence.red
        result: NDArray[np.float32] = (1 / (1 + np.exp(-logit))).astype(np.float32)
        return result


def _resized(image: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    """The working image at ``zoom`` pixels per pixel of ``image``, four pixels or more each way."""
    height, width = image.shape[:2]
    size = max(round(width * zoom), 4), max(round(height * zoom), 4)
    if size == (width, height):
        return image
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))


def _log_odds(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    p = np.minimum(np.maximum(scores.astype(np.float64), 1e-6), 1 - 1e-6)
    odds: NDArray[np.float64] = np.log(p / (1 - p))
    return odds


def load_learned(name: str | Path = "default", device: str = "cpu", threshold: float | None = None) -> LearnedLocalizer:
    """The learned localizer of that name or folder; see ``load_localizer``."""
    info, net = read_localizer(home(name))
    return LearnedLocalizer(info, net, device, threshold)


def _patches(image: NDArray[np.uint8], side: int) -> list[NDArray[np.uint8]]:
    """Five parts of a large image, about its middle and those of its quarters, at full resolution.

    >>> [patch.shape[:2] for patch in _patches(np.zeros((1000, 3000, 3), np.uint8), 640)]
    [(640, 640), (640, 640), (640, 640), (640, 640), (640, 640)]
    """
    height, width = image.shape[:2]
    found = []
    for y, x in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        top = min(max(round(y * height - side / 2), 0), max(height - side, 0))
        left = min(max(round(x * width - side / 2), 0), max(width - side, 0))
        found.append(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return found
