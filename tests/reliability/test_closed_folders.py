"""Folders that the user may not enter, as ``lost+found`` of a disk: named, and the rest is counted.

Root may enter all, so as root the commands run without root's rights.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

COMMAND = "from napari_bloodcells.cli import main; main()"
_PR_CAPBSET_DROP = 24

pytestmark = pytest.mark.skipif(
    os.name != "posix" or (os.geteuid() == 0 and sys.platform != "linux"),
    reason="only Linux lets root give up its rights; Windows has others",
)


def without_rights() -> None:
    """Have what is executed next obey the permissions of files."""
    libc = ctypes.CDLL(None)
    for right in range(64):
        libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


def python(code: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        preexec_fn=without_rights if os.geteuid() == 0 else None,
    )


def count(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python(COMMAND, "count", *arguments)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be entered; what is put into it lies there."""
    folder = tmp_path / "in" / "lost+found"
    folder.mkdir(parents=True)
    yield folder
    folder.chmod(0o755)


def test_a_folder_that_may_not_be_entered_is_named_and_the_rest_is_counted(
    smears: Path, tiny_model: Path, closed: Path, tmp_path: Path
) -> None:
    shutil.copytree(smears / "a", closed.parent, dirs_exist_ok=True)
    closed.chmod(0)
    done = count(closed.parent, "-o", tmp_path / "out", "--model", tiny_model)
    assert (done.returncode, done.stderr) == (3, "")
    assert "not counted: lost+found: is a folder that may not be read" in done.stdout
    images = pd.read_csv(tmp_path / "out" / "images.csv").set_index("image")["status"]
    assert (images.drop("lost+found") == "ok").sum() == 6


LIST = """
import sys
from napari_bloodcells.core.counting.jobs import collect_jobs
for job in collect_jobs(sys.argv[1]).jobs:
    print(job.image, job.annotation and "XML", *(name for _, name in job.labels))
"""


@pytest.mark.parametrize("mode", [0o000, 0o111])
@pytest.mark.parametrize("xml", [True, False])
def test_a_closed_folder_and_links_into_it_hide_nothing_of_what_lies_beside_them(
    smears: Path, closed: Path, mode: int, xml: bool
) -> None:
    photographs = sorted((smears / "a").glob("*.png"))
    for name, photograph in zip(("neutrophil", "monocyte"), photographs, strict=False):
        (closed.parent / name).mkdir()
        shutil.copy(photograph, closed.parent / name / "1.png")
        if xml:
            shutil.copy(photograph.with_suffix(".xml"), closed.parent / name / "1.xml")
    (closed / "x").mkdir()
    for folder in (closed.parent, closed.parent / "neutrophil"):
        (folder / "link").symlink_to(closed / "x")
        (folder / "loop").symlink_to("loop")
    closed.chmod(mode)
    done = python(LIST, closed.parent)
    assert done.returncode == 0, done.stderr
    assert "lost+found None\n" in done.stdout
    listed = [line for line in done.stdout.splitlines() if not line.startswith("lost+found")]
    if xml:
        assert [line.split()[:2] for line in listed] == [["monocyte/1.png", "XML"], ["neutrophil/1.png", "XML"]]
    else:
        assert listed == ["monocyte/1.png None monocyte", "neutrophil/1.png None neutrophil"]


def test_annotations_that_may_not_be_read_are_told(smears: Path, tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    shutil.copy(next((smears / "a").glob("*.png")), tmp_path / "JPEGImages" / "1.png")
    (tmp_path / "Annotations").mkdir(mode=0)
    done = python(f"{LIST}print(*collect_jobs(sys.argv[1]).warnings)", tmp_path / "JPEGImages")
    (tmp_path / "Annotations").chmod(0o755)
    assert "Annotations: is a folder that may not be read; XML files there are not used.\n" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("option", "place", "words"),
    [
        ("--model", "", r"lost\+found: .+ may be read"),
        ("--boxes", "", r"lost\+found: .+ may not be read"),
        ("--model", "mine", "mine: .+ may be read"),
        ("--boxes", "mine", "boxes must be .+ the folder of a localizer"),
    ],
)
def test_a_model_that_may_not_be_read_is_one_line(
    smears: Path, tiny_model: Path, closed: Path, tmp_path: Path, option: str, place: str, words: str
) -> None:
    closed.chmod(0)
    model = () if option == "--model" else ("--model", tiny_model)
    done = count(smears / "a", "-o", tmp_path / "out", *model, option, closed / place)
    assert done.returncode in (1, 2)
    assert re.fullmatch(f"Error: {words}.+\n", done.stderr)


def test_a_name_that_is_too_long_for_a_model_is_one_line(smears: Path) -> None:
    done = count(smears / "a", "--model", "m" * 300)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .+name too long.+\n", done.stderr)


def test_an_unfinished_run_that_may_not_be_read_is_one_line(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    (tmp_path / "out" / ".partial").chmod(0)
    done = count(smears / "a", "-o", tmp_path / "out", "--model", tiny_model, "--overwrite")
    (tmp_path / "out" / ".partial").chmod(0o755)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .+\.partial: may not be read; have its owner see to that.+\n", done.stderr)
