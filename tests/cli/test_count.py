"""The command ``count`` as a process: what it writes and says, and what is left when it is killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from napari_bloodcells.cli.app import run as call

COMMAND = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()", "count"]
CSVS = ("cells.csv", "images.csv", "differential.csv")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux do workers come from a server")


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CSVS}


@pytest.fixture(scope="module")
def many(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty fields: enough for worker processes."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(5):
        for file in smears.rglob("*.png"):
            name = f"{file.parent.name}_{i}_{file.stem}"
            shutil.copy(file, folder / f"{name}.png")
            shutil.copy(file.with_suffix(".xml"), folder / f"{name}.xml")
    return folder


@pytest.fixture(scope="module")
def reference(many: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "out"
    done = run(many, "-o", folder, "--model", tiny_model, "--boxes", "xml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_default_output_lies_beside_the_folder_and_the_input_is_untouched(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(smears / "a", tmp_path / "slide")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "slide").iterdir())
    done = run(tmp_path / "slide", "--model", tiny_model, "--overlay", "--profile")
    assert done.returncode == 0, done.stderr
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "slide").iterdir()) == before
    out = tmp_path / "slide-differential"
    assert {*CSVS, "run.json", "overlay"} == {p.name for p in out.iterdir()}
    assert len(list((out / "overlay").glob("*.jpg"))) == 6
    assert "neutrophil" in done.stdout
    assert "classify" in done.stdout
    again = run(tmp_path / "slide", "--model", tiny_model)
    assert again.returncode == 2
    assert "not overwritten" in again.stderr


def test_some_bad_images_give_exit_code_3_and_are_named(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(smears / "a", tmp_path / "in")
    (tmp_path / "in" / "text.jpg").write_text("hello")
    done = run(tmp_path / "in", "-o", tmp_path / "out", "--model", tiny_model, "--boxes", "whole")
    assert done.returncode == 3
    assert "text.jpg" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert (pd.read_csv(tmp_path / "out" / "images.csv")["status"] == "ok").sum() == 6


def test_only_bad_images_give_exit_code_1(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.jpg").write_text("hello")
    done = run(tmp_path / "in", "-o", tmp_path / "out", "--model", tiny_model, "--boxes", "whole")
    assert done.returncode == 1
    assert "no image" in (tmp_path / "out" / "images.csv").read_text()


def test_all_devices_of_a_machine_without_a_graphics_card_are_told(
    smears: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    common = ["count", str(smears / "a"), "--model", str(tiny_model), "--boxes", "xml", "--device", "cpu"]
    assert call([*common, "-o", str(tmp_path), "--devices", "all"]) == 0
    told = "Warning: --devices all: torch finds no graphics card here; counting with --device cpu.\n"
    assert capsys.readouterr().err == told
    assert call([*common, "-o", str(tmp_path / "out"), "--devices", ","]) == 2
    assert "names no device" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--workers", 2), ("--workers", 3, "--batch-size", 1)], ids=str)
def test_worker_processes_give_the_same_bytes(
    many: Path, tiny_model: Path, reference: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    done = run(many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["workers"] == options[1]
    assert contents(tmp_path) == contents(reference)


def server_of(run: subprocess.Popen[Any]) -> psutil.Process:
    """The process that imports torch for the workers of a run, as soon as it is there."""
    while run.poll() is None:
        for child in psutil.Process(run.pid).children():
            with contextlib.suppress(psutil.Error):
                if "forkserver" in " ".join(child.cmdline()):
                    return child
        time.sleep(0.002)
    raise AssertionError("the run has ended without a server")


@linux
@pytest.mark.parametrize("boxes", ["xml", "find"])
def test_the_command_itself_never_imports_torch_where_workers_count(
    many: Path, tiny_model: Path, tmp_path: Path, boxes: str
) -> None:
    say = "import sys; from napari_bloodcells.cli.app import run; code = run(sys.argv[1:], guarded_main={})\n"
    say += "print('torch' in sys.modules); sys.exit(code)"
    for guarded in (False, True):
        arguments = [many, "-o", tmp_path / str(guarded), "--model", tiny_model, "--boxes", boxes, "--workers", 2]
        command = [sys.executable, "-c", say.format(guarded), "count", *map(str, arguments), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(not guarded)
    assert contents(tmp_path / "True") == contents(tmp_path / "False")


@linux
@pytest.mark.parametrize("victim", ["worker", "server"])
def test_what_a_killed_worker_or_server_takes_with_it_is_counted_again(
    many: Path, tiny_model: Path, reference: Path, tmp_path: Path, victim: str
) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2, "--batch-size", 1]
    started = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    server = server_of(started)
    while victim == "worker" and not list((tmp_path / ".partial").glob("*.jsonl")):
        time.sleep(0.005)
    (server.children()[0] if victim == "worker" else server).kill()
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 0, errors
    assert "Traceback" not in errors
    assert contents(tmp_path) == contents(reference)


def listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@linux
@pytest.mark.parametrize("wait", [0, 0.02, 0.1, 0.5])
def test_ctrl_c_while_the_server_starts_is_answered_without_a_traceback(
    many: Path, tiny_model: Path, tmp_path: Path, wait: float
) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2]
    command = [*COMMAND, *map(str, arguments)]
    # A shell has what it starts in the background ignore Ctrl-C, and so all that this starts: these tests, perhaps.
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listen_to_ctrl_c
    )
    server = server_of(started)
    time.sleep(wait)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs([server], timeout=10)[1]


@linux
def test_files_where_the_user_is_are_no_modules(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("bloodcells-batch")
    if not script.is_file():
        pytest.skip("the package is not installed in this environment")
    for name in ("torch", "numpy", "signal", "napari_bloodcells"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')\nraise SystemExit('imported')\n")
    arguments = [many, "-o", tmp_path / "out", "--model", tiny_model, "--boxes", "xml", "--workers", 2]
    command = [script, "count", *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_any_moment_is_resumed_to_the_same_bytes(
    many: Path, tiny_model: Path, reference: Path, tmp_path: Path, seed: int
) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2, "--batch-size", 1]
    dice = random.Random(seed)
    kills = 0
    for _ in range(2):
        started = subprocess.Popen([*COMMAND, *map(str, arguments), "--resume"], stderr=subprocess.PIPE)
        wanted = dice.randrange(1, 55)
        while started.poll() is None and len(list((tmp_path / ".partial").glob("*.jsonl"))) < wanted:
            time.sleep(0.005)
        kills += started.poll() is None
        started.kill()
        started.communicate()
        for table in CSVS:  # no half table under its final name
            if (tmp_path / table).exists():
                assert (tmp_path / table).read_bytes() == (reference / table).read_bytes()
    done = run(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert kills
    assert contents(tmp_path) == contents(reference)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_keeps_what_is_finished_and_says_how_to_go_on(
    many: Path, tiny_model: Path, reference: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2, "--batch-size", 1]
    started = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    while started.poll() is None and not list((tmp_path / ".partial").glob("*.jsonl")):
        time.sleep(0.005)
    started.send_signal(number)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert run(*arguments, "--resume").returncode == 0
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("moment", ["starting", "counting"])
def test_workers_end_when_the_run_is_killed(many: Path, tiny_model: Path, tmp_path: Path, moment: str) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2, "--batch-size", 1]
    started = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE)
    if moment == "starting":
        server_of(started)
    while moment == "counting" and started.poll() is None and not list((tmp_path / ".partial").glob("*.jsonl")):
        time.sleep(0.005)
    workers = psutil.Process(started.pid).children(recursive=True)
    started.kill()
    started.communicate()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_two_runs_on_one_folder_do_not_mix(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    arguments = [many, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--workers", 2, "--batch-size", 1]
    first = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE)
    while first.poll() is None and not list((tmp_path / ".partial").glob("*.jsonl")):
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    try:
        second = run(*arguments, "--resume")
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert "in use by another run" in second.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--wbc", "7200", "--report"), "7.2, not 7200"), (("--wbc", "7.2"), "say --report too")],
)
def test_a_white_cell_count_that_cannot_be_meant_is_refused_before_counting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert call(["count", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_odd_is_said_at_the_end(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(smears / "a", tmp_path / "in")
    gone = min((tmp_path / "in").glob("*.png"))
    gone.unlink()
    assert call(["count", str(tmp_path / "in"), "--model", str(tiny_model), "--boxes", "xml"]) == 0
    said = capsys.readouterr().out
    assert f"warning: {gone.stem}.xml: its image is not here; the annotation is left out." in said


def test_images_that_lost_boxes_are_said_at_the_end_and_on_the_page(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(smears / "a", tmp_path / "in")
    for xml in sorted((tmp_path / "in").glob("*.xml"))[:3]:
        text = re.sub(r"<xmin>[\d.]+", "<xmin>900", xml.read_text("utf-8"), count=1)
        xml.write_text(re.sub(r"<xmax>[\d.]+", "<xmax>950", text, count=1), "utf-8")
    options = ["--model", str(tiny_model), "--boxes", "xml", "--report"]
    assert call(["count", str(tmp_path / "in"), *options]) == 0
    said = capsys.readouterr().out
    told = "3 images lost boxes to defects of the XML, so cells may be missing from the count (images.csv, column "
    assert f"warning: {told}" in said
    assert said.count("lost boxes") == 1
    out = tmp_path / "in-differential"
    assert [text.startswith(told) for text in json.loads((out / "run.json").read_text())["warnings"]] == [True]
    assert "3 of 6 images lost boxes to defects of the XML" in (out / "report.html").read_text("utf-8")


def test_copies_and_boxes_of_another_sample_are_said_at_the_end(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sample in "ab":
        (tmp_path / "in" / sample).mkdir(parents=True)
        for number in (0, 1):
            shutil.copy(smears / sample / f"smear_000{number}.png", tmp_path / "in" / sample)
    shutil.copy(smears / "a" / "smear_0000.png", tmp_path / "in" / "a" / "smear_0009.png")
    (tmp_path / "in" / "a" / "smear_0001.png").unlink()
    shutil.copy(smears / "a" / "smear_0001.xml", tmp_path / "in" / "a")
    options = ["--model", str(tiny_model), "--boxes", "xml"]
    shutil.copy(smears / "b" / "smear_0000.xml", tmp_path / "in" / "b")
    assert call(["count", str(tmp_path / "in"), *options]) == 3
    said = capsys.readouterr().out
    assert "warning: smear_0001.xml: its image is not here, and smear_0001.png in b may be of another sample; " in said
    images = pd.read_csv(tmp_path / "in-differential" / "images.csv", index_col="image", keep_default_na=False)
    assert (images["status"] == "ok").tolist() == [False, False, True, False]
    assert call(["count", str(tmp_path / "in"), "--model", str(tiny_model), "--boxes", "whole", "--overwrite"]) == 0
    assert "warning: 1 image is an exact copy of another and is counted too (images.csv says" in capsys.readouterr().out
    options = ["--boxes", "xml", "--anonymous", "-o", str(tmp_path / "out")]
    assert call(["count", str(tmp_path / "in"), "--model", str(tiny_model), *options]) == 3
    said = capsys.readouterr().out
    assert "smear_" not in said
    assert "4 remarks on files would name them: count without --anonymous to read." in said


def test_the_report_is_written_beside_the_tables(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run(smears, "-o", tmp_path, "--model", tiny_model, "--report")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("report*.html"))) == 2


def test_a_white_cell_count_is_of_one_sample_and_refused_for_two_before_counting(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["-o", str(out), "--model", str(tiny_model), "--boxes", "xml", "--report", "--wbc", "7.2"]
    assert call(["count", str(smears), *options]) == 2
    said = capsys.readouterr().err
    assert said == "Error: --wbc is of one patient, and here are 2 samples: count each folder by itself.\n"
    assert not out.exists()
    assert call(["count", str(smears / "a"), *options]) == 0
    assert 'id="absolute"' in (out / "report.html").read_text("utf-8")


def test_an_image_that_failed_is_called_as_in_the_table_of_images(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a-b", "second/deep", "."):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / folder / "1.jpg").write_bytes(b"")
    source = sorted((smears / "a").glob("*.png"))[0]
    shutil.copy(source, tmp_path / "in" / "a-b" / "2.png")
    (tmp_path / "in" / "a-b" / "2.xml").write_text("<annotation>")
    count = ["count", str(tmp_path / "in"), "--model", str(tiny_model), "-o"]
    assert call([*count, str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out.splitlines()
    names = [line.removeprefix("not counted: ") for line in said if line.startswith("not counted: ")]
    images = pd.read_csv(tmp_path / "out" / "images.csv")["image"].tolist()
    assert sorted(line.partition(":")[0] for line in names) == sorted(images)
    assert "second/deep/1.jpg: is empty (0 bytes)." in names
    assert any(line.startswith("a-b/2.png: 2.xml: is not well-formed XML") for line in names)
    assert call([*count, str(tmp_path / "anonymous"), "--anonymous"]) == 1
    assert not {"a-b", "second", "deep"} & set(re.split(r"[\s/:]", capsys.readouterr().out))
