"""The command as a whole: quick help, every command there, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_bloodcells.cli.app import COMMANDS, EXIT_NOTHING, EXIT_USAGE, PROGRAM, run
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
