"""A rollout over an exported model: the whole of generation without magi_video, a page to write in another language.

magi export doom --out exported                      # .pt2; --form onnx for onnxruntime
python examples/exported_rollout.py exported first.png --frames 32 --actions MOVE_FORWARD --out frames
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Programs:
    """The programs of a folder, `.pt2` or `.onnx`, as functions of tensors."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "export.json").read_text())
        self.onnx = (folder / "frame.onnx").exists()
        self.loaded: dict[str, Any] = {}
        head = ("logits", "look_up") if self.facts["head"] == "categorical" else ("denoise",)
        for name in ("frame", *head, "encode", "decode"):
            if self.onnx:
                import onnxruntime

                self.loaded[name] = onnxruntime.InferenceSession(folder / f"{name}.onnx")
            else:
                self.loaded[name] = torch.export.load(folder / f"{name}.pt2").module()

    def __call__(self, name: str, *inputs: Any) -> Any:
        """What a program gives: a tensor, or a tuple of them."""
        if not self.onnx:
            return self.loaded[name](*inputs)
        flat: list[Tensor] = []
        for value in inputs:
            flat += [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]
        names = [one.name for one in self.loaded[name].get_inputs()]
        feed = {key: value.numpy() for key, value in zip(names, flat, strict=True)}
        outputs = tuple(torch.from_numpy(one) for one in self.loaded[name].run(None, feed))
        return outputs if len(outputs) > 1 else outputs[0]


class Wishes:
    """What a video is to show, and classifier-free guidance towards it.

    Args:
        told: by name: "action" `[A]` (held from the second frame on), "label" (a number), "text" `[tokens, size]`.
        guide: names of the conditions that guidance acts on.
        scale: of guidance; 1 is none, any other makes a second row of everything: one that is not told what is guided.
        linear: whether the scale grows from 1 as the tokens of a frame appear.
    """

    def __init__(
        self, told: dict[str, Tensor], guide: Iterable[str] = ("label", "text"), scale: float = 1.0, linear: bool = True
    ) -> None:
        self.told, self.guide, self.scale, self.linear = told, set(guide), scale, linear
        self.rows = 1 if scale == 1 else 2
        if self.rows == 2 and not self.guide & set(told):
            raise SystemExit("guidance needs what it is to act on")

    def conditions(self, facts: dict[str, Any], first: bool) -> dict[str, Tensor]:
        """What a frame is told, by row: what is wished for, noise level 0, and unknown for the rest."""
        values = {}
        for name, spec in facts["conditions"].items():
            if spec["kind"] == "index":
                unknown = torch.full((1, 1), 0 if name == "noise_level" else -1)
            else:
                shape = (1, 1, spec["size"]) if spec["kind"] == "vector" else (1, 1, spec["tokens"], spec["size"])
                unknown = torch.full(shape, torch.nan)
            known = unknown
            if name in self.told and not (first and name == "action"):  # nothing led to the first frame
                known = self.told[name].reshape(unknown.shape).to(unknown.dtype)
            values[name] = torch.cat([known, unknown if name in self.guide else known][: self.rows])
        return values

    def scale_at(self, share: float) -> float:
        """The scale at a step after which so much of a frame is there."""
        return 1 + (self.scale - 1) * (share if self.linear else 1)


def rollout(
    programs: Programs,
    first_1CHW: Tensor | None,
    num_frames: int,
    generator: torch.Generator,
    interval: int = 1,
    wishes: Wishes | None = None,
) -> Tensor:
    """One video `[num_frames, 3, H, W]` in [0, 1] that begins with a picture, or with one of the model's own."""
    facts, wishes = programs.facts, wishes or Wishes({})
    total = latent_frames(facts, num_frames)
    positions = frame_positions(facts, total)
    blocks, places, heads, slots, size = facts["past"]
    keys, values = (torch.zeros(blocks, wishes.rows, places, heads, slots, size) for _ in range(2))
    visible = torch.zeros(slots, dtype=torch.bool)
    made = []
    for index in range(total):
        told = wishes.conditions(facts, first=index == 0)
        place = (positions[index : index + 1], torch.full((wishes.rows,), interval), told)
        if index == 0 and first_1CHW is not None:
            tokens_1ND = programs("encode", first_1CHW)
        else:
            temperature = temperature_at(facts, index - (first_1CHW is not None))
            tokens_1ND = predict(programs, place, (keys, values, visible), generator, wishes, temperature)
        made.append(tokens_1ND)
        tokens_RND = tokens_1ND.repeat(wishes.rows, 1, 1)
        nothing = torch.zeros(tokens_RND.shape[:2], dtype=torch.bool)
        finished = torch.tensor([facts["kinds"]["finished"]])
        _, new_keys, new_values = programs("frame", tokens_RND, nothing, finished, *place, keys, values, visible)
        slot = index % slots  # the oldest frame makes room
        keys[..., slot, :], values[..., slot, :], visible[slot] = new_keys, new_values, True
    pieces = torch.stack(made, dim=1).split(facts["decoded_at_once"], dim=1)
    return torch.cat([programs("decode", piece_1LND)[0] for piece_1LND in pieces])[:num_frames]


