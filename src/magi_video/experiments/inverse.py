"""Which keys a clip shows: inverse dynamics, the score of a world that is played.

A small network sees three frames in a row and says which keys were held between the last two. It is trained on real
clips of the training set as the codec shows them, so what it asks of a model is what a model can show. How often it is
right on the true clips is the ceiling that stands beside every other figure: some keys change nothing (a jump in the
air, a step against a wall).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.experiments.clips import Clips
from magi_video.video.image import to_model_range

FRAMES = 3
"""That the network sees."""
BATCH, RATE, DECAY = 64, 2e-3, 0.05


@dataclass(frozen=True, eq=False)
class Keys:
    """What was held on the way to each frame, read from the names of a game's actions (`RIGHT+UP`).

    Attributes:
        side: 0 left, 1 neither, 2 right.
        up: 1 if a jump was asked for, else 0.
    """

    side: np.ndarray
    up: np.ndarray

    @classmethod
    def read(cls, actions: np.ndarray, names: Sequence[str]) -> "Keys":
        """Of action vectors `[..., A]`, of which the largest entry counts; the names of their columns."""
        parts = [name.split("+") for name in names]
        side = np.array([0 if "LEFT" in held else 2 if "RIGHT" in held else 1 for held in parts])
        up = np.array([int("UP" in held) for held in parts])
        held = actions.argmax(-1)
        return cls(side[held], up[held])


def inverse_network(outputs: int) -> nn.Sequential:
    """Nine channels, three pictures or what is made of them, `[M, 9, H, W]` → logits `[M, outputs]`."""
    layers: list[nn.Module] = []
    for channels, width in ((9, 24), (24, 48), (48, 64), (64, 64)):
        layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, outputs))


def fit(network: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Train a network by so many calls of `loss`, and leave it in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    network.eval()


class InverseDynamics(nn.Module):
    """Three frames → logits of the side (3) and of a jump (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = inverse_network(5)

    def forward(self, triples_MTHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits `[M, 3]` and `[M, 2]` of M triples of frames, uint8 `[M, 3, H, W, 3]`."""
        logits_M5 = self.net(to_model_range(triples_MTHWC).flatten(1, 2))
        return logits_M5[:, :3], logits_M5[:, 3:]


def train_inverse(clips_NTHWC: Clips, keys_NT: Keys, steps: int) -> InverseDynamics:
    """Train the network; seeded.

    Args:
        clips_NTHWC: real clips as the codec shows them.
        keys_NT: what was held on the way to each of their frames, arrays `[N, T]`.
        steps: of `BATCH` triples.
    """
    random = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InverseDynamics()
    clips, frames = clips_NTHWC.shape[:2]

    def loss() -> Tensor:
        clip = random.integers(clips, size=BATCH)
        last = random.integers(FRAMES - 1, frames, size=BATCH)
        side, up = network(clips_NTHWC[clip[:, None], last[:, None] + np.arange(1 - FRAMES, 1)])
        true_side, true_up = (torch.from_numpy(one[clip, last]) for one in (keys_NT.side, keys_NT.up))
        return F.cross_entropy(side, true_side) + F.cross_entropy(up, true_up)

    fit(network, loss, steps)
    return network


@torch.no_grad()
def score_keys(network: InverseDynamics, clips_NTHWC: Clips, keys_NT: Keys, given: int) -> dict[str, Any]:
    """How often the generated frames show the keys that were asked for.

    Args:
        network: of `train_inverse`.
        clips_NTHWC: clips whose first `given` frames were given.
        keys_NT: what was asked for on the way to each frame.
        given: at least 2, so that the network sees real frames before the first generated one.

    Returns:
        side, up: share of the generated frames; `per_frame` and `per_clip` → name → the same by generated frame and by
        clip.
    """
    frames = clips_NTHWC.shape[1]
    right: dict[str, list[np.ndarray]] = {"side": [], "up": []}
    for t in range(given, frames):
        side, up = network(clips_NTHWC[:, t + 1 - FRAMES : t + 1])
        right["side"].append(side.argmax(-1).numpy() == keys_NT.side[:, t])
        right["up"].append(up.argmax(-1).numpy() == keys_NT.up[:, t])
    result: dict[str, Any] = {"per_frame": {}, "per_clip": {}}
    for name, by_frame in right.items():
        right_GN = np.stack(by_frame)
        result[name] = round(float(right_GN.mean()), 4)
        result["per_frame"][name] = [round(float(value), 4) for value in right_GN.mean(1)]
        result["per_clip"][name] = [round(float(value), 4) for value in right_GN.mean(0)]
    return result
