"""Puts a trained run into the package as a shipped model: half-precision weights and a first frame to begin from.

python examples/ship_model.py runs/doom doom --video recordings/test/episode_00001.mp4 --frame 60
"""

import argparse
from pathlib import Path

import torch

from magi_video import MagiVideoPipeline
from magi_video.codecs.registry import load_codec
from magi_video.files.weights import SHIPPED
from magi_video.hub.card import model_card
from magi_video.hub.push import CARD
from magi_video.pipeline.description import describe_model
from magi_video.video.image import fit_frames, write_image
from magi_video.video.video import read_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("name", help="name of the shipped model")
    parser.add_argument("--video", type=Path, required=True, help="video that the first frame is taken from")
    parser.add_argument("--frame", type=int, default=0, help="its number in the video")
    arguments = parser.parse_args()

    pipe = MagiVideoPipeline.from_pretrained(arguments.run)
    folder = SHIPPED / arguments.name
    pipe.save_pretrained(folder, torch_dtype=torch.float16)
    frame = fit_frames(read_frames(arguments.video, [arguments.frame]), pipe.config.height, pipe.config.width)[0]
    write_image(folder / "first_frame.png", frame)
    card = model_card(describe_model(folder), load_codec(folder / "codec"), arguments.name, license_id="apache-2.0")
    (folder / CARD).write_text(str(card), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB ({size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
