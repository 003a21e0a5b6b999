"""A short fuzz of every reader that meets files of strangers; the long one is ``benchmarks.reliability.fuzz``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.reliability.fuzz import CORPUS, DICTIONARY, SEEDS, Target, as_bundle, fuzz, make_target, readers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_bloodcells.core.errors import BundleError

TARGETS = sorted(SEEDS)


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return make_target(request.param)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(DICTIONARY)), max_size=30))
def test_any_bytes_are_read_or_refused_in_one_line(target: Target, parts: list[bytes]) -> None:
    target(b"".join(parts))


@pytest.mark.parametrize("name", TARGETS)
def test_two_thousand_mutations_of_good_files_crash_no_reader(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what crashes is kept in the current folder
    crashes, slowest = fuzz(name, 2000)
    assert crashes == 0
    assert slowest < 5


@pytest.mark.parametrize("folder", sorted(CORPUS.iterdir()), ids=lambda folder: folder.name)
def test_the_corpus_of_atheris_crashes_no_reader(folder: Path) -> None:
    target, inputs = make_target(folder.name), sorted(folder.iterdir())
    assert len(inputs) >= 9
    for data in inputs:
        target(data.read_bytes())


@pytest.mark.parametrize("name", ["voc", "cells", "scheme", "metadata"])
def test_the_files_that_are_mutated_are_good_ones(name: str, tmp_path: Path) -> None:
    file, reader = readers()[name]
    (tmp_path / file).write_bytes(SEEDS[name][0])
    reader(tmp_path / file)


@pytest.mark.parametrize(("name", "harness"), [("bundle", lambda data: data), ("header", as_bundle)])
def test_the_bundle_that_is_mutated_lacks_nothing_but_its_weights(
    name: str, harness: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file, reader = readers()[name]
    (tmp_path / file).write_bytes(harness(SEEDS[name][0]))
    with pytest.raises(BundleError, match=r"the weights body.stem.0.weight are missing"):  # behind the SHA-256
        reader(tmp_path / file)


FOUND = {
    "a key that is a list": (
        "scheme",
        b'{"name": "mine", "classes": [{"name": "blast", "key": ["b"]}]}',
    ),
    "a color that is an object": ("scheme", b'{"name": "mine", "classes": [{"name": "blast", "color": {}}]}'),
}


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND.keys())
def test_what_the_fuzzer_found_stays_mended(name: str, data: bytes) -> None:
    make_target(name)(data)
