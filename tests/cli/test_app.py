"""The command as a whole: quick help, every command there, errors in one line."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from napari_bloodcells.cli.app import COMMANDS, EXIT_NOTHING, EXIT_USAGE, PROGRAM, run
from napari_bloodcells.cli.common import reader_left
from napari_bloodcells.synthetic import SmearSettings, write_folder


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from napari_bloodcells.cli.app import run; code = run(['--help']);"
        "heavy = {m.split('.')[0] for m in sys.modules} & {*'torch pandas numpy scipy rich napari qtpy'.split()};"
        "print('HEAVY', sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for name, entry in COMMANDS.items():
        assert f"{name} " in done.stdout, name
        assert entry.help.split()[0] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"{PROGRAM} {name}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--no-such-option"], EXIT_USAGE),
        (["no-such-command"], EXIT_USAGE),
        (["count"], EXIT_USAGE),
        (["count", "no-such-folder"], EXIT_USAGE),
        (["count", ".", "--batch-size", "0"], EXIT_USAGE),
        (["count", ".", "--boxes", "guess"], EXIT_USAGE),
        (["count", "tests", "-o", "/proc/nowhere", "--model", "no-such-model"], EXIT_NOTHING),
        (["--version"], 0),
    ],
    ids=str,
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_is_one_line_that_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    run(["count", "no-such-folder"])
    assert capsys.readouterr().err == "Error: no-such-folder: no such file or folder.\n"


def test_of_two_files_of_one_name_the_error_says_which(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))
    for seed, patient in enumerate(("one", "two")):
        settings = SmearSettings(width=160, height=120, um_per_pixel=0.4)
        torn = write_folder(tmp_path / "nest" / patient, 2, 10 * seed, settings, suffix=".jpg")[0]
    torn.write_bytes(torn.read_bytes()[:2000])
    assert run(["evaluate", str(tiny_model), str(tmp_path / "nest")]) == EXIT_NOTHING
    assert f"Error: {torn}: is damaged or cut off" in capsys.readouterr().err


COMMAND = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()"]


def _printed(encoding: str, *arguments: str | Path) -> str:
    """What a command that must succeed prints where the terminal, or a file, has that encoding."""
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    done = subprocess.run([*COMMAND, *map(str, arguments)], env=environment, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode(errors="replace")
    return done.stdout.decode(encoding, "replace")


def test_names_that_the_terminal_cannot_show_end_no_count(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    for sample in ("Größe 好", "other"):
        folder = tmp_path / "in" / sample
        folder.mkdir(parents=True)
        for name in sorted(os.listdir(smears / "a"))[:4]:
            (folder / name).write_bytes((smears / "a" / name).read_bytes())
    (tmp_path / "out").mkdir()
    options = ("-o", tmp_path / "out", "--model", tiny_model, "--boxes", "xml")
    assert "Größe \\u597d" in _printed("cp1252", "count", tmp_path / "in", *options)
    assert (tmp_path / "out" / "run.json").exists()


def test_words_that_the_terminal_cannot_show_end_no_comparison(tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text("image,cell,x_min,y_min,x_max,y_max,class\n1.png,1,0,0,9,9,neutrophil\n")
    assert "R\\xfcmke" in _printed("ascii", "compare", cells, cells, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "comparison.json").exists()


def test_text_is_written_also_where_stdout_is_no_stream_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run(["--version"]) == 0
    assert sys.stdout.getvalue().startswith(PROGRAM)  # type: ignore[attr-defined]


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe whose reader has gone, as of ``| true``."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def test_text_that_nobody_reads_is_no_failure(unread: int) -> None:
    for arguments in (["--version"], ["--help"], ["models", "list"]):
        done = subprocess.run([*COMMAND, *arguments], stdout=unread, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_an_error_that_nobody_reads_keeps_its_exit_code(unread: int) -> None:
    for arguments in (["count"], ["count", "no-such-folder"]):
        assert subprocess.run([*COMMAND, *arguments], stdout=unread, stderr=unread).returncode == EXIT_USAGE, arguments


def test_a_count_that_nobody_reads_has_the_exit_code_of_its_work(
    smears: Path, tiny_model: Path, tmp_path: Path, unread: int
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in sorted(os.listdir(smears / "a")):
        (folder / name).write_bytes((smears / "a" / name).read_bytes())
    for n, code in enumerate((0, 3)):
        more = ["-o", str(tmp_path / f"out{n}"), "--model", str(tiny_model), "--boxes", "xml", "--profile"]
        done = subprocess.run([*COMMAND, "count", str(folder), *more], stdout=unread, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (code, "")
        assert (tmp_path / f"out{n}" / "run.json").exists()
        (folder / "text.jpg").write_text("hello")


def test_a_broken_pipe_of_the_work_itself_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [BrokenPipeError("a worker has gone"), BrokenPipeError(errno.EPIPE, "Broken pipe")]

    def work(context: typer.Context) -> None:
        raise problems.pop()

    monkeypatch.setattr("napari_bloodcells.cli.models.models_app", work)
    while problems:
        assert run(["models"]) == EXIT_NOTHING
    assert not reader_left(SystemExit(1))
