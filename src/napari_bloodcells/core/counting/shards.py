"""Finished work on disk: what a run has counted so far, so that a killed one can go on.

A run is cut into shards of consecutive images.  Each finished shard is one file of JSON lines, one line per image,
which appears under its name whole or not at all (written beside, flushed to the disk, renamed).  ``plan.json`` holds
the fingerprint of the run (files with size and time, model, options): only the same run can be resumed.  A slide may
take hours, so what is finished of it lies in a folder of its own until its shard is written (``slides/kept.py``).  When
the tables have been written, the folder of shards is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.errors import DiskError, OutputError
from napari_bloodcells.core.files import kept_for_resume, write_atomic
from napari_bloodcells.core.find import SLIDE_SUFFIXES

PARTIAL = ".partial"
PLAN = "plan.json"
_MAY_BE_SLIDES = SLIDE_SUFFIXES | {".tif", ".tiff"}


@dataclass(frozen=True)
class ShardPlan:
    """How many shards there are, and of which run.

    Attributes
    ----------
    fingerprint : dict
        What must be the same for the run to be resumed, JSON values by name.
    n_images : int
    size : int
        Images per shard; the last one may be shorter.
    """

    fingerprint: dict[str, Any]
    n_images: int
    size: int

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_images // self.size)

    def images_of(self, shard: int) -> slice:
        """Which images (positions in the run's order) shard number ``shard`` holds."""
        return slice(shard * self.size, min((shard + 1) * self.size, self.n_images))


def shard_size(n_images: int, workers: int) -> int:
    """Images per shard: enough shards to share the work evenly, few enough files for a large run.

    >>> shard_size(10, 2), shard_size(1456, 2), shard_size(1_000_000, 2)
    (1, 45, 64)
    """
    return max(1, min(64, n_images // (max(workers, 1) * 16) or 1))


def write_or_tell(path: Path, data: bytes) -> None:
    """``write_atomic`` over what may be there, with the way to go on in its ``DiskError``."""
    with kept_for_resume():
        write_atomic(path, data, overwrite=True)


def make_or_tell(folder: Path) -> None:
    """Make ``folder`` in one that is there, where it is missing; ``DiskError`` as of ``write_or_tell``."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        with kept_for_resume():
            reason = (error.strerror or str(error)).lower()
            raise DiskError(f"{folder.name}: cannot be made in {folder.parent}: {reason}.") from None


class ShardStore:
    """The shards of one run in ``folder/.partial``.

    Parameters
    ----------
    folder : Path
        The output folder, which exists.
    plan : ShardPlan
    resume : bool
        Keep the shards of a former run with the same fingerprint.
    overwrite : bool
        Throw away those of another one.

    Raises
    ------
    OutputError
        Shards of another run lie there, or of the same run and neither ``resume`` nor ``overwrite`` was said.
    """

    def __init__(self, folder: Path, plan: ShardPlan, *, resume: bool = False, overwrite: bool = False) -> None:
        self.folder = folder / PARTIAL
        self.plan = plan
        if overwrite and not resume:
            self.remove()
        former = self._former_plan()
        if former is not None and not resume:
            raise OutputError(
                f"{folder}: holds an unfinished run; go on with it with --resume, or give another folder (-o)."
            )
        if former is not None:
            check_same_run(folder, former["fingerprint"], self._plan_json()["fingerprint"])
            self.plan = ShardPlan(plan.fingerprint, plan.n_images, int(former["size"]))
            return
        self.remove()  # shards without a plan belong to nobody
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written to ({error.strerror or error}).") from error
        write_or_tell(self.folder / PLAN, json.dumps(self._plan_json(), sort_keys=True).encode())

    def _plan_json(self) -> dict[str, Any]:
        plan = {"fingerprint": self.plan.fingerprint, "size": self.plan.size}
        result: dict[str, Any] = json.loads(json.dumps(plan))
        return result

    def _former_plan(self) -> dict[str, Any] | None:
        path = self.folder / PLAN
        try:
            if not path.exists():
                return None
            former = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(former["fingerprint"], dict) or int(former["size"]) < 1:
                raise ValueError
        except PermissionError:
            raise OutputError(
                f"{self.folder}: may not be read; have its owner see to that, or give another output folder (-o)."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: is damaged; remove {self.folder} and run again.") from error
        result: dict[str, Any] = former
        return result

    def path(self, shard: int) -> Path:
        """The file of shard number ``shard``."""
        return self.folder / f"{shard:06d}.jsonl"

    def missing(self) -> list[int]:
        """The shards that are still to be counted, in order."""
        return [shard for shard in range(self.plan.n_shards) if not self.path(shard).exists()]

    def write(self, shard: int, records: Sequence[FieldRecord]) -> None:
        """Keep a finished shard; ``OutputError`` where it cannot be written."""
        lines = (json.dumps(record.to_json(), separators=(",", ":"), ensure_ascii=True) for record in records)
        write_or_tell(self.path(shard), ("\n".join(lines) + "\n").encode("ascii"))

    def read(self, shard: int) -> list[FieldRecord]:
        """The records of a finished shard; ``OutputError`` where its file is damaged."""
        wanted = self.plan.images_of(shard)
        try:
            lines = self.path(shard).read_text(encoding="ascii").splitlines()
            records = [FieldRecord.from_json(json.loads(line)) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.path(shard)}: is damaged; remove this file and run again with --resume."
            ) from error
        if len(records) != wanted.stop - wanted.start:
            raise OutputError(f"{self.path(shard)}: is incomplete; remove this file and run again with --resume.")
        return records

    def records(self) -> Iterator[FieldRecord]:
        """Every record of the run, in the order of its images."""
        for shard in range(self.plan.n_shards):
            yield from self.read(shard)

    def keeping(self, jobs: Sequence[FieldJob]) -> tuple[FieldJob, ...]:
        """``jobs`` with the place where what is finished of a slide among them is kept.

        It lies in a folder that has the name of the run's fingerprint: another run, also on a machine of a cluster that
        has a folder of its own under the same path, never takes for finished what is not of its files, model and
        options.
        """
        placed = tuple(replace(job, kept=self._kept(job)) for job in jobs)
        for folder in {Path(job.kept).parent for job in placed if job.kept is not None}:
            make_or_tell(folder)
        return placed

    def forget(self, jobs: Sequence[FieldJob]) -> None:
        """Remove what was kept of the slides among ``jobs``, whose shard is written."""
        for job in jobs:
            if (kept := self._kept(job)) is not None:
                shutil.rmtree(kept, ignore_errors=True)

    def _kept(self, job: FieldJob) -> str | None:
        suffix = os.path.splitext(job.source)[1].casefold() if isinstance(job.source, str) else ""
        if suffix not in _MAY_BE_SLIDES:
            return None
        run = digest_of([json.dumps(self.plan.fingerprint, sort_keys=True)])[:16]
        return os.path.join(os.path.abspath(self.folder), f"slides-{run}", digest_of([job.image])[:32])

    def finish(self, again: Collection[int] = ()) -> None:
        """After the tables have been written: remove the shards, or where images (positions in the run's order) are to
        be tried ``again``, only those that hold them, so that a resumed run counts no other."""
        if not again:
            self.remove()
        for shard in {image // self.plan.size for image in again}:
            self.path(shard).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all shards; the plan first, so that none is taken for whole."""
        with contextlib.suppress(OSError):
            (self.folder / PLAN).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def check_same_run(folder: Path, former: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ``OutputError`` with the first part of the fingerprints that differs, in words."""
    for name in sorted(set(former) | set(now)):
        if former.get(name) != now.get(name):
            raise OutputError(
                f"{folder}: cannot be resumed, the {name} differs ({_short(former.get(name))} then, "
                f"{_short(now.get(name))} now); use the same as then, or give another folder (-o)."
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def digest_of(lines: Sequence[str]) -> str:
    """SHA-256 of ``lines``, for a fingerprint."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
