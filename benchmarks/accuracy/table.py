"""The table of ``docs/accuracy.md`` in Markdown, from the figures of ``results/table.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BEGIN = "<!-- figures: written by python -m benchmarks.accuracy, do not edit -->"
END = "<!-- end of figures -->"
VGG = {"frozen": "91.0 % (ImageNet's weights)", "tuned": "96 % (ImageNet's weights)"}
NAMES = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")


def markdown(found: dict[str, Any]) -> str:
    """All figures: rows A to H, the sources unseen one by one, and the confusions."""
    lines = [
        f"Weights `wbc5` {found['weights']['wbc5'][:12]}, {found['parameters']:,} parameters, "
        f"{found['macs'] / 1e9:.3f} GMAC a cell. Intervals: 95 %, over original cells.",
        "",
        "| | test | n | result | published | target |",
        "|---|---|---|---|---|---|",
        *_rows(found),
        "",
    ]
    if found["unseen"]:
        lines += ["### Each source unseen in turn", "", *_unseen(found["unseen"]), ""]
    if found["calibrated"]:
        lines += ["### Row H: `calibrate` with cells of the unseen source", "", *_curve(found["calibrated"]), ""]
    again = (found.get("by_recipe") or {}).get("known", {})
    lines += ["### Known sources, cells held out", "", *_known(found["known"], again), ""]
    lines += ["### Confusions of the unseen sources", "", *_confusions(found["unseen"])]
    return "\n".join(lines).rstrip() + "\n"


def _rows(found: dict[str, Any]) -> list[str]:
    rows = []
    for key, name in (("kaggle", "A. `kaggle` TEST, images"), ("kaggle_originals", "A. the originals of TEST_SIMPLE")):
        if key in found:
            note = f"{found[key]['cells']:,} of {found[key]['groups']} originals"
            rows.append(_row(name, note, share_text(found[key]["accuracy"]), "75.7 %, 80 %", ">= 93 %"))
    if found["bccd_folds"]:
        folds = found["bccd_folds"]
        rows.append(
            _row("B. `bccd`, grouped 5-fold", folds["cells"], share_text(folds["accuracy"]), "94.2 %", ">= 97 %")
        )
    pbc = found["pbc8"]
    rows.append(
        _row("C. `pbc`, 8 classes, test part", pbc["cells"], share_text(pbc["accuracy"]), "85.4 to 99.5 %", ">= 99.0 %")
    )
    for network, g in (found.get("published") or {}).items():
        text = f"G. `{network}`, its recipe, `{g['source']}` test part ({g['epochs']} epochs)"
        rows.append(_row(text, g["cells"], share_text(g["accuracy"]), g["published"], "as published"))
    for way, name in (("frozen", "frozen, new head, whole images"), ("tuned", "fine-tuned, crops")):
        if v := (found.get("vgg") or {}).get(way):
            text = f"G, C. `vgg16`, {name}, `pbc` test part; weights: {v['weights']}"
            rows.append(_row(text, v["cells"], share_text(v["accuracy"]), VGG[way], "as published"))
    unseen = found["unseen"]
    if unseen:
        n = sum(u["cells"] for u in unseen.values())
        values = {k: [u[k][0] for u in unseen.values()] for k in ("accuracy", "balanced_accuracy", "ece")}
        mean = f"mean {percent(np.mean(values['accuracy']))}, lowest {percent(min(values['accuracy']))}"
        rows.append(
            _row("D. unseen source, accuracy", n, mean, "6.8, 9.1 %; 84.4 % mean", "mean >= 90 %, each >= 75 %")
        )
        mean = f"mean {percent(np.mean(values['balanced_accuracy']))}"
        rows.append(_row("D. unseen source, balanced", n, mean, "", ">= 85 %"))
        adapted = [u["adapted"]["accuracy"][0] for u in unseen.values()]
        mean = f"mean {percent(np.mean(adapted))}, lowest {percent(min(adapted))}"
        rows.append(_row("D. the same after `adapt`, labels not seen", n, mean, "", ""))
        mean = f"mean {percent(np.mean([u['adapted']['balanced_accuracy'][0] for u in unseen.values()]))}"
        rows.append(_row("D. balanced, after `adapt`", n, mean, "", ""))
    known = found["known"]["pbc"]
    rows.append(_row("F. ECE, `pbc` test part (`wbc5`)", known["cells"], share_text(known["ece"]), "0.5 %", "<= 2 %"))
    if unseen:
        rows.append(_row("F. ECE, unseen source", n, f"mean {percent(np.mean(values['ece']))}", "", "<= 8 %"))
        sure = np.mean([u["confident_90"] for u in unseen.values()])
        rows.append(_row("F. most confident 90 %, unseen", n, f"mean {percent(sure)}", "", ">= 95 %"))
    for cells, target in (("20", "half of the gap to 92 %"), ("100", ">= 92 % on each")):
        curves = [c["curve"][cells] for c in found["calibrated"].values()]
        done = [curve for curve in curves if curve["draws"]]
        if done:
            before, after = np.mean([d["before"] for d in done]), [d["after"] for d in done]
            text = f"mean {percent(before)} -> {percent(np.mean(after))}, lowest {percent(min(after))}"
            rows.append(_row(f"H. `calibrate` with {cells} cells", len(done), text, "> 80 % with 100", target))
    return rows


def _unseen(unseen: dict[str, Any]) -> list[str]:
    lines = [
        "| source | cells | accuracy | balanced | ECE | confident 90 % | identified | after `adapt` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for source, u in unseen.items():
        figures = [share_text(u["accuracy"]), share_text(u["balanced_accuracy"]), percent(u["ece"][0])]
        more = [percent(u["confident_90"]), percent(u["identified"]), share_text(u["adapted"]["accuracy"])]
        lines.append("| " + " | ".join([f"`{source}`", str(u["cells"]), *figures, *more]) + " |")
    return lines


def _curve(calibrated: dict[str, Any]) -> list[str]:
    """Accuracy before and after, mean of the draws, and the least gain of one draw in points."""
    numbers = sorted({n for c in calibrated.values() for n in c["curve"]}, key=int)
    head = [f"{n} cells" for n in numbers]
    lines = ["| source | " + " | ".join(head) + " | worst draw |", "|---|" + "---|" * (len(head) + 1)]
    for source, found in calibrated.items():
        done = [found["curve"].get(n) for n in numbers]
        steps = [
            "not tried" if c is None
            else f"{percent(c['before'])} -> {percent(c['after'])}" if c["draws"]
            else "too few cells"
            for c in done
        ]  # fmt: skip
        worst = min(c["worst_change"] for c in done if c and c["draws"])
        lines.append("| " + " | ".join([f"`{source}`", *steps, f"{100 * worst:+.1f}"]) + " |")
    return lines


def _known(known: dict[str, Any], again: dict[str, Any]) -> list[str]:
    lines = [
        "`pbc` and `bccd`: the test parts. The others: the validation cells, by which temperature, thresholds and "
        "weights were chosen too, so that these figures flatter. The last column is the accuracy of a model that "
        "`train --recipe wbc5` made from nothing and that was not chosen by any of these cells.",
        "",
        "| source | cells | accuracy | balanced | ECE | identified | trained again by its recipe |",
        "|---|---|---|---|---|---|---|",
    ]
    for source, k in known.items():
        figures = [
            share_text(k["accuracy"]),
            share_text(k["balanced_accuracy"]),
            percent(k["ece"][0]),
            percent(k["identified"]),
            share_text(again[source]["accuracy"]) if source in again else "",
        ]
        lines.append("| " + " | ".join([f"`{source}`", str(k["cells"]), *figures]) + " |")
    return lines


def _confusions(unseen: dict[str, Any]) -> list[str]:
    lines = []
    for source, u in unseen.items():
        lines += [f"`{source}` (rows: truth)", "", "| | " + " | ".join(NAMES) + " |", "|---|" + "---|" * len(NAMES)]
        for name, row in zip(NAMES, u["confusion"], strict=True):
            if sum(row):
                lines.append(f"| {name} | " + " | ".join(str(v) for v in row) + " |")
        lines.append("")
    return lines


def _row(*cells: object) -> str:
    name, *rest = (str(c) for c in cells)
    letter, _, text = name.partition(". ")
    return "| " + " | ".join([letter, text, *rest]) + " |"


def share_text(figure: Sequence[float]) -> str:
    """A share with its interval: ``92.0 % (88.1-94.9)``."""
    value, low, high = figure
    return f"{100 * value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def percent(value: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * float(value):.1f} %"
