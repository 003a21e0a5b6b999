"""Reviews that were kept of the fields of an image, in whichever journal of their folders they stand.

A journal is of the photographs that were open together: a series from which one was taken since, or one photograph
alone.  So each photograph takes its cells from the journal that was written last among those that hold it; it is
known by its name and what is in its file, so that another one of that name does not get them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_bloodcells.core.errors import AnnotationError
from napari_bloodcells.napari.carried import in_scheme
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.fields import Fields
from napari_bloodcells.napari.journal import SUFFIX, journal_head, read_journal
from napari_bloodcells.napari.review import Review

_LOG = logging.getLogger(__name__)
_TAIL = 65_536
"""Bytes at the end of a file by which it is known: pixels, so that an edited comment at its head changes nothing."""


@dataclass(frozen=True)
class Kept:
    """A kept review of the fields of an image.

    Attributes
    ----------
    review : Review
    images : int
        How many of the fields it holds.
    whole : bool
        Whether the journal of just these fields holds all of it, so that it can be gone on with.
    """

    review: Review
    images: int
    whole: bool


def know(review: Review, fields: Fields) -> None:
    """Tell a review which files it is of, so that it is found again for them."""
    review.info["paths"] = [str(path) for path in fields.paths]
    review.info["sizes"] = [list(size) for size in fields.sizes]
    review.info["marks"] = [_mark(path) for path in fields.paths]


def kept_review(path: Path, fields: Fields, reviewer: str = "") -> Kept | None:
    """What was kept of ``fields``, whose own journal is ``path``; None where there is nothing.

    Raises
    ------
    AnnotationError
        The journal at ``path`` is damaged.
    """
    shares: list[tuple[Path, Review, dict[int, int]]] = []
    for journal in _journals(path, fields):
        place = _shared(journal, fields, own=journal == path)
        try:
            if place:
                shares.append((journal, read_journal(journal, reviewer), place))
        except AnnotationError as error:
            if journal == path:
                raise
            _LOG.warning("%s Left out.", error)
    taken: dict[int, int] = {}  # field to the journal that it takes its cells from
    for decided in (True, False):
        for k, (_, review, place) in enumerate(shares):
            cells = review.deleted + tuple(c for c in review.cells if c.reviewed)
            told = {c.image for c in cells} if decided else set(place)
            for former in told & set(place):
                taken.setdefault(place[former], k)
    if not taken:
        return None
    users = sorted(set(taken.values()))
    journal, review, _ = shares[users[0]]
    if len(users) == 1 and journal == path and review.images == fields.names and len(taken) == len(fields):
        return Kept(review, len(fields), True)
    parts = [(shares[k][1], {i: j for i, j in shares[k][2].items() if taken.get(j) == k}) for k in users]
    return Kept(_joined(parts, fields, reviewer), len(taken), False)


def _journals(path: Path, fields: Fields) -> list[Path]:
    """The journals that may hold some of ``fields``, those written last first."""
    folders = dict.fromkeys([path.parent, *(p.parent for p in fields.paths)]) if fields.paths else ()
    found = dict.fromkeys([path, *(file for folder in folders for file in sorted(folder.glob(f"*{SUFFIX}")))])
    written = {file: file.stat().st_mtime_ns for file in found if file.is_file()}
    return sorted(written, key=lambda file: (-written[file], file != path))


def _shared(journal: Path, fields: Fields, *, own: bool) -> dict[int, int]:
    """Position in ``journal`` to position in ``fields`` of the photographs that both have."""
    head = journal_head(journal)
    names = [str(name) for name in head.get("images", ())]
    info = head.get("info", {})
    if own and not fields.paths:  # the journal is named by the pixels
        return {i: i for i in range(len(names))} if len(names) == len(fields) else {}
    paths, marks, sizes = (_listed(info, key, len(names)) for key in ("paths", "marks", "sizes"))
    by_path = {os.path.abspath(path): j for j, path in enumerate(fields.paths)}
    by_name = {name: j for j, name in enumerate(fields.names)}
    by_file = {path.name: j for j, path in enumerate(fields.paths)}
    place: dict[int, int] = {}
    for i, name in enumerate(names):
        told = by_path.get(os.path.abspath(str(paths[i]))) if paths[i] else None
        here = told if told is not None else by_name.get(name)
        j = here if here is not None else by_file.get(Path(name).name)
        if j is None or j in place.values():
            continue
        size = None if sizes[i] is None else tuple(sizes[i])
        if marks[i]:
            same = marks[i] == _mark(fields.paths[j])
        else:
            same = size == fields.sizes[j] if size else own or told is not None
        if same and (marks[i] or here is not None):
            place[i] = j
    return place


def _joined(parts: Sequence[tuple[Review, dict[int, int]]], fields: Fields, reviewer: str) -> Review:
    """One review of ``fields`` of parts of others: each with position there to position here."""
    scheme = parts[0][0].scheme
    ids = iter(range(1, 1 + sum(len(r.cells) + len(r.deleted) for r, _ in parts)))
    cells: list[Cell] = []
    deleted: list[Cell] = []
    info: dict[str, Any] = {**parts[0][0].info, "um_per_pixel": [None] * len(fields), "fields": [], "slides": []}
    for review, place in parts:
        for kept, all_ in ((cells, review.cells), (deleted, review.deleted)):
            here = (replace(c, id=next(ids), image=place[c.image]) for c in all_ if c.image in place)
            kept += [in_scheme(c, review.scheme, scheme) for c in here]
        named = {review.images[i]: fields.names[j] for i, j in place.items()}
        scales = _listed(review.info, "um_per_pixel", len(review.images))
        for i, j in place.items():
            info["um_per_pixel"][j] = scales[i]
        records = (r for r in review.info.get("fields", ()) if r.get("image") in named)
        info["fields"] += [{**record, "image": named[record["image"]]} for record in records]
        info["slides"] += [named[name] for name in review.info.get("slides", ()) if name in named]
    return Review(scheme, fields.names, sorted(cells, key=lambda c: c.image), reviewer, info, deleted)


def _listed(info: dict[str, Any], key: str, count: int) -> list[Any]:
    """The list that ``info`` has of ``key``, an entry a field; of None where it has none of that length."""
    found = info.get(key)
    return list(found) if isinstance(found, list) and len(found) == count else [None] * count


def _mark(path: Path) -> str:
    """A digest of the end of a file; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return hashlib.sha256(file.read(_TAIL)).hexdigest()[:16]
    except OSError:
        return ""
