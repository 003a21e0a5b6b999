"""Percentiles of the quality figures over the public sources, and over images spoilt on purpose.

    python -m benchmarks.quality.measure DATA [-n 200] | tee benchmarks/quality/table.md

``DATA`` holds the sources' folders.  Of each source ``n`` images at most are measured (evenly spaced in natural
order), as they are, and then blurred (Gaussian of 1 % of the longer side), over-exposed (times 1.6), darkened (to a
quarter) and gray.  The table gives the percentile of each figure that its limit in ``core/quality.py`` has to stay
away from, and the share of the images that ``check_quality`` finds fault with.

The two limits of sharpness are ``SHARE`` of the lowest first percentile of the sources that decide (``DECIDE``); all
others test them.  The other limits were chosen on all sources.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import DataSetError
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.quality import Quality, check_quality

Pixels = NDArray[np.uint8]
DECIDE = {"with a scale": ("ankara", "bccd"), "without one": ("cellavision", "chula", "misp")}
SHARE = 0.85


def blurred(image: Pixels) -> Pixels:
    """Out of focus by a Gaussian with a standard deviation of 1 % of the longer side."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(max(image.shape) / 100)))


def overexposed(image: Pixels) -> Pixels:
    """Each value times 1.6."""
    return np.clip(image * 1.6, 0, 255).astype(np.uint8)


def darkened(image: Pixels) -> Pixels:
    """Each value a quarter."""
    return (image // 4).astype(np.uint8)


def gray(image: Pixels) -> Pixels:
    """Without color, as text or another kind of microscopy."""
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)


SPOILT: dict[str, Callable[[Pixels], Pixels]] = {
    "": lambda image: image,
    "blurred": blurred,
    "over-exposed": overexposed,
    "dark": darkened,
    "gray": gray,
}


def row(name: str, found: list[Quality]) -> str:
    """One line of the table."""
    figures = {
        f: np.array([getattr(q, f) for q in found]) for f in ("sharpness", "contrast", "ground", "burnt", "color")
    }
    low = " | ".join(f"{np.percentile(figures[f], 1):.3f}, {np.median(figures[f]):.3f}" for f in ("sharpness", "color"))
    rest = " | ".join(
        f"{np.percentile(figures[f], 1):.0f}, {np.median(figures[f]):.0f}" for f in ("contrast", "ground")
    )
    burnt = f"{np.median(figures['burnt']):.3f}, {np.percentile(figures['burnt'], 99):.3f}"
    share = {p: np.mean([p in q.problems for q in found]) for p in sorted({p for q in found for p in q.problems})}
    problems = ", ".join(f"{p} {s:.1%}" for p, s in share.items()) or "none"
    return f"| {name} | {len(found)} | {low} | {rest} | {burnt} | {problems} |"


def scale_of(folder: Path) -> float | None:
    """Median scale of a source, where its red cells are boxed."""
    try:
        scales = [s.um_per_pixel for s in load_dataset(folder).samples if s.um_per_pixel]
    except DataSetError:
        return None
    return float(np.median(scales)) if scales else None


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-n", type=int, default=200, help="images of a source at most")
    options = parser.parse_args()
    lowest: dict[str, float] = {}
    print("| source | n | sharpness (1 %, median) | color (1 %, median) | contrast (1 %, median) ", end="")
    print("| ground (1 %, median) | burnt (median, 99 %) | found |\n|---|---|---|---|---|---|---|---|")
    for folder in sorted(p for p in options.data.iterdir() if p.is_dir()):
        paths = find_images([folder])
        paths = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(options.n, len(paths))).astype(int))]
        um_per_pixel = scale_of(folder)
        found: dict[str, list[Quality]] = {kind: [] for kind in SPOILT}
        for path in paths:
            image = read_image(path)
            for kind, spoil in SPOILT.items():
                found[kind].append(check_quality(spoil(image), um_per_pixel))
        name = f"{folder.name} ({um_per_pixel:.3f} um/pixel)" if um_per_pixel else folder.name
        lowest[folder.name] = float(np.percentile([q.sharpness for q in found[""]], 1))
        if not any(folder.name in deciding for deciding in DECIDE.values()):
            name += " [tests]"
        for kind, qualities in found.items():
            print(row(f"{name} {kind}".strip(), qualities), flush=True)
    for which, deciding in DECIDE.items():
        if set(deciding) <= set(lowest):
            print(f"limit of sharpness {which}: {SHARE * min(lowest[name] for name in deciding):.3f}")


if __name__ == "__main__":
    main()
