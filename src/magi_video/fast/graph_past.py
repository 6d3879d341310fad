"""A rollout's past whose mask steps are graphs, over the cache of `FastPast`."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.fast.graph import GivenPast, StepForm, StepInputs, as_tree, drawn_shapes, flat
from magi_video.fast.past import FastPast
from magi_video.models.head import Noise, TokenHead
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer

Run = Callable[[list[Tensor]], list[Tensor]]
"""`MaskStepFunction` over the tensors of its arguments."""


class GraphPast(FastPast):
    """The same keys and values; a mask step for which there is no graph is PyTorch's.

    Args:
        model: that `speed_up` has prepared.
        total_frames: of the rollout; None for one without end ("rope").
        forms: of the graphs, all of the same rows and slots.
    """

    def __init__(self, model: MagiVideoTransformer, total_frames: int | None, forms: Sequence[StepForm]) -> None:
        slides = model.config.temporal_position == "rope"
        reuse = any(form.reuses for form in forms)
        super().__init__(model, forms[0].rows, None if slides else forms[0].slots, reuse)
        self.forms = {(form.finished, form.reuses): form for form in forms}
        self._shapes: dict[int, list[tuple[int, ...]]] = {}

    @abstractmethod
    def step(self, form: StepForm, inputs: StepInputs) -> Tensor:
        """A mask step by its graph, `[B, n, D]`; what it leaves in the cache is written there."""

    @override
    def sample(
        self,
        head: TokenHead,
        frame: FrameSequence,
        places_Bn: Tensor,
        changed_Bm: Tensor | None,
        noise: Noise,
        options: dict[str, Any],
    ) -> Tensor:
        changed_Bm = changed_Bm if self.reuse else None
        finished = self._finished
        form = self.forms.get((finished is not None, changed_Bm is not None))
        if form is None or any(options[name] != value for name, value in form.options):
            return super().sample(head, frame, places_Bn, changed_Bm, noise, options)
        count = places_Bn.shape[1]
        self._finished = None
        inputs = StepInputs(
            frames=frame if finished is None else FrameSequence.join([finished, frame]),
            places_Rn=padded(places_Bn, form.count),
            draws=self._draw(noise, form, count),
            temperature=self._number(options["temperature"]),
            guidance=self._number(options["guidance"]) if form.guided else None,
            appeared_Rn=padded(changed_Bm[:, :-count], form.count) if changed_Bm is not None else None,
        )
        tokens_BnD = self.step(form, inputs)
        if form.finished:
            self.cache.advance()
        return tokens_BnD[:, :count]

    def _number(self, value: float) -> Tensor:
        """A number where the model is, without waiting for it."""
        return torch.full((), float(value), device=self.cache.device)

    def _draw(self, noise: Noise, form: StepForm, count: int) -> list[Tensor]:
        """What the head would draw for so many tokens, padded with zeros to those of the form."""
        drawn = [noise.normal(*shape) for shape in self._drawn(form, count)]
        if count == form.count:
            return drawn
        draws = []
        for one, shape in zip(drawn, self._drawn(form, form.count), strict=True):
            draws.append(one.new_zeros(len(one), *shape))
            draws[-1][tuple(slice(side) for side in one.shape)] = one
        return draws

    def _drawn(self, form: StepForm, count: int) -> list[tuple[int, ...]]:
        """`drawn_shapes` of so many tokens: the same for all forms of a rollout."""
        if count not in self._shapes:
            self._shapes[count] = drawn_shapes(self.model, replace(form, count=count))
        return self._shapes[count]


class FunctionPast(GraphPast):
    """Graphs that are `MaskStepFunction`s: the cache goes in, and what is to be written there comes out.

    Args:
        model, total_frames: as of `GraphPast`.
        runs: the graphs by form.
    """

    def __init__(self, model: MagiVideoTransformer, total_frames: int | None, runs: Mapping[StepForm, Run]) -> None:
        super().__init__(model, total_frames, list(runs))
        self.runs = runs
        self._seen: tuple[tuple[int, int], Tensor] | None = None  # what the last mask step may see, and of when

    @override
    def step(self, form: StepForm, inputs: StepInputs) -> Tensor:
        layers: list[Any] = self.cache.layers
        past = GivenPast(
            keys=[layer.keys for layer in layers],
            values=[layer.values for layer in layers],
            visible_SF=self._visible(1 + form.finished, form.slots),
            spatial=[part for layer in layers for part in layer.spatial] if form.reuses else [],
        )
        tokens_BnD, *made = self.runs[form](flat(as_tree(inputs, past)))
        if form.finished:
            slot, made_keys, made_values = self.cache.layers[0].slots[0], made[: len(layers)], made[len(layers) :]
            for layer, keys, values in zip(layers, made_keys, made_values, strict=False):
                layer.keys[:, :, :, slot], layer.values[:, :, :, slot] = keys, values
            made = made[2 * len(layers) :]
        if form.remembers:
            for layer, keys, values in zip(layers, made[::2], made[1::2], strict=True):
                layer.spatial = keys, values
        return tokens_BnD

    def _visible(self, frames: int, slots: int) -> Tensor:
        """`[S, F]`: which slots of the past each of the next frames may see; never those that they will take.

        The same in all mask steps over one past.
        """
        now = self.cache.length, frames
        if self._seen is None or self._seen[0] != now:
            mask_SH = self.cache.begin(frames)
            one = self.cache.layers[0]
            visible_SF = torch.zeros(frames, slots, dtype=torch.bool)
            visible_SF[:, : one.held] = True if mask_SH is None else mask_SH
            visible_SF[:, one.slots] = False
            self._seen = now, visible_SF
        return self._seen[1]


def padded(places_Rn: Tensor, count: int) -> Tensor:
    """So many places, the first one again for those that lack."""
    lacking = count - places_Rn.shape[1]
    return places_Rn if not lacking else torch.cat([places_Rn, places_Rn[:, :1].expand(-1, lacking)], dim=1)
