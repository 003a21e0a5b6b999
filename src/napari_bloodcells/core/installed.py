"""Where models and recipes lie, told without loading torch: for the core, and for windows that must open at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

BUILT_BY = {"vgg16": "vgg16-finetune"}
"""Models that are known by name but too large to come with the package, and the recipes that build them."""


def not_built(name: str) -> str:
    """How a model of ``BUILT_BY`` is built, for the message that it is not there."""
    return (
        "is not shipped and was not built here; one command builds it, on a GPU: "
        f"bloodcells-batch train PBC --recipe {BUILT_BY[name]} -o FOLDER --install {name} (docs/models/{name}.md)."
    )


def model_homes() -> Iterator[Path]:
    """Where models live: in the package, then in ``$BLOODCELLS_MODELS`` or the user's cache folder."""
    yield Path(str(files("napari_bloodcells") / "weights"))
    named = os.environ.get("BLOODCELLS_MODELS")
    if named:
        yield Path(named)
        return
    import pooch

    yield Path(pooch.os_cache("napari-bloodcells")) / "models"


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = files("napari_bloodcells") / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))
