"""Mutation testing: is every line that decides a number held by a test that would notice if it were wrong?

    python -m benchmarks.reliability.mutants crops voc differential intervals shards
    python -m benchmarks.reliability.mutants crops --only 17 --show

Each mutant is the module with one small fault (``<`` for ``<=``, ``+`` for ``-``, a constant moved, ``and`` for ``or``,
a call or a result left out), made by ``ast``; the module's own tests and doctests run on it, in a process forked from
one that has imported torch and pytest already (a quarter of a second a mutant, where a fresh start takes ten times as
long).  A mutant is killed when a test fails or it hangs; the survivors are printed, to be looked at one by one.  Not
changed are annotations, docstrings and the words of messages.
"""

from __future__ import annotations

import argparse
import ast
import copy
import doctest
import importlib
import importlib.abc
import importlib.machinery
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "napari_bloodcells.core"
TESTS = {
    "crops": ("core/test_crops.py",),
    "voc": ("core/test_voc.py",),
    "differential": ("core/test_differential.py",),
    "intervals": ("core/test_intervals.py",),
    "shards": ("core/test_shards.py",),
}
PRELOADED = (
    *("numpy", "torch", "torchvision", "pandas", "scipy.special", "scipy.stats", "PIL.Image", "safetensors.torch"),
    *("pytest", "hypothesis", "hypothesis.strategies", "_hypothesis_pytestplugin"),
)
DOCTESTS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0", "--no-header"]
TIMEOUT_S = 300.0
"""Of processor time; what computes longer hangs."""

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault: the line, what it says there, and the tree to run."""

    line: int
    before: str
    after: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module's source, in the order of its lines."""
    tree = ast.parse(source)
    skipped = _skipped(tree)
    nodes = [node for node in ast.walk(tree) if id(node) not in skipped]
    nodes.sort(key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))
    for node in nodes:
        for field, value in _changes(node):
            old, before = getattr(node, field), _words(node)
            setattr(node, field, value)
            changed, after = copy.deepcopy(tree), _words(node)
            setattr(node, field, old)
            left_out = isinstance(node, ast.Expr | ast.Return)
            yield Mutant(node.lineno, before, "(left out)" if left_out else after, ast.fix_missing_locations(changed))


def _words(node: ast.AST) -> str:
    return f"if {ast.unparse(node.test)}" if isinstance(node, ast.If | ast.While) else ast.unparse(node)


def _skipped(tree: ast.Module) -> set[int]:
    """Nodes that are left as they are: annotations, docstrings, text of messages, imports."""
    found: set[int] = set()

    def skip(node: ast.AST | None) -> None:
        if node is not None:
            found.update(id(child) for child in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for part in (*node.decorator_list, node.returns if isinstance(node, ast.FunctionDef) else None):
                skip(part)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            skip(node.annotation)
        elif _is_words(node):
            skip(node)
    return found


def _is_words(node: ast.AST) -> bool:
    """Whether a node computes nothing: a message, a docstring, an import."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Fields of one node and what else they could hold."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in SWAPS.get(type(node.ops[0]), ()):
            yield "ops", [other()]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for other in SWAPS.get(type(node.op), ()):
            yield "op", other()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "op", ast.UAdd()
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Return | ast.Expr) and node.value is not None and ast.unparse(node.value) != "None":
        yield "value", ast.Constant(None)
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield "test", ast.UnaryOp(ast.Not(), node.test)


def _constants(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, bool):
        yield "value", not value
    elif isinstance(value, int):
        yield "value", value + 1
    elif isinstance(value, float):
        yield "value", value * 1.01 + 0.001
    elif isinstance(value, str):
        yield "value", f"{value}?"


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives the mutant where the module is asked for."""

    def __init__(self, name: str, path: Path, mutant: Mutant) -> None:
        self.name, self.path, self.mutant = name, path, mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """The spec of the one module."""
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(self.path))

    def get_source(self, name: str) -> str:
        """The source of the mutant."""
        return ast.unparse(self.mutant.tree)

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutant as the module."""
        module.__file__ = str(self.path)
        exec(compile(self.mutant.tree, str(self.path), "exec"), module.__dict__)


def survives(module: str, mutant: Mutant | None) -> bool:
    """Whether all tests of ``module`` pass on the mutant (None: on the module as it is), in a forked process."""
    child = os.fork()
    if not child:
        os._exit(_judge(module, mutant))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _judge(module: str, mutant: Mutant | None) -> int:
    import pytest

    name = f"{PACKAGE}.{module}"
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + TIMEOUT_S), resource.RLIM_INFINITY))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    if mutant is not None:
        sys.meta_path.insert(0, _Loader(name, ROOT / "src" / Path(*name.split(".")).with_suffix(".py"), mutant))
    words = io.StringIO()
    with redirect_stdout(words), redirect_stderr(words):
        try:
            if doctest.testmod(importlib.import_module(name), optionflags=DOCTESTS).failed:
                return 1
            return int(pytest.main([*PYTEST, *(str(ROOT / "tests" / test) for test in TESTS[module])]))
        except BaseException:  # a mutant that cannot even be imported
            return 1


def study(module: str, only: int | None, every: int, show: bool) -> tuple[int, int]:
    """Killed and all mutants of one module; prints the survivors."""
    path = ROOT / "src" / "napari_bloodcells" / "core" / f"{module}.py"
    if not survives(module, None):
        raise SystemExit(f"{module}: its tests fail as it is")
    started = time.monotonic()
    numbered = [(n, m) for n, m in enumerate(mutants(path.read_text(encoding="utf-8"))) if n % every == 0]
    if only is not None:
        numbered = [(n, m) for n, m in numbered if n == only]
    killed = 0
    for number, mutant in numbered:
        if survives(module, mutant):
            print(f"{module}.py:{mutant.line} #{number}: {mutant.before}  ->  {mutant.after}", flush=True)
        else:
            killed += 1
            if show:
                print(f"killed {module}.py:{mutant.line} #{number}: {mutant.before}  ->  {mutant.after}", flush=True)
    print(f"{module}: {killed} of {len(numbered)} killed, {time.monotonic() - started:.0f} s", flush=True)
    return killed, len(numbered)


def main() -> int:
    """Run the study of the named modules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], default=list(TESTS))
    parser.add_argument("--only", type=int, help="the number of one mutant")
    parser.add_argument("--every", type=int, default=1, help="only one of so many, for a quick look")
    parser.add_argument("--show", action="store_true", help="print those that were killed, too")
    options = parser.parse_args()
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    totals = [study(module, options.only, options.every, options.show) for module in options.modules]
    print(f"in all {sum(killed for killed, _ in totals)} of {sum(n for _, n in totals)} killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
