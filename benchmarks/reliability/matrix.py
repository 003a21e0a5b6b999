"""The bad-input matrix: over 200 files that nobody checked, counted in one run, each held against what it must give.

    python -m benchmarks.reliability.matrix [FOLDER]

draws the files, runs ``bloodcells-batch count`` on them as a user would, prints one line for each case that went
wrong, and ends with the figures that ``docs/reliability.md`` quotes.  Exit code 1 where a case fails.
"""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.reliability import images
from benchmarks.reliability.annotations import annotations
from benchmarks.reliability.case import Case
from napari_bloodcells.synthetic import SmearSettings, draw_smear


def make_matrix(folder: Path) -> list[Case]:
    """Write every file of the matrix below ``folder`` and return the cases, over 200 of them."""
    pixels = draw_smear(3, SmearSettings(height=240, width=320)).image
    cases: list[Case] = []
    rooms = {
        "truncated": lambda room: images.truncated(room, pixels),
        "flipped": lambda room: images.flipped(room, pixels),
        "mislabelled": lambda room: images.mislabelled(room, pixels),
        "tiny": images.tiny,
        "bombs": images.bombs,
        "unusual": lambda room: images.unusual(room, pixels),
        "not-files": lambda room: images.not_files(room, pixels),
        "names": lambda room: images.names(room, pixels),
        "xml": lambda room: annotations(room, images.encode(pixels, ".jpg")),
    }
    for name, make in rooms.items():
        (folder / name).mkdir(parents=True)
        cases.extend(make(folder / name))
    return cases


@dataclass(frozen=True)
class Outcome:
    """What one count of the matrix gave.

    Attributes
    ----------
    cases, failures
        All cases, and one sentence for each that went wrong.
    code : int
        The command's exit code; 3 is right.
    seconds, peak_mb : float
        Wall time and the largest resident size of a process of the count, in MB.
    output : str
        All that the command printed.
    """

    cases: tuple[Case, ...]
    failures: tuple[str, ...]
    code: int
    seconds: float
    peak_mb: float
    output: str


def _key(path: Path | str) -> str:
    """A name as the table can hold it: the file's last parts, undecodable bytes and control characters escaped."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def run_matrix(folder: Path, timeout: float = 600.0) -> Outcome:
    """Draw the matrix into ``folder / "in"``, count it into ``folder / "out"``, and judge every case."""
    cases = make_matrix(folder / "in")
    before = _listing(folder / "in")
    started = time.monotonic()
    command = [sys.executable, "-m", "napari_bloodcells", "count", str(folder / "in"), "-o", str(folder / "out")]
    peak = 0
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
        while process.poll() is None:  # watched from outside: the kernel's own peak is inherited from whoever forks
            peak = max(peak, _largest(process.pid))
            if time.monotonic() - started > timeout:
                process.kill()
            time.sleep(0.05)
        words.seek(0)
        output = words.read().decode(errors="replace")
    code, seconds, peak_mb = process.returncode, time.monotonic() - started, peak / 2**20
    failures = list(_judge(cases, folder))
    if code != 3:
        failures.append(f"exit code {code}, not 3")
    if "Traceback" in output:
        failures.append("the command printed a traceback")
    if _listing(folder / "in") != before:
        failures.append("the input folder was changed")
    return Outcome(tuple(cases), tuple(failures), code, seconds, peak_mb, output)


def _largest(pid: int) -> int:
    """Resident bytes of the largest process of the family of ``pid``; 0 where it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return max(one.memory_info().rss for one in [root, *root.children(recursive=True)])
    return 0


def _listing(folder: Path) -> list[tuple[str, int]]:
    """Every name and size below ``folder``, without following links."""
    found = []
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            status = os.lstat(os.path.join(root, name))
            found.append((os.path.join(root, name), status.st_size if name in files else 0))
    return sorted(found)


def _judge(cases: list[Case], folder: Path) -> list[str]:
    """One sentence for each case whose row in ``images.csv`` is missing, doubled or not as it must be."""
    table = folder / "out" / "images.csv"
    if not table.is_file():
        return ["there is no images.csv"]
    rows: dict[str, list[dict[str, str]]] = {}
    limit = csv.field_size_limit(10**8)  # of the whole process, so it is given back
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                name = row["image"].removeprefix("'")
                rows.setdefault(_key(name), []).append(row)
    finally:
        csv.field_size_limit(limit)
    failures = []
    for case in cases:
        name = _key(case.path.relative_to(folder / "in").as_posix())
        found = rows.get(name, [])
        if len(found) != 1:
            failures.append(f"{name}: {len(found)} rows in images.csv")
            continue
        status = found[0]["status"]
        if "\n" in status or "Traceback" in status:
            failures.append(f"{name}: its error is not one line: {status[:80]!r}")
        if case.expect == "ok" and status != "ok":
            failures.append(f"{name}: should be read, but: {status}")
        if case.expect == "error" and status == "ok":
            failures.append(f"{name}: should be refused, but was read")
        if status != "ok" and _key(case.path.stem)[:40] not in status:  # the image's error, or its XML's
            failures.append(f"{name}: its error does not name the file: {status}")
        if case.cells is not None and status == "ok" and int(float(found[0]["n_wbc"])) != case.cells:
            failures.append(f"{name}: {found[0]['n_wbc']} cells, not {case.cells}")
    return failures


def main() -> int:
    """Run the matrix and print what it showed."""
    with tempfile.TemporaryDirectory() as scratch:
        outcome = run_matrix(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
    for failure in outcome.failures:
        print(failure)
    print(
        f"{len(outcome.cases)} cases, {len(outcome.failures)} failures, exit code {outcome.code} (3), "
        f"{outcome.seconds:.0f} s, {outcome.peak_mb:.0f} MB at the most"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
