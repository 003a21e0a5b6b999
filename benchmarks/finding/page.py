"""The rows as Markdown, between the figure marks of ``docs/finding.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_bloodcells.core.statistics.metrics import wilson

START = "<!-- figures: written by python -m benchmarks.finding, do not edit -->"
END = "<!-- end of figures -->"
WHITE = ("recall", "precision", "AP50", "AP75")


@dataclass(frozen=True)
class Row:
    """One figure of the table; ``n`` fields, ``cells`` true cells in them."""

    test: str
    method: str
    measure: str
    value: float
    low: float
    high: float
    n: int
    cells: int

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; of recall and precision no narrower than Wilson's for as many draws as there are fields, as a
        bootstrap of cells that are all found calls it certain that all are."""
        if not self.measure.endswith(("recall", "precision")):
            return self.low, self.high
        low, high = wilson(self.value, self.n)
        return min(self.low, low), max(self.high, high)

    def __str__(self) -> str:
        form = "{:.1f}" if self.measure == "ms" else "{:.2f}" if "alarms" in self.measure else "{:.3f}"
        value, low, high = (form.format(v) for v in (self.value, *self.bounds))
        return f"{value} ({low} to {high})"


def tables(rows: Sequence[Row]) -> str:
    """White cells by test and method, then all other figures one by one."""
    lines = ["### White cells", "", f"| test | method | fields | cells | {' | '.join(WHITE)} |", "|---" * 8 + "|"]
    full = {(r.test, r.method) for r in rows if r.measure == "WBC AP75"}
    for test, method in dict.fromkeys((r.test, r.method) for r in rows):
        if (test, method) in full:
            of = {r.measure: r for r in rows if (r.test, r.method) == (test, method)}
            first = of["WBC recall"]
            figures = " | ".join(str(of[f"WBC {name}"]) for name in WHITE)
            lines.append(f"| {test} | {method} | {first.n} | {first.cells} | {figures} |")
    lines += ["", "### Everything else", "", "| test | method | measure | fields | cells | value |", "|---" * 6 + "|"]
    for r in rows:
        if (r.test, r.method) not in full or not r.measure.startswith("WBC"):
            lines.append(f"| {r.test} | {r.method} | {r.measure} | {r.n} | {r.cells or ''} | {r} |")
    return "\n".join(lines)


def write_page(page: Path, rows: Sequence[Row]) -> None:
    """Put the tables between the marks of ``page``."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{START}\n\n{tables(rows)}\n\n{END}{after}", encoding="utf-8")
