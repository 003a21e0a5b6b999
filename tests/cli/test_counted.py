"""What ``count`` prints of its differentials: the numbers of differential.csv, rounded once, and the remarks."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace

import pandas as pd
from rich.console import Console

from napari_bloodcells.cli.counted import SHOWN_SAMPLES, show_differentials
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.differential import differential_frame, differentials

SCHEME = load_scheme("wbc5")


def printed(counts: dict[str, dict[str, int]], problems: str = "") -> tuple[str, pd.DataFrame]:
    """The text printed for cells of each class in each image, and ``differential.csv``'s table."""
    rows = [(image, name) for image, of in counts.items() for name, n in of.items() for _ in range(n)]
    cells = pd.DataFrame(rows, columns=["image", "class"])
    images = pd.DataFrame({"image": list(counts), "status": "ok", "problems": problems})
    console = Console(file=StringIO(), width=100, highlight=False)
    result = SimpleNamespace(cells=cells, images=images, scheme=SCHEME, run={})
    show_differentials(console, result)  # type: ignore[arg-type]
    return console.file.getvalue(), differential_frame(differentials(cells, SCHEME, images))  # type: ignore[attr-defined]


def test_every_sample_has_a_line_with_the_numbers_of_the_table_and_the_pool_is_called_so() -> None:
    text, table = printed({"Mr. A/1.jpg": {"neutrophil": 130, "lymphocyte": 70}, "B/1.jpg": {"lymphocyte": 3}})
    lines = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    for sample, line in (("Mr. A", lines["Mr. A"]), ("B", lines["B"])):
        block = table[(table["sample"] == sample) & table["percent"].notna()]
        assert line[-6:] == [str(block["count"].sum()), *(f"{value:.1f}" for value in block["percent"])]
    assert "All 2 samples together" in text
    assert "B: Only 3 white cells were classified" in text
    assert "Mr. A: Only" not in text


def test_one_folder_is_one_table_with_its_remarks() -> None:
    text, _ = printed({"1.jpg": {"neutrophil": 90, "unidentified": 10}}, problems="out of focus")
    assert "together" not in text
    assert "Only 90 white cells were classified" in text
    assert "10 cells (10 %) are unidentified" in text
    assert "1 of 1 image has problems of quality: out of focus (1)." in text


def test_a_share_is_rounded_once_as_on_the_page() -> None:
    text, table = printed({"1.jpg": {"neutrophil": 6, "lymphocyte": 7}})
    assert table.loc[table["class"] == "neutrophil", "percent"].tolist() == [46.15]  # alone it would be shown as 46.1
    assert " 46.2 " in text


def test_without_a_white_cell_that_is_said_in_words() -> None:
    text, _ = printed({"1.jpg": {"unidentified": 2}})
    assert "No white cell was classified." in text
    assert "95 % interval" not in text
    text, _ = printed({"a/1.jpg": {"neutrophil": 2}, "b/1.jpg": {}})
    assert "b: No white cell was classified." in text


def test_of_many_samples_the_first_are_shown_and_the_table_is_named() -> None:
    text, _ = printed({f"s{i}/1.jpg": {"neutrophil": 1} for i in range(SHOWN_SAMPLES + 7)})
    assert "... and 7 more: differential.csv" in text
    assert "s19 " in text
    assert "s20 " not in text
