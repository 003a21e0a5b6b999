"""``load_dataset`` asks each reader in turn whether a folder is of its kind; ``open_datasets`` tells of its defects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_bloodcells.core.classes import ClassScheme, load_scheme
from napari_bloodcells.core.datasets.base import DataSet
from napari_bloodcells.core.errors import DataSetError, DataWarning
from napari_bloodcells.core.files import display_name

Data = str | Path | DataSet | Sequence["str | Path | DataSet"]
TOLD = 10
"""Problems of a data set that are told one by one."""


def load_dataset(folder: Path | str, scheme: ClassScheme | str | None = None) -> DataSet:
    """Read a folder of labeled photographs, whatever its layout.

    Understood are, in this order: a count's ``cells.csv`` with cells that were reviewed, VOC XML with or without a
    ``labels.csv`` (``bccd``), YOLO text boxes with or without a table of types (``chula``, ``raabin``, ``pig``), a
    table of boxes (``ankara``), a table of files and classes (``jtsc``, ``cellavision``), and a tree of class folders
    with or without ``TRAIN`` and ``TEST`` (``kaggle``, ``pbc``, ``misp``).  Original files and smaller or re-encoded
    copies are read alike.

    Parameters
    ----------
    folder : path
        The data set's folder.
    scheme : ClassScheme or str, optional
        Labels are brought to it, and those it does not know become None.  Without one they are canonical names.

    Returns
    -------
    DataSet
        With what was worked around in ``problems``.

    Raises
    ------
    DataSetError
        If the folder does not exist, or holds no labels that any reader understands.
    UsageError
        If there is no such scheme.
    """
    from napari_bloodcells.core.datasets import boxtable, classtable, tree, vocfolder, yolo
    from napari_bloodcells.core.datasets.folder import Folder

    root = Path(folder)
    if isinstance(scheme, str):
        scheme = load_scheme(scheme)
    if not root.is_dir():
        raise DataSetError(f"{display_name(root)}: no such folder of data.")
    opened = Folder(root, scheme)
    if not opened.images:
        raise DataSetError(f"{display_name(root)}: holds no images.")
    readers: tuple[Callable[[Folder], DataSet | None], ...] = (
        boxtable.read_reviewed,
        vocfolder.read,
        yolo.read,
        boxtable.read,
        classtable.read,
        tree.read,
    )
    for read in readers:
        dataset = read(opened)
        if dataset is not None and (dataset.samples or dataset.fields):
            return dataset.in_scheme(scheme) if scheme else dataset
    of_machine = next((problem for problem in opened.problems if "nobody reviewed" in problem), "")
    raise DataSetError(
        f"{display_name(root)}: {len(opened.images)} images but no labels; needed are VOC XML, YOLO text files, "
        f"a CSV or JSON table of files and classes, or folders named after the classes. {of_machine}".rstrip()
    )


def open_datasets(data: Data, scheme: ClassScheme | None = None) -> list[DataSet]:
    """``data`` (a folder, a ``DataSet``, or a list of them) as data sets.

    Folders are read with ``scheme`` (``load_dataset``): class folders may be named after classes that it alone has.
    """
    listed = [data] if isinstance(data, str | Path | DataSet) else list(data)
    if not listed:
        raise DataSetError("no data were given to train on.")
    return [d if isinstance(d, DataSet) else _opened(Path(d), scheme) for d in listed]


def _opened(folder: Path, scheme: ClassScheme | None) -> DataSet:
    """A folder's data set; what was left out or worked around in it is told."""
    dataset = load_dataset(folder, scheme)
    more = len(dataset.problems) - TOLD
    for problem in dataset.problems[:TOLD]:
        warnings.warn(problem, DataWarning, stacklevel=4)
    if more > 0:
        warnings.warn(f"{dataset.name}: {more} more remarks; see data info.", DataWarning, stacklevel=4)
    return dataset
