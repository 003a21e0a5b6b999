"""Count: images in, the table of cells, the table of images and the differentials out.

``count`` lists the jobs (``jobs.py``), has shards of them counted in this process, in worker processes or on a
cluster (``pipeline.py``, ``workers.py``, ``cluster.py``), and makes the tables of the records (``cells.py``).  With an
output folder every finished shard is kept (``shards.py``), so a run that was stopped in any way goes on with
``resume``; the tables are written at the end, each whole or not at all.  Nothing is written into the input.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.counting.cells import OK, FieldRecord, cells_table, images_table
from napari_bloodcells.core.counting.copies import Copies
from napari_bloodcells.core.counting.jobs import JobList, Sources, collect_jobs, given, kept, unnamed
from napari_bloodcells.core.counting.options import CountOptions, check_options
from napari_bloodcells.core.counting.output import check_output, read_finished, write_tables
from napari_bloodcells.core.counting.pipeline import FieldCounter, halves
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.core.counting.runlock import Renewing, RunLock
from napari_bloodcells.core.counting.server import FEW, start_server
from napari_bloodcells.core.counting.setup import CounterSetup, StageTimes, check_setup, readers_of
from napari_bloodcells.core.counting.shards import ShardPlan, ShardStore, digest_of, shard_size
from napari_bloodcells.core.counting.shelf import Shelf
from napari_bloodcells.core.counting.workers import Done, Work, run_inline, run_processes
from napari_bloodcells.core.devices import cpu_count, surely_cpu
from napari_bloodcells.core.errors import BloodcellsError, UsageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.progress import Progress, Silent
from napari_bloodcells.core.remote import NOT_NOW, is_address, shown
from napari_bloodcells.core.slides.companions import companions

if TYPE_CHECKING:
    from napari_bloodcells.core.bundle import BundleInfo, Model

TASK = "counting"
GPU_SHARD = 64
"""Images of a shard at least where a GPU counts: it stands still between two, and its last batch is seldom full."""
_LIMITS = ("temperature", "min_confidence", "max_distance")
"""What ``model.json`` says beside the weights and changes a result (``calibrate`` and people write it)."""


def count(
    paths_or_arrays: Sources,
    model: str | Path | Model = "default",
    boxes: str | Boxes | Mapping[str, Boxes] = "auto",
    device: str = "auto",
    progress: Progress | None = None,
    options: CountOptions | None = None,
) -> CountResult:
    """Find, classify and count the white cells of photographs of a stained blood smear.

    Parameters
    ----------
    paths_or_arrays : path, array, iterable of these, or mapping of name to path or array
        Files, folders (searched for images), or (H, W, 3) RGB arrays; a lazy one (dask) is read when its turn comes.
    model : str, path or Model
        Name of an installed model, a bundle, or a loaded model.
    boxes : str, Boxes, or mapping of image name to Boxes
        ``auto``: from the VOC XML of an image where it has one, else found; ``xml``: only so; ``find``: found, also
        where there is an XML; ``classical``: found without a network; ``whole``: each image is one cell; the folder
        of a localizer; or the boxes themselves (``Boxes`` for a single array).
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    progress : Progress, optional
        Is told of every image, and can cancel.
    options : CountOptions, optional

    Returns
    -------
    CountResult
        An image that cannot be read is a row of ``images`` with the reason, not an error.

    Raises
    ------
    UsageError
        A path that is not there, or a value that cannot be meant.
    BundleError
        The model cannot be used.
    OutputError
        The output folder cannot be used; what was finished is kept.
    Cancelled
        ``progress`` asked to stop, at the latest before the next image or field of a slide; with an output folder what
        was finished is kept.

    Examples
    --------
    >>> from napari_bloodcells.synthetic import draw_smear             # doctest: +SKIP
    >>> result = count([draw_smear(seed=1).image])                     # doctest: +SKIP
    >>> result.differentials[["class", "count", "percent"]]            # doctest: +SKIP
    """
    options = options or CountOptions()
    check_options(options)
    paths_or_arrays = kept(paths_or_arrays)
    setup = _setup(model, boxes, device, options)
    check_setup(setup)
    loaded = None if isinstance(model, (str, Path)) else model
    if loaded is not None and (options.cluster or options.devices):
        raise UsageError("A loaded model counts in this process alone: give cluster or devices its name or folder.")
    listed = collect_jobs(
        paths_or_arrays, recursive=options.recursive, annotations=setup.boxes in ("auto", "xml"), labels=True
    )
    if not isinstance(boxes, str):
        listed = _with_boxes(listed, boxes)
    if options.anonymous:
        listed = unnamed(listed)
    if not listed.jobs:
        raise BloodcellsError(
            f"{_given(paths_or_arrays)}: no images there (JPEG, PNG, BMP, WebP, GIF, TIFF or slides)."
        )
    run = _Run(listed, setup, options, loaded, progress or Silent())
    if options.output is None:
        return run.in_memory()
    return run.on_disk(Path(options.output), paths_or_arrays)


def _given(sources: Sources) -> str:
    """What was given, for an error: the paths and addresses, separated by commas."""
    listed = list(sources) if isinstance(sources, Mapping) else given(sources)
    names = [shown(str(entry)) if is_address(entry) else display_name(str(entry)) for entry in listed]
    return ", ".join(names) or "nothing was given"


def _setup(model: Any, boxes: Any, device: str, options: CountOptions) -> CounterSetup:
    return CounterSetup(
        model=str(model) if isinstance(model, (str, Path)) else "",
        device=device,
        boxes=boxes if isinstance(boxes, str) else "find",
        threshold=options.threshold,
        find_threshold=options.find_threshold,
        um_per_pixel=options.um_per_pixel,
        max_pixels=options.max_pixels,
        cells_wanted=options.cells_wanted,
    )


def _with_boxes(listed: JobList, boxes: Boxes | Mapping[str, Boxes]) -> JobList:
    given = {listed.jobs[0].image: boxes} if isinstance(boxes, Boxes) else dict(boxes)
    unknown = sorted(set(given) - {job.image for job in listed.jobs})
    if unknown or (isinstance(boxes, Boxes) and len(listed.jobs) != 1):
        raise UsageError(f"Boxes were given for {unknown[0] if unknown else 'one image, but there are several'}.")
    return replace(listed, jobs=tuple(replace(job, boxes=given.get(job.image)) for job in listed.jobs))


class _Run:
    """One count under way: where it computes, what it keeps, what it reports."""

    def __init__(
        self, listed: JobList, setup: CounterSetup, options: CountOptions, model: Model | None, progress: Progress
    ) -> None:
        self.listed, self.options, self.model, self.progress = listed, options, model, progress
        self.setup = _on_device(setup, options)
        self.started = datetime.now(UTC)
        self.clock = time.perf_counter()
        self.times = StageTimes()
        self.workers = self._workers()
        self.served = self._serve()
        self.info = model.info if model is not None else _read_info(setup.model)

    def in_memory(self) -> CountResult:
        """Count, keeping nothing on disk."""
        plan = self._plan({})
        self.progress.start(TASK, plan.n_images)
        done: dict[int, list[FieldRecord]] = {}
        for shard, records, times in self._count(plan, range(plan.n_shards)):
            done[shard] = records
            self._tell(records, times)
        return self._result(lambda: (record for shard in sorted(done) for record in done[shard]))

    def on_disk(self, output: Path, sources: Sources) -> CountResult:
        """Count into a folder, shard by shard, and write the tables."""
        images = self._files().values()
        check_output(output, sources, self.options, images)
        with RunLock(output) as lock:
            self.progress = Renewing(self.progress, lock)
            check_output(output, sources, self.options, images)
            fingerprint = self._fingerprint()
            if self.options.resume and (finished := read_finished(output, fingerprint, self.options.format)):
                return CountResult(*finished, self.info, self.listed.root, self._files())
            plan = self._plan(fingerprint)
            store = ShardStore(output, plan, resume=self.options.resume, overwrite=self.options.overwrite)
            missing = store.missing()
            plan = store.plan
            self.progress.start(TASK, plan.n_images)
            ready = plan.n_images - sum(plan.images_of(s).stop - plan.images_of(s).start for s in missing)
            if ready:
                self.progress.advance(TASK, ready)
            for shard, records, times in self._count(plan, missing, store):
                store.write(shard, records)
                store.forget(self.listed.jobs[plan.images_of(shard)])
                self._tell(records, times)
            result = self._result(store.records)
            result.run["fingerprint"] = fingerprint
            again = [i for i, status in enumerate(result.images["status"]) if NOT_NOW in status]
            if again:
                result.run["warnings"].append(f"Files of {len(again)} images {NOT_NOW}; --resume tries them again.")
            write_tables(result, output, self.options.format, overwrite=True)
            store.finish(again)
        return result

    def _workers(self) -> int:
        if self.options.devices:
            return len(self.options.devices)
        if self.options.cluster:
            return cpu_count()
        if self.setup.device != "cpu" or len(self.listed.jobs) <= FEW or self.model is not None:
            return 1
        return self.options.workers or cpu_count()

    def _serve(self) -> bool:
        """Start the server of worker processes where they may come from one; whether they do."""
        elsewhere = self.options.cluster or self.options.devices
        return self.workers > 1 and self.options.guarded_main and not elsewhere and start_server()

    def _plan(self, fingerprint: dict[str, Any]) -> ShardPlan:
        n = len(self.listed.jobs)
        size = shard_size(n, max(self.workers, 1))
        if self.setup.device != "cpu" and not self.options.cluster:
            size = max(size, GPU_SHARD)
        size = self.options.batch_size or size
        return ShardPlan(fingerprint, n, size)

    def _fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        settings = asdict(replace(self.setup, model="", device="", readers=0))
        names = {"boxes": "kind of boxes", "um_per_pixel": "scale", "max_pixels": "limit of pixels"}
        shown = {names.get(key, key): value for key, value in settings.items() if key not in ("model", "device")}
        shown.pop("readers")
        files = [
            f"{job.image}\0{_stamp(job.source)}\0{_stamp(job.annotation)}\0{job.version}" for job in self.listed.jobs
        ]
        boxes = [f"{job.image}\0{_boxes_digest(job.boxes)}" for job in self.listed.jobs if job.boxes is not None]
        labels = [f"{job.image}\0{job.labels!r}" for job in self.listed.jobs if job.labels]
        from napari_bloodcells import __version__

        if labels:
            shown["list of labels"] = digest_of(labels)
        shown |= {"localizer": _localizer_hash(self.setup), "given boxes": digest_of(boxes) if boxes else ""}
        shown |= {f"model's {name}": getattr(self.info, name) for name in _LIMITS}
        return {"model": self.info.sha256, "version": __version__, "list of images": digest_of(files), **shown}

    def _count(self, plan: ShardPlan, shards: Sequence[int], store: ShardStore | None = None) -> Iterator[Done]:
        work: Iterator[Work] = ((shard, self.listed.jobs[plan.images_of(shard)]) for shard in shards)
        if store is not None:
            work = ((shard, store.keeping(jobs)) for shard, jobs in work)
        if self.options.cluster:
            from napari_bloodcells.core.counting.cluster import run_cluster

            return run_cluster(self.options.cluster, self.setup, work, self.progress)
        if self.workers > 1:
            devices = self.options.devices or ("cpu",) * self.workers
            setups = [replace(self.setup, device=name, readers=readers_of(name, len(devices))) for name in devices]
            shelf = self._shelf(plan, shards) if self.served else None
            return _import_meanwhile(run_processes(setups, work, self.progress, shelf), self.served)
        return run_inline(FieldCounter(self.setup, self.model), work, self.progress)

    def _shelf(self, plan: ShardPlan, shards: Sequence[int]) -> Shelf:
        jobs = (job for shard in shards for job in self.listed.jobs[plan.images_of(shard)])
        return Shelf(jobs, self.setup.max_pixels, halves(self.setup, self.info))

    def _tell(self, records: list[FieldRecord], times: StageTimes) -> None:
        self.times.add(times)
        self.progress.advance(TASK, len(records), cells=float(self.times.cells))

    def _result(self, records: Any) -> CountResult:
        from napari_bloodcells.core.differential import differential_frame, differentials
        from napari_bloodcells.core.statistics.remarks import lost_boxes

        scheme = self.info.class_scheme
        slides: dict[str, Any] = {}
        copies = Copies()
        cells = cells_table(records(), scheme)
        images = images_table(copies.noted(_noting_slides(records(), slides)), scheme)
        blocks = differential_frame(differentials(cells, scheme, images, slides=slides.keys()))
        run = self._run_info(int((images["status"] == OK).sum()), len(images), len(cells))
        table = f"images.{self.options.format}"
        run["warnings"] = [*lost_boxes(images, table), *copies.remark(table), *run["warnings"]]
        if slides:
            run["slides"] = slides
        return CountResult(cells, images, blocks, run, self.info, self.listed.root, self._files())

    def _files(self) -> dict[str, str]:
        return {
            job.image: job.source
            for job in self.listed.jobs
            if isinstance(job.source, str) and not is_address(job.source)
        }

    def _run_info(self, read: int, given: int, n_cells: int) -> dict[str, Any]:
        from napari_bloodcells.core.counting.output import versions

        seconds = time.perf_counter() - self.clock
        options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self.options).items()}
        del options["guarded_main"]
        if self.options.anonymous:
            options = {name: value for name, value in options.items() if name not in ("output", "cluster")}
        return {
            "model": self.info.record,
            "boxes": self.setup.boxes if not self.options.anonymous else Path(self.setup.boxes).name,
            "device": str(self.model.device) if self.model else ", ".join(self.options.devices) or self.setup.device,
            "workers": self.workers,
            "options": options,
            "input": None if self.options.anonymous or self.listed.root is None else str(self.listed.root),
            "images": {"given": given, "read": read, "failed": given - read},
            "cells": n_cells,
            "warnings": list(self.listed.warnings),
            "times": {
                "started": self.started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "images_per_second": round(self.times.images / seconds, 2) if seconds else None,
                "stages": {name: round(value, 3) for name, value in self.times.seconds.items()},
            },
            "versions": versions(),
        }


def _noting_slides(records: Iterable[FieldRecord], slides: dict[str, Any]) -> Iterator[FieldRecord]:
    """The same records; what of the slides among them was counted is put into ``slides``, by the image's name."""
    for record in records:
        if record.slide is not None:
            slides[record.image] = asdict(record.slide)
        yield record


