"""A few-step head for a trained model (`models/distributional.py`): the old head's samples are what it learns.

The transformer is frozen, so the conditions z are collected once: half of them masked as in training, after the true
frames, half as the model meets them in its own rollouts (`head_inputs.py`). The model's own head makes samples of each,
by the sampler and the steps that the model is sampled with. The new head begins with the old one's weights and learns
their distribution by the energy score.
"""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_video.data.folder import VideoFolder, find_kind
from magi_video.data.identity import DataIdentity
from magi_video.distributed import find_device
from magi_video.errors import MagiError
from magi_video.fast.kernel_choice import generation_kernels, settle_kernels
from magi_video.fast.speed import restore, speed_up
from magi_video.fast.threads import choose_threads
from magi_video.files.atomic import files_sha256
from magi_video.files.folders import make_folder
from magi_video.files.weights import resolve_model
from magi_video.models.architecture import NOISE_LEVEL, Architecture, check_interval
from magi_video.models.distributional import DistributionalHead
from magi_video.models.head import DiffusionHead
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import MaskRatio, Paradigm, find_paradigm
from magi_video.paradigms.masking import Exposure
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import product_flops
from magi_video.recipe import ExposureConfig
from magi_video.sampling.sampling import ResolvedSampling, Sampling
from magi_video.settings import from_json
from magi_video.training.build import build_cure
from magi_video.training.display import Display, Silent
from magi_video.training.distillation_options import DistillOptions, check_new
from magi_video.training.distillation_time import batch_costs, estimate, head_seconds, inputs_seconds
from magi_video.training.head_inputs import ClipSource, rollout_inputs, rollout_sampling, training_inputs
from magi_video.training.optimization import BETAS
from magi_video.training.preparation import derive_seed

WARMUP_STEPS = 100
ROWS_AT_ONCE = 8192
"""Samples that the model's own head makes together."""
MOST_OF_A_BATCH = 4096
"""Tokens that are kept of a batch of clips: those of a clip are alike."""
CLIP_NORM = 1.0
LAST = 100
"""Steps whose mean loss is recorded."""
CHECK_EVERY = 100
"""Steps after which the losses are read from the device; no step in between waits for it."""
MOST_UNSEEN = 1024
"""Tokens, an eighth of all at most, that the head is not trained on: by them it is compared with the model's own."""
MOST_COMPARED = 16
"""Samples of a token, of either head, that are compared: the comparison holds a distance for each pair of them."""
KEPT = ("forcing", "forcing_options", "height", "width", "frame_rate", "action_names", "class_names")
"""Settings of a pipeline that a new head does not change."""


def distill_model(
    model: str | Path, out: Path, data: Path | None, options: DistillOptions, display: Display | None = None
) -> dict[str, Any]:
    """Give a model a few-step head: a model of its own, in `out`.

    Args:
        model: folder, hub id, or the name of a shipped model.
        out: folder of the new model.
        data: folder of videos, best of those that the model was trained on; None to go without any, on videos that the
            model makes by itself.
        options: see `DistillOptions`.
        display: shows progress.

    Returns:
        What the new model records of this: `training["distilled"]`.

    Raises:
        MagiError: the model has no diffusion head, or the few-step one already, or its paradigm samples in another way;
            there are no such videos, or `out` cannot be written, or holds another model.
    """
    display = display or Silent()
    folder = resolve_model(model)
    check_new(out)
    pipe = MagiVideoPipeline.from_pretrained(folder).to(find_device(options.device))
    videos = None if data is None else open_data(data)
    display.say(f"{data}: {videos.summary()}" if videos else "no --data: distilled on videos of the model's own making")
    record: dict[str, Any] = {
        "model": Path(model).resolve().name if Path(model).is_dir() else Path(model).name,
        "model_sha256": files_sha256(folder, sorted((folder / "transformer").iterdir())),
        "data": None if videos is None else DataIdentity.of(videos).record(),
    }
    make_folder(out)

    def save(result: MagiVideoPipeline) -> None:
        training: dict[str, Any] = dict(result.config.training)
        result.register_to_config(training=training | {"distilled": training["distilled"] | record})
        result.save_pretrained(out)

    distilled: dict[str, Any] = distill(pipe, videos, options, display, save).config.training["distilled"]
    return distilled


