"""A rollout over an exported model: the whole of generation without magi_video, a page to write in another language.

magi export doom --out exported                      # .pt2; --form onnx for onnxruntime
python examples/exported_rollout.py exported first.png --frames 32 --actions MOVE_FORWARD --out frames
"""

import argparse
import json
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
        for name in ("frame", "denoise", "encode", "decode"):
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


def rollout(
    programs: Programs,
    first_1CHW: Tensor,
    num_frames: int,
    generator: torch.Generator,
    interval: int = 1,
    action_A: Tensor | None = None,
) -> Tensor:
    """One video `[num_frames, 3, H, W]` in [0, 1] that begins with a picture; the action is held throughout."""
    facts = programs.facts
    blocks, places, heads, slots, size = facts["past"]
    keys, values = (torch.zeros(blocks, 1, places, heads, slots, size) for _ in range(2))
    visible = torch.zeros(slots, dtype=torch.bool)
    positions = frame_positions(facts, num_frames)
    tokens_1ND = programs("encode", first_1CHW)
    frames = []
    for index in range(num_frames):
        told = frame_conditions(facts, action_A if index else None)
        place = (positions[index : index + 1], torch.tensor([interval]), told)
        if index:
            tokens_1ND = predict(programs, place, (keys, values, visible), generator)
        frames.append(programs("decode", tokens_1ND)[0])
        nothing = torch.zeros(tokens_1ND.shape[:2], dtype=torch.bool)
        finished = torch.tensor([facts["kinds"]["finished"]])
        _, new_keys, new_values = programs("frame", tokens_1ND, nothing, finished, *place, keys, values, visible)
        slot = index % slots  # the oldest frame makes room
        keys[..., slot, :], values[..., slot, :], visible[slot] = new_keys, new_values, True
    return torch.stack(frames)


def predict(
    programs: Programs,
    place: tuple[Tensor, Tensor, dict[str, Tensor]],
    past: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """The tokens of the next frame `[1, N, D]`: in a random order, a few at a time."""
    facts = programs.facts
    tokens_1ND = torch.zeros(1, facts["num_tokens"], facts["token_dim"])
    hidden_1N = torch.ones(1, facts["num_tokens"], dtype=torch.bool)
    masked = torch.tensor([facts["kinds"]["masked"]])
    order_N = torch.randperm(facts["num_tokens"], generator=generator)
    done = 0
    for count in facts["unmasking"]:
        at = order_N[done : done + count]
        z_1NW, _, _ = programs("frame", tokens_1ND, hidden_1N, masked, *place, *past)
        tokens_1ND[:, at] = denoise(programs, z_1NW[:, at], generator)
        hidden_1N[:, at] = False
        done += count
    return tokens_1ND


def denoise(programs: Programs, z_1nW: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens from pure noise: ancestral steps of an ε head, Euler steps of a flow head."""
    facts = programs.facts
    times, shape = [torch.tensor(float(time)) for time in facts["times"]], (z_1nW.shape[1], facts["token_dim"])
    if facts["head"] == "flow":
        x = torch.randn(shape, generator=generator)[None]
        for time in times:
            x = x - programs("denoise", x, time, z_1nW) / len(times)
        return x
    x, *draws = torch.randn((len(times), *shape), generator=generator)[:, None].unbind(0)
    for time, (from_x, from_eps, low, high), draw in zip(times, facts["ancestral"], [*draws, None], strict=True):
        eps, fraction = programs("denoise", x, time, z_1nW).chunk(2, dim=-1)
        x = from_x * x - from_eps * eps
        if draw is not None:
            log_variance = (low + high) / 2 + (high - low) / 2 * fraction
            x = x + torch.exp(log_variance / 2) * draw
    return x


def frame_positions(facts: dict[str, Any], num_frames: int) -> Tensor:
    """Temporal positions; those of a long rollout are interpolated where the model's are not relative."""
    if facts["temporal_position"] == "rope" or num_frames <= facts["trained_frames"]:
        return torch.arange(num_frames, dtype=torch.float32)
    if num_frames > facts["past"][3] + 1:
        raise SystemExit(f"exported for {facts['past'][3] + 1} frames; magi export --slots {num_frames - 1} for more")
    return torch.linspace(0, facts["trained_frames"] - 1, num_frames)


def frame_conditions(facts: dict[str, Any], action_A: Tensor | None) -> dict[str, Tensor]:
    """What a frame is told: its action, noise level 0, and unknown for the rest."""
    told = {}
    for name, spec in facts["conditions"].items():
        if spec["kind"] == "index":
            told[name] = torch.full((1, 1), 0 if name == "noise_level" else -1)
        else:
            shape = (1, 1, spec["size"]) if spec["kind"] == "vector" else (1, 1, spec["tokens"], spec["size"])
            told[name] = torch.full(shape, torch.nan)
    if action_A is not None and "action" in told:
        told["action"] = action_A.reshape(1, 1, -1)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the exported model")
    parser.add_argument("first_frame", type=Path, help="a picture")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--actions", nargs="*", help="names of the actions held throughout; unknown if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the frames")
    arguments = parser.parse_args()
    programs = Programs(arguments.folder)
    picture = (
        Image.open(arguments.first_frame).convert("RGB").resize((programs.facts["width"], programs.facts["height"]))
    )
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    action = None
    if arguments.actions is not None:
        action = torch.tensor([float(name in arguments.actions) for name in programs.facts["action_names"]])
    generator = torch.Generator().manual_seed(arguments.seed)
    frames = rollout(programs, pixels, arguments.frames, generator, action_A=action)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for index, frame_CHW in enumerate(frames):
        array = (frame_CHW * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(arguments.out / f"frame_{index:04d}.png")


if __name__ == "__main__":
    with torch.no_grad():
        main()
