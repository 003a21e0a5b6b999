"""Report pages: one self-contained HTML file per sample, and an index of the folder.

A page holds its style, its script, its data and its pictures; it opens from disk and asks nothing of a network.  Its
content security policy says so to the browser: no connection at all, and no script but the one whose hash it names,
so that a hostile file name stays a name.  Jinja2 escapes every value besides.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.counting.cellstable import table_name
from napari_bloodcells.core.differential import WHOLE_FOLDER, Differential, differentials, sample_of, slides_in
from napari_bloodcells.core.errors import DataWarning, OutputError
from napari_bloodcells.core.files import make_folder, write_atomic
from napari_bloodcells.core.report.content import Content, ReportOptions, page_content
from napari_bloodcells.core.report.inputs import ReportInput, from_result
from napari_bloodcells.core.report.pagefile import INDEX, is_page, made_with
from napari_bloodcells.core.report.sprites import draw_pictures
from napari_bloodcells.core.statistics.reference import check_one_patient

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

_ASSETS = "napari_bloodcells.core.report"
_LONGEST, _LONGEST_BYTES = 60, 120
"""Of a name in the name of a file: what is put around it leaves room in the 255 bytes (143 on encrypted disks)."""
_SCRIPTS = ("stats.js", "store.js", "gallery.js", "inspector.js", "main.js")


@dataclass(frozen=True)
class _Block:
    differential: Differential
    cells: pd.DataFrame
    file: str


def write_reports(
    result: Any,
    folder: Path | str,
    *,
    images: Any = None,
    model: Any = None,
    options: ReportOptions | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the report of a count: ``report.html`` (or ``report-SAMPLE.html`` each) and ``index.html``.

    Parameters
    ----------
    result : CountResult or ReportInput
    folder : path
        Made if it is not there.  Only earlier reports are replaced, and none that holds more.
    images : callable, mapping, folder or None
        From image names to pixels, see ``inputs.from_result``; without it the pages have no pictures.
    model : BundleInfo or None
        For the class scheme and the validation confusion matrix.
    options : ReportOptions, optional
    overwrite : bool
        Also replace a page with corrections by one without, and one with pictures of photographs that are absent now.

    Returns
    -------
    list of Path
        The pages of the samples in their order, then the index.

    Raises
    ------
    OutputError
        A file of that name is there and is no report, holds more than the new one would, or cannot be written.
    UsageError
        ``options.wbc``, which is of one patient, was given for several samples.

    Warns
    -----
    DataWarning
        For photographs that are not where they were: the pages are made without their pictures.
    """
    data = result if isinstance(result, ReportInput) else from_result(result, images, model)
    options = options or ReportOptions()
    check_one_patient(["wbc"] if options.wbc is not None else [], data.images["image"])
    folder = make_folder(folder)
    blocks = _blocks(data, options)
    if not overwrite:
        for block in blocks:
            _check_loss(folder / block.file, data, block)
    if data.absent is not None:
        told = f"{data.absent.why}; the report has no pictures of them: {data.absent.remedy}."
        warnings.warn(told, DataWarning, stacklevel=2)
    written = []
    contents = []
    for block in blocks:
        content = _content(data, block, options)
        written.append(_write(folder / block.file, render_page(content, data, options)))
        content.payload.clear()  # its pictures are on disk now
        contents.append(content)
    return [*written, _write(folder / INDEX, _render_index(data, blocks, contents, options))]


def _blocks(data: ReportInput, options: ReportOptions) -> list[_Block]:
    """One block per sample; the whole folder only where it has no samples of its own."""
    found = differentials(data.cells, data.scheme, data.images, options.intervals, slides_in(data.run))
    chosen = found[:-1] if len(found) > 1 else found
    samples = [sample_of(str(name)) for name in data.cells["image"]]
    blocks = []
    taken: set[str] = set()
    for block in chosen:
        whole = block.sample == WHOLE_FOLDER
        keep = np.array([whole or sample == block.sample for sample in samples], bool)
        name = "report.html" if whole else f"report-{_slug(block.sample, taken)}.html"
        blocks.append(_Block(block, data.cells[keep].reset_index(drop=True), name))
    return blocks


def _slug(sample: str, taken: set[str]) -> str:
    """A file name for a sample: letters of any script, digits, dots and hyphens, unique also where case does not count.

    >>> _slug("patient 7/day 1", set()), _slug("Müller_李", set())
    ('patient-7-day-1', 'Müller-李')
    """
    plain = cut(re.sub(r"[^\w.]+|_+", "-", sample).strip("-.")) or "sample"
    if plain.casefold() in taken:
        plain = f"{plain}-{hashlib.sha256(sample.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    taken.add(plain.casefold())
    return plain


