"""Mutation testing: is every line that decides a number held by a test that would notice if it were wrong?

    python -m benchmarks.reliability.mutants crops voc differential intervals shards runlock checkpoint
    python -m benchmarks.reliability.mutants crops --every 10

Each mutant is the module with one small fault (``<`` for ``<=``, ``+`` for ``-``, a constant moved, ``and`` for ``or``,
a call or a result left out), made by ``ast`` and put into the loaded module.  The module's own tests and doctests are
collected once and run for each mutant in a forked process, which takes a tenth of a second where a fresh pytest takes
three.  A mutant is killed when a test fails or it hangs; the survivors are printed, to be looked at one by one.  Not
changed are annotations, docstrings and the words of messages.
"""

from __future__ import annotations

import argparse
import ast
import copy
import doctest
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("crops", "voc", "differential", "intervals", "shards", "runlock", "checkpoint")
PRELOADED = (
    *("numpy", "torch", "torchvision", "pandas", "scipy.special", "scipy.stats", "PIL.Image", "safetensors.torch"),
    *("pytest", "hypothesis", "hypothesis.strategies", "_hypothesis_pytestplugin"),
)
DOCTESTS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
PYTEST = [
    *("-x", "-q", "-s", "--no-header", "--no-summary", "-p", "no:cacheprovider"),
    *("-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0"),
]
TIMEOUT_S = 30.0
"""Of processor time; what computes longer hangs."""
PATIENCE = 5
"""What takes so many times as long as the module as it is, and ten seconds more, waits for ever."""

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


class Trial:
    """A pytest plugin that runs the collected tests once for every mutant, each time in a forked process."""

    def __init__(self, module: ModuleType, numbered: Iterator[tuple[int, Mutant]]) -> None:
        self.module, self.numbered = module, numbered
        self.sound = self.is_child = False
        self.seconds = 0.0
        self.tried = 0
        self.survivors: list[tuple[int, Mutant]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Fork for the module as it is, then for each mutant; a child goes on to the tests, the parent does not."""
        started = time.monotonic()
        self.sound = self.passes(None)
        self.seconds = time.monotonic() - started
        for number, mutant in self.numbered if self.sound and not self.is_child else ():
            survived = self.passes(mutant)
            if self.is_child:
                break
            self.tried += 1
            if survived:
                self.survivors.append((number, mutant))
        return None if self.is_child else True

    def passes(self, mutant: Mutant | None) -> bool:
        """Whether all tests pass on a mutant; comes back twice, as ``fork`` does."""
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status) == 0
        self.is_child = True
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + TIMEOUT_S), resource.RLIM_INFINITY))
        try:
            if mutant is not None:
                signal.alarm(10 + int(PATIENCE * self.seconds))
                put_in_place(self.module, mutant)
            if doctest.testmod(self.module, optionflags=DOCTESTS).failed:
                os._exit(1)
        except BaseException:  # a mutant that cannot even be imported
            os._exit(1)
        return False

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """A child ends here, with the verdict of its tests."""
        if self.is_child:
            os._exit(int(exitstatus))


def put_in_place(module: ModuleType, mutant: Mutant) -> None:
    """Give the functions, classes and constants of a loaded module what they are in the mutant."""
    path = module.__file__ or ""
    fresh = ModuleType(module.__name__)
    fresh.__file__ = path
    with _in_place_of(module, fresh):  # dataclasses look their module up by its name
        exec(compile(mutant.tree, path, "exec"), fresh.__dict__)
    for name, new in list(vars(fresh).items()):
        old = vars(module).get(name)
        own = getattr(new, "__module__", None) == module.__name__
        if isinstance(new, FunctionType) and isinstance(old, FunctionType) and own:
            _become(old, new)
        elif isinstance(new, type) and isinstance(old, type) and own:
            for part, value in list(vars(new).items()):
                former = vars(old).get(part)
                if isinstance(value, FunctionType) and isinstance(former, FunctionType):
                    _become(former, value)  # keeps the names of the loaded module, which tests replace
                elif isinstance(value, FunctionType | property) or part in getattr(new, "__dataclass_fields__", ()):
                    setattr(old, part, value)
            setattr(fresh, name, old)
        elif not name.startswith("__"):
            setattr(module, name, new)


def _become(old: FunctionType, new: FunctionType) -> None:
    inner, fresh = getattr(old, "__wrapped__", None), getattr(new, "__wrapped__", None)
    if isinstance(inner, FunctionType) and isinstance(fresh, FunctionType):  # of a decorator, which calls it
        old, new = inner, fresh
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


@contextmanager
def _in_place_of(module: ModuleType, fresh: ModuleType) -> Iterator[None]:
    sys.modules[module.__name__] = fresh
    try:
        yield
    finally:
        sys.modules[module.__name__] = module


def study(name: str, every: int, only: Sequence[int] = ()) -> tuple[int, int]:
    """Killed and all mutants of one module; prints the survivors."""
    started = time.monotonic()
    path = next((ROOT / "src" / "napari_bloodcells" / "core").rglob(f"{name}.py"))
    numbered = islice(enumerate(mutants(path.read_text(encoding="utf-8"))), 0, None, every)
    if only:
        numbered = (pair for pair in numbered if pair[0] in only)
    trial = Trial(importlib.import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts)), numbered)
    with tempfile.TemporaryDirectory() as scratch:
        tests = next((ROOT / "tests" / "core").rglob(f"test_{name}.py"))
        pytest.main([*PYTEST, f"--basetemp={scratch}/tests", str(tests)], plugins=[trial])
    if not trial.sound:
        raise SystemExit(f"{name}: its tests fail as it is")
    for number, mutant in trial.survivors:
        print(f"{name}.py:{mutant.line} #{number}: {mutant.before}  ->  {mutant.after}")
    killed = trial.tried - len(trial.survivors)
    print(f"{name}: {killed} of {trial.tried} killed, {time.monotonic() - started:.0f} s", flush=True)
    return killed, trial.tried


def main() -> int:
    """Run the study of the named modules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], default=list(MODULES))
    parser.add_argument("--only", type=int, nargs="+", default=(), help="the numbers of some mutants")
    parser.add_argument("--every", type=int, default=1, help="only one of so many, for a quick look")
    options = parser.parse_args()
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    totals = [study(module, options.every, options.only) for module in options.modules]
    print(f"in all {sum(killed for killed, _ in totals)} of {sum(n for _, n in totals)} killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
