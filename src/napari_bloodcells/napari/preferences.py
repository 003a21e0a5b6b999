"""The plugin's settings, which napari shows in its preferences (``configurations`` in ``napari.yaml``).

Read anew whenever they are needed, so that a change counts at once; where napari has no plugin settings (before 0.9)
the defaults of the manifest stand.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, fields
from typing import Any

from napari_bloodcells.core.classes import RESERVED_KEYS, ClassScheme

PLUGIN = "napari-bloodcells"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counting:
    """Group ``counting``: what a new count starts with; ``threshold`` -1 is the model's own."""

    model: str = "default"
    device: str = "auto"
    boxes: str = "auto"
    threshold: float = -1.0
    cells_wanted: int = 100

    @property
    def least_confidence(self) -> float | None:
        """Below which a cell is unidentified; None where the model's own threshold holds."""
        return None if self.threshold < 0 else self.threshold


@dataclass(frozen=True)
class Reference:
    """Group ``reference``: whose reference ranges the flags use, and which intervals; ``file`` "" is the table of the
    package."""

    file: str = ""
    sex: str = "any"
    age: float = 40.0
    intervals: str = "binomial"


@dataclass(frozen=True)
class Reviewing:
    """Group ``review``: who reviews, with which keys, and where reviews are kept."""

    reviewer: str = ""
    keys: str = ""
    uncertain_below: float = 0.8
    sidecar_folder: str = ""


def counting() -> Counting:
    """The group ``counting`` as it stands."""
    return Counting(**_group("counting", Counting))


def reference() -> Reference:
    """The group ``reference`` as it stands."""
    return Reference(**_group("reference", Reference))


def reviewing() -> Reviewing:
    """The group ``review`` as it stands."""
    return Reviewing(**_group("review", Reviewing))


def class_keys(scheme: ClassScheme, changes: str = "") -> dict[str, str]:
    """Key to class name, ``changes`` applied; unidentified is on ``u``.

    A change that names no class, no single letter or digit, or a key that is taken is left out with a line in the
    log.  Two classes may exchange their keys.

    >>> from napari_bloodcells.core.classes import load_scheme
    >>> class_keys(load_scheme("wbc5"), "neutrophil=1")["1"]
    'neutrophil'
    """
    keys = {name: key for key, name in scheme.keys.items()}
    for part in filter(None, (p.strip() for p in re.split(r"[,;\n]", changes))):
        label, _, key = (text.strip() for text in part.partition("="))
        name, key = scheme.canonical(label), key.lower()
        if name is None or len(key) != 1 or not key.isascii() or not key.isalnum() or key in RESERVED_KEYS:
            _LOG.warning("preferences: %r names no class or no free key; left out.", part)
            continue
        keys[name] = key
    found: dict[str, str] = {"u": RESERVED_KEYS["u"]}
    for name, key in keys.items():
        if key in found:
            _LOG.warning("preferences: key %r is taken by %s; %s has none.", key, found[key], name)
            continue
        found[key] = name
    return found


def _group(name: str, kind: type[Any]) -> dict[str, Any]:
    try:
        from napari.settings import get_plugin_settings

        group = getattr(get_plugin_settings(PLUGIN), name)
    except (ImportError, KeyError, AttributeError):
        return {}
    return {f.name: getattr(group, f.name) for f in fields(kind) if hasattr(group, f.name)}
