"""A differential as FHIR: a Bundle with one DiagnosticReport, an Observation per class, and the Device that counted.

Built and validated with fhir.resources (extra ``fhir``), as R4 (its R4B models, which for these resources are R4's) or
R5.  The LOINC codes are in ``reference/loinc.json``, each with where it was checked; what has none there goes as text.
The status is *preliminary*: a machine counted, nobody signed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.statistics.reference import ABSOLUTE, PERCENT, Flag, ReferenceRange

if TYPE_CHECKING:
    from napari_bloodcells.core.report.content import Content, Row

Release = Literal["R4", "R5"]
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
PER_100_WBC = "per 100 WBC"
_UNITS = {PERCENT: ("%", "%"), ABSOLUTE: ("10*9/L", "10^9/L"), PER_100_WBC: ("/100{WBCs}", "/100 WBC")}
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_CATEGORY = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
_REPORT_CATEGORY = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "HM"}]}
_NAMESPACE = uuid.UUID("6a5f3b1e-8f0d-5d0c-9d57-0c3a3c1f9e11")
NOTICE = "For research use only; machine count, not reviewed by a qualified person unless stated."


@lru_cache(maxsize=1)
def loinc_codes() -> dict[tuple[str, str], tuple[str, str]]:
    """Code and display by class and what is told of it (``percent``, ``absolute``, ``per 100 WBC``, ``panel``).

    >>> loinc_codes()["basophil", "absolute"][0]
    '704-7'
    """
    text = (files("napari_bloodcells") / "reference" / "loinc.json").read_text("utf-8")
    return {(c["class"], c["what"]): (c["code"], c["display"]) for c in json.loads(text)["codes"]}


def fhir_bundle(content: Content, head: dict[str, str], release: Release = "R4") -> str:
    """The JSON of a FHIR Bundle for one sample, validated.

    Parameters
    ----------
    content : Content
        As ``report.content.page_content`` makes it.
    head : dict
        ``model``, ``hash``, ``version`` and ``issued`` (an instant, ``2026-11-21T15:02:11+00:00``); ``sample`` as it
        is shown, ``run``, which tells the run from others of the same second, and ``reviewed``, a sentence, where a
        person reviewed cells.
    release : ``R4`` or ``R5``

    Raises
    ------
    UsageError
        fhir.resources is not installed.
    """
    device = _resource("Device", content.sample, head, _device(head, release))
    observations = []
    for row in content.rows:
        observations.append(_percent(row, content, head))
        if row.absolute is not None:
            observations.append(_absolute(row, content, head))
    observations += _apart(content, head)
    for entry in observations:
        entry["device"] = {"reference": f"urn:uuid:{device['id']}"}
    report = _resource("DiagnosticReport", content.sample, head, _report(content, head, observations))
    entries = [{"fullUrl": f"urn:uuid:{part['id']}", "resource": part} for part in (report, device, *observations)]
    bundle = {"resourceType": "Bundle", "type": "collection", "timestamp": head["issued"], "entry": entries}
    return _validated(bundle, release)


def _validated(bundle: dict[str, Any], release: Release) -> str:
    home = "fhir.resources.bundle" if release == "R5" else "fhir.resources.R4B.bundle"
    try:
        validator = import_module(home).Bundle
    except ImportError as error:
        raise UsageError("FHIR needs fhir.resources: pip install 'napari-bloodcells[fhir]'.") from error
    text: str = validator.model_validate(bundle).model_dump_json(indent=1)
    return text + "\n"


def _resource(kind: str, sample: str, head: dict[str, str], values: dict[str, Any], part: str = "") -> dict[str, Any]:
    """A resource with an id that is the same whenever the same run is exported."""
    seed = "\0".join((kind, sample, part, head.get("hash", ""), head["issued"], head.get("run", "")))
    name = seed.encode("utf-8", "backslashreplace").decode()
    return {"resourceType": kind, "id": str(uuid.uuid5(_NAMESPACE, name)), **values}


def _code(name: str, what: str, text: str) -> dict[str, Any]:
    if (name, what) not in loinc_codes():
        return {"text": text}
    code, display = loinc_codes()[name, what]
    return {"coding": [{"system": LOINC, "code": code, "display": display}], "text": text}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    code, shown = _UNITS[unit]
    return {"value": round(value, 4), "unit": shown, "system": UCUM, "code": code}


def _observation(name: str, part: str, code: dict[str, Any], content: Content, head: dict[str, str]) -> dict[str, Any]:
    values = {
        "status": "preliminary",
        "category": [_CATEGORY],
        "code": code,
        "effectiveDateTime": head["issued"],
    }
    return _resource("Observation", content.sample, head, values, f"{name}\0{part}")


def _judged(
    entry: dict[str, Any], flag: Flag, limits: ReferenceRange | None, unit: str, sources: dict[str, str]
) -> dict[str, Any]:
    if flag.code in ("H", "L"):
        words = {"H": "High", "L": "Low"}[flag.code]
        coding = {"system": _INTERPRETATION, "code": flag.code, "display": words}
        entry["interpretation"] = [{"coding": [coding], "text": flag.words}]
    elif flag.words:
        entry["interpretation"] = [{"text": f"{flag.words}: {flag.meaning}" if flag.meaning else flag.words}]
    if limits is not None:
        bounds = {"low": _quantity(limits.low, unit), "high": _quantity(limits.high, unit)}
        text = sources.get(limits.source, limits.source).strip()
        entry["referenceRange"] = [{**bounds, "text": text} if text else bounds]  # FHIR has no empty text
    return entry


def _percent(row: Row, content: Content, head: dict[str, str]) -> dict[str, Any]:
    entry = _observation(row.name, PERCENT, _code(row.name, "percent", f"{row.name} percent"), content, head)
    if not content.differential.total:
        unknown = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}
        entry["dataAbsentReason"] = {"coding": [unknown]}
        return entry
    entry["valueQuantity"] = _quantity(row.percent, PERCENT)
    n = content.differential.total
    kind = "simultaneous (Goodman)" if content.intervals == "multinomial" else "exact binomial"
    words = f"{row.count} of {n} classified white cells; {kind} 95 % interval {row.low:.1f} to {row.high:.1f} %."
    entry["note"] = [{"text": words}]
    return _judged(entry, row.flag, row.limits, PERCENT, content.source_names)


def _absolute(row: Row, content: Content, head: dict[str, str]) -> dict[str, Any]:
    assert row.absolute is not None
    code = _code(row.name, "absolute", f"{row.name} absolute count")
    entry = _observation(row.name, ABSOLUTE, code, content, head)
    entry["valueQuantity"] = _quantity(row.absolute.value, ABSOLUTE)
    words = f"95 % interval {row.absolute.low:.2f} to {row.absolute.high:.2f} x 10^9/L{_corrected(content)}."
    entry["note"] = [{"text": words}]
    return _judged(entry, row.absolute_flag, row.absolute_limits, ABSOLUTE, content.source_names)


def _corrected(content: Content) -> str:
    """Of which white cell count, where that is not the one given."""
    given = content.payload["wbc"]
    if content.wbc is None or content.wbc == given:
        return ""
    nrbc = content.differential.nrbc_per_100
    return f"; of {content.wbc:.2f} x 10^9/L, corrected for {nrbc:.1f} NRBC per 100 WBC from {given:.2f}"


def _apart(content: Content, head: dict[str, str]) -> list[dict[str, Any]]:
    found = []
    for part in content.differential.apart:
        words = f"{part.shown} (count, not part of the 100 %)"
        entry = _observation(part.name, "apart", {"text": words}, content, head)
        entry["valueInteger"] = part.count
        said = [part.shown_rate, content.differential.of_platelets if part.kind in ("platelet", "found") else ""]
        if any(said):
            entry["note"] = [{"text": text} for text in said if text]
        found.append(entry)
        if part.kind == "nrbc" and part.rate == part.rate:
            code = _code(part.name, PER_100_WBC, f"{part.name} per 100 white cells")
            rate = _observation(part.name, PER_100_WBC, code, content, head)
            found.append({**rate, "valueQuantity": _quantity(part.rate, PER_100_WBC)})
    return found


def _report(content: Content, head: dict[str, str], observations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    said = [*content.flagged, *content.remarks]
    said += [content.unnamed] if content.unnamed else []
    said += [head["reviewed"]] if head.get("reviewed") else []
    return {
        "status": "preliminary",
        "category": [_REPORT_CATEGORY],
        "identifier": [{"system": "urn:napari-bloodcells:sample", "value": head.get("sample", content.sample)}],
        "code": _code("", "panel", "differential white cell count"),
        "effectiveDateTime": head["issued"],
        "issued": head["issued"],
        "result": [{"reference": f"urn:uuid:{entry['id']}"} for entry in observations],
        "conclusion": " ".join([*said, NOTICE]),
    }


def _device(head: dict[str, str], release: Release) -> dict[str, Any]:
    name = {"value" if release == "R5" else "name": "napari-bloodcells", "type": "user-friendly-name"}
    versions = [{"value": f"model {head['model']} {head['hash']}".strip()}]
    if head.get("version"):
        versions.insert(0, {"value": f"napari-bloodcells {head['version']}"})
    return {"deviceName": [name], "version": versions} if release == "R4" else {"name": [name], "version": versions}
