"""The processes that torchrun started on one command, on one machine or on many."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from factorvae.errors import UserError
from factorvae.files import locked_folder

T = TypeVar("T")

# A process that is through with its share of a sweep waits for the others, for days if need be. One
# that died is noticed without this: its connections close, and torchrun ends the rest.
PATIENCE = timedelta(days=365)
SECONDS_OF_GLOO = 0.2  # at the end of a process


@dataclass(frozen=True)
class World:
    """Which of the processes this one is; alone by default.

    rank: of `size` processes. local_rank: of those on this machine. restarts: how often torchrun
    has begun anew after a process died. group: exchanges tensors that lie on the device.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0
    group: dist.ProcessGroup | None = None

    @property
    def alone(self) -> bool:
        return self.size == 1

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.alone:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def run_everywhere(self, make: Callable[[], T]) -> T:
        """What `make` gives here; a UserError in any process is raised in all of them.

        So that none waits for one that is gone.
        """
        if self.alone:
            return make()
        made, fault = None, None
        try:
            made = make()
        except UserError as error:
            fault = str(error)
        for each in self.all_gather(fault):
            if each is not None:
                raise UserError(each)
        return made

    def broadcast_from_rank0(self, make: Callable[[], T]) -> T:
        """What `make` gives in the process of rank 0, which alone calls it, in all of them.

        A UserError there is raised in all of them.
        """
        if self.alone:
            return make()
        made = [self.run_everywhere(make if self.rank == 0 else _nothing)]
        dist.broadcast_object_list(made, src=0)
        return made[0]

    @contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """The block runs in a folder that rank 0 has locked for all, on whatever machines.

        Raises UserError in all of them where another command trains there.
        """
        with ExitStack() as locks:
            self.broadcast_from_rank0(lambda: locks.enter_context(locked_folder(folder)))
            yield

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """The block is run by one process of every machine, and after that by the others."""
        if self.local_rank > 0:
            self._barrier()
        try:
            yield
        finally:  # also after an error, which the others will then meet on their own
            if self.local_rank == 0:
                self._barrier()

    def _barrier(self) -> None:
        if not self.alone:
            dist.barrier()

    def with_group_for(self, device: torch.device, backend: str = "nccl") -> "World":
        """The same, exchanging tensors from one device of this kind to another.

        backend: under "gloo", which is slow, several processes may share a CUDA device.

        Raises:
            UserError: there are more processes on this machine than devices.
        """
        if self.alone or device.type == "cpu":
            return self
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if backend == "nccl" and here > torch.cuda.device_count():
            raise UserError(
                f"{here} processes cannot share {torch.cuda.device_count()} CUDA devices in one "
                "run; start one per device: torchrun --nproc_per_node"
            )
        return replace(self, group=dist.new_group(backend=backend))

    def shard(self, batch_size: int) -> slice:
        """The rows of a batch that are this process's part."""
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over the processes where there are several."""
        if self.alone:
            return network
        return DistributedDataParallel(network, process_group=self.group)

    def all_gather_rows(self, part: Tensor) -> Tensor:
        """[b, ...] of every process -> [b * size, ...], in the order of their ranks."""
        if self.alone:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.group)
        return torch.cat(parts)

    def all_gather_codes(self, *codes: Tensor) -> list[Tensor]:
        """[b, latent_dim] of every process -> [b * size, latent_dim], each: the whole batch's.

        For a term of the loss that every process computes alike. Its gradient for this process's
        rows is scaled by `size`, since the processes' gradients are averaged afterwards.
        """
        if self.alone:
            return list(codes)
        return list(_AllGatherCodes.apply(torch.cat(codes, dim=1), self).chunk(len(codes), dim=1))

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return self._all_reduce(values, dist.ReduceOp.SUM) / self.size

    def all_reduce_min(self, values: Tensor) -> Tensor:
        """The smallest over the processes."""
        return self._all_reduce(values, dist.ReduceOp.MIN)

    def _all_reduce(self, values: Tensor, operation: dist.ReduceOp) -> Tensor:
        if self.alone:
            return values
        values = values.clone()
        dist.all_reduce(values, operation, group=self.group)
        return values


class _AllGatherCodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: Tensor, world: World) -> Tensor:  # noqa: ANN001
        ctx.world = world
        return world.all_gather_rows(part)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        return grad[ctx.world.shard(len(grad))] * ctx.world.size, None


def _nothing() -> None:
    return None


ALONE = World()


@contextmanager
def join_world() -> Iterator[World]:
    """The processes that torchrun started, for as long as they work together; else this one alone.

    torchrun tells each of its processes about the others by environment variables.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" not in os.environ or size == 1:
        yield ALONE
        return
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", store=_store_of_this_start(), rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        world = World(rank, size, int(os.environ.get("LOCAL_RANK", 0)))
        # the torchrun of each machine counts for itself
        restarts = max(world.all_gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))))
        yield replace(world, restarts=restarts)
    finally:
        dist.destroy_process_group()
        # Gloo's threads give back the last tensors that were exchanged, for which they need the
        # interpreter: one that is gone by then would abort the process, with all done.
        time.sleep(SECONDS_OF_GLOO)


def _store_of_this_start() -> dist.Store:
    """Where the processes leave their addresses for one another.

    torchrun keeps one store over all restarts, and a process could take the address of one that is
    gone for that of its successor. So the first process names a part of the store, together with
    those that it takes for its peers, until all of them have answered.
    """
    store, rank, size = next(dist.rendezvous("env://"))
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"arrived/{rank}", mine)
        while mine not in (named := store.get("named").decode().split()):
            time.sleep(0.02)
        store.set(f"{named[0]}/{mine}", "")
        return dist.PrefixStore(named[0], store)
    while True:
        arrived = [store.get(f"arrived/{other}").decode() for other in range(1, size)]
        store.set("named", " ".join([mine, *arrived]))
        if store.check([f"{mine}/{other}" for other in arrived]):
            return dist.PrefixStore(mine, store)
        time.sleep(0.02)
