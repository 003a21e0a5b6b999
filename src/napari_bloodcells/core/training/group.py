"""Several processes that train one network together, as ``torchrun`` starts them: which is the first, what they share.

The engine is torch.distributed: DistributedDataParallel averages the gradients (NCCL on GPUs, Gloo on the CPU), and
what else all must agree on (the loss, a stop, the clock, the settings) goes through Gloo.  Each process holds all cells
and takes its share of every batch, so a batch, and all that a recipe says, stays what it is in one process.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from napari_bloodcells.core.devices import pick_device
from napari_bloodcells.core.errors import BloodcellsError, Cancelled, UsageError
from napari_bloodcells.core.progress import Progress

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
PATIENCE = timedelta(hours=6)
"""How long a process waits for another, which may be cutting the cells of a large data set meanwhile."""
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class PeerEnded(BloodcellsError):
    """Another process of the group has ended, and said why; this one cannot go on without it."""


@dataclass(frozen=True)
class Group:
    """The processes of a training; one alone unless ``torchrun`` started more.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.  The first one writes, prints and decides.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, n: int) -> tuple[slice, int]:
        """Which of the ``n`` cells of a batch are this process's, and how many these are.

        Where there are fewer cells than processes the slice holds one all the same, since a network must see something;
        the number, 0, is what it counts.

        >>> [Group(rank, 3).share(8) for rank in range(3)]
        [(slice(0, 2, None), 2), (slice(2, 5, None), 3), (slice(5, 8, None), 3)]
        >>> Group(0, 2).share(1), Group().share(8)
        ((slice(0, 1, None), 0), (slice(0, 8, None), 8))
        """
        start, end = n * self.rank // self.size, n * (self.rank + 1) // self.size
        return (slice(start, end), end - start) if end > start else (slice(0, 1), 0)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Each value summed over the processes; all get the same."""
        if self.size == 1:
            return values
        return tuple(self.total(torch.tensor(values, dtype=torch.float64)).tolist())

    def total(self, values: Tensor) -> Tensor:
        """A tensor on the CPU summed over the processes, in place."""
        if self.size > 1:
            with peers():
                torch.distributed.all_reduce(values)
        return values

    def of_first(self, find: Callable[[], T]) -> T:
        """What ``find`` gives in the first process, in which alone it is called."""
        if self.size == 1:
            return find()
        found: list[Any] = [find() if self.first else None]
        with peers():
            torch.distributed.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        answer: T = found[0]
        return answer

    def first_then_others(self, find: Callable[[], T]) -> T:
        """What ``find`` gives in each process; the others begin when the first has ended and filled the caches."""
        found = [find()] if self.first else []
        self.of_first(lambda: None)
        return found[0] if found else find()

    def spread(self, module: nn.Module, device: torch.device) -> nn.Module:
        """``module`` so wrapped that a step backward averages the gradients of all processes."""
        if self.size == 1:
            return module
        with peers():
            return nn.parallel.DistributedDataParallel(module, [device] if device.type == "cuda" else None)

    def fitted(self, module: M, device: torch.device) -> M:
        """``module`` with its batch norm, where it has any, taken over the cells of all processes.

        Raises
        ------
        UsageError
            For batch norm on the CPU, where torch has none that reaches over processes.
        """
        if self.size == 1 or not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
            return module
        if device.type != "cuda":
            raise UsageError(
                "a network with batch norm needs each batch whole, and on the CPU several processes cannot share one: "
                "train it in one process, without torchrun, or with --set options.norm=group where it has that option."
            )
        found: M = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return found


@dataclass(frozen=True)
class SharedProgress:
    """A progress whose ``cancelled`` is asked in all processes at once: they all stop where one was asked to."""

    progress: Progress
    group: Group

    def start(self, task: str, total: int | None) -> None:
        """Pass it on."""
        self.progress.start(task, total)

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Pass it on."""
        self.progress.advance(task, n, **values)

    def cancelled(self) -> bool:
        """Whether any of the processes was asked to stop."""
        return self.group.sums(float(self.progress.cancelled()))[0] > 0


def torchrun_size() -> int:
    """How many processes ``torchrun`` started this training in; 1 where it did not."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _TORCHRUN) else 1


def torchrun_rank() -> int:
    """Which of these processes this is, from 0."""
    return int(os.environ["RANK"]) if torchrun_size() > 1 else 0


@contextmanager
def joined(device: str) -> Iterator[tuple[Group, torch.device]]:
    """The group that ``torchrun`` started, and the device of this process; an error in the block leaves the group.

    Raises
    ------
    UsageError
        For a device that is not there, or on which several processes cannot train together.
    PeerEnded
        Where another process has ended meanwhile.
    """
    size = torchrun_size()
    if size == 1:
        yield Group(), pick_device(device)
        return
    target = pick_device(device)
    if target.type == "cuda":
        there = torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > there:
            raise UsageError(f"this machine has {there} GPU(s): start no more processes (--nproc-per-node {there}).")
        target = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(target)
    elif target.type != "cpu":
        raise UsageError(f"several processes cannot train together on {target.type}: use --device cpu, or one process.")
    if not torch.distributed.is_initialized():  # a second training of these processes goes on in the same group
        with peers():
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if target.type == "cuda" else "gloo", timeout=PATIENCE
            )
        atexit.register(_leave)
    try:
        yield Group(torch.distributed.get_rank(), size), target
    except Cancelled:
        raise
    except BaseException:
        atexit.unregister(_leave)  # on a GPU it would wait for what the others will never do
        if target.type == "cpu":
            _leave()
        raise


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def peers() -> Iterator[None]:
    """Say in words that another process has ended, where torch.distributed finds it gone."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error).casefold()):
            raise
        raise PeerEnded(
            "Another process of this training has ended and said why; mend that and go on with the same command and "
            "--resume."
        ) from error
