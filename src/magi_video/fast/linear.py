"""Linear layers whose weights can be kept in the layout that the CPU's matrix units read.

PyTorch hands oneDNN plain weights, and oneDNN reorders them at every call. For the few rows of one frame that costs as
much as the product itself: bfloat16 products of 4 to 256 rows are 1.5 to 2.5 times as fast from packed weights
(docs/performance.md). Packing is for inference: `pack_linears` makes a second copy of every weight.
"""

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ROWS = 448
"""Rows of a product up to which packed weights win; with more, oneDNN's own reordering pays for itself."""


class PackedLinear(nn.Linear):
    """`nn.Linear`; after `pack`, the same product from packed weights wherever no gradient is asked for."""

    _packed: Tensor | None = None

    def pack(self) -> None:
        """Pack the weight as it is now; moving, casting or training the layer undoes it."""
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` → `[..., out_features]`."""
        # In this order: asking for the number of rows would fix it in a traced graph.
        if self._packed is None or torch.is_grad_enabled() or not 0 < input.shape[:-1].numel() <= MOST_ROWS:
            return F.linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], None)

    def train(self, mode: bool = True) -> "PackedLinear":
        """Forget the packed weight: training is about to change the weight itself."""
        if mode:
            self._packed = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedLinear":
        self._packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:  # a packed weight can be neither copied nor pickled
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


def pack_linears(model: nn.Module) -> bool:
    """Pack every linear layer of a model in evaluation mode, if it is one that gains: bfloat16 weights on a CPU.

    Returns:
        Whether the model is packed now.
    """
    layers = [module for module in model.modules() if type(module) in (nn.Linear, PackedLinear)]
    gains = all(one.weight.device.type == "cpu" and one.weight.dtype == torch.bfloat16 for one in layers)
    if model.training or not layers or not gains or not packing_works():
        return False
    for layer in layers:
        layer.__class__ = PackedLinear
        cast(PackedLinear, layer).pack()
    return True


@cache
def packing_works() -> bool:
    """Whether this build of PyTorch packs weights for this CPU, and gets the product right from them."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        layer = PackedLinear(64, 32).to(torch.bfloat16)
    x = torch.randn(5, 64, generator=generator).to(torch.bfloat16)
    with torch.no_grad():
        plain = layer(x).float()
        try:
            layer.pack()
            return bool(torch.allclose(layer(x).float(), plain, atol=0.05))
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
