"""The processes of one training: one alone, or those that torchrun started, each with its share of every batch."""

# B batch, F features

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from runtime.errors import UserError


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the others, where torchrun started this process, and give the device to train on."""
    together = dist.is_torchelastic_launched()
    local = int(os.environ["LOCAL_RANK"]) if together else 0
    if torch.cuda.is_available() and local >= torch.cuda.device_count():
        raise UserError(
            f"more processes than GPUs, of which there are {torch.cuda.device_count()}\n"
            f"start as many: torchrun --nproc-per-node {torch.cuda.device_count()} -m train.fit …"
        )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if not together:
        yield device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is; 0 writes the files and speaks to the terminal."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with its gradients averaged over the processes; itself where there is one process."""
    if world() == 1:
        return module
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)


def synchronised(module: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Around a pass of what `parallel` gave: only a step's last one sends its gradients, with those before it."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()


def total(values: Tensor) -> Tensor:
    """The sum over the processes."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def largest(value: float, device: torch.device) -> float:
    """The largest of what each process gives: all must take the same turn."""
    if world() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.item()


def gathered(rows_BF: Tensor) -> Tensor:
    """The rows of all processes, with a gradient, in the order of the processes."""
    if world() == 1:
        return rows_BF
    mine = torch.tensor([len(rows_BF)], device=rows_BF.device)
    found = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(found, mine)
    counts = [int(count) for count in found]
    # Every process sends as many rows as the longest has: the collective takes one shape.
    padded_BF = nn.functional.pad(rows_BF, (0, 0, 0, max(counts) - len(rows_BF)))
    parts = _Gather.apply(padded_BF).unbind()
    return torch.cat([part_BF[:count] for part_BF, count in zip(parts, counts, strict=True)])


def everyone(value: Any) -> list[Any]:
    """What each process gave, in the order of the processes."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


class _Gather(torch.autograd.Function):
    """The tensors of all processes, stacked. gloo has no collective whose own gradient torch could take."""

    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        parts = [torch.empty_like(mine) for _ in range(world())]
        dist.all_gather(parts, mine.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # Each process computes the same loss from all rows: mine is what all of them say of my rows together.
        return total(gradient)[rank()]
