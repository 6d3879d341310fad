"""Where the time goes: operators' own time by what they are for, and by the part of the network that they serve."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # of a built module
from torch.profiler import ProfilerActivity, profile, record_function

from magi_video.models.transformer import MagiVideoTransformer

PART = "part: "
"""Begins the name of every range that marks a part of the network."""
OPTIMISER = "optimiser"
REST = "the rest"
PURPOSES = (  # what an operator is for, by its name: the first that fits
    ("attention products", r"bmm|scaled_dot_product|flash_attention|efficient_attention"),
    ("matrix products", r"mm$|linear|matmul|convolution"),
    ("softmax, norms, activations", r"softmax|norm(?!al)|gelu|silu|sigmoid"),
    (
        "copies",
        r"copy|cat$|stack|clone|contiguous|index|gather|scatter|fill|zero|select|slice|repeat|reorder|resize|^to$",
    ),
    (
        "element-wise",
        r"add|sub|rsub|mul|div|neg|where|exp_?$|log|pow|sqrt|square|sin_?$|cos_?$|sum|mean|lerp|clamp|tanh|abs"
        r"|normal|random|^(eq|ne|lt|le|gt|ge)$|bitwise",
    ),
)
ENGINE = "autograd::engine::evaluate_function"


@dataclass
class Profile:
    """One call under PyTorch's profiler.

    Attributes:
        seconds: own time of all its operators together.
        by_purpose, by_part: shares of it, largest first.
    """

    seconds: float
    by_purpose: dict[str, float]
    by_part: dict[str, float]


def profile_call(model: MagiVideoTransformer, function: Callable[[], Any], device: torch.device) -> Profile:
    """Profile a call that uses the model."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with marked_parts(model), profile(activities=activities) as recorded:
        function()
    return summarise(list(recorded.events()), device.type == "cuda")


@contextmanager
def marked_parts(model: MagiVideoTransformer) -> Iterator[None]:
    """While it lasts, what runs in the spatial layers, the temporal layers and the head is marked in a profile."""
    ranges: list[record_function] = []

    def enter(name: str) -> None:
        ranges.append(record_function(PART + name))
        ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    def inside(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            with record_function(PART + name):
                return method(*arguments, **options)

        return marked

    hooks = []
    for block in model.blocks:
        for name in ("spatial", "temporal"):
            layer: Any = getattr(block, name)
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: enter(name)))
            hooks.append(layer.register_forward_hook(leave))
    head: Any = model.diffusion_head
    for method in ("sample", "loss"):  # its network is no single call
        setattr(head, method, inside("head", getattr(head, method)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        del head.sample, head.loss


def summarise(events: list[Any], on_gpu: bool) -> Profile:
    """Shares of the operators' own time. A backward operator serves the part whose forward asked for it."""
    by_purpose: dict[str, float] = defaultdict(float)
    by_part: dict[str, float] = defaultdict(float)
    # Operators are numbered as they enter the graph, and their backward bears the number: the last to start with a
    # number is the one that took it.
    part_of_number: dict[tuple[int, int], str] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and (part := enclosing_part(event)):
            part_of_number[event.sequence_nr, event.thread] = part
    for event in events:
        # A GPU's kernels count for the operators that launched them.
        if event.is_user_annotation or event.name.startswith(PART) or event.device_type != DeviceType.CPU:
            continue
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        part = enclosing_part(event) or REST
        if part == REST and (origin := backward_origin(event)):
            part = part_of_number.get((origin.sequence_nr, origin.fwd_thread), REST)
        by_part[part] += own
        by_purpose[OPTIMISER if part == OPTIMISER else purpose(event.name)] += own
    total = sum(by_part.values()) or 1.0
    return Profile(total / 1e6, shares(by_purpose, total), shares(by_part, total))


def shares(times: dict[str, float], total: float) -> dict[str, float]:
    """Each over the total, largest first."""
    return {name: time / total for name, time in sorted(times.items(), key=lambda item: -item[1])}


def purpose(operator: str) -> str:
    """What an operator is for; views, allocation and the autograd engine itself are the rest."""
    name = operator.split("::")[-1]
    return next((what for what, pattern in PURPOSES if re.search(pattern, name)), REST)


def ancestry(event: Any) -> Iterator[Any]:
    """The event, what it ran in, what that ran in, …"""
    while event is not None:
        yield event
        event = event.cpu_parent


def enclosing_part(event: Any) -> str | None:
    """The innermost marked part that an event ran in."""
    names = (one.name for one in ancestry(event))
    return next((name.removeprefix(PART) for name in names if name.startswith(PART)), None)


def backward_origin(event: Any) -> Any:
    """The node of the graph whose backward an event is of; None in the forward."""
    return next((one for one in ancestry(event) if one.name.startswith(ENGINE)), None)
