"""Many processes: what each runs, and how the model is spread over them.

Two ways. *Replicated* (`DistributedDataParallel`): every process holds the model; gradients are averaged. *Sharded*
(FSDP2, `torch.distributed.fsdp.fully_shard`): every process holds its share of each weight, gradient, optimiser moment
and average, and gathers a block's weights while it computes that block. PyTorch's function is called directly:
accelerate's plugin for it wants GPUs and to build the optimiser itself, and knows nothing of a head whose loss is asked
for by a method.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from magi_video.models.random import Generators
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, Paradigm


class Objective(nn.Module):
    """A paradigm's loss as one module with one forward: what is wrapped for many processes.

    Args:
        transformer: the network with its head.
        paradigm: gives the loss.
    """

    def __init__(self, transformer: MagiVideoTransformer, paradigm: Paradigm) -> None:
        super().__init__()
        self.transformer, self.paradigm = transformer, paradigm

    def forward(self, clip: Clip, generator: Generators) -> tuple[Tensor, Tensor]:
        """See `Paradigm.total_loss`."""
        return self.paradigm.total_loss(self.transformer, clip, generator)


def shard(objective: Objective, device: torch.device, processes: int, low_precision: bool) -> None:
    """Spread the weights over all processes, in place: each block, the head, and the rest are gathered as a unit.

    Args:
        objective: still on the CPU; its shards are moved to `device` unit by unit.
        device: where this process computes.
        processes: how many there are.
        low_precision: gather the blocks' weights in bfloat16, as they are used: half the traffic, and no second copy.
            Gradients are summed in float32. Norms in the blocks then have bfloat16 weights.
    """
    mesh = init_device_mesh(device.type, (processes,))
    plain = MixedPrecisionPolicy()
    low = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False) if low_precision else plain
    transformer = objective.transformer
    for block in transformer.blocks:
        fully_shard(block, mesh=mesh, mp_policy=low)
    fully_shard(transformer.diffusion_head, mesh=mesh, mp_policy=plain)
    for method in ("loss", "predict"):  # of training, and of reconstructions (`magi_video.exposure`)
        if hasattr(transformer.diffusion_head, method):
            register_fsdp_forward_method(transformer.diffusion_head, method)
    fully_shard(objective, mesh=mesh, mp_policy=plain)
