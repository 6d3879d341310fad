"""What a paradigm is: how a clip becomes a training example, and how frames are generated.

A paradigm is one file of this folder. It owns its training sequence with the temporal and spatial masks, its loss, what
the past of a rollout is, and one step of generation. `@register` makes it known to recipes, commands and documents.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.dropout import Dropout, DropoutRates
from magi_video.models.random import Generators, SampleNoise
from magi_video.models.sequence import Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.masking import Exposure, MaskRatio, NoiseInjection
from magi_video.registry import Registry, check_clip_frames, read_options
from magi_video.sampling.past import CachedPast, Past, RecomputedPast
from magi_video.sampling.sampling import ResolvedSampling, Sampling


class Paradigm(ABC):
    """One row of the paper's table 1.

    Args:
        mask_ratio: how many tokens of a frame are masked in training.
        exposure: what training shows of the frames before; the paper's noise injection if not given.
        diffusion_batch_mul: independent diffusion draws for each token with a loss.
        dropout: of the transformer, while it is in training mode.
        options: of the paradigm itself, by name: values, or texts of them.

    Raises:
        MagiError: the paradigm has no such option, or the option cannot be that.
    """

    name: ClassVar[str]
    """In recipes and on the command line."""
    title: ClassVar[str]
    """What it is, in one line."""
    training_frames: ClassVar[int]
    """Frames that the transformer reads in training for each frame of a clip: what a step costs."""
    training_frames_of: ClassVar[dict[str, dict[str, int]]] = {}
    """Option → value → `training_frames`, where an option changes them."""
    training_window: ClassVar[str | None] = None
    """Option that says how many frames, and one more, training reads of a clip, whatever its length; most have none."""
    cached_kind: ClassVar[int]
    """Kind of frame as which a finished frame enters the past: the one that training let later frames see."""

    unit: ClassVar[Literal["frame", "token", "clip"]]
    """What one step of generation makes. This and the next four are the columns of the paper's table 1."""
    temporal_attention: ClassVar[Literal["causal", "bidirectional"]]
    """Whether a frame may attend to later ones."""
    cached: ClassVar[bool]
    """Whether generation keeps keys and values of the finished frames; else every pass reads frames again."""
    variable_context: ClassVar[bool]
    """Whether any number of frames may lie before the one that is made."""
    past: ClassVar[Literal["complete", "masked", "noisy"]]
    """What training shows of the frames before, before `exposure` changes them."""

    shown_frames: ClassVar[int | str] = 0
    """Frames that a training clip begins with and that have no loss of their own: a number, or the option that says how
    many. A clip needs one frame more."""
    loss_frames: ClassVar[Literal["all", "later", "one"]] = "all"
    """Frames of a clip that have a loss: all, all but the first, or one."""
    loss_share: ClassVar[float | None] = None
    """Mean share of the tokens of these frames that have a loss, under the default options; None: as `mask_ratio`."""
    draws: ClassVar[int | None] = None
    """Diffusion draws for each token with a loss; None: `diffusion_batch_mul`."""
    head: ClassVar[str | None] = None
    """The head that it needs, in place of the recipe's."""
    heads: ClassVar[tuple[str, ...]] = ("epsilon", "flow", "distributional", "categorical")
    """The heads that a model of it can have, unless it needs `head`."""
    one_level: ClassVar[bool] = False
    """Whether all frames of a training clip have the same noise level (GameNGen), where noise is injected."""
    frame_cache: ClassVar[bool] = True
    """Whether the past is the frame-level cache, `CachedPast`; a faster one of the same results may then replace it."""
    steps: ClassVar[dict[str, int]] = {}
    """Its own defaults of "mask_steps" and "denoise_steps", where it does not take the recipe's; 0: it has no such
    steps."""
    conditions: ClassVar[dict[str, dict[str, Any]]] = {}
    """Condition tokens of its own, besides the noise level and the recipe's: name → fields of `ConditionSpec`."""
    options: ClassVar[dict[str, int | float | str]] = {}
    """Hyper-parameters of its own by name, with their defaults; they become attributes of these types."""
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Option → the values that it may have, where only some make sense."""
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    """Option → the least and the most that it may be, where not every number makes sense."""

    def __init__(
        self,
        mask_ratio: MaskRatio | None = None,
        exposure: Exposure | None = None,
        diffusion_batch_mul: int = 4,
        dropout: DropoutRates | None = None,
        **options: Any,
    ) -> None:
        self.mask_ratio = mask_ratio or MaskRatio()
        self.exposure = exposure or NoiseInjection()
        self.diffusion_batch_mul = diffusion_batch_mul
        self.dropout = dropout or DropoutRates()
        vars(self).update(read_options(type(self), options))

    def check_model(self, model: MagiVideoTransformer) -> None:
        """Refuse a model that this paradigm can neither train nor generate with.

        Raises:
            MagiError: what it lacks.
        """
        head, mine = model.config.head, (self.head,) if self.head else self.heads
        if head not in mine:
            raise MagiError(f"{self.name} needs a head {' or '.join(mine)}; this model's is {head}")

    def check_clip(self, frames: int) -> None:
        """Refuse training clips that this paradigm cannot learn from.

        Args:
            frames: T, of a clip.

        Raises:
            MagiError: they end before the first frame that has a loss.
        """
        check_clip_frames(self.name, self.shown_frames, {name: getattr(self, name) for name in self.options}, frames)

    def read(self, model: MagiVideoTransformer, sequence: FrameSequence, generator: Generators) -> Tensor:
        """z of a training sequence, with dropout while the model is in training mode."""
        if model.training and self.dropout.any:
            batch, device = len(sequence.tokens_BSND), sequence.tokens_BSND.device
            sequence.dropout = Dropout.drawn(self.dropout, batch, len(model.blocks), generator, device)
        return model(sequence)

    @abstractmethod
    def visible(self, masked_TN: Tensor) -> Tensor:
        """What training lets an output depend on, `[T, N, T, N]`: True where z of a token may depend on a clean token.

        Args:
            masked_TN: which tokens are masked in the frames 1…T.
        """

    @abstractmethod
    def total_loss(
        self, model: MagiVideoTransformer, clip: Clip, generator: Generators = None
    ) -> tuple[Tensor, Tensor]:
        """Loss over a batch as a sum over tokens, and the number of these tokens: float32 scalars.

        A batch may be split between processes and in parts: its mean loss is the sum of the totals over the sum of the
        numbers, not the mean of the parts' means.

        Args:
            model: the transformer; runs under the caller's autocast.
            clip: what to learn from; frames that are not learned (`Clip.learned_BT`) are seen and have no loss.
            generator: source of every draw (ratios, orders, noise, dropout, dropped conditions), on the clip's device.
        """

    def loss(self, model: MagiVideoTransformer, clip: Clip, generator: Generators = None) -> Tensor:
        """Mean loss, a float32 scalar; arguments as of `total_loss`."""
        total, tokens = self.total_loss(model, clip, generator)
        return total / tokens

    @property
    def given_frames(self) -> int:
        """Fewest frames that a continuation can begin with; see `check_context`."""
        return 1

    def check_context(self, given: int, total_frames: int | None) -> None:
        """Refuse a start that this paradigm cannot go on from.

        Args:
            given: frames before the first that is generated; 0 for none.
            total_frames: of the rollout, given ones included; None for one without end.

        Raises:
            MagiError: why it cannot; by itself for fewer than `given_frames`, where there are any.
        """
        if 0 < given < self.given_frames:
            raise MagiError(f"{self.name} goes on from {self.given_frames} frames or more, got {given}")

    def sampled(self, sampling: Sampling) -> "Paradigm":
        """This paradigm as a sampling wants it, which may choose the value of an option of generation."""
        return self

    def check_sampling(self, asked: Sampling) -> None:
        """Refuse what means nothing here: mask steps where there are none, or none that could share their work.

        Args:
            asked: the choices of the caller; what is None is not asked for.

        Raises:
            MagiError: which choice means nothing here.
        """
        said = asked.given()
        for name in ("schedule", "uncertainty", "horizon"):
            if name in said and name not in self.options:
                raise MagiError(f"{self.name} has no noise levels in its frames, so {name} means nothing to it")
        if self.steps.get("mask_steps") == 0:
            for name in ("mask_steps", "refresh", "choice_temperature", "last_denoise_steps"):
                if name in said:
                    raise MagiError(f"{self.name} has no mask steps, so {name} means nothing to it")
            if asked.order not in (None, "random"):
                raise MagiError(f"{self.name} makes its tokens in an order of its own, so order means nothing to it")
        if not self.frame_cache and said.get("refresh", 1) > 1:
            raise MagiError(f"{self.name} keeps nothing between its mask steps that refresh could use again")

    def make_past(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> Past:
        """What generation keeps of finished frames.

        Args:
            model: the transformer.
            batch: samples, both halves of guidance counted.
            total_frames: of the rollout; None for one without end.
        """
        return CachedPast(model, batch, total_frames, self.step_frames(model, 0, total_frames))

    def make_recomputed_past(self, model: MagiVideoTransformer) -> Past:
        """The slow reference of `make_past`: the same results without keeping keys and values."""
        return RecomputedPast(model)

    def as_past(self, model: MagiVideoTransformer, frame: FrameSequence) -> FrameSequence:
        """A finished frame as those after it see it: by default as it is, of `cached_kind` at noise level 0.

        Args:
            model: the transformer.
            frame: clean tokens, nothing masked (S = 1).
        """
        return frame

    def step_frames(self, model: MagiVideoTransformer, begun: int, total_frames: int | None) -> int:
        """How many frames one step of generation makes, when `begun` of `total_frames` are there: most at the start."""
        return 1

    @abstractmethod
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """Generate the next frames in place: fill `frames.tokens_BSND`; nothing of them is masked at the end.

        Args:
            model: the transformer with its head, in eval mode.
            past: the frames before.
            frames: the frames of one step, all tokens masked. Under guidance the batch has a second, unconditional
                half.
            noise: one generator a sample.
            sampling: steps, sampler, guidance; nothing left open.
        """


PARADIGMS: Registry[Paradigm] = Registry("paradigms", "forcing")
"""Every paradigm by name."""
register = PARADIGMS.register


def find_paradigm(name: str) -> type[Paradigm]:
    """The paradigm of that name, or a `MagiError` that lists the names."""
    return PARADIGMS.find(name)


def make_paradigm(name: str, options: dict[str, Any] | None = None) -> Paradigm:
    """The paradigm of that name with its own options, to generate with; errors as of `find_paradigm`."""
    return find_paradigm(name)(**(options or {}))
