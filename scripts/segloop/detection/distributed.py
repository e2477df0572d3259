"""Several processes that train one model together (ranks): who they are and what they tell each other."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segloop.errors import SegloopError

Value = TypeVar("Value")
Losses = Callable[..., dict[str, Tensor]]

PATIENCE = timedelta(hours=1)
"""How long a rank waits for the others. They open different images, so that one may have much more to read."""
_CONNECTION = timedelta(minutes=5)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    size
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, value: Value) -> list[Value]:
        """Return everybody's value, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """Return the value of the first rank; what the others give is not looked at."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks, element by element."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def wait(self) -> None:
        """Go on when everybody has come here."""
        self.share(None)

    def losses_of(self, model: nn.Module) -> Losses:
        """Return the model's `losses`; with several ranks their gradients come out averaged over all."""
        if self.size == 1:
            losses: Losses = model.losses  # type: ignore[assignment]
            return losses
        # Without looking for unused parameters, DDP groups gradients anew after its first step, and the groups decide
        # in which order numbers are added: a resumed training would differ in last bits from an undisturbed one.
        module = _Losses(model).to(next(model.parameters()).device)
        return DistributedDataParallel(module, find_unused_parameters=True)


ALONE: Final = Ranks()
"""One process that trains by itself."""


class _Losses(nn.Module):
    """What `DistributedDataParallel` calls forward is a model's `losses`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # Where every parameter is used, DDP advises against looking for those that are not.
        self.never_used = nn.Parameter(torch.zeros(1))

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.model.losses(*arguments)  # type: ignore[operator]
        return losses


@contextmanager
def process_group(ranks: Ranks, address: str, port: int, *, gpus: bool) -> Iterator[None]:
    """Connect the ranks for the length of the block.

    Parameters
    ----------
    address, port
        Where the first rank listens: a name or number that all others reach.
    gpus
        Whether tensors on GPUs are exchanged (by NCCL, besides gloo).

    Raises
    ------
    SegloopError
        If the name of the first rank's node cannot be resolved, or it cannot be reached.
    """
    if ranks.size == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    try:
        # The store would go on trying a name that nobody knows.
        socket.getaddrinfo(address, port)
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, ranks.size, is_master=ranks.first, timeout=_CONNECTION
        )
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
    except (OSError, dist.DistError) as error:
        raise SegloopError(
            f"rank {ranks.rank} of {ranks.size} cannot reach the first one at {address}:{port} ({error}). Give an "
            "address that the nodes know: training.cluster.setup: ['export MASTER_ADDR=...']; where several networks "
            "connect them, also GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME."
        ) from None
    yield
    # Only when all went well: after an error, the others may never answer.
    dist.destroy_process_group()
