"""Networks in mixed precision whose geometry stays exact."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def hand_out_float32(modules: Iterable[nn.Module]) -> None:
    """Make modules hand out float32, whatever precision they compute in.

    Boxes are computed from what the heads give, in its precision, and float16 knows only every second pixel beyond
    2048; convolutions and matrix products stay in the lower precision.
    """
    for module in modules:
        module.register_forward_hook(lambda _module, _inputs, output: _to_float32(output))


def _to_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_to_float32(one) for one in output)
