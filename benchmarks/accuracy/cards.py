"""Writes the model cards in ``docs/models`` from the bundles and from ``results/table.json``.

python -m benchmarks.accuracy.cards
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.accuracy.ship import LISTENING
from benchmarks.accuracy.table import percent, share_text
from napari_bloodcells.core.bundle import read_info
from napari_bloodcells.core.schema import BundleInfo

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "results" / "table.json"
ORIGINS = {
    "bccd": ("BCCD, 640x480 fields, one microscope, 100x oil", "MIT"),
    "kaggle": ("turned and warped copies of BCCD's training cells (Kaggle Blood Cell Images, TRAIN)", "MIT"),
    "pbc": ("PBC_dataset_normal_DIB, Barcelona, CellaVision DM96", "CC BY 4.0"),
    "jtsc": ("Jiangxi Tecom, rapid stain (segmentation_WBC, dataset 1)", "research use"),
    "cellavision": ("CellaVision analyzer, normal and abnormal cells (segmentation_WBC, dataset 2)", "research use"),
    "misp": ("Leukocytes cut tight (Andrade 2019)", "none stated, research use"),
    "chula": ("Chulalongkorn WBC_Dataset, strong vignetting, low contrast", "MIT"),
    "ankara": ("windows of fields, strong magenta stain (Aslan 2020), types read by eye here", "MIT"),
    "pig": ("Visayan warty pig, smartphone, types read by eye here", "CC0"),
    "raabin": ("Raabin-WBC pieces of fields (TXL-PBC), types read by eye by two readers", "MIT"),
}
INTENDED = """Research use only. Not a medical device: nothing here has been approved for diagnosis, and no differential
of it may go to a patient's record without a person who has looked at the cells. The review in napari is made for that.
"""
KNOWN_FAILURES = {
    "wbc5": """- **A cell that is none of the five** (blasts, immature granulocytes, erythroblasts, smudge cells, giant
  platelets) gets one of the five names, or `unidentified` where it looks like nothing known. Take `pbc8` where immature
  granulocytes matter; no model here knows blasts.
- **Atypical and reactive lymphocytes** (large, much pale cytoplasm) are called monocytes: the commonest error on
  `cellavision`, whose labels of such cells are doubtful themselves.
- **Eosinophils whose granules have hardly taken stain** are called neutrophils, and the other way round (`bccd`).
- **Neutrophils that look like those of `bccd`** may be called eosinophils: half of that source's 69 training
  eosinophils have a neutrophil's cytoplasm and nucleus to the eye, and the network calls them as the source does.
- **Out of focus, hazy or bluish fields** (`chula`): lymphocytes become monocytes or basophils, as the texture of the
  nucleus is gone. `count` warns of such fields.
- **Basophils** were seen on five of the nine microscopes, and in numbers on three (`pbc`, `chula`, `raabin`).
- **Cells cut by the border** are judged by what is left of them; `count` can leave them out.
- **Where neither red cells nor a scale are at hand** the box is taken as 14 um; a tight box around a lymphocyte then
  enlarges it, and it looks more like a monocyte.
""",
    "pbc8": """- The three further classes (immature granulocyte, erythroblast, platelet) come from **one** microscope
  (`pbc`): how they do on another is not known.
- Immature granulocytes run into neutrophils (bands) on the one side and into monocytes on the other.
- Platelets and erythroblasts need the scale of the field: without red cells their boxes are taken as 14 um.
- All that is said of `wbc5` holds for the five mature cells.
""",
    "wbc4": """- It **does not know basophils** and gives them another name. It is there for comparison with studies on
  the Kaggle set; for counting take `wbc5`.
