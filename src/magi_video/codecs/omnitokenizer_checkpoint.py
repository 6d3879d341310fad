"""Published OmniTokenizer checkpoints as a codec folder: convert once, then `load_codec`.

A checkpoint is a PyTorch Lightning file: a zip archive of a pickle and of raw tensors. The pickle is read by an
unpickler that makes plain containers and notes about tensors and nothing else; whatever else it asks for becomes an
empty stand-in. Of the tensors only those of the VAE are read.
"""

import io
import math
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.errors import MagiError
from magi_video.files.weights import load_strictly
from magi_video.models.configured import outlined

MAX_PICKLE_BYTES = 100_000_000
DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
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
            return _convert(_Archive(archive), checkpoint)
    except FileNotFoundError:
        raise MagiError(f"{checkpoint}: no such file") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise MagiError(f"{checkpoint}: not a PyTorch checkpoint ({error})") from None


def _convert(archive: "_Archive", checkpoint: Path) -> OmniTokenizerCodec:
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
    for problem, amiss in (
        ("lacks", sorted(wanted.keys() - there.keys())),
        ("also holds", sorted(there.keys() - wanted.keys())),
        ("has another shape of", sorted(name for name in wanted if there.get(name) != wanted[name])),
    ):
        if amiss:
            raise MagiError(f"{checkpoint} {problem} {len(amiss)} tensors of an OmniTokenizer VAE, first {amiss[0]}")
    with torch.random.fork_rng(devices=[]):
        codec = OmniTokenizerCodec(**config)
    codec.load_state_dict({name: archive.read(one).float() for name, one in renamed.items()})
    return codec.eval()


def _our_name(name: str) -> str:
    for pattern, replacement in RULES:
        name = pattern.sub(replacement, name)
    return name


def _config(tensors: "dict[str, StoredTensor]") -> dict[str, Any]:
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
    if isinstance(value, _StandIn):
        return value.attributes
    if isinstance(value, dict):
        return _settings(value["args"]) if "args" in value else {str(name): one for name, one in value.items()}
    return {}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the archive."""

    key: str
    dtype: torch.dtype
    stored: int
    """Numbers in its storage."""
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    stored: int


class _Archive:
    """The zip archive of a checkpoint."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("no data.pkl in it")
        self.pickle, self.folder = pickles[0], pickles[0].removesuffix("data.pkl") + "data/"

    def content(self) -> Any:
        """What the pickle describes, tensors as `StoredTensor`."""
        if self.archive.getinfo(self.pickle).file_size > MAX_PICKLE_BYTES:
            raise zipfile.BadZipFile(f"its data.pkl is larger than {MAX_PICKLE_BYTES} bytes")
        try:
            return _Reader(io.BytesIO(self.archive.read(self.pickle))).load()
        except Exception as error:  # a pickle that is not one fails in many ways
            raise zipfile.BadZipFile(f"a pickle that is not read: {error}") from None

    def read(self, tensor: StoredTensor) -> Tensor:
        """A tensor's numbers."""
        num_bytes = tensor.stored * tensor.dtype.itemsize
        last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
        # Tensors that overlap themselves would be larger in memory than in the file.
        if min((tensor.offset, last, *tensor.stride)) < 0 or max(last + 1, math.prod(tensor.shape)) > tensor.stored:
            raise zipfile.BadZipFile("a tensor beyond its storage")
        try:
            info = self.archive.getinfo(self.folder + tensor.key)
        except KeyError:
            raise zipfile.BadZipFile(f"no storage {tensor.key}") from None
        if info.file_size != num_bytes or info.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"storage {tensor.key}: {info.file_size} bytes; expected {num_bytes}, stored")
        numbers = torch.frombuffer(bytearray(self.archive.read(info)), dtype=tensor.dtype)
        return numbers.as_strided(tensor.shape, tensor.stride, tensor.offset)


class _StandIn(dict[Any, Any]):
    """Stands for an object of any class: its constructor and its state are ignored."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = {str(name): one for name, one in state.items()}

    def __call__(self, *_: Any, **__: Any) -> "_StandIn":
        return self

    def append(self, _: Any) -> None:
        """Nothing."""

    def extend(self, _: Any) -> None:
        """Nothing."""


class _Reader(pickle.Unpickler):
    """Containers, numbers, strings, notes about tensors; stand-ins for the rest."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        return type("_Unknown", (_StandIn,), {})

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError("a storage of unknown numbers")
        return _Storage(str(key), dtype, count)


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> StoredTensor:
    shape, steps = tuple(map(int, size)), tuple(map(int, stride))
    if len(shape) != len(steps) or len(shape) > 8:
        raise pickle.UnpicklingError("a tensor of unlike sizes and strides")
    return StoredTensor(storage.key, storage.dtype, storage.stored, int(offset), shape, steps)
