"""Finds which pictures of the public data sets show one and the same original, and writes ``datasets/groups/*.csv``.

    python -m benchmarks.accuracy.find_groups DATA [--only bccd|kaggle|pbc] [-o FOLDER]

- bccd: the cells photographed again, from the list below (feature matching of all pairs of fields; data notes).
- kaggle: TEST_SIMPLE is compared with all BCCD fields pixel by pixel; every augmented copy by correlation over all
  turns, mirrorings and shifts (``augmented.py``) with the BCCD fields that carry its label.  The publisher's parts
  come from different originals, so a group with hundreds of copies in one part and a few in the other shows how many
  matches are wrong, and as each original of a class was copied equally often, uneven counts would.  Both are printed;
  found were 12,515 copies of 346 fields, each class even to within two copies, and two cells that the publisher has on
  both sides (photographed again: 204 and 230); TEST_SIMPLE holds two pictures twice and lacks the originals 62 and 95.
- pbc: identical pictures, by comparison of all pairs at 8 x 8 pixels and then whole.

Only names and groups are written, no pixel.  About 25 minutes on one core for everything.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.accuracy.augmented import Match, Originals, small
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.images import read_image

PHOTOGRAPHED_AGAIN = (
    "382/395 230/257 227/260 223/263 244/247 204/277 206/278 205/276 37/38 166/193 381/397 243/250 386/391 226/261 "
    "231/256 384/393 165/193 236/253 239/240 242/249 229/258 228/259 248/249"
)
N_FIELDS = 411
GROUPS = Path(__file__).parents[2] / "src" / "napari_bloodcells" / "core" / "datasets" / "groups"


def connected(pairs: list[tuple[int, int]], n: int) -> list[int]:
    """For each of ``n`` things the smallest one that it is joined with, over any number of pairs."""
    first = list(range(n))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return [root(i) for i in range(n)]


def bccd_groups() -> dict[int, str]:
    """Field number to its group."""
    pairs = [(int(a), int(b)) for a, b in (pair.split("/") for pair in PHOTOGRAPHED_AGAIN.split())]
    return {i: f"bccd:{root:05d}" for i, root in enumerate(connected(pairs, N_FIELDS))}


def kaggle_groups(data: Path) -> dict[str, str]:
    """Kaggle image (``TRAIN/EOSINOPHIL/_0_1169``) to the group of its BCCD field."""
    group_of = bccd_groups()
    fields = {int(p.stem[-5:]): p for p in find_images([data / "bccd" / "JPEGImages"])}
    labels = {int(row["Image"]): row["Category"] for row in csv.DictReader((data / "bccd" / "labels.csv").open())}
    tiny = {i: small(read_image(path)) for i, path in fields.items()}
    found = {key: group_of[i] for key, i in match_copies_one_to_one(data, fields).items()}
    for folder in sorted((data / "kaggle" / "images").glob("T*/*")):
        if folder.parent.name == "TEST_SIMPLE":
            continue
        numbers = [i for i in fields if folder.name in re.split(r"[ ,]+", labels.get(i, ""))]
        originals = Originals([tiny[i] for i in numbers], [group_of[i] for i in numbers])
        matches: list[Match] = []
        for path in find_images([folder]):
            match = originals.match(small(read_image(path)))
            matches.append(match)
            found[f"{folder.parent.name}/{folder.name}/{path.stem}"] = group_of[numbers[match.original]]
        report(f"{folder.parent.name}/{folder.name}", matches)
    report_parts(found)
    return found


def match_copies_one_to_one(data: Path, fields: dict[int, Path]) -> dict[str, int]:
    """TEST_SIMPLE to field number, by the root mean square difference at 80 x 60 pixels."""
    numbers = list(fields)
    everything = np.stack([_centered(fields[i]) for i in numbers])
    matched: dict[str, int] = {}
    worst, nearest_other = 0.0, np.inf
    for path in find_images([data / "kaggle" / "images" / "TEST_SIMPLE"]):
        difference = np.sqrt(((everything - _centered(path)) ** 2).mean(1))
        order = np.argsort(difference)
        matched["/".join(path.with_suffix("").parts[-3:])] = numbers[order[0]]
        worst, nearest_other = max(worst, difference[order[0]]), min(nearest_other, difference[order[1]])
    print(
        f"TEST_SIMPLE: {len(matched)} images are {len(set(matched.values()))} fields; difference of the worst match",
        end="",
    )
    print(f" {worst:.1f} grey levels, of the nearest other field {nearest_other:.1f}")
    return matched


def report(name: str, matches: list[Match]) -> None:
    """Print how well one folder was matched."""
    score = np.array([m.score for m in matches])
    margin = np.array([m.margin for m in matches])
    print(
        f"{name}: {len(matches)} copies of {len({m.original for m in matches})} fields; correlation median "
        f"{np.median(score):.2f}, lowest 1 % {np.percentile(score, 1):.2f}; margin median {np.median(margin):.2f}, "
        f"lowest 1 % {np.percentile(margin, 1):.2f}",
        flush=True,
    )


def report_parts(found: dict[str, str]) -> None:
    """Print the originals of each part, and how many copies were matched with an original of the other part."""
    copies: dict[str, Counter[str]] = {"TRAIN": Counter(), "TEST": Counter(), "TEST_SIMPLE": Counter()}
    for image, group in found.items():
        copies[image.partition("/")[0]][group] += 1
    train, test = copies["TRAIN"], copies["TEST"]
    both = sorted(group for group in train if group in test)
    print(f"TRAIN: {len(set(train) - set(test))} groups alone, TEST: {len(set(test) - set(train))} alone; in both:")
    for group in both:
        print(f"  {group}: {train[group]} copies in TRAIN, {test[group]} in TEST")
    for part, by_group in (("TRAIN", train), ("TEST", test)):
        # Each original of a class was copied equally often: wrong matches would show as uneven counts.
        print(
            f"{part}: copies of each group "
            + ", ".join(f"{n} x {k}" for k, n in sorted(Counter(by_group.values()).items()))
        )
    missing = sorted(set(test) - set(copies["TEST_SIMPLE"]))
    print("in TEST but not in TEST_SIMPLE: " + ", ".join(f"{group} ({test[group]} copies)" for group in missing))


def pbc_groups(data: Path) -> dict[str, str]:
    """PBC images that are not alone (``neutrophil/BNE_1``) to their group, the name of the first of them."""
    paths = find_images([data / "pbc"])
    tiny = np.stack([_pixels(path, (8, 8), reduce=4) for path in paths])
    squares = (tiny**2).sum(1)
    pairs = []
    for start in range(0, len(paths), 1000):
        block = tiny[start : start + 1000]
        distance = squares[start : start + 1000, None] + squares[None] - 2 * block @ tiny.T
        for a, b in zip(*np.nonzero(distance / tiny.shape[1] < 4), strict=True):
            if start + a < b and _same(paths[start + a], paths[b]):
                pairs.append((start + int(a), int(b)))
    names = ["/".join(path.with_suffix("").parts[-2:]) for path in paths]
    print(f"pbc: {len(pairs)} identical pairs among {len(paths)}")
    members: dict[int, list[int]] = defaultdict(list)
    for i, root in enumerate(connected(pairs, len(paths))):
        members[root].append(i)
    return {names[i]: f"pbc:{names[root]}" for root, same in members.items() if len(same) > 1 for i in same}


def _same(a: Path, b: Path) -> bool:
    first, second = read_image(a), read_image(b)
    return first.shape == second.shape and float(np.abs(first.astype(np.int16) - second).mean()) < 2


def _centered(path: Path) -> NDArray[np.float32]:
    """A field at 80 x 60 pixels without its mean brightness, which the copies have changed by up to 20 gray levels."""
    pixels = _pixels(path, (80, 60))
    return pixels - pixels.mean()


def _pixels(path: Path, size: tuple[int, int], reduce: int = 1) -> NDArray[np.float32]:
    image = Image.fromarray(read_image(path, reduce=reduce)).resize(size, Image.Resampling.BOX)
    return np.asarray(image, np.float32).ravel()


def write(path: Path, groups: dict[str, str]) -> None:
    """One line for each image, in order of its name."""
    lines = [f"{image},{group}\n" for image, group in sorted(groups.items())]
    path.write_text("image,group\n" + "".join(lines), encoding="utf-8")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds bccd, kaggle and pbc")
    parser.add_argument("--only", choices=("bccd", "kaggle", "pbc"), action="append")
    parser.add_argument("-o", "--output", type=Path, default=GROUPS)
    options = parser.parse_args()
    wanted = options.only or ["bccd", "kaggle", "pbc"]
    if "bccd" in wanted:
        write(options.output / "bccd.csv", {f"BloodImage_{i:05d}": group for i, group in bccd_groups().items()})
    if "pbc" in wanted:
        write(options.output / "pbc.csv", pbc_groups(options.data))
    if "kaggle" in wanted:
        write(options.output / "kaggle.csv", kaggle_groups(options.data))


if __name__ == "__main__":
    main()
