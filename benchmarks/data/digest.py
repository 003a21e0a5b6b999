"""The digests by which ``data fetch --mirror`` knows a copy, and the list of BCCD's files with their SHA-256.

python -m benchmarks.data.digest DATA                 prints number of files and digest of each folder in DATA
python -m benchmarks.data.digest DATA --write-bccd    also writes registry/bccd.txt (what can be downloaded)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_bloodcells.core.sources import file_digest, folder_digest

REGISTRY = Path(__file__).parents[2] / "src" / "napari_bloodcells" / "core" / "datasets" / "registry"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write-bccd", action="store_true")
    options = parser.parse_args()
    for folder in sorted(p for p in options.data.iterdir() if p.is_dir()):
        number, digest = folder_digest(folder)
        print(folder.name, number, digest)
    if options.write_bccd:
        root = options.data / "bccd"
        open_files = [*sorted((root / "JPEGImages").iterdir()), *sorted((root / "Annotations").iterdir())]
        lines = [f"{file_digest(path)}  {path.relative_to(root).as_posix()}\n" for path in open_files]
        (REGISTRY / "bccd.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
