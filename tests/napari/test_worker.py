"""Work in threads and work in turns: what it returns, how it fails, and what the user is told."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from napari.utils.notifications import notification_manager

from napari_bloodcells.core.errors import BloodcellsError, Cancelled
from napari_bloodcells.napari import software_gl
from napari_bloodcells.napari.turns import Turns
from napari_bloodcells.napari.worker import Task, report_error

pytestmark = pytest.mark.gui


def told() -> list[str]:
    return [str(record.message) for record in notification_manager.records]


def test_an_error_of_the_work_is_a_notification_with_the_traceback_in_the_log(
    qtbot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task, failed = Task(), []
    task.failed.connect(failed.append)

    def work(progress: Any) -> None:
        raise RuntimeError("the disk is on fire")

    with caplog.at_level(logging.ERROR):
        task.start(work, "Trying")
        qtbot.waitUntil(lambda: bool(failed), timeout=20_000)
    report_error(failed[0], "Counting")
    assert told()[-1].startswith("Counting failed (RuntimeError: the disk is on fire). Your review is kept")
    assert "Traceback" in caplog.text
    assert "in work" in caplog.text
    assert not task.is_running


def test_an_error_that_is_meant_for_the_user_is_told_in_its_own_words_and_a_stop_not_at_all() -> None:
    report_error(BloodcellsError("a.jpg: is no image."), "Counting")
    assert told()[-1] == "a.jpg: is no image."
    n = len(told())
    report_error(Cancelled("stopped"), "Counting")
    assert len(told()) == n


def test_turns_run_piece_by_piece_and_one_generator_after_the_other(qtbot: Any) -> None:
    turns, seen = Turns(), []

    def pieces(name: str) -> Iterator[None]:
        for k in range(2):
            seen.append(f"{name}{k}")
            yield

    turns.take(pieces("a"))
    turns.take(pieces("b"))
    assert seen == []
    qtbot.waitUntil(lambda: not turns.are_going, timeout=20_000)
    assert seen == ["a0", "a1", "b0", "b1"]


def test_turns_that_are_stopped_let_a_piece_tidy_up(qtbot: Any) -> None:
    turns, tidied = Turns(), []

    def pieces() -> Iterator[None]:
        try:
            while True:
                yield
        finally:
            tidied.append(True)

    turns.take(pieces())
    qtbot.wait(60)
    turns.stop()
    assert tidied == [True]
    assert not turns.are_going


def test_a_piece_that_fails_does_not_keep_the_others_waiting(qtbot: Any) -> None:
    turns, seen = Turns(), []

    def failing() -> Iterator[None]:
        raise ValueError("no")
        yield

    def fine() -> Iterator[None]:
        seen.append(1)
        yield

    turns.take(failing())
    turns.take(fine())
    with qtbot.capture_exceptions() as caught:
        qtbot.waitUntil(lambda: not turns.are_going, timeout=20_000)
    assert seen == [1]
    assert [str(error) for _, error, _ in caught] == ["no"]


@pytest.mark.parametrize(("maps", "kept"), [("... /dri/swrast_dri.so", True), ("... /nvidia/libGLX.so", False)])
def test_shader_programs_are_kept_only_where_mesa_may_draw_in_software(
    monkeypatch: pytest.MonkeyPatch, maps: str, kept: bool
) -> None:
    from vispy.gloo.glir import GlirProgram

    def delete(self: Any) -> None:
        """As vispy has it."""

    monkeypatch.setattr(GlirProgram, "delete", delete)
    monkeypatch.setattr(software_gl, "_mapped", lambda names: any(name in maps for name in names))
    software_gl.keep_programs()
    assert (GlirProgram.delete is not delete) == kept


def test_what_the_work_held_is_let_go_when_it_is_done_though_napari_keeps_the_worker(qtbot: Any) -> None:
    class Pixels:
        pass

    pixels, task, ended = Pixels(), Task(), []
    held = weakref.ref(pixels)
    task.finished.connect(ended.append)
    task.start(lambda progress, pixels=pixels: len(ended), "Counting")
    worker = task._worker
    qtbot.waitUntil(lambda: bool(ended), timeout=20_000)
    del pixels
    gc.collect()
    assert worker is not None
    assert held() is None
