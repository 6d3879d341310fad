"""Published OmniTokenizer checkpoints as a codec folder: convert once, then `load_codec`.

A checkpoint is a PyTorch Lightning file: a zip archive of a pickle and of raw tensors. The pickle is read by an
unpickler that makes plain containers and notes about tensors and nothing else; whatever else it asks for becomes an
empty stand-in. Of the tensors only those of the VAE are read.
"""

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.errors import MagiError
from magi_video.files.unpickling import StandIn, StoredTensor, TorchArchive
from magi_video.files.weights import load_strictly
from magi_video.models.configured import outlined

OF_TRAINING = ("image_discriminator.", "video_discriminator.", "perceptual_model.", "codebook.")
"""Parts of a checkpoint that only its training needed."""
UNUSED = re.compile(
    r"\.context_norm\.|\.relative_position_index$|_temporal_transformer\.layers\.\d+\.1\.spatial_rel_pos_bias\."
)
"""Tensors of the VAE that no result depends on: of cross-attention, derived, or of a bias that is never added."""
RULES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^encoder\.to_patch_emb_first_frame\.([123])\.", lambda m: f"embed_first.{int(m[1]) - 1}."),
        (r"^encoder\.to_patch_emb\.([123])\.", lambda m: f"embed_rest.{int(m[1]) - 1}."),
        (r"^(encoder|decoder)\.(?:enc|dec)_(spatial|temporal)_transformer\.", r"\1.\2."),
        (r"\.norm_out\.", ".norm."),
        (r"\.layers\.(\d+)\.0\.dsconv\.", r".layers.\1.mixing.conv."),
        (r"\.layers\.(\d+)\.1\.", r".layers.\1.attention."),
        (r"\.layers\.(\d+)\.3\.([01])\.", r".layers.\1.mlp.\2."),
        (r"\.layers\.(\d+)\.3\.4\.", r".layers.\1.mlp.3."),
        (r"\.relative_position_bias_table$", ".bias"),
        (r"norm\.gamma$", "norm.weight"),
        (r"^decoder\.to_pixels_first_frame\.0\.", "to_first."),
        (r"^decoder\.to_pixels\.0\.", "to_rest."),
        (r"^pre_vq_conv\.1\.", "to_moments."),
        (r"^post_vq_conv\.1\.", "from_latents."),
    )
]
"""From the published names to ours, one after the other."""
PUBLISHED_SETTINGS: dict[str, Any] = {
    "patch_embed": "linear",
    "spatial_pos": "rope",
    "casual_in_temporal_transformer": True,
    "casual_in_peg": True,
    "defer_temporal_pool": False,
    "defer_spatial_pool": False,
    "gen_upscale": None,
}
"""What the names and shapes do not tell of a network; where a checkpoint says otherwise, it is refused."""


def convert_omnitokenizer(checkpoint: str | Path, out: str | Path) -> OmniTokenizerCodec:
    """Convert a published VAE checkpoint (such as imagenet_k600_vae.ckpt) to a folder for `load_codec`.

    Args:
        checkpoint: the Lightning file.
        out: folder for `config.json` and the weights; made if needed.

    Returns:
        The codec, as loaded from `out`.

    Raises:
        MagiError: the file is no such checkpoint, of another kind of network, incomplete, or holds more than one.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    codec = read_omnitokenizer(checkpoint)
    try:
        codec.save_pretrained(out)
    except OSError as error:
        raise MagiError(f"{out}: cannot be written ({error.strerror or error})") from None
    return load_strictly(OmniTokenizerCodec, str(out))


def read_omnitokenizer(checkpoint: Path) -> OmniTokenizerCodec:
    """The codec of a published checkpoint, in float32; see `convert_omnitokenizer`."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return _convert(TorchArchive(archive), checkpoint)
    except FileNotFoundError:
        raise MagiError(f"{checkpoint}: no such file") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise MagiError(f"{checkpoint}: not a PyTorch checkpoint ({error})") from None


