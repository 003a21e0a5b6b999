"""The journal: a review on disk, kept up after every change and whole again after a crash.

A text file with one JSON value a line: first what the review is (fields, scheme, model), then every cell and every
deleted one, then one line per edit with the cells as they stood after it.  A change appends one line, so ten thousand
cells are kept as quickly as ten; a line that a crash cut short is left out on reading.  The file is the plugin's own
(``IMAGE.bloodcells.jsonl``): neither image nor VOC file is ever written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_bloodcells.core.classes import parse_scheme, scheme_data
from napari_bloodcells.core.errors import AnnotationError, OutputError
from napari_bloodcells.napari.cell import Cell, Edit
from napari_bloodcells.napari.review import Review

SUFFIX = ".bloodcells.jsonl"
FORMAT = "napari-bloodcells review 1"

_LOG = logging.getLogger(__name__)


def journal_path(images: list[Path], content: bytes, folder: str | Path | None = None) -> Path:
    """Where the review of these images is kept.

    Beside a single image (``a.jpg.bloodcells.jsonl``), in the common folder of a series
    (``series-3f2a91c0.bloodcells.jsonl``, named by its files); in ``folder`` where one is given.  Where the image has
    no file (a sample, an array), or its folder cannot be written, in the user's own data folder, named by
    ``content``, a digest of the pixels, so that it is found again when the same image is opened.
    """
    if images:
        home = Path(folder) if folder else images[0].parent
        if len(images) == 1:
            name = images[0].name
        else:
            home = Path(folder) if folder else Path(os.path.commonpath([p.parent for p in images]))
            names = "\n".join(str(p.relative_to(home)) if p.is_relative_to(home) else str(p) for p in images)
            name = f"series-{hashlib.sha256(os.fsencode(names)).hexdigest()[:8]}"
        if folder and len(images) == 1:  # two images of one name in different folders
            name = f"{name}-{hashlib.sha256(os.fsencode(images[0].resolve())).hexdigest()[:8]}"
        if home.is_dir() and os.access(home, os.W_OK):
            return home / f"{name}{SUFFIX}"
        content = os.fsencode(images[0].resolve())
    return user_folder() / f"{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"


def user_folder() -> Path:
    """The user's own folder of reviews."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("napari-bloodcells", appauthor=False)) / "reviews"


