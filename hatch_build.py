"""Carries the top-level ``napari.yaml`` into the package.

napari looks the manifest up inside the imported package, while it is kept at the top of the repository where the
napari hub expects it.  A ``force-include`` would do for a wheel but breaks editable installs, which have no copy
step; so the file is copied into the source tree (git-ignored) before either kind of build.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        target = root / "src" / "napari_bloodcells" / "napari.yaml"
        source = root / "napari.yaml"
        if source.is_file():
            shutil.copyfile(source, target)
