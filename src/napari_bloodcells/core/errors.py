"""What can go wrong, in words for the person at the microscope.

Every error that a user can cause is a ``BloodcellsError`` whose text is one line that names the file and says what
to do; the command prints it without a traceback, the plugin shows it as a notification.  Defects of data that do not
stop the work are ``DataWarning`` warnings of the same form.
"""

from __future__ import annotations

from pathlib import Path

GO_ON = "with an output folder, --resume goes on from what was finished"
"""How an error ends that is of no image: what to do next."""


class BloodcellsError(Exception):
    """Base of all errors with a message meant for the user: one line, names the file, says what to do.

    ``path`` is where that file lies, if that is known: the text has its name alone, as results that leave the house
    must not name folders (of patients); ``files.whole_text`` has both.
    """

    path: Path | None = None

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class UsageError(BloodcellsError):
    """An option or argument that cannot be used (the command exits with 2)."""


class ImageError(BloodcellsError):
    """An image that cannot be read, or that is too large to be read safely."""


class AnnotationError(BloodcellsError):
    """A VOC, YOLO or table file that cannot be understood."""


class DataSetError(BloodcellsError):
    """A folder that is no data set, or whose parts do not fit each other."""


class BundleError(BloodcellsError):
    """A model bundle that is not one, is damaged, or is refused for safety."""


class WeightsError(BloodcellsError):
    """Pretrained weights that are not at hand; the message says what to download and where to put it."""


class OutputError(BloodcellsError):
    """An output folder that cannot be written, is in use by another run, or belongs to another run."""


class DiskError(OutputError):
    """An output that could not be written: the disk is full, the folder gone, read-only or not one's own."""


class OutageError(BloodcellsError):
    """The device, the network or the cluster failed, which says nothing of an image: the run ends, to be resumed."""


class Cancelled(BloodcellsError):
    """The user asked to stop; what was finished is kept."""


class DataWarning(UserWarning):
    """A defect of an input file that was worked around; the text names the file."""
