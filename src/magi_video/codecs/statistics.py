"""Mean and standard deviation of latent channels, streamed over any number of batches in float64.

A model learns latents of zero mean and unit deviation; a VAE's own latents are neither, channel by channel (some
published ones have deviations of 5 to 11). Measured once per codec and data set, saved in the codec's config.
"""

from collections.abc import Iterable

import torch

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError, counted


class ChannelStatistics:
    """Running count, mean and sum of squared deviations per channel (Chan's pairwise form of Welford's update)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean_C = torch.zeros(channels, dtype=torch.float64)
        self.squares_C = torch.zeros(channels, dtype=torch.float64)

    def update(self, latents_BTCHW: torch.Tensor) -> None:
        """Add a batch [..., C, H, W] with at least one leading axis; `MagiError` if it is not finite."""
        values_CN = latents_BTCHW.detach().movedim(-3, 0).flatten(1).double().cpu()
        if not values_CN.isfinite().all():
            raise MagiError("the codec gave latents that are not finite; check its weights and its input")
        count = values_CN.shape[1]
        if count == 0:
            return
        batch_mean_C = values_CN.mean(1)
        delta_C = batch_mean_C - self.mean_C
        total = self.count + count
        self.squares_C += (values_CN - batch_mean_C[:, None]).square().sum(1) + delta_C**2 * self.count * count / total
        self.mean_C += delta_C * count / total
        self.count = total

    def result(self, discrete: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation per channel (float64, population form).

        Args:
            discrete: of latents that are codes. A number that is the same in all codes used is then left as it is,
                with deviation 1.

        Raises:
            MagiError: there is no data, or a channel of continuous latents never varies.
        """
        if self.count == 0:
            raise MagiError("no frames to measure latent statistics on")
        std_C = (self.squares_C / self.count).sqrt()
        dead_C = std_C <= 1e-7 * self.mean_C.abs().clamp(min=1e-7)
        if discrete:
            std_C[dead_C] = 1
        elif dead_C.any():
            dead = dead_C.nonzero().flatten().tolist()
            raise MagiError(
                f"{counted(len(dead), 'latent channel')} ({', '.join(map(str, dead))}) without any variance, which "
                "cannot be scaled to unit deviation"
            )
        return self.mean_C.clone(), std_C


@torch.no_grad()
def measure_statistics(codec: Codec, batches: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the codec's raw latents over batches of video [B, T, 3, H, W] in [-1, 1].

    Returns two float64 tensors [C], ready for `codec.set_statistics`; the codec's present statistics play no part.
    """
    statistics = ChannelStatistics(codec.latent_channels)
    for video_BTCHW in batches:
        statistics.update(codec.encode_raw(video_BTCHW.to(codec.device)))
    return statistics.result(discrete=codec.codes is not None)