def predict(
    programs: Programs,
    place: tuple[Tensor, Tensor, dict[str, Tensor]],
    past: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
    wishes: Wishes,
    temperature: float,
) -> Tensor:
    """The tokens of the next frame `[1, N, D]`: a few at a time, in a random order or the surest codes first."""
    facts = programs.facts
    num_tokens = facts["num_tokens"]
    tokens_RND = torch.zeros(wishes.rows, num_tokens, facts["token_dim"])
    hidden_RN = torch.ones(wishes.rows, num_tokens, dtype=torch.bool)
    masked = torch.tensor([facts["kinds"]["masked"]])
    surest = facts.get("order") == "confidence"
    left_m = torch.arange(num_tokens) if surest else torch.randperm(num_tokens, generator=generator)
    done = 0
    for step, count in enumerate(facts["unmasking"]):
        done += count
        scale = wishes.scale_at(done / num_tokens)
        z_RNW, _, _ = programs("frame", tokens_RND, hidden_RN, masked, *place, *past)
        if surest:
            codes_1m, confidence_m = draw_codes(programs, z_RNW[:, left_m], generator, scale, temperature)
            uniform_m = torch.rand(len(left_m), generator=generator).clamp(min=torch.finfo(torch.float32).tiny)
            share = 1 - (step + 1) / len(facts["unmasking"])
            confidence_m = confidence_m - facts["choice_temperature"] * share * (-uniform_m.log()).log()
            best_m = confidence_m.argsort(descending=True, stable=True)
            at, left_m = left_m[best_m[:count]], left_m[best_m[count:].sort().values]
            tokens_RND[:, at] = programs("look_up", codes_1m[:, best_m[:count]])
        else:
            at, left_m = left_m[:count], left_m[count:]
            tokens_RND[:, at] = draw_tokens(programs, z_RNW[:, at], generator, scale, temperature)
        hidden_RN[:, at] = False
    return tokens_RND[:1]


def temperature_at(facts: dict[str, Any], number: int) -> float:
    """Of a generated frame, 0 the first."""
    first, last = facts["temperature"], facts["last_temperature"]
    return first if last is None else last + (first - last) * 10.0**-number


def draw_tokens(
    programs: Programs, z_RnW: Tensor, generator: torch.Generator, scale: float, temperature: float
) -> Tensor:
    """Tokens `[1, n, D]`, by whatever head the model has."""
    if programs.facts["head"] != "categorical":
        return denoise(programs, z_RnW, generator, scale, temperature)
    return programs("look_up", draw_codes(programs, z_RnW, generator, scale, temperature)[0])


