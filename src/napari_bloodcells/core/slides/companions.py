"""The other files of a slide: some scanners write a small file that is opened, and the pixels beside it."""

from __future__ import annotations

import os
from pathlib import Path

LARGEST_LIST = 2**16
"""Bytes of a .vms or .vmu, which openslide takes for none when it is longer."""
_LISTS = (".vms", ".vmu")


def companions(path: Path | str) -> list[Path]:
    """The files that hold what ``path`` only names, in order; none for a slide in one file.

    Of a ``.mrxs`` all files of the folder of its name, of a ``.vms`` or ``.vmu`` the files that stand in it.  What is
    not there, or cannot be read, is left out: whoever opens the slide says so.
    """
    path = Path(path)
    suffix = path.suffix.casefold()
    try:
        if suffix == ".mrxs":
            return sorted(file for file in path.with_suffix("").iterdir() if file.is_file())
        if suffix in _LISTS and path.stat().st_size <= LARGEST_LIST:
            lines = path.read_bytes().splitlines()
            names = {os.fsdecode(line.partition(b"=")[2].strip()) for line in lines}
            listed = (path.parent / name for name in names if name and os.path.basename(name) == name)
            return sorted(file for file in listed if file != path and file.is_file())
    except (OSError, ValueError):
        pass
    return []
