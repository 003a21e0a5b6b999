"""The whole bad-input matrix, counted by the command as a user would."""

from __future__ import annotations

import pytest
from benchmarks.reliability.matrix import Outcome, run_matrix


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_matrix(tmp_path_factory.mktemp("matrix"))


def test_the_matrix_has_at_least_two_hundred_cases(outcome: Outcome) -> None:
    assert len(outcome.cases) >= 200


def test_every_case_is_counted_or_refused_as_it_should_be(outcome: Outcome) -> None:
    assert not outcome.failures, "\n".join([*outcome.failures, outcome.output[-2000:]])


def test_the_count_says_with_its_exit_code_that_some_images_failed(outcome: Outcome) -> None:
    assert outcome.code == 3


def test_memory_stays_bounded(outcome: Outcome) -> None:
    assert outcome.peak_mb < 1500