def draw_codes(
    programs: Programs, z_RnW: Tensor, generator: torch.Generator, scale: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """Codes `[1, n]`, and their log-probabilities `[n]` at temperature 1; guidance acts on the logits."""
    facts, logits_RnV = programs.facts, programs("logits", z_RnW)
    logits_nV = logits_RnV[0] if len(logits_RnV) == 1 else torch.lerp(logits_RnV[1], logits_RnV[0], scale)
    if temperature == 0:
        codes_n = logits_nV.argmax(-1)
    else:
        kept_nV = logits_nV / temperature
        if facts["top_k"] is not None and facts["top_k"] < kept_nV.shape[-1]:
            least_n1 = kept_nV.topk(facts["top_k"], dim=-1).values[:, -1:]
            kept_nV = kept_nV.masked_fill(kept_nV < least_n1, -torch.inf)
        if facts["top_p"] < 1:  # a code stays if those that are more likely have less than top_p together
            sorted_nV, order_nV = kept_nV.sort(dim=-1, descending=True)
            probability_nV = sorted_nV.softmax(-1)
            beyond_nV = probability_nV.cumsum(-1) - probability_nV >= facts["top_p"]
            beyond_nV[:, 0] = False
            kept_nV = kept_nV.masked_fill(beyond_nV.scatter(-1, order_nV, beyond_nV), -torch.inf)
        total_nV = kept_nV.softmax(-1).cumsum(-1)
        uniform_n1 = torch.rand(len(logits_nV), generator=generator)[:, None]
        codes_n = torch.searchsorted(total_nV, uniform_n1 * total_nV[:, -1:], right=True)[:, 0]
        codes_n = codes_n.clamp(max=total_nV.shape[-1] - 1)
    return codes_n[None], logits_nV.log_softmax(-1).gather(-1, codes_n[:, None])[:, 0]


def denoise(programs: Programs, z_RnW: Tensor, generator: torch.Generator, scale: float, temperature: float) -> Tensor:
    """Tokens `[1, n, D]` from pure noise: ancestral steps of an ε head, Euler steps of a flow head, draws of x̂₀ of a
    distributional one."""
    facts = programs.facts
    times, shape = [torch.tensor(float(time)) for time in facts["times"]], (z_RnW.shape[1], facts["token_dim"])
    if facts["head"] == "flow":
        x = torch.randn(shape, generator=generator)[None] * temperature
        for time in times:
            x = x - evaluate(programs, x, time, z_RnW, scale) / len(times)
        return x
    if facts["head"] == "distributional":
        noise = torch.randn((2 * len(times), *shape), generator=generator)[:, None] * temperature
        x, *draws = noise.unbind(0)
        for i, (time, row) in enumerate(zip(times, facts["distributional"], strict=True)):
            signal, sigma, from_x0, from_x, std = row
            x0 = signal * x - sigma * evaluate(programs, torch.cat([x, draws[i]], dim=-1), time, z_RnW, scale)
            x = from_x0 * x0 + from_x * x + (std * draws[len(times) + i] if std else 0)
        return x
    x, *draws = torch.randn((len(times), *shape), generator=generator)[:, None].unbind(0)
    for time, (from_x, from_eps, low, high), draw in zip(times, facts["ancestral"], [*draws, None], strict=True):
        eps, fraction = evaluate(programs, x, time, z_RnW, scale).chunk(2, dim=-1)
        x = from_x * x - from_eps * eps
        if draw is not None:
            log_variance = (low + high) / 2 + (high - low) / 2 * fraction
            x = x + torch.exp(log_variance / 2) * draw * temperature
    return x


def evaluate(programs: Programs, x_1nD: Tensor, time: Tensor, z_RnW: Tensor, scale: float) -> Tensor:
    """The head's output; of two rows free + scale · (given − free), variances as given."""
    out = programs("denoise", x_1nD.repeat(len(z_RnW), 1, 1), time, z_RnW)
    if len(out) == 1:
        return out
    size = x_1nD.shape[-1]
    given, free = out.chunk(2)
    return torch.cat([torch.lerp(free[..., :size], given[..., :size], scale), given[..., size:]], dim=-1)


def latent_frames(facts: dict[str, Any], num_frames: int) -> int:
    """Latent frames to make: those that hold so many frames, or the whole video that a decoder takes at once."""
    factor, at_once = facts["temporal_factor"], facts["decoded_at_once"]
    needed = 1 + -(-(num_frames - 1) // factor)
    slots, bounded = facts["past"][3], facts["temporal_position"] != "rope"
    most = at_once if factor > 1 else slots + 1
    if needed > most and (bounded or factor > 1):
        longest = 1 + (most - 1) * factor
        raise SystemExit(f"exported for {longest} frames; magi export --frames {num_frames} for more")
    return at_once if factor > 1 else needed


def frame_positions(facts: dict[str, Any], total: int) -> Tensor:
    """Temporal positions; those of a long rollout are interpolated where the model's are not relative."""
    if facts["temporal_position"] == "rope" or total <= facts["trained_frames"]:
        return torch.arange(total, dtype=torch.float32)
    return torch.linspace(0, facts["trained_frames"] - 1, total)


def read_picture(file: Path, facts: dict[str, Any]) -> Tensor:
    """A picture as pixels `[1, 3, H, W]` in [0, 1]."""
    picture = Image.open(file).convert("RGB").resize((facts["width"], facts["height"]))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the exported model")
    parser.add_argument("first_frame", type=Path, nargs="?", help="a picture; the model's own if not given")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--actions", nargs="*", help="names of the actions held throughout; unknown if not given")
    parser.add_argument("--label", type=int, help="class of the video")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1: none")
    parser.add_argument("--constant-guidance", action="store_true", help="it does not grow from 1 to its scale")
    parser.add_argument("--guide", nargs="*", default=["label"], help='what guidance acts on: "label", "action"')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the frames")
    arguments = parser.parse_args()
    programs = Programs(arguments.folder)
    facts, told = programs.facts, {}
    if arguments.actions is not None:
        if unknown := set(arguments.actions) - set(facts["action_names"]):
            raise SystemExit(f"no action {min(unknown)}: this model has {', '.join(facts['action_names']) or 'none'}")
        told["action"] = torch.tensor([float(name in arguments.actions) for name in facts["action_names"]])
    if arguments.label is not None:
        if not 0 <= arguments.label < len(facts["class_names"]):
            raise SystemExit(f"no label {arguments.label}: this model has {len(facts['class_names'])}")
        told["label"] = torch.tensor(arguments.label)
    wishes = Wishes(told, arguments.guide, arguments.guidance_scale, not arguments.constant_guidance)
    first = None if arguments.first_frame is None else read_picture(arguments.first_frame, facts)
    generator = torch.Generator().manual_seed(arguments.seed)
    frames = rollout(programs, first, arguments.frames, generator, wishes=wishes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for index, frame_CHW in enumerate(frames):
        array = (frame_CHW * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(arguments.out / f"frame_{index:04d}.png")


if __name__ == "__main__":
    with torch.no_grad():
        main()
