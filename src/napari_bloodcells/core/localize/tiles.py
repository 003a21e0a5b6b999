"""Training tiles: pieces of labeled fields at a chosen scale, set together, with what a smear may hold besides.

A tile is a square working image in which a red cell measures a drawn number of pixels.  It is cut from one field or
set together from four; white cells of other microscopes are pasted onto its ground; writing, scale bars, dirt and the
round black border of an eyepiece are drawn over it.  Every piece was divided by the white of its own field before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from napari_bloodcells.core.localize.targets import IGNORE

WBC, RBC, PLATELET = range(3)
KEEP_VISIBLE = 0.25
"""A cell of which less than this share of its box is left inside a tile is neither asked for nor punished."""


@dataclass(frozen=True)
class LabeledField:
    """One photograph for training, divided by its white and reduced to what training needs.

    Attributes
    ----------
    image : PIL image, RGB
    boxes : (N, 4) float32
        Pixels of ``image``.
    labels : (N,) int
        Position in ``CLASSES``, or ``IGNORE - position``.
    known : (3,) bool
        Whether each class was boxed at all.
    red_cell : float
        Diameter of a red cell in pixels of ``image``.
    source : str
    """

    image: Image.Image = field(repr=False)
    boxes: NDArray[np.float32]
    labels: NDArray[np.intp]
    known: NDArray[np.bool_]
    red_cell: float
    source: str


@dataclass(frozen=True)
class TileSettings:
    """How tiles are made; ``p_`` are probabilities, scales are pixels of the tile per red cell."""

    side: int = 128
    common_scales: tuple[float, float] = (12.0, 32.0)
    all_scales: tuple[float, float] = (4.5, 64.0)
    p_common: float = 0.68
    p_mosaic: float = 0.25
    p_fill: float = 0.85
    p_paste: float = 0.30
    p_border: float = 0.06
    p_dirt: float = 0.12
    p_writing: float = 0.06


Cells = tuple[NDArray[np.float32], NDArray[np.intp]]


class TileMaker:
    """Draws tiles from fields, each source as often as its weight says.

    Parameters
    ----------
    fields
        Labeled fields of any number of sources.
    weights
        How often each source is drawn, relative; 1 for sources not named.
    settings
    """

    def __init__(
        self, fields: Sequence[LabeledField], weights: dict[str, float], settings: TileSettings | None = None
    ) -> None:
        self.settings = settings or TileSettings()
        self.by_source = {s: [f for f in fields if f.source == s] for s in sorted({f.source for f in fields})}
        self.sources = list(self.by_source)
        share = np.array([weights.get(s, 1.0) for s in self.sources])
        self.share = share / share.sum()
        self.donors = {
            s: [(f, int(i)) for f in fs for i in np.flatnonzero(f.labels == WBC) if _whole(f, int(i))]
            for s, fs in self.by_source.items()
        }

    def tile(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Cells, NDArray[np.bool_]]:
        """One tile (side, side, 3) uint8, its boxes and labels, and which classes are known on it (3,)."""
        rule = self.settings
        low, high = rule.common_scales if rng.random() < rule.p_common else rule.all_scales
        scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        pixels = np.zeros((rule.side, rule.side, 3), np.uint8)
        pixels[:] = 0 if rng.random() < 0.4 else rng.integers(90, 250, 3)
        if rng.random() < rule.p_mosaic:
            cut_y, cut_x = rng.uniform(0.25, 0.75, 2) * rule.side
            y, x = int(cut_y), int(cut_x)
            regions = [(0, 0, y, x), (0, x, y, rule.side - x), (y, 0, rule.side - y, x)]
            regions.append((y, x, rule.side - y, rule.side - x))
        else:
            regions = [(0, 0, rule.side, rule.side)]
        boxes, labels, known = [], [], []
        while regions:
            region = regions.pop()
            source = self._field(rng)
            zoomed = scale * float(np.exp(rng.normal(0, 0.06)))
            region, rest = _fitted(region, source, zoomed)
            if rng.random() < rule.p_fill:
                regions.extend(rest)
            (b, lab) = _place(pixels, region, source, zoomed, rng)
            boxes.append(b)
            labels.append(lab)
            known.append(source.known)
            top, left, height, width = region
            for c in np.flatnonzero(~source.known):
                boxes.append(np.array([[left, top, left + width, top + height]], np.float32))
                labels.append(np.array([IGNORE - c]))
        cells = np.concatenate(boxes), np.concatenate(labels)
        all_known = np.any(known, axis=0)
        if rng.random() < rule.p_paste:
            for _ in range(int(rng.integers(1, 4))):
                cells = self._paste(pixels, cells, scale, rng)
        if rng.random() < rule.p_dirt:
            pixels = _dirt(pixels, scale, rng)
        if rng.random() < rule.p_writing:
            pixels = _writing(pixels, rng)
        if rng.random() < rule.p_border:
            pixels, cells = _eyepiece(pixels, cells, rng)
        return *_turn(pixels, cells, rng), all_known

    def _field(self, rng: np.random.Generator) -> LabeledField:
        fields = self.by_source[self.sources[rng.choice(len(self.sources), p=self.share)]]
        return fields[rng.integers(len(fields))]

    def _paste(self, pixels: NDArray[np.uint8], cells: Cells, scale: float, rng: np.random.Generator) -> Cells:
        """Paste one white cell of any source, alone or beside another."""
        donors = self.donors[self.sources[rng.choice(len(self.sources), p=self.share)]]
        if not donors:
            return cells
        donor, index = donors[rng.integers(len(donors))]
        x0, y0, x1, y1 = donor.boxes[index]
        ratio = scale / donor.red_cell * float(np.exp(rng.normal(0, 0.1)))
        width, height = (max(int(v * ratio), 5) for v in (x1 - x0, y1 - y0))
        side = pixels.shape[0]
        if max(width, height) > 0.7 * side:
            return cells
        boxes, labels = cells
        white = np.flatnonzero(labels == WBC)
        if len(white) and rng.random() < 0.4:
            a = boxes[rng.choice(white)]
            angle = rng.uniform(0, 2 * np.pi)
            reach = rng.uniform(0.92, 1.05) / 2
            cx = (a[0] + a[2]) / 2 + np.cos(angle) * reach * (a[2] - a[0] + width)
            cy = (a[1] + a[3]) / 2 + np.sin(angle) * reach * (a[3] - a[1] + height)
        else:
            cx, cy = rng.uniform(0, side, 2)
        left, top = round(cx - width / 2), round(cy - height / 2)
        box = np.array([left, top, left + width, top + height], np.float32)
        hidden = _covered(boxes, box)
        visible = np.clip(box, 0, side)
        if np.any(hidden[(labels == WBC) | (labels <= IGNORE)] > 0.25) or _area(visible) < 0.4 * _area(box):
            return cells
        patch = donor.image.resize((width, height), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
        y, x = np.mgrid[0:height, 0:width]
        radius = np.hypot((x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1)
        mask = np.clip((1.04 - radius) / 0.14, 0, 1)[..., None]
        x_from, y_from, x_to, y_to = visible.astype(int)
        inner = np.s_[y_from - top : y_to - top, x_from - left : x_to - left]
        ground = pixels[y_from:y_to, x_from:x_to]
        blend = mask[inner] * np.asarray(patch)[inner] + (1 - mask[inner]) * ground
        pixels[y_from:y_to, x_from:x_to] = blend.astype(np.uint8)
        labels = np.where((hidden > 0.3) & (labels >= 0), IGNORE - labels, labels)
        keep = hidden < 0.8
        return np.concatenate([boxes[keep], visible[None]]), np.concatenate([labels[keep], [WBC]])


def _whole(source: LabeledField, index: int) -> bool:
    x0, y0, x1, y1 = source.boxes[index]
    width, height = source.image.size
    return bool(x0 > 1 and y0 > 1 and x1 < width - 1 and y1 < height - 1)


def _area(box: NDArray[np.float32]) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def _covered(boxes: NDArray[np.float32], over: NDArray[np.float32]) -> NDArray[np.float32]:
    """Which share of each of ``boxes`` (N, 4) the box ``over`` covers: (N,)."""
    low, high = np.maximum(boxes[:, :2], over[:2]), np.minimum(boxes[:, 2:], over[2:])
    overlap = np.clip(high - low, 0, None).prod(1)
    result: NDArray[np.float32] = overlap / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
    return result


Region = tuple[int, int, int, int]


def _fitted(region: Region, source: LabeledField, scale: float) -> tuple[Region, list[Region]]:
    """The part of ``region`` that ``source`` fills at ``scale``, and what it leaves empty, if that is worth filling."""
    top, left, height, width = region
    zoom = scale / source.red_cell
    shown_width, shown_height = (int(v * zoom * 1.04) for v in source.image.size)
    rest: list[Region] = []
    if shown_width < 0.7 * width and width - shown_width > 20:
        rest.append((top, left + shown_width, height, width - shown_width))
        width = max(shown_width, 8)
    if shown_height < 0.7 * height and height - shown_height > 20:
        rest.append((top + shown_height, left, height - shown_height, width))
        height = max(shown_height, 8)
    return (top, left, height, width), rest


def _place(
    pixels: NDArray[np.uint8],
    region: Region,
    source: LabeledField,
    scale: float,
    rng: np.random.Generator,
) -> Cells:
    """Draw a piece of ``source`` into ``region`` (top, left, height, width) of ``pixels``; its cells, in the tile."""
    top, left, height, width = region
    zoom = scale / source.red_cell * np.exp(rng.normal(0, 0.05, 2))
    size = np.array(source.image.size)
    wanted = np.array([width, height])
    shown = np.minimum(wanted, np.maximum((size * zoom).astype(int), 1))
    window = np.minimum(shown / zoom, size)
    white = np.flatnonzero(source.labels == WBC)
    if len(white) and rng.random() < 0.75:
        box = source.boxes[rng.choice(white)]
        origin = (box[:2] + box[2:]) / 2 - rng.uniform(0, 1, 2) * window
    else:
        origin = rng.uniform(0, 1, 2) * (size - window)
    origin = np.clip(origin, 0, size - window)
    piece = source.image.resize(
        (int(shown[0]), int(shown[1])), Image.Resampling.BILINEAR, box=(*origin, *(origin + window))
    )
    gap = wanted - shown
    if gap.any():
        fill = np.array([0, 0, 0]) if rng.random() < 0.5 else rng.integers(90, 250, 3)
        pixels[top : top + height, left : left + width] = fill
    offset = (rng.uniform(0, 1, 2) * gap).astype(int)
    x, y = left + offset[0], top + offset[1]
    pixels[y : y + shown[1], x : x + shown[0]] = np.asarray(piece)
    factor = np.tile(shown / window, 2)
    boxes = ((source.boxes - np.tile(origin, 2)) * factor).astype(np.float32)
    visible = np.clip(boxes, 0, np.tile(shown, 2)).astype(np.float32)
    share = (visible[:, 2:] - visible[:, :2]).prod(1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
    keep = share > 0
    labels = np.where((share < KEEP_VISIBLE) & (source.labels >= 0), IGNORE - source.labels, source.labels)
    small = (visible[:, 2:] - visible[:, :2]).max(1) < 3.0
    labels = np.where(small & (labels >= 0), IGNORE - labels, labels)
    return visible[keep] + np.tile([x, y], 2).astype(np.float32), labels[keep]


def _dirt(pixels: NDArray[np.uint8], scale: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Stain specks, dust and hairs: dark angular shapes of any color, some out of focus."""
    layer = Image.fromarray(pixels)
    draw = ImageDraw.Draw(layer)
    side = pixels.shape[0]
    for _ in range(int(rng.integers(1, 6))):
        color = tuple(int(v) for v in rng.integers(0, 140, 3))
        x, y = rng.uniform(0, side, 2)
        size = scale * float(np.exp(rng.uniform(np.log(0.08), np.log(0.6))))
        if rng.random() < 0.25:
            points = np.cumsum(np.vstack([[x, y], rng.normal(0, scale * 0.8, (5, 2))]), axis=0)
            draw.line([tuple(p) for p in points], fill=color, width=max(int(size * 0.2), 1))
        else:
            angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 9))))
            reach = size * rng.uniform(0.3, 1, len(angle))
            draw.polygon(
                [(x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(angle, reach, strict=True)], fill=color
            )
    if rng.random() < 0.5:
        soft = layer.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 1.5))))
        changed = np.any(np.asarray(layer) != pixels, axis=2)
        near = np.asarray(Image.fromarray(changed).filter(ImageFilter.MaxFilter(5)))[..., None]
        return np.where(near, np.asarray(soft), pixels)
    return np.asarray(layer).copy()


