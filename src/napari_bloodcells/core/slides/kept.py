"""What is finished of a slide that is under way, on disk: a run that is killed within it need not begin it again.

A slide takes minutes to hours.  Its fields are finished in parts of some fields each: looked at, classified, and kept
as one file of JSON lines, which appears whole or not at all, in a folder that only runs with the same fingerprint know
(``counting/shards.py``).  Parts are cut by the order of the fields alone, so a run that goes on classifies the very
batches of crops that an undisturbed one would, and ends with the same bytes, in whatever process it goes on.  These
files only save time: one that cannot be read is computed anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from napari_bloodcells.core.counting.shards import make_or_tell, write_or_tell
from napari_bloodcells.core.slides.grid import SlideField
from napari_bloodcells.core.slides.scale import SlideScale
from napari_bloodcells.core.slides.seen import SeenField
from napari_bloodcells.core.slides.survey import Survey

PART = 16
"""Fields of a part: so much is lost when a run is killed, some seconds' work; writing it takes some milliseconds."""
_LOOK = "look.json"


class KeptFields:
    """The finished part of one slide in ``folder``.

    Parameters
    ----------
    folder : path or None
        None keeps nothing; nor is anything kept where the folder above it is not there or may not be written, as on
        the machine of a cluster that does not see the output folder.
    """

    def __init__(self, folder: Path | str | None) -> None:
        above = None if folder is None else Path(folder).parent
        usable = above is not None and os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)
        self.folder = Path(folder) if usable and folder is not None else None

    def look(self) -> tuple[Survey, SlideScale] | None:
        """What the look over the slide gave, where it is kept."""
        if self.folder is None:
            return None
        try:
            found = json.loads((self.folder / _LOOK).read_text(encoding="ascii"))
            survey = Survey(np.array(found["stained"], np.float32), float(found["ground"]))
            scale = SlideScale(**{**found["scale"], "problems": tuple(found["scale"]["problems"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (survey, scale) if survey.stained.ndim == 2 else None

    def write_look(self, survey: Survey, scale: SlideScale) -> None:
        """Keep the look over the slide; ``DiskError`` where it cannot be written."""
        if self.folder is not None:
            found = {"stained": survey.stained.tolist(), "ground": survey.ground, "scale": asdict(scale)}
            self._write(self.folder / _LOOK, json.dumps(found, separators=(",", ":")))

    def fields(self, kind: str, order: Sequence[SlideField]) -> list[SeenField]:
        """The finished fields, as far as their parts are there and follow ``order``.

        Parameters
        ----------
        kind : str
            Which fields were counted when they were looked at (``monolayer``, ``all``).
        order : sequence of SlideField
            The order in which the fields are looked at.
        """
        seen: list[SeenField] = []
        while self.folder is not None and len(seen) % PART == 0:
            part = self._read(self._path(kind, len(seen) // PART))
            places = [(place.row, place.column) for place in order[len(seen) : len(seen) + len(part)]]
            if not part or len(part) > PART or [one.place for one in part] != places:
                break
            seen += part
        return seen

    def write_fields(self, kind: str, part: int, fields: Sequence[SeenField]) -> None:
        """Keep part number ``part``; ``DiskError`` where it cannot be written."""
        if self.folder is not None:
            lines = (json.dumps(one.to_json(), separators=(",", ":"), ensure_ascii=True) for one in fields)
            self._write(self._path(kind, part), "\n".join(lines) + "\n")

    def _path(self, kind: str, part: int) -> Path:
        return (self.folder or Path()) / f"{kind}-{part:06d}.jsonl"

    def _read(self, path: Path) -> list[SeenField]:
        try:
            return [SeenField.from_json(json.loads(line)) for line in path.read_text(encoding="ascii").splitlines()]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write(self, path: Path, text: str) -> None:
        make_or_tell(path.parent)
        write_or_tell(path, text.encode("ascii"))