def _import_meanwhile(done: Iterator[Done], early: bool) -> Iterator[Done]:
    """Import what the tables need while the workers compute, not after them; ``early`` while their server starts."""
    if early:
        _import_for_tables()
    for first in done:
        _import_for_tables()
        yield first
        yield from done


def _import_for_tables() -> None:
    import pandas  # noqa: F401
    import scipy.special  # noqa: F401

    import napari_bloodcells.core.differential  # noqa: F401


def _on_device(setup: CounterSetup, options: CountOptions) -> CounterSetup:
    """``setup`` with the device that computes, the first of several; each worker of a cluster chooses its own."""
    from napari_bloodcells.core.devices import pick_device

    if options.cluster:
        return setup
    told = "torch" not in sys.modules
    asked = options.devices or (setup.device,)
    found = ["cpu" if told and surely_cpu(name) else str(pick_device(name)) for name in asked]
    return replace(setup, device=found[0], readers=readers_of(found[0], len(found)))


def _read_info(model: str) -> BundleInfo:
    from napari_bloodcells.core.bundleinfo import read_info

    return read_info(model)


def _localizer_hash(setup: CounterSetup) -> str:
    """SHA-256 of the metadata of a learned localizer (they name the weights and the thresholds), empty without one."""
    from napari_bloodcells.core.localize.home import METADATA, home

    if setup.boxes in ("classical", "whole"):
        return ""
    try:
        return hashlib.sha256((home(setup.localizer) / METADATA).read_bytes()).hexdigest()
    except OSError:
        return ""


def _boxes_digest(boxes: Boxes) -> str:
    return digest_of([repr((boxes.xyxy.tolist(), boxes.labels, boxes.scores.tolist(), boxes.source))])


def _stamp(source: Any) -> str:
    """Size and time of a file, or a digest of an array, to see whether it changed between a run and its resumption.

    Of a slide in several files, of each of them.
    """
    if isinstance(source, np.ndarray):
        pixels = hashlib.sha256(np.ascontiguousarray(source).tobytes())
        return f"{source.shape} {source.dtype} {pixels.hexdigest()}"
    if not isinstance(source, str):  # none, or an array that would have to be read as a whole for it
        return ""
    others = [f"\0{file.name}\0{_size_and_time(file)}" for file in companions(source)]
    return "".join([_size_and_time(source), *others])


def _size_and_time(path: str | Path) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "?"
    return f"{status.st_size} {status.st_mtime_ns}"
