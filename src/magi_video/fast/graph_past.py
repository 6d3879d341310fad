"""A rollout's past whose mask steps are graphs, over the cache of `FastPast`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from magi_video.fast.graph import StepForm, StepInputs, drawn_shapes
from magi_video.fast.past import FastPast
from magi_video.models.head import Noise, TokenHead
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer

Run = Callable[[list[Tensor]], list[Tensor]]
"""`MaskStepFunction` over `StepInputs.flat`."""
Steps = dict[tuple[bool, bool], tuple[StepForm, Run]]
"""By whether a finished frame is read, and whether work is reused."""


class GraphPast(FastPast):
    """The same keys and values; a mask step for which there is no graph is PyTorch's.

    Args:
        model: that `speed_up` has prepared, float32 on the CPU.
        total_frames: of the rollout; None for one without end ("rope").
        steps: the graphs, all of the same rows and slots.
    """

    def __init__(self, model: MagiVideoTransformer, total_frames: int | None, steps: Steps) -> None:
        forms = [form for form, _ in steps.values()]
        slides = model.config.temporal_position == "rope"
        reuse = any(form.reuses for form in forms)
        super().__init__(model, forms[0].rows, None if slides else forms[0].slots, reuse)
        self.steps = steps
        self._shapes: dict[StepForm, list[tuple[int, ...]]] = {}

    def sample(
        self,
        head: TokenHead,
        frame: FrameSequence,
        places_Bn: Tensor,
        changed_Bm: Tensor | None,
        noise: Noise,
        options: dict[str, Any],
    ) -> Tensor:
        """See `Past.sample`."""
        changed_Bm = changed_Bm if self.reuse else None
        finished = self._finished
        found = self.steps.get((finished is not None, changed_Bm is not None))
        if found is None or any(options[name] != value for name, value in found[0].options):
            return super().sample(head, frame, places_Bn, changed_Bm, noise, options)
        form, run = found
        count = places_Bn.shape[1]
        self._finished = None
        frames = frame if finished is None else FrameSequence.join([finished, frame])
        layers: list[Any] = self.cache.layers
        inputs = StepInputs(
            frames=frames,
            keys=[layer.keys for layer in layers],
            values=[layer.values for layer in layers],
            visible_SF=self._visible(1 + form.finished, form.slots),
            places_Rn=padded(places_Bn, form.count),
            draws=self._draw(noise, form, count),
            temperature=torch.tensor(float(options["temperature"])),
            guidance=torch.tensor(float(options["guidance"])) if form.guided else None,
            appeared_Rn=padded(changed_Bm[:, :-count], form.count) if changed_Bm is not None else None,
            spatial=[part for layer in layers for part in layer.spatial] if form.reuses else None,
        )
        tokens_BnD, *made = run(inputs.flat())
        if form.finished:
            slot, made_keys, made_values = self.cache.layers[0].slots[0], made[: len(layers)], made[len(layers) :]
            for layer, keys, values in zip(layers, made_keys, made_values, strict=False):
                layer.keys[:, :, :, slot], layer.values[:, :, :, slot] = keys, values
            self.cache.advance()
            made = made[2 * len(layers) :]
        if form.remembers:
            for layer, keys, values in zip(layers, made[::2], made[1::2], strict=True):
                layer.spatial = keys, values
        return tokens_BnD[:, :count]

    def _draw(self, noise: Noise, form: StepForm, count: int) -> list[Tensor]:
        """What the head would draw for so many tokens, padded with zeros to those of the form."""
        drawn = [noise.normal(*shape) for shape in self._drawn(replace(form, count=count))]
        if count == form.count:
            return drawn
        draws = []
        for one, shape in zip(drawn, self._drawn(form), strict=True):
            draws.append(one.new_zeros(len(one), *shape))
            draws[-1][tuple(slice(side) for side in one.shape)] = one
        return draws

    def _drawn(self, form: StepForm) -> list[tuple[int, ...]]:
        if form not in self._shapes:
            self._shapes[form] = drawn_shapes(self.model, form)
        return self._shapes[form]

    def _visible(self, frames: int, slots: int) -> Tensor:
        """`[S, F]`: which slots of the past each of the next frames may see; never those that they will take."""
        mask_SH = self.cache.begin(frames)
        one = self.cache.layers[0]
        visible_SF = torch.zeros(frames, slots, dtype=torch.bool)
        visible_SF[:, : one.held] = True if mask_SH is None else mask_SH
        visible_SF[:, one.slots] = False
        return visible_SF


def padded(places_Rn: Tensor, count: int) -> Tensor:
    """So many places, the first one again for those that lack."""
    lacking = count - places_Rn.shape[1]
    return places_Rn if not lacking else torch.cat([places_Rn, places_Rn[:, :1].expand(-1, lacking)], dim=1)