- All that is said of `wbc5` holds for the four cells.
""",
}


def card(name: str, found: dict[str, Any]) -> str:
    """The card of one model in Markdown."""
    info = read_info(name)
    lines = [
        f"# Model card: {name}",
        "",
        f"{info.description} Network `{info.arch}`, {info.n_parameters:,} parameters, {info.macs / 1e9:.3f} GMAC a "
        f"cell; crops of {info.crop.size} pixels over {info.crop.side_um:g} um, divided by the white of the ground. "
        f"Weights {info.sha256[:12]}, {info.license}. Written by `python -m benchmarks.accuracy.cards`.",
        "",
        "## Intended use",
        "",
        INTENDED,
        "## Data",
        "",
        *_data(info),
        "",
        "The licenses are those of the photographs; none is in the package. Copies of one cell are in one part.",
        "",
        "## Training",
        "",
        f"`bloodcells-batch train --recipe {name} ...` trains this network with these settings. The weights shipped "
        "were made by `python -m benchmarks.accuracy.trunk` in three legs of 50, 70 and 75 minutes (4.4 million "
        "cells; all eight classes of `pbc8`, all sources, one core of a two-core AMD EPYC with AVX512-BF16 shared "
        "with other work, seeds 0, 0 and 3) and two more from there side by side (95 and 80 minutes of a core without "
        "bfloat16, 1.1 million cells, seeds 4 and 5), whose mean was taken; the commands are on the page *Accuracy*; "
        "and by `python -m benchmarks.accuracy.ship`; "
        + (
            "one more leg from there (52 minutes of a core with bfloat16, 626,000 cells, seed 41) shows cells whose "
            "label the eye does not share in their own stain alone, and the mean of before and after is shipped; "
            "`wbc5` and `wbc4` are its outputs for their classes, and their last layer listens to the shape of cell "
            "and nucleus."
            if name in LISTENING
            else "two more legs from there (35 and 22 minutes of a core with bfloat16, 430,000 and 260,000 cells, "
            "seeds 11 and 13), in which most cells are of `pbc` and stain and camera change less; of these the mean is "
            "taken."
        ),
        "",
        "## Figures",
        "",
        *_figures(name, info, found),
        "",
        f"A cell is `unidentified` if its confidence is below {info.min_confidence:g} or its feature distance above "
        f"{info.max_distance:g}; the temperature is {info.temperature:g}. All tests, and the sources left out one by "
        "one: [accuracy](../accuracy.md).",
        "",
        "Validation cells (at most 60 of a class and a source), true class by row:",
        "",
        *confusion(info.class_names, info.confusion or ()),
        "",
        "## Where it fails",
        "",
        KNOWN_FAILURES[name],
    ]
    return "\n".join(lines).rstrip() + "\n"


def _data(info: BundleInfo) -> list[str]:
    lines = ["| source | what | license | cells trained on |", "|---|---|---|---|"]
    for source in info.training:
        what, license_ = ORIGINS[source.source]
        counts = ", ".join(f"{name} {n}" for name, n in source.counts.items())
        lines.append(f"| `{source.source}` | {what} | {license_} | {counts} |")
    return lines


def _figures(name: str, info: BundleInfo, found: dict[str, Any]) -> list[str]:
    lines = ["| cells | n | accuracy | balanced accuracy | ECE |", "|---|---|---|---|---|"]
    by_name = {m.name: m for m in info.metrics if not m.of}
    three = [by_name[key] for key in ("accuracy", "balanced_accuracy", "ece")]
    figures = [share_text((m.value, m.low, m.high)) for m in three]
    lines.append(f"| validation, all sources | {three[0].n} | " + " | ".join(figures) + " |")

    def row(label: str, k: dict[str, Any]) -> str:
        shown = [share_text(k[key]) if key in k else "" for key in ("accuracy", "balanced_accuracy", "ece")]
        return f"| {label} | {k['cells']} | " + " | ".join(shown) + " |"

    if name == "pbc8":
        lines.append(row("`pbc`, test part", found["pbc8"]))
    if name == "wbc4" and "kaggle" in found:
        lines.append(row("`kaggle` TEST, cells found in the images", found["kaggle"]))
    if name == "wbc5":
        lines.append(row("`pbc`, test part", found["known"]["pbc"]))
        for source, k in found["unseen"].items():
            lines.append(row(f"`{source}`, by a model that never saw it", k))
    return lines


def confusion(names: tuple[str, ...], counts: tuple[tuple[int, ...], ...]) -> list[str]:
    """A confusion matrix as a Markdown table, with the recall of each class."""
    lines = ["| | " + " | ".join(names) + " | recall |", "|---|" + "---|" * (len(names) + 1)]
    for i, row in enumerate(counts):
        recall = percent(row[i] / sum(row)) if sum(row) else "-"
        lines.append(f"| {names[i]} | " + " | ".join(str(v) for v in row) + f" | {recall} |")
    return lines


def main() -> None:
    """Write the three cards."""
    found = json.loads(TABLE.read_text("utf-8"))
    folder = ROOT / "docs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for name in KNOWN_FAILURES:
        (folder / f"{name}.md").write_text(card(name, found), "utf-8")


if __name__ == "__main__":
    main()