def _writing(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scale bar, digits or a pointer, as microscopes burn into their pictures."""
    layer = Image.fromarray(pixels)
    draw = ImageDraw.Draw(layer)
    side = pixels.shape[0]
    colors = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (255, 255, 0), (0, 128, 0))
    color = colors[rng.integers(len(colors))]
    x, y = rng.uniform(0.02, 0.7, 2) * side
    length = rng.uniform(0.1, 0.4) * side
    draw.rectangle((x, y, x + length, y + rng.uniform(1, 5)), fill=color)
    if rng.random() < 0.7:
        text = f"{rng.integers(1, 100)} um" if rng.random() < 0.5 else f"{rng.integers(1000, 99999)}"
        draw.text((x, y + 6), text, fill=color, font_size=float(rng.uniform(7, 22)))
    if rng.random() < 0.3:
        draw.line((x, y, *rng.uniform(0, side, 2)), fill=color, width=int(rng.integers(1, 3)))
    return np.asarray(layer).copy()


def _eyepiece(pixels: NDArray[np.uint8], cells: Cells, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Cells]:
    """The round black border of an eyepiece over one side of the tile."""
    side = pixels.shape[0]
    radius = side * rng.uniform(0.6, 3.0)
    angle = rng.uniform(0, 2 * np.pi)
    distance = radius - side * rng.uniform(0.1, 0.45)
    cx, cy = side / 2 - np.cos(angle) * distance, side / 2 - np.sin(angle) * distance
    y, x = np.mgrid[0:side, 0:side]
    light = np.clip((radius - np.hypot(x - cx, y - cy)) / (side * rng.uniform(0.005, 0.06)), 0, 1)[..., None]
    dark = rng.integers(0, 30)
    pixels = (pixels * light + dark * (1 - light)).astype(np.uint8)
    boxes, labels = cells
    inside = radius - np.hypot((boxes[:, 0] + boxes[:, 2]) / 2 - cx, (boxes[:, 1] + boxes[:, 3]) / 2 - cy)
    reach = (boxes[:, 2:] - boxes[:, :2]).max(1) / 2
    labels = np.where((inside < reach) & (labels >= 0), IGNORE - labels, labels)
    keep = (inside > -reach * 0.3) | (labels <= IGNORE)
    return pixels, (boxes[keep], labels[keep])


def _turn(pixels: NDArray[np.uint8], cells: Cells, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Cells]:
    """One of the eight flips and quarter turns."""
    boxes, labels = cells
    side = pixels.shape[0]
    if rng.random() < 0.5:
        pixels, boxes = pixels.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
    if rng.random() < 0.5:
        pixels, boxes = pixels[:, ::-1], np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
    if rng.random() < 0.5:
        pixels, boxes = pixels[::-1], np.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], 1)
    return np.ascontiguousarray(pixels), (boxes, labels)
