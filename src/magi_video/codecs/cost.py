"""What it costs to encode pixels: the products of each codec's encoder, by arithmetic.

The networks are fixed, so their operations follow from the size of a clip; the tests count those of the real networks.
A multiply-add is 2 operations; only convolutions and matrix products count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from magi_video.codecs.config import SmallVAEConfig, VQConfig
from magi_video.codecs.sizes import untrained_codec
from magi_video.errors import MagiError
from magi_video.recipe import Preset

STABLE_DIFFUSION_PARAMETERS = 83_653_863
"""Encoder and decoder of the SD 1.4 VAE."""
COSMOS_PARAMETERS = 104_669_888
"""Encoder and decoder of Cosmos CV 4×8×8."""
OMNITOKENIZER_PARAMETERS = 51_559_008
"""Encoder and decoder, with causal layers over time."""
WIDTHS = (128, 256, 512, 512)
"""Channels of the levels of SD's and of Cosmos' encoder."""
OMNI_WIDTH, OMNI_INNER, OMNI_WINDOW, OMNI_HEADS = 512, 1365, 8, 8
"""OmniTokenizer: width of the tokens and of the gated MLPs, side of a window, heads."""


@dataclass(frozen=True)
class Encoder:
    """Costs of a codec.

    Attributes:
        parameters: of encoder and decoder, in float32 on every device.
        flops: of one clip.
        name: of the VAE that was counted.
    """

    parameters: int
    flops: int
    name: str


Size = tuple[int, int, int]
"""Frames, height and width."""


def find_encoder(preset: Preset) -> Encoder | None:
    """The costs of the preset's codec; None where nothing is encoded.

    Raises:
        MagiError: pixels that the codec does not take.
    """
    data, small, vq = preset.data, preset.small_vae, preset.vq
    size = (data.num_frames, data.height, data.width)
    known: dict[str, tuple[str, int, Callable[[Size], int]]] = {
        "image_vae": ("Stable Diffusion's VAE", STABLE_DIFFUSION_PARAMETERS, _stable_diffusion),
        "small_vae": ("the small VAE", small_vae_parameters(small), lambda size: _small_vae(small, size)),
        "vq": ("the VQ codec", small_vae_parameters(vq) + vq.codes * vq.latent_channels, lambda size: _vq(vq, size)),
        "video_vae": ("Cosmos CV 4×8×8", COSMOS_PARAMETERS, _cosmos),
        "omnitokenizer": ("OmniTokenizer's VAE", OMNITOKENIZER_PARAMETERS, _omnitokenizer),
    }
    if preset.codec.codec not in known:
        return None
    name, parameters, count = known[preset.codec.codec]
    sizes = untrained_codec(preset)
    windows = OMNI_WINDOW if preset.codec.codec == "omnitokenizer" else 1
    frames, side = sizes.temporal_factor, sizes.spatial_factor * windows
    if (data.num_frames - 1) % frames or data.height % side or data.width % side:
        raise MagiError(
            f"{name} does not take clips of {data.num_frames} frames of {data.height}×{data.width} pixels; expected "
            f"1 + a multiple of {frames} frames, and sides that {side} divides"
        )
    return Encoder(parameters, count(size), name)


def _conv(inputs: int, outputs: int, kernel: int, places: int) -> int:
    """A convolution that gives so many places."""
    return 2 * inputs * outputs * kernel * places


def _attention(width: int, groups: int, tokens: int) -> int:
    """Both products of attention among `tokens` tokens, in each of so many groups."""
    return 4 * groups * tokens * tokens * width


def small_vae_parameters(config: SmallVAEConfig | VQConfig) -> int:
    """Encoder and decoder of the small VAE, which are those of the VQ codec too."""
    width, latent = config.width, config.latent_channels
    square = 9 * width * width
    block = 3 * (square + width)
    ends = (9 * 3 * width + width) + (9 * width * latent + latent) + (9 * latent * width + width) + (27 * width + 3)
    # Each level but the first of the encoder, and each but the last of the decoder, resizes by a convolution.
    levels = (len(config.encoder_blocks) - 1) + (len(config.decoder_blocks) - 1)
    return ends + levels * square + (sum(config.encoder_blocks) + sum(config.decoder_blocks)) * block


def _small_vae(config: SmallVAEConfig | VQConfig, size: Size) -> int:
    frames, height, width = size
    places, total = frames * height * width, 0
    for level, blocks in enumerate(config.encoder_blocks):
        places //= 4 if level else 1
        total += _conv(config.width if level else 3, config.width, 9, places)
        total += blocks * 3 * _conv(config.width, config.width, 9, places)
    return total + _conv(config.width, config.latent_channels, 9, places)


def _vq(config: VQConfig, size: Size) -> int:
    """The encoder, and the products of every vector with every code."""
    places = prod(size) // config.spatial_factor**2
    return _small_vae(config, size) + 2 * places * config.codes * config.latent_channels


def _stable_diffusion(size: Size) -> int:
    frames, height, width = size
    places, inputs = frames * height * width, WIDTHS[0]
    total = _conv(3, inputs, 9, places)
    for level, outputs in enumerate(WIDTHS):
        for _ in range(2):
            total += _residual(inputs, outputs, places)
            inputs = outputs
        if level < len(WIDTHS) - 1:
            places //= 4
            total += _conv(outputs, outputs, 9, places)
    middle = 2 * _residual(inputs, inputs, places) + 4 * _conv(inputs, inputs, 1, places)
    middle += _attention(inputs, frames, places // frames)
    return total + middle + _conv(inputs, 8, 9, places) + _conv(8, 8, 1, places)


def _residual(inputs: int, outputs: int, places: int) -> int:
    total = _conv(inputs, outputs, 9, places) + _conv(outputs, outputs, 9, places)
    return total + (_conv(inputs, outputs, 1, places) if inputs != outputs else 0)


def _cosmos(size: Size) -> int:
    return sum(_cosmos_parts(size))


def _cosmos_parts(size: Size) -> Iterator[int]:
    frames, height, width = size[0] + 3, size[1], size[2]  # the first frame stands for four
    channels = 3
    for _ in range(2):  # a wavelet in each direction halves it, by two filters of two taps a channel
        for axis, signals in enumerate((2, 4, 8)):
            full = [frames + 1, height + 1, width + 1]
            halved = [frames // 2, height // 2, width // 2]
            places = prod(halved[: axis + 1]) * prod(full[axis + 1 :])
            yield signals * channels * 2 * 2 * places
        frames, height, width, channels = frames // 2, height // 2, width // 2, 8 * channels
    places = frames * height * width
    yield _projection(channels, WIDTHS[0], places)
    inputs = WIDTHS[0]
    for level, outputs in enumerate(WIDTHS[1:]):
        for _ in range(2):
            yield _projection(inputs, outputs, places) + _projection(outputs, outputs, places)
            yield _conv(inputs, outputs, 1, places) if inputs != outputs else 0
            inputs = outputs
        if level == 0:
            places //= 4
            height, width = height // 2, width // 2
            yield _conv(outputs, outputs, 9, places) + _conv(outputs, outputs, 1, places)
    yield 2 * 2 * _projection(inputs, inputs, places) + 8 * _conv(inputs, inputs, 1, places)
    yield _attention(inputs, frames, height * width) + _attention(inputs, height * width, frames)
    yield _projection(inputs, 16, places) + _conv(16, 16, 1, places)


def _projection(inputs: int, outputs: int, places: int) -> int:
    """Cosmos' convolution: over space, then over time."""
    return _conv(inputs, outputs, 9, places) + _conv(outputs, outputs, 3, places)


def _omnitokenizer(size: Size) -> int:
    frames, per_frame = 1 + (size[0] - 1) // 4, (size[1] // 8) * (size[2] // 8)
    tokens, width = frames * per_frame, OMNI_WIDTH
    embedding = 2 * width * 3 * 64 * (per_frame + 4 * (tokens - per_frame))
    products = 2 * tokens * (4 * width * width + 3 * width * OMNI_INNER)  # q, k, v, output; the gated MLP
    mixing = 2 * 27 * tokens * width  # each channel by itself
    window = OMNI_WINDOW**2
    layers = {
        "t": products + mixing + _attention(width, frames, per_frame),
        "w": products + _attention(width, tokens // window, window),
        "c": products + mixing + _attention(width, per_frame, frames),
    }
    return embedding + sum(layers[kind] for kind in "ttwwcccc") + 2 * tokens * width * 16