@dataclass(eq=False)
class Journal:
    """Keeps one review in one file.

    Parameters
    ----------
    path : Path
    review : Review
    trouble : callable
        Told in one line when the file can no longer be written; the review itself goes on.
    """

    path: Path
    review: Review
    trouble: Callable[[str], None] = _LOG.error
    _written: int = -1
    """Bytes of the file after the last line of this journal; another window may have written there since."""

    def start(self) -> None:
        """Write the review as it stands, whole or not at all, and append every change from now on.

        A journal of another run that stands there is kept under ``...~1``, ``...~2``.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        lines = [_header(self.review), *({"cell": cell.to_json()} for cell in self.review.cells)]
        lines += [{"deleted": cell.to_json()} for cell in self.review.deleted]
        half = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(b"".join(_line(value) for value in lines))
            if self.path.exists():
                _keep_former(self.path)
            os.replace(half, self.path)
        except OSError as error:
            half.unlink(missing_ok=True)
            raise OutputError(
                f"{self.path.name}: the review cannot be kept ({error.strerror or error}); "
                "name another folder in the preferences."
            ) from error
        self._written = self.path.stat().st_size
        self.review.changed.connect(self._append, unique=True)

    def resume(self) -> None:
        """Go on with the file from which the review was read: every change from now on is appended to it."""
        if not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a", encoding="utf-8") as file:  # a crash cut the last line short
                file.write("\n")
        self._written = self.path.stat().st_size
        self.review.changed.connect(self._append, unique=True)

    def start_on_change(self) -> None:
        """Begin with the first change: a table that is only looked at leaves no file."""
        self.review.changed.connect(self._begin, unique=True)

    def _begin(self, edit: Edit) -> None:
        self.review.changed.disconnect(self._begin)
        try:
            self.start()
        except OutputError as error:
            self.trouble(str(error))

    def stop(self) -> None:
        """Follow the review no longer; the file stays."""
        self.review.changed.disconnect(self._begin, missing_ok=True)
        self.review.changed.disconnect(self._append, missing_ok=True)

    def _append(self, edit: Edit) -> None:
        after = [cell.to_json() for cell in edit.after if cell is not None]
        gone = [cell.id for cell in edit.removed]
        line = _line({"edit": edit.title, "time": self.review.now(), "cells": after, "removed": gone})
        try:
            if self.path.stat().st_size != self._written:
                self.stop()
                self.trouble(
                    f"{self.path.name}: was changed by another window or program; what you change here is not kept any "
                    "more: save the cells to a file of your own, or close this image and open it again."
                )
                return
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._written += len(line)
        except OSError as error:
            self.stop()
            self.trouble(
                f"{self.path.name}: the review can no longer be kept ({error.strerror or error}); "
                "save the cell layer to a file of your own."
            )


def read_journal(path: Path, reviewer: str = "") -> Review:
    """The review that a journal holds, with every change up to the last whole line.

    Raises
    ------
    AnnotationError
        The file is no journal, or its head is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        head = json.loads(lines[0]) if lines else {}
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path.name}: the kept review cannot be read ({error}).") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise AnnotationError(f"{path.name}: is no review that this plugin kept.")
    try:
        scheme = parse_scheme(head["scheme"], path.name)
        images = [str(name) for name in head["images"]]
        info = dict(head.get("info") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(f"{path.name}: the head of the kept review is damaged ({error}).") from error
    cells: dict[int, Cell] = {}
    deleted: dict[int, Cell] = {}
    for number, text in enumerate(lines[1:], start=2):
        try:
            _replay(json.loads(text), cells, deleted, len(images))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _LOG.warning("%s: line %d is damaged (%s); left out.", path.name, number, error)
    return Review(scheme, images, cells.values(), reviewer, info, deleted.values())


def journal_head(path: Path) -> dict[str, Any]:
    """What the first line of a journal says (``images``, ``info``); empty where the file is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = json.loads(file.readline())
        is_head = head.get("format") == FORMAT and isinstance(head["images"], list)
        return {**head, "info": dict(head.get("info") or {})} if is_head else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def journal_matches(path: Path, images: tuple[str, ...]) -> bool:
    """Whether ``path`` is a journal of these fields."""
    return tuple(journal_head(path).get("images", ())) == images


def _replay(value: dict[str, Any], cells: dict[int, Cell], deleted: dict[int, Cell], n_images: int) -> None:
    if "deleted" in value:
        cell = Cell.from_json(value["deleted"])
        if 0 <= cell.image < n_images:
            deleted[cell.id] = cell
        return
    changed = [Cell.from_json(c) for c in ([value["cell"]] if "cell" in value else value["cells"])]
    if any(not 0 <= cell.image < n_images for cell in changed):
        raise ValueError("a cell on a field that is not there")
    for cell in changed:
        cells[cell.id] = cell
        deleted.pop(cell.id, None)
    for cell_id in map(int, value.get("removed", ())):
        if cell_id in cells:
            gone = cells.pop(cell_id)
            deleted[cell_id] = replace(gone, time=str(value.get("time", gone.time)))


def _header(review: Review) -> dict[str, Any]:
    scheme = scheme_data(review.scheme)
    return {"format": FORMAT, "images": list(review.images), "scheme": scheme, "info": review.info}


def _line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    return text.encode("utf-8", "backslashreplace")  # of a file name that is no UTF-8: JSON's own escape of its bytes


def _keep_former(path: Path) -> None:
    """Rename the journal that stands at ``path``, unless nothing in it was reviewed or deleted."""
    try:
        former = read_journal(path)
        if not former.deleted and not any(cell.reviewed for cell in former.cells):
            return
    except AnnotationError:
        pass
    number = 1
    while (aside := path.with_name(f"{path.name}~{number}")).exists():
        number += 1
    os.replace(path, aside)
