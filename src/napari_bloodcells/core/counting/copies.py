"""Photographs that are one file under two names: told, and counted all the same.

Only files that share their size with another are looked at, and by the worker that has just read them: its digest goes
with the record of the image, and the tables tell the later of two images that it is a copy of the earlier one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from napari_bloodcells.core.counting.cells import OK, FieldRecord

_BYTES = 16
"""Of a digest: two files of a million differ in it but for one chance in 10^26."""


def sharing_size(sizes: Sequence[int | None]) -> list[bool]:
    """Which files may be copies of another: those of a size that others have, and those of unknown size.

    >>> sharing_size([5, 7, 5, None])
    [True, False, True, True]
    """
    known = Counter(sizes)
    return [size is None or known[size] > 1 for size in sizes]


def bytes_digest(data: bytes) -> str:
    """The digest of the bytes of a file, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=_BYTES).hexdigest()


def file_digest(path: str) -> str | None:
    """The digest of a file, in hexadecimal; None where it is gone."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_BYTES)).hexdigest()
    except OSError:
        return None


class Copies:
    """Finds the copies among the records of a run."""

    def __init__(self) -> None:
        self.number = 0
        self._first: dict[bytes, str] = {}

    def noted(self, records: Iterable[FieldRecord]) -> Iterator[FieldRecord]:
        """The same records in their order; a copy says in its warnings of which image."""
        for record in records:
            if record.digest is None or record.status != OK:
                yield record
                continue
            first = self._first.setdefault(bytes.fromhex(record.digest), record.image)
            if first == record.image:
                yield record
                continue
            self.number += 1
            told = f"{record.image.rpartition('/')[2]}: is the same file as {first}, byte for byte, and counted too."
            yield replace(record, warnings=(*record.warnings, told))

    def remark(self, table: str) -> tuple[str, ...]:
        """One line for the end of a run, where there were copies; ``table`` says of which images."""
        if not self.number:
            return ()
        are = (
            "1 image is an exact copy of another and is"
            if self.number == 1
            else (f"{self.number} images are exact copies of others and are")
        )
        return (f"{are} counted too ({table} says of which); remove what is not meant, and count again.",)
