"""An error bank (Stable Video Infinity, Li et al. 2025; Matrix-Game 3): the model's own errors, added to the past.

In every step one frame of each clip is reconstructed in one step (`exposure.reconstruction`), and x̂ − x of its masked
tokens, 0 at the others, is kept. Later steps add kept errors to the frames before, each frame with its own chance. The
bank holds the newest errors of all processes, is saved with each checkpoint, and changes between steps alone: neither
the parts of a batch nor the number of processes change what it holds.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.exposure.base import Cure, Gather, register
from magi_video.exposure.reconstruction import draw_levels, reconstruct
from magi_video.models.head import TokenHead
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import Clip
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.masking import Shown


@register
class ErrorBank(Cure):
    """Errors of earlier steps on the frames before.

    Attributes:
        size: frames K of which the errors are held, 4 · K · N · D bytes.
        share: probability that a frame has one added.
        scale: factor of what is added.
        shift: of the levels of the reconstructions; see `draw_levels`.
    """

    name = "error-bank"
    title = "errors of the model's own reconstructions, kept and added to the past"
    needs: ClassVar[dict[str, tuple[tuple[object, ...], str]]] = {
        "past": (("complete", "masked"), "this paradigm noises the past itself"),
    }
    heads = ("epsilon", "flow")
    reconstructs = "one"
    options: ClassVar[dict[str, int | float | str]] = {"size": 512, "share": 0.5, "scale": 1.0, "shift": 0.6}
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "size": (1, 2**20), "share": (0, 1), "scale": (0, 100), "shift": (0.01, 100),
    }  # fmt: skip
    size: int
    share: float
    scale: float
    shift: float

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stored = 0
        self._errors_KND: Tensor | None = None
        self._found: list[Tensor] | None = None  # in this step; None outside of one

    def bank(self, model: MagiVideoTransformer) -> Tensor:
        """The errors `[K, N, D]`, 0 where none is kept yet."""
        return self._bank(model.num_tokens, model.token_dim, model.head_position.device)

    def _bank(self, tokens: int, size: int, device: torch.device) -> Tensor:
        if self._errors_KND is None:
            self._errors_KND = torch.zeros(self.size, tokens, size, device=device)
        return self._errors_KND

    @override
    def show(self, model: MagiVideoTransformer, clip: Clip, generator: Generators, one_level: bool = False) -> Shown:
        tokens_BTND, held = clip.tokens_BTND, min(self.stored, self.size)
        if not held:
            return clip.shown
        uniform_BT2 = draw(torch.rand, (*tokens_BTND.shape[:2], 2), generator, tokens_BTND.device)
        which_BT = (uniform_BT2[..., 0] * held).long().clamp(max=held - 1)
        factor_BT = self.scale * (uniform_BT2[..., 1] < self.share)
        past_BTND = tokens_BTND + factor_BT[..., None, None] * self.bank(model)[which_BT]
        return replace(clip, past_BTND=past_BTND).shown

    @override
    def learn(self, head: TokenHead, target: Tensor, z: Tensor, counted: Tensor, generator: Generators) -> Tensor:
        if self._found is None:
            return super().learn(head, target, z, counted, generator)
        (batch, frames, tokens, size), device = target.shape, target.device
        order_BP = draw(torch.rand, (batch, frames), generator, device)
        frame_B = order_BP.masked_fill(~counted.any(-1), -1).argmax(1)  # one that is learned
        rows_B = torch.arange(batch, device=device)
        target_BND, z_BNW, counted_BN = (one[rows_B, frame_B] for one in (target, z.detach(), counted))
        level_B = draw_levels(batch, self.shift, generator, device)
        eps_BND = draw(torch.randn, (batch, tokens, size), generator, device)
        made_BND = reconstruct(head, target_BND, z_BNW, level_B, eps_BND)
        self._found.append((made_BND - target_BND) * counted_BN[..., None])
        self._bank(tokens, size, device)  # is there when the step ends
        return super().learn(head, target, z, counted, generator)

    @override
    def begin_step(self, step: int) -> None:
        super().begin_step(step)
        self._found = []

    @override
    def end_step(self, taken: Tensor, gather: Gather) -> None:
        found, self._found = self._found or [], None
        for part_MND in map(gather, found):
            assert self._errors_KND is not None
            newest_MND = part_MND[-self.size :]
            first = self.stored + len(part_MND) - len(newest_MND)
            slots_M = torch.arange(first, first + len(newest_MND), device=newest_MND.device) % self.size
            usable = taken.to(newest_MND.device) & newest_MND.isfinite()
            self._errors_KND[slots_M] = torch.where(usable, newest_MND, self._errors_KND[slots_M])
            self.stored += len(part_MND)

    @override
    def tensors(self, model: MagiVideoTransformer) -> dict[str, Tensor]:
        return {"errors": self.bank(model)}

    @override
    def state(self) -> dict[str, int]:
        return {"stored": self.stored}

    @override
    def restore(self, state: dict[str, int]) -> None:
        self.stored = state["stored"]
