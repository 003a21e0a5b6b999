"""Every command and every Python snippet in README and docs is run, page by page, and the docs build unwarned.

A page is a story: its blocks tagged ``bash`` and ``python`` run in their order in one empty folder.  A block that
cannot run in a test (it installs, opens a window, needs the real data or hours) has a comment right before it,
``<!-- not run: why -->``; even then each of its commands must exist, with the options that it is given.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?P<before>[^\n]*\n)?^(?P<fence> *```)(?P<kind>\w+)[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.M | re.S)
NOT_RUN = re.compile(r"<!-- not run: (.{10,}) -->")
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block: ``bash`` or ``python``, its text, and why it is not run (empty where it is)."""

    kind: str
    body: str
    why_not: str


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that hold commands or Python.

    >>> blocks_of("```bash\\nls\\n```\\n")
    [Block(kind='bash', body='ls\\n', why_not='')]
    """
    found = []
    for match in BLOCK.finditer(text):
        reason = NOT_RUN.search(match["before"] or "")
        if match["kind"] in ("bash", "python", "sh", "shell", "console"):
            kind = "python" if match["kind"] == "python" else "bash"
            found.append(Block(kind, match["body"], reason[1] if reason else ""))
    return found


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block in ``folder``; ``python`` and ``bloodcells-batch`` are those of this environment."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "MPLBACKEND": "Agg",
        "PYTHONWARNINGS": "ignore",
    }
    command = [*program, block.body]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def merged(blocks: list[Block]) -> list[Block]:
    """Neighboring Python blocks as one, for a later one may use the names of an earlier one."""
    result: list[Block] = []
    for block in blocks:
        if result and block.kind == "python" and result[-1].kind == "python" and not block.why_not + result[-1].why_not:
            result[-1] = Block("python", result[-1].body + block.body, "")
        else:
            result.append(block)
    return result


def commands_in(block: Block) -> list[list[str]]:
    """The simple commands of a bash block, each as its words."""
    text = re.sub(r"\\\n", " ", block.body)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|\|\||;|\|", line)]


@cache
def help_of(*command: str) -> str:
    """What the command says of itself with ``--help``."""
    done = subprocess.run(
        [BIN / "bloodcells-batch", *command, "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"bloodcells-batch {' '.join(command)} is no command: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_snippet_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    for block in merged(blocks_of(page.read_text(encoding="utf-8"))):
        if not block.why_not:
            done = run(block, tmp_path)
            assert done.returncode == 0, f"{block.body}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_exists_with_its_options(page: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if not block.why_not or block.kind == "python":
            continue
        for words in commands_in(block):
            words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
            if words and Path(words[0]).name == "bloodcells-batch":
                check_command(words[1:])
            elif words and Path(words[0]).name in ("python", "python3") and len(words) > 1:
                check_script(words[1:])


def check_command(words: list[str]) -> None:
    """The command exists, and its help knows every option."""
    names = [words[0]] if words and not words[0].startswith("-") else []
    if names and names[0] in ("models", "data") and len(words) > 1 and not words[1].startswith("-"):
        names.append(words[1])
    text = help_of(*names)
    for word in words:
        if word.startswith("-"):
            option = word.split("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{' '.join(words)}: no option {option}"


def check_script(words: list[str]) -> None:
    """``python FILE`` and ``python -m MODULE`` name something of this repository or of the environment."""
    if words[0] == "-m" and words[1].split(".")[0] == "benchmarks":
        place = ROOT / words[1].replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), words
    elif words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file(), words


def test_the_readme_opens_with_the_two_commands_and_ci_runs_the_second() -> None:
    first, second = (block.body for block in blocks_of((ROOT / "README.md").read_text())[:2])
    assert first.count("\n") == second.count("\n") == 1
    assert "pip install ." in first
    assert "bloodcells-batch demo" in first
    assert ".[test]" in second
    assert second.rstrip().endswith("pytest")
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    taken = re.search(r"command=\$\((awk .*README\.md)\)", script.read_text())
    assert taken is not None
    done = subprocess.run(["bash", "-c", taken[1]], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout == second


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    text = "```bash\nfalse\n```\n<!-- not run: for a reason -->\n```bash\nfalse\n```\n```text\nno command\n```\n"
    blocks = blocks_of(text)
    assert [(block.body, block.why_not) for block in blocks] == [("false\n", ""), ("false\n", "for a reason")]
    assert run(blocks[0], tmp_path).returncode == 1
    assert run(Block("python", "1 / 0", ""), tmp_path).returncode == 1


def test_an_option_that_does_not_exist_is_noticed() -> None:
    check_command(["count", "FOLDER", "--boxes", "find", "-o", "OUT"])
    with pytest.raises(AssertionError, match="no option --box"):
        check_command(["count", "FOLDER", "--box", "find"])
    with pytest.raises(AssertionError, match="no command"):
        check_command(["cuont", "FOLDER"])


def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("count", "load_model", "train", "evaluate", "read_voc", "write_voc", "draw_smear"):
        assert re.search(rf'id="[\w.]+\.{name}"', api), name


def test_every_picture_is_made_by_the_script_and_small() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown
    for picture in shown:
        assert picture.is_file(), picture
        assert picture.stat().st_size < 400_000, picture


def test_no_page_names_a_place_of_one_machine() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(root|work|home|tmp)/", text), page
        assert "TODO" not in text, page