def cut(name: str) -> str:
    """The beginning of ``name`` that a file name has room for: 60 letters, in no more than 120 bytes.

    >>> len(cut("x" * 99)), len(cut("\N{SLICE OF PIZZA}" * 99)), cut("Müller")
    (60, 30, 'Müller')
    """
    return name[:_LONGEST].encode("utf-8", "backslashreplace")[:_LONGEST_BYTES].decode("utf-8", "ignore")


def _check_loss(path: Path, data: ReportInput, block: _Block) -> None:
    """Refuse to replace a page by one that would lack its corrections or its pictures."""
    try:
        former = made_with(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if former.reviewed and not ("reviewed" in block.cells and block.cells["reviewed"].any()):
        raise OutputError(
            f"{path.name}: was made with corrections, which are not given now; give them again (--corrections), say "
            "--overwrite, or give another folder."
        )
    if data.absent is not None and former.pictures > len(set(_names(data, block)) - data.absent.names):
        raise OutputError(
            f"{data.absent.why}; {path.name} has their pictures and is kept: {data.absent.remedy}, or say --overwrite."
        )


def _names(data: ReportInput, block: _Block) -> list[str]:
    """The images of one sample."""
    sample = block.differential.sample
    every = [*data.images["image"], *block.cells["image"]]
    return [str(n) for n in dict.fromkeys(every) if sample == WHOLE_FOLDER or sample_of(str(n)) == sample]


def _content(data: ReportInput, block: _Block, options: ReportOptions) -> Content:
    names = _names(data, block)
    return page_content(data, block.differential, block.cells, draw_pictures(block.cells, names, data.load), options)


def render_page(content: Content, data: ReportInput, options: ReportOptions) -> str:
    """The HTML of one sample."""
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    shown = sample_name(content.sample, data)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            content=content,
            options=options,
            head=head_of(data),
            sample=shown,
            style=_asset("page.css"),
            script=script,
            digest=digest,
        )
    )


def _render_index(
    data: ReportInput, blocks: Sequence[_Block], contents: Sequence[Content], options: ReportOptions
) -> str:
    pages = [
        {"file": block.file, "sample": sample_name(block.differential.sample, data), "content": content}
        for block, content in zip(blocks, contents, strict=True)
    ]
    template = _environment().get_template("index.html.j2")
    return template.render(pages=pages, options=options, head=head_of(data), style=_asset("page.css"))


def sample_name(sample: str, data: ReportInput) -> str:
    """What a sample is called: its folder, or for the whole folder the name of that."""
    if sample != WHOLE_FOLDER:
        return sample
    root = data.run.get("input")
    return table_name(Path(root).name) if isinstance(root, str) and Path(root).name else "whole folder"


def head_of(data: ReportInput) -> dict[str, str]:
    """Date, model and versions for the head of a page, each as text; empty where the run does not say."""
    run = data.run
    model = run.get("model")
    named = model if isinstance(model, dict) else {"name": str(model or "")}
    times, versions = run.get("times"), run.get("versions")
    started = times.get("started") if isinstance(times, dict) else None
    date = str(started or datetime.now(UTC).isoformat(timespec="seconds"))
    version = versions.get("napari-bloodcells", "") if isinstance(versions, dict) else ""
    return {
        "date": date[:16].replace("T", " "),
        "model": str(named.get("name", "")),
        "hash": str(named.get("sha256", ""))[:12],
        "version": str(version),
    }


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_ASSETS, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["css_string"] = css_string
    environment.filters["percent"] = lambda value, digits=1: "–" if value != value else f"{value:.{digits}f}"
    return environment


def css_string(text: str) -> str:
    r"""``text`` as a string of CSS that nothing in it can end: all but letters, digits and spaces as escapes.

    >>> css_string("slide 1"), css_string('a"</style>')
    ("'slide 1'", "'a\\22 \\3c \\2f style\\3e '")
    """
    plain = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "'" + "".join(c if c == " " or (c.isascii() and c.isalnum()) else f"\\{ord(c):x} " for c in plain) + "'"


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    text = (files(_ASSETS) / "templates" / name).read_text("utf-8")
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{name} would close its own element")
    return text


@lru_cache(maxsize=1)
def _script() -> str:
    return "\n".join(['"use strict";', *(_asset(name) for name in _SCRIPTS)])


def _write(path: Path, text: str) -> Path:
    """Write a page whole or not at all; refuse to replace a file that is no report."""
    try:
        if path.exists() and not is_page(path):
            raise OutputError(
                f"{path.name}: is there already and is no report of ours; move it, or give another folder."
            )
    except OSError as error:
        raise _unreadable(path, error) from error
    return write_atomic(path, text.encode("utf-8", "backslashreplace"), overwrite=True)


def _unreadable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path.name}: cannot be read ({error.strerror or error}).")