def distill(
    pipe: MagiVideoPipeline,
    videos: VideoFolder | None,
    options: DistillOptions,
    display: Display | None = None,
    save: Callable[[MagiVideoPipeline], None] | None = None,
) -> MagiVideoPipeline:
    """A model like the given one, with a few-step head; other arguments and errors as of `distill_model`.

    Args:
        save: called with the model as soon as its head is trained, and again when it records the energy distance.
    """
    display, model = display or Silent(), pipe.transformer
    paradigm = teaching_paradigm(pipe)
    teacher = model.diffusion_head
    fits = DistributionalHead.name in paradigm.heads and paradigm.head is None
    if not isinstance(teacher, DiffusionHead) or not fits:
        raise MagiError(
            "a few-step head takes the place of a diffusion head (epsilon, flow); this model's is "
            f"{model.config.head}, and its paradigm {paradigm.name}"
        )
    if model.canvas_out is not None:
        raise MagiError("this model paints a canvas before a frame's tokens, which distilling does not")
    if isinstance(teacher, DistributionalHead):
        raise MagiError("this model has a few-step head already")
    if options.max_interval is not None:
        check_interval(options.max_interval, model.config.max_interval, "max_interval")
    kernels = settle_kernels(generation_kernels("float32") if model.device.type == "cpu" else [])
    if model.device.type == "cpu":
        choose_threads(product_flops(model, 1))
    speed_up(model.eval())
    own, width = pipe.resolve(), model.config.width
    heads = head_seconds(teacher, new_head(teacher, width, options.seed), width, own, options)
    say = display.say
    z_MW = collect_inputs(pipe, paradigm, videos, options, display, lambda seconds: say(estimate(seconds, *heads)))
    samples_JMD = draw_samples(teacher, z_MW, own, options, display)
    unseen = min(MOST_UNSEEN, len(z_MW) // 8)
    student, losses = train_head(teacher, z_MW[unseen:], samples_JMD[:, unseen:], options, display)
    record = {
        "head": model.config.head,
        "sampler": own.sampler,
        "denoise_steps": own.denoise_steps,
        "tokens": len(z_MW),
        "steps": options.steps,
        "seed": options.seed,
        "kernels": kernels,
        "loss": round(sum(losses[-LAST:]) / len(losses[-LAST:]), 4),
    }
    result = with_head(pipe, student, options.denoise_steps, record)
    if save:
        save(result)
    distance = distance_to_samples(student, z_MW[:unseen], samples_JMD[:, :unseen], options)
    display.say(f"energy distance from the model's own samples, for tokens that were not trained on: {distance:.4f}")
    training: dict[str, Any] = dict(result.config.training)
    compared = training["distilled"] | {"energy_distance": round(distance, 4)}
    result.register_to_config(training=training | {"distilled": compared})
    if save:
        save(result)
    return result


def collect_inputs(
    pipe: MagiVideoPipeline,
    paradigm: Paradigm,
    videos: VideoFolder | None,
    options: DistillOptions,
    display: Display,
    say_seconds: Callable[[float], None] = lambda seconds: None,
) -> Tensor:
    """z of `tokens` tokens in random order, `[M, W]` float32: the share `rollouts` of them from rollouts.

    Args:
        say_seconds: called once, after the first batch, with the seconds that all batches are going to take.
    """
    interval = options.max_interval or pipe.transformer.config.max_interval
    generator = torch.Generator(pipe.device).manual_seed(derive_seed(options.seed, 1))
    from_rollouts = round(options.rollouts * options.tokens)
    wanted = {"training": options.tokens - from_rollouts, "rollouts": from_rollouts}
    kept: dict[str, list[Tensor]] = {"training": [], "rollouts": []}
    display.stage("head inputs", options.tokens)
    clips = ClipSource(pipe, paradigm, options.clips, derive_seed(options.seed, 2) % 2**31, videos, interval).batches()
    number, began = 0, time.perf_counter()

    def count(kind: str) -> int:
        return sum(map(len, kept[kind]))

    while any(count(kind) < most for kind, most in wanted.items()):
        clip = next(clips)
        if count("training") < wanted["training"]:
            kept["training"].append(some(training_inputs(pipe, paradigm, clip, generator), generator))
        if count("rollouts") < wanted["rollouts"]:
            sampling = rollout_sampling(pipe, number)
            seeds = [derive_seed(options.seed, 7, number, clip) for clip in range(options.clips)]
            kept["rollouts"].append(some(rollout_inputs(pipe, paradigm, clip, sampling, seeds), generator))
        number += 1
        if number == 1:
            batches = max(-(-most // max(1, count(kind))) for kind, most in wanted.items())
            costs = batch_costs(pipe, batches, videos is None, bool(from_rollouts))
            say_seconds(inputs_seconds(time.perf_counter() - began, costs))
        display.advance(sum(min(count(kind), most) for kind, most in wanted.items()))
    parts = [torch.cat(kept[kind])[:most] for kind, most in wanted.items() if most]
    return some(torch.cat(parts), generator, options.tokens)


def some(z_MW: Tensor, generator: torch.Generator, most: int = MOST_OF_A_BATCH) -> Tensor:
    """At most so many of them, in random order."""
    order_M = torch.randperm(len(z_MW), generator=generator, device=generator.device).to(z_MW.device)
    return z_MW[order_M[:most]] if len(z_MW) > most else z_MW[order_M]


@torch.no_grad()
def draw_samples(
    teacher: DiffusionHead, z_MW: Tensor, own: ResolvedSampling, options: DistillOptions, display: Display
) -> Tensor:
    """Samples of the model's own head, `[J, M, D]`: J for each token."""
    seeds = [derive_seed(options.seed, 3, number) for number in range(options.draws)]
    noise = SampleNoise.from_seeds(seeds, z_MW.device)
    made = []
    display.stage("head samples", len(z_MW))
    for part_nW in z_MW.split(max(1, ROWS_AT_ONCE // options.draws)):
        made.append(
            teacher.sample(
                part_nW[None], noise, own.denoise_steps,
                sampler=own.sampler, first_step=own.first_step, temperature=own.temperature,
            )
        )  # fmt: skip
        display.advance(sum(part.shape[1] for part in made))
    return torch.cat(made, dim=1)


def train_head(
    teacher: DiffusionHead, z_MW: Tensor, samples_JMD: Tensor, options: DistillOptions, display: Display
) -> tuple[DistributionalHead, list[float]]:
    """The few-step head, and the loss of each step.

    A step never waits for the device: the losses are read every `CHECK_EVERY` steps.

    Args:
        teacher: of whose size it is, and with whose weights it begins.
        z_MW: conditions.
        samples_JMD: samples that it shall learn the distribution of.
        options: of the training.
        display: shows progress.

    Raises:
        MagiError: a loss is not finite.
    """
    student = speed_up(new_head(teacher, z_MW.shape[1], options.seed))
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.learning_rate, betas=BETAS, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, options.steps))
    generator = torch.Generator(z_MW.device).manual_seed(derive_seed(options.seed, 5))
    draws, tokens, batch = len(samples_JMD), len(z_MW), min(options.batch_size, len(z_MW))
    device, losses, unread = z_MW.device, list[float](), list[Tensor]()
    display.stage("head", options.steps)
    for step in range(options.steps):
        rows_M = torch.randint(tokens, (batch,), generator=generator, device=device)
        draw_M = torch.randint(draws, (batch,), generator=generator, device=device)
        uniform_1M = torch.rand(1, batch, generator=generator, device=device)
        eps_1MD = torch.randn(1, batch, student.noise_dim, generator=generator, device=device)
        loss = student.loss(samples_JMD[draw_M, rows_M], z_MW[rows_M], uniform_1M, eps_1MD).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        unread.append(loss.detach())
        if len(unread) == CHECK_EVERY or step + 1 == options.steps:
            for read in torch.stack(unread).tolist():
                losses.append(read)
                if not math.isfinite(read):
                    raise MagiError(f"distilling diverged at step {len(losses)}; give a lower --learning-rate")
            unread.clear()
        display.advance(step + 1, {"loss": losses[-1]} if losses else None)
    return restore(student).eval(), losses


def new_head(teacher: DiffusionHead, width: int, seed: int) -> DistributionalHead:
    """A few-step head before its training, of the size of another head and with its weights, on its device.

    Args:
        teacher: the other head.
        width: numbers in a condition.
        seed: of the weights that the other one does not have.
    """
    net = teacher.net
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, 4))
        student = DistributionalHead(teacher.token_dim, width, net.token_in.out_features, len(net.blocks))
        student.reset_parameters()
        student.begin_as(teacher)
    return student.to(net.token_in.weight.device)


@torch.no_grad()
def distance_to_samples(
    student: DistributionalHead, z_HW: Tensor, samples_JHD: Tensor, options: DistillOptions
) -> float:
    """How far the head's samples are from others of the same conditions: 0 for the same distribution, 1 at most.

    E = (2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖) / 2 E‖x − y‖ (Székely & Rizzo 2013), x and y of the two, estimated without
    bias, so it may fall below 0; numerator and denominator are means over the tokens. At most `MOST_COMPARED` samples
    of a token are read.

    Args:
        student: the head.
        z_HW: conditions.
        samples_JHD: J samples of each.
        options: say how many denoise steps it takes.
    """
    samples_JHD = samples_JHD[:MOST_COMPARED]
    seeds = [derive_seed(options.seed, 6, number) for number in range(max(2, len(samples_JHD)))]
    made_JHD = student.sample(z_HW[None], SampleNoise.from_seeds(seeds, z_HW.device), options.denoise_steps)

    def apart(one_IHD: Tensor, other_JHD: Tensor) -> Tensor:
        return (one_IHD[:, None] - other_JHD[None]).norm(dim=-1).mean(dim=-1)

    def within(one_IHD: Tensor) -> Tensor:
        count = len(one_IHD)
        return apart(one_IHD, one_IHD).sum() / max(1, count * (count - 1))

    between = 2 * apart(made_JHD, samples_JHD).mean()
    return float((between - within(made_JHD) - within(samples_JHD)) / between)


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest: up over `WARMUP_STEPS`, then down along a cosine."""
    rising = min(1.0, (step + 1) / WARMUP_STEPS)
    return rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def with_head(
    pipe: MagiVideoPipeline, head: DistributionalHead, denoise_steps: int, record: Mapping[str, Any]
) -> MagiVideoPipeline:
    """The same model with another head, which takes so many steps by default, and how it was made."""
    old = pipe.transformer
    config = {**old.config, "head": DistributionalHead.name}
    transformer = MagiVideoTransformer(Architecture.of(config)).to(old.device)
    weights = {name: one for name, one in restore(old).state_dict().items() if not name.startswith("diffusion_head.")}
    weights |= {f"diffusion_head.{name}": one for name, one in head.state_dict().items()}
    transformer.load_state_dict(weights)
    settings: dict[str, Any] = deepcopy({name: pipe.config[name] for name in KEPT})
    gone = ("sampler", "first_step", "last_denoise_steps", "temperature")
    own = {name: value for name, value in pipe.own_sampling.given().items() if name not in gone}
    made = MagiVideoPipeline(
        transformer.eval(),
        pipe.codec,
        **settings,
        sampling=Sampling(**own | {"denoise_steps": denoise_steps}).given(),
        training={**pipe.config.training, "distilled": dict(record)},
    )
    made.text_folder = pipe.text_folder
    return made


def teaching_paradigm(pipe: MagiVideoPipeline) -> Paradigm:
    """The model's paradigm with the masking and the noise of its training, where the model records them.

    The model's own table says how many noise levels there are. A cure for exposure bias that injects no noise shows the
    true frames here: frames of the model's own making are before the other half of the tokens, in the rollouts.
    """
    preset = pipe.config.training.get("preset")
    recorded = preset.get("exposure") if isinstance(preset, dict) else None
    exposure = from_json(ExposureConfig, recorded or {}, "the model's training: exposure")
    level = pipe.transformer.condition_tokens.specs.get(NOISE_LEVEL)
    cure = build_cure(replace(exposure, noise_levels=0 if level is None else level.size - 1))
    return find_paradigm(pipe.config.forcing)(
        MaskRatio(exposure.mask_ratio_min, exposure.mask_ratio_std),
        cure if cure.injects else Exposure(),
        **pipe.config.forcing_options,
    )


def open_data(data: Path) -> VideoFolder:
    """The videos of a folder, of a data set with a layout of its own the training ones."""
    if not data.is_dir():
        raise MagiError(f"{data}: no such folder; expected one with videos")
    kind = find_kind(data)
    videos = kind(data) if kind is VideoFolder else kind.for_evaluation(data, "train")[0]
    if not videos.videos:
        raise MagiError(f"{data}: no usable video ({videos.summary()})")
    return videos
