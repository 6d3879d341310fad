"""Shared small models and clips; every test is seeded."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from magi_video.fast.kernel_choice import KERNELS
from magi_video.fast.probes import PROBES
from magi_video.models.architecture import Architecture
from magi_video.models.categorical import CategoricalHead
from magi_video.models.head import DiffusionHead
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip
from magi_video.registry import declared

FRAMES, TOKENS = 5, 16

torch.set_num_threads(1)  # the models here are too small to gain from more


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def same_machine() -> Iterator[None]:
    """Nothing is chosen by a timing, here and in the processes that tests start: no result hangs on the load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROBES, "off")
        yield


@pytest.fixture
def threads_left() -> Callable[..., list[threading.Thread]]:
    """Gives a function: which threads began since the test did and still run, of those whose names begin so.

    Those of earlier tests are none of the test's business: they may end at any moment.
    """
    before = set(threading.enumerate())
    return lambda name="": [one for one in threading.enumerate() if one not in before and one.name.startswith(name)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to the machine is measured, as it is for users."""
    monkeypatch.delenv(PROBES)


@pytest.fixture
def settled_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are settled here, and afterwards as they were."""
    before = torch.get_float32_matmul_precision()
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "settled", None)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def make_model() -> Callable[..., MagiVideoTransformer]:
    """Small transformers whose every layer matters: nothing is left at zero.

    `forcing`: for that row; `codebook`: the codes of a categorical head.
    """

    def make(**changes: Any) -> MagiVideoTransformer:
        settings: dict[str, Any] = {
            "latent_channels": 3,
            "latent_height": 8,
            "latent_width": 8,
            "num_frames": FRAMES,
            "width": 32,
            "depth": 2,
            "heads": 2,
            "mlp_width": 64,
            "head_width": 32,
            "head_depth": 2,
            "conditions": {"noise_level": {"size": 6}, "action": {"size": 3, "kind": "vector", "drop": 0.1}},
        }
        if changes.get("head") == "categorical":  # as many tokens, each one code
            settings |= {"patch_size": 1, "latent_height": 4, "latent_width": 4, "codes": 20}
        row, codebook = declared("paradigms")[changes.pop("forcing", "complete")], changes.pop("codebook", None)
        settings |= changes
        settings["conditions"] = settings["conditions"] and settings["conditions"] | row.get("conditions", {})
        settings["head"] = row.get("head", settings.get("head", "epsilon"))
        model = MagiVideoTransformer(Architecture.of(settings)).eval()
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.15)
        # A head of zero output, as at the start of training, would hide differences; a wild one would amplify them.
        if isinstance(model.diffusion_head, CategoricalHead):
            model.diffusion_head.set_codebook(torch.randn(20, 3) if codebook is None else codebook)
        elif isinstance(model.diffusion_head, DiffusionHead):
            nn.init.normal_(model.diffusion_head.net.token_out.weight, std=0.02)
        return model

    return make


@pytest.fixture
def model(make_model: Callable[..., MagiVideoTransformer]) -> MagiVideoTransformer:
    return make_model()


@pytest.fixture
def clip() -> Clip:
    """Two clips of five frames with actions."""
    return Clip(
        tokens_BTND=torch.randn(2, FRAMES, TOKENS, 12),
        interval_B=torch.tensor([1, 7]),
        conditions={"action": torch.rand(2, FRAMES, 3)},
    )


@pytest.fixture(scope="session")
def ucf101() -> Path:
    """Folder of real UCF-101 clips, named by MAGI_UCF101."""
    folder = os.environ.get("MAGI_UCF101")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MAGI_UCF101 names no folder with UCF-101 clips")
    return Path(folder)
