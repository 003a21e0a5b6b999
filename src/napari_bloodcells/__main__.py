"""``python -m napari_bloodcells`` is ``bloodcells-batch`` of this very interpreter."""

from __future__ import annotations

from napari_bloodcells.cli import main

if __name__ == "__main__":
    main()