def _convert(archive: TorchArchive, checkpoint: Path) -> OmniTokenizerCodec:
    content = archive.content()
    stored = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(stored, dict) or not all(isinstance(one, StoredTensor) for one in stored.values()):
        raise MagiError(f"{checkpoint}: not a checkpoint of a network: there is no state_dict of tensors in it")
    names = {name: one for name, one in stored.items() if not str(name).startswith(OF_TRAINING)}
    settings = _settings(content.get("hyper_parameters"))
    for name, expected in PUBLISHED_SETTINGS.items():
        if settings.get(name, expected) != expected:
            raise MagiError(f"{checkpoint}: trained with {name} {settings[name]!r}; expected {expected!r}")
    try:
        config = _config(names)
    except (KeyError, IndexError, ValueError) as error:
        raise MagiError(f"{checkpoint}: not an OmniTokenizer VAE ({error})") from None
    # Norms have a shift that was never trained; where it is not zero, this is something else.
    shifts = [name for name in names if name.endswith(".beta") and not UNUSED.search(name)]
    if any(archive.read(names[name]).any() for name in shifts):
        raise MagiError(f"{checkpoint}: a norm with a shift; expected none, as OmniTokenizer has it")
    names = {name: one for name, one in names.items() if not UNUSED.search(name) and name not in shifts}
    renamed = {_our_name(name): one for name, one in names.items()}
    with outlined():
        outline = OmniTokenizerCodec(**config, latents_mean=None, latents_std=None)
    wanted = {name: tuple(tensor.shape) for name, tensor in outline.state_dict().items()}
    there = {name: one.shape for name, one in renamed.items()}
    for problem, wrong in (
        ("lacks", sorted(wanted.keys() - there.keys())),
        ("also holds", sorted(there.keys() - wanted.keys())),
        ("has another shape of", sorted(name for name in wanted if there.get(name) != wanted[name])),
    ):
        if wrong:
            raise MagiError(f"{checkpoint} {problem} {len(wrong)} tensors of an OmniTokenizer VAE, first {wrong[0]}")
    with torch.random.fork_rng(devices=[]):
        codec = OmniTokenizerCodec(**config)
    codec.load_state_dict({name: archive.read(one).float() for name, one in renamed.items()})
    return codec.eval()


def _our_name(name: str) -> str:
    for pattern, replacement in RULES:
        name = pattern.sub(replacement, name)
    return name


def _config(tensors: dict[str, StoredTensor]) -> dict[str, Any]:
    """The network's sizes, from the shapes of its tensors under their published names."""

    def blocks(transformer: str) -> str:
        kinds = ""
        while f"{transformer}.layers.{len(kinds)}.3.1.weight" in tensors:
            windows = f"{transformer}.layers.{len(kinds)}.1.qkv.weight" in tensors
            kinds += "w" if windows else "t"
        return kinds

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise KeyError(f"no tensor {name}")
        return tensors[name].shape

    first, width = shape("decoder.to_pixels_first_frame.0.weight")
    rest, _ = shape("decoder.to_pixels.0.weight")
    moments, _ = shape("pre_vq_conv.1.weight")
    _, channels = shape("post_vq_conv.1.weight")
    if moments != 2 * channels:
        raise ValueError(f"{moments} channels before and {channels} after the bottleneck: a VQ tokenizer")
    spatial, temporal = "encoder.enc_spatial_transformer", "encoder.enc_temporal_transformer"
    (head_dim,) = shape(f"{temporal}.layers.0.1.q_scale")
    inner = shape(f"{temporal}.layers.0.3.4.weight")[1]
    encoder_blocks = blocks(spatial)
    tables = [shape(name)[0] for name in tensors if name.endswith("relative_position_bias_table")]
    return {
        "patch_size": math.isqrt(first // 3),
        "temporal_patch_size": rest // first,
        "width": width,
        "latent_channels": channels,
        "encoder_blocks": encoder_blocks,
        "decoder_blocks": blocks("decoder.dec_spatial_transformer"),
        "temporal_depth": len(blocks(temporal)),
        "heads": shape(f"{temporal}.layers.0.1.to_q.weight")[0] // head_dim,
        "head_dim": head_dim,
        "window": (math.isqrt(tables[0]) + 1) // 2 if tables else 8,
        "mlp_ratio": 4.0 if int(4.0 * 2 / 3 * width) == inner else (inner + 0.5) * 1.5 / width,
        "time_layout": "published",
    }


def _settings(value: Any) -> dict[str, Any]:
    """The training's settings, where a checkpoint has them: a namespace, or a dictionary (that holds one)."""
    if isinstance(value, StandIn):
        return value.attributes
    if isinstance(value, dict):
        return _settings(value["args"]) if "args" in value else {str(name): one for name, one in value.items()}
    return {}
