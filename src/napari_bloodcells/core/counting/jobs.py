"""What is to be counted: one ``FieldJob`` per image, in the order of the results.

Paths of files and folders, or arrays, go in.  Each image gets the name under which it stands in every table (its path
relative to what was given, with ``/``, so never two of one name), its annotation file where there is one, and the
labels that its data set knows.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.counting.cellstable import table_name
from napari_bloodcells.core.counting.copies import sharing_size
from napari_bloodcells.core.errors import BloodcellsError, DataWarning, ImageError, UsageError
from napari_bloodcells.core.find import find_images, folders_in, is_output_folder
from napari_bloodcells.core.matching import find_annotations, match_annotations
from napari_bloodcells.core.remote import file_name, is_address
from napari_bloodcells.core.slides.arrayslide import ArraySlide

if TYPE_CHECKING:
    from napari_bloodcells.core.datasets.base import DataSet
    from napari_bloodcells.core.remotefolder import RemoteFile, RemoteFolder

Box: TypeAlias = tuple[float, float, float, float]
Pixels: TypeAlias = NDArray[np.generic] | ArraySlide
"""An array, also one that is read when it is asked for (dask), or a slide of one."""
PathOrArray: TypeAlias = str | Path | Pixels
Sources: TypeAlias = PathOrArray | Iterable[PathOrArray] | Mapping[str, PathOrArray]

LABEL_TABLES = ("labels.csv", "classes.csv", "classes.txt", "labels.json")
"""A folder that holds one of these says what its cells are."""


@dataclass(frozen=True)
class FieldJob:
    """One image to count.

    Attributes
    ----------
    image : str
        Its name in the tables.
    source : str, (H, W, ...) array or ArraySlide
        Where its pixels are; an array that is lazy is read when its turn comes.
    annotation : str or None
        Its VOC file, or the address of it.
    labels : tuple of (box or None, class)
        Cells that the data set has a type for; None stands for the only cell of the image.
    boxes : Boxes or None
        Boxes given by the caller, instead of all others.
    maybe_copy : bool
        Whether its file may be a copy of another one of the run, by its size.
    kept : str or None
        Folder in which what is finished of a slide is kept while it is under way.
    version : str
        What a listing says of the size and time of image and annotation, where they lie elsewhere.
    """

    image: str
    source: str | Pixels
    annotation: str | None = None
    labels: tuple[tuple[Box | None, str], ...] = ()
    boxes: Boxes | None = field(default=None, compare=False)
    maybe_copy: bool = False
    kept: str | None = None
    version: str = ""


@dataclass(frozen=True)
class JobList:
    """The jobs of one run, the folder that their names are relative to, and what was odd about the folders
    and annotations."""

    jobs: tuple[FieldJob, ...]
    root: Path | None = None
    warnings: tuple[str, ...] = ()


def collect_jobs(sources: Sources, *, recursive: bool = True, annotations: bool = True, labels: bool = True) -> JobList:
    """List what is to be counted.

    Parameters
    ----------
    sources : path, array, iterable of these, or mapping of name to path or array
        Folders are searched for images.  An array is (H, W, 3) RGB or what ``to_rgb8`` takes, or an ``ArraySlide``.
    recursive : bool
        Also look into the folders of folders.
    annotations : bool
        Look for VOC files.
    labels : bool
        Look for the cell types that a data set knows.

    Raises
    ------
    UsageError
        Nothing was given, or a path that does not exist.
    """
    named = _named(sources)
    if not named:
        raise UsageError("Nothing to count: give a folder, image files, or arrays.")
    if any(_are_pixels(value) for value in named.values()):
        return JobList(tuple(FieldJob(n, v if _are_pixels(v) else str(v)) for n, v in named.items()))
    if isinstance(sources, Mapping):
        maybe = sharing_size([_size(Path(str(value))) for value in named.values()])
        pairs = zip(named.items(), maybe, strict=True)
        return JobList(tuple(FieldJob(name, str(value), maybe_copy=same) for (name, value), same in pairs))
    if any(is_address(name) for name in named):
        return _remote_jobs(list(named), recursive, annotations)
    return _path_jobs([Path(name) for name in named], recursive, annotations, labels)


def _named(sources: Sources) -> dict[str, PathOrArray]:
    if isinstance(sources, Mapping):
        return dict(sources)
    return {
        f"array {number}" if _are_pixels(value) else str(value): value
        for number, value in enumerate(given(sources), start=1)
    }


def given(sources: Sources) -> list[PathOrArray]:
    """What was given, one by one.

    >>> given("smears"), given({"a": "1.jpg"})
    (['smears'], ['1.jpg'])
    """
    if isinstance(sources, Mapping):
        return list(sources.values())
    if isinstance(sources, (str, Path, np.ndarray, ArraySlide)) or _are_pixels(sources):
        return [sources]
    return list(sources)


def kept(sources: Sources) -> Sources:
    """The same sources, to be gone through again and again: what can be only once (``Path.glob``) becomes a list.

    >>> kept(name for name in ("1.jpg", "2.jpg"))
    ['1.jpg', '2.jpg']
    """
    return list(sources) if isinstance(sources, Iterator) else sources


def _are_pixels(value: object) -> TypeGuard[Pixels]:
    """Whether ``value`` is pixels, in memory or not, and no path.

    >>> _are_pixels(np.zeros((2, 2, 3), np.uint8)), _are_pixels("a.jpg")
    (True, False)
    """
    return isinstance(value, ArraySlide) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _remote_jobs(addresses: list[str], recursive: bool, annotations: bool) -> JobList:
    """Jobs of images that lie elsewhere; their XML is fetched by the worker that counts them."""
    from napari_bloodcells.core.remotefolder import list_remote

    for address in addresses:
        if not is_address(address):
            raise UsageError(f"{address}: give folders of this machine or addresses, not both at once.")
    folders = {address: list_remote(address, recursive) for address in addresses}
    matched, told = _remote_annotations(folders, recursive) if annotations else ({}, ())
    files = [file for folder in folders.values() for file in folder.images]
    maybe = iter(sharing_size([file.size for file in files]) if len(files) > 1 else [False])
    jobs: list[FieldJob] = []
    for address, folder in folders.items():
        prefix = f"{file_name(address)}/" if len(addresses) > 1 and not folder.single else ""
        for file in folder.images:
            name = table_name(f"{prefix}{file.name}")
            xml = matched.get(file.address)
            version = f"{file.version}\0{'' if xml is None else xml.version}"
            annotation = None if xml is None else xml.address
            jobs.append(FieldJob(name, file.address, annotation, maybe_copy=next(maybe), version=version))
    if len({job.image for job in jobs}) < len(jobs):
        raise UsageError("Two of the addresses end with the same name; count them one after the other.")
    return JobList(tuple(jobs), None, (*(text for folder in folders.values() for text in folder.problems), *told))


def _remote_annotations(
    folders: Mapping[str, RemoteFolder], recursive: bool
) -> tuple[dict[str, RemoteFile], tuple[str, ...]]:
    """Addresses of images to their XML files, and in words what was odd about these."""
    from napari_bloodcells.core.remotefolder import annotation_of_single, annotations_beside, declared_names

    matched, told = annotation_of_single(
        [file for folder in folders.values() if folder.single for file in folder.images]
    )
    listed = {address: folder for address, folder in folders.items() if not folder.single}
    beside = [annotations_beside(address, recursive) for address in listed]
    problems = [*told, *(text for folder in beside for text in folder.problems)]
    images = {file.place: file.address for folder in listed.values() for file in folder.images}
    xml = {file.place: file for folder in (*listed.values(), *beside) for file in folder.annotations}
    addresses = {place: file.address for place, file in xml.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs = match_annotations(images, xml, declared_names(addresses, problems))
    matched |= {images[image]: xml[annotation] for image, annotation in pairs.items()}
    return matched, (*problems, *(str(w.message) for w in caught if issubclass(w.category, DataWarning)))


def _path_jobs(paths: list[Path], recursive: bool, annotations: bool, labels: bool) -> JobList:
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{path}: no such file or folder.")
        if len(paths) == 1 and os.path.isdir(path) and is_output_folder(path):
            raise UsageError(f"{path}: holds the results of a count, not images; give the folder of the images.")
    root = common_root(paths)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            images = find_images(paths, recursive, slides=True)
        except ImageError as error:
            raise UsageError(str(error)) from error
        matched = match_annotations(images, find_annotations(paths, recursive)) if annotations else {}
    told = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    known = known_labels(paths) if labels else {}
    jobs = tuple(
        FieldJob(
            relative_name(image, root),
            str(image),
            str(matched[image]) if image in matched else None,
            known.get(os.path.realpath(image), ()) if known else (),
            maybe_copy=maybe,
        )
        for image, maybe in zip(images, sharing_size([_size(image) for image in images]), strict=True)
    )
    return JobList(jobs, root, tuple(told))


def _size(image: Path) -> int | None:
    """Bytes of a file; None for what cannot be opened, as its reader will say."""
    try:
        return image.stat().st_size
    except (OSError, ValueError):
        return None


def common_root(paths: Iterable[Path]) -> Path:
    """The folder that names in the tables are relative to: the folder given, or the one that holds all given.

    >>> common_root([Path("/data/a/1.jpg"), Path("/data/b/2.jpg")]).as_posix()
    '/data'
    """
    folders = [Path(os.path.abspath(path)) for path in paths]
    if len(folders) == 1 and os.path.isdir(folders[0]):
        return folders[0]
    try:
        return Path(os.path.commonpath([folder.parent for folder in folders]))
    except ValueError:  # two drives
        return Path(os.path.abspath(os.sep))


def relative_name(image: Path, root: Path) -> str:
    """The name of ``image`` in the tables: its path below ``root``, with ``/``."""
    path = Path(os.path.abspath(image))
    try:
        return table_name(str(path.relative_to(root)))
    except ValueError:
        return table_name(str(path))


def known_labels(folders: Iterable[Path]) -> dict[str, tuple[tuple[Box | None, str], ...]]:
    """The cell types that data sets among ``folders`` know: real path of an image to its boxes and classes.

    Only a folder that says so itself is read as a data set: by a table of labels, or by being a tree of class
    folders.  One that cannot be read as a data set has no labels; that is no reason not to count it.
    """
    result: dict[str, tuple[tuple[Box | None, str], ...]] = {}
    for folder in folders:
        if not os.path.isdir(folder) or not _may_hold_labels(folder):
            continue
        dataset = _dataset(folder)
        for sample in dataset.samples if dataset is not None else ():
            if sample.label is not None:
                key = os.path.realpath(sample.image)
                result[key] = (*result.get(key, ()), (sample.box, sample.label))
    return result


def _may_hold_labels(folder: Path) -> bool:
    from napari_bloodcells.core.classes import load_scheme

    if any(os.path.isfile(folder / name) for name in LABEL_TABLES):
        return True
    scheme = load_scheme("pbc8")
    inside = folders_in(folder)
    below = [deeper for name in inside[:4] for deeper in folders_in(folder / name)]
    return sum(scheme.index(name) is not None for name in {*inside, *below}) >= 2


def _dataset(folder: Path) -> DataSet | None:
    from napari_bloodcells.core.datasets import load_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            return load_dataset(folder)
        except (BloodcellsError, OSError):  # the last where a folder of it may not be entered
            return None


def unnamed(jobs: JobList) -> JobList:
    """The same jobs with numbers instead of names, for results that leave the house (``--anonymous``).

    Samples stay apart: every folder gets a number of its own.

    >>> listed = JobList((FieldJob("Smith/1.jpg", "x"), FieldJob("Jones/1.jpg", "y"), FieldJob("Jones/2.jpg", "z")))
    >>> [job.image for job in unnamed(listed).jobs]
    ['sample 1/field 1', 'sample 2/field 1', 'sample 2/field 2']
    """
    folders: dict[str, int] = {}
    counts: dict[str, int] = {}
    renamed = []
    for job in jobs.jobs:
        folder = job.image.rpartition("/")[0]
        number = folders.setdefault(folder, len(folders) + 1)
        counts[folder] = counts.get(folder, 0) + 1
        prefix = f"sample {number}/" if folder else ""
        renamed.append(replace(job, image=f"{prefix}field {counts[folder]}"))
    told: tuple[str, ...] = ()
    if n := len(jobs.warnings):
        remarks = f"{n} remark{'' if n == 1 else 's'}"
        told = (f"{remarks} on files would name them: count without --anonymous to read.",)
    return replace(jobs, jobs=tuple(renamed), root=None, warnings=told)
