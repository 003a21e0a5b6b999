"""What a count gives: three tables, and what is known of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.counting.cells import OK
from napari_bloodcells.core.counting.output import write_tables

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.bundle import BundleInfo
    from napari_bloodcells.core.classes import ClassScheme


@dataclass(frozen=True)
class CountResult:
    """What was counted.

    Attributes
    ----------
    cells : DataFrame
        One row per cell (columns: ``core/counting/cellstable.py``).
    images : DataFrame
        One row per image given, read or not (columns: ``core/counting/cells.py``).
    differentials : DataFrame
        One block per sample and one for ``all`` (columns: ``core/differential.py``).
    run : dict
        Model and its hash, versions, options, device, times.
    model : BundleInfo
        Metadata of the model that classified: its scheme, its confusion matrix.
    root : Path or None
        Folder that the names of the images are relative to.
    files : dict
        Where each image lies, by its name in the tables; arrays are not in it.
    """

    cells: pd.DataFrame
    images: pd.DataFrame
    differentials: pd.DataFrame
    run: dict[str, Any]
    model: BundleInfo = field(repr=False)
    root: Path | None = field(default=None, repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def scheme(self) -> ClassScheme:
        """The classes that the cells were sorted into."""
        return self.model.class_scheme

    @property
    def failed(self) -> pd.DataFrame:
        """The images that could not be counted, with the reason in ``status``."""
        return self.images[self.images["status"] != OK]

    def to_csv(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write ``cells.csv``, ``images.csv``, ``differential.csv`` and ``run.json`` into ``folder``.

        Raises
        ------
        OutputError
            Results are there already and ``overwrite`` is False, cells there were reviewed and these were not, or the
            folder cannot be written.
        """
        return write_tables(self, Path(folder), "csv", overwrite=overwrite)
