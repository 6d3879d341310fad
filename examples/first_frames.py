"""Takes pictures of games for a model to begin from: the files of `first_frames/` in its folder.

python examples/first_frames.py src/magi_video/weights/doom --side 64
"""

import argparse
from pathlib import Path

from magi_video.data import fit_frames, write_image
from magi_video.data.explorer import Explorer
from magi_video.data.games import open_game

FRAME_SKIP = 2
PLACES = {  # name of the picture: game, seed of the episode, number of the frame
    "courtyard": ("vizdoom/deathmatch", 101, 240),
    "supplies": ("vizdoom/deathmatch", 102, 200),
    "blue_doors": ("vizdoom/my_way_home", 103, 320),
    "engine_room": ("vizdoom/my_way_home", 102, 240),
    "grey_hall": ("vizdoom/my_way_home", 101, 280),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--side", type=int, default=64, help="of its frames, in pixels")
    arguments = parser.parse_args()
    for name, (title, seed, number) in PLACES.items():
        game = open_game(title, FRAME_SKIP)
        explorer = Explorer(game.actions, [seed, 1], FRAME_SKIP)
        frame = game.reset(seed)
        for _ in range(number):
            fitted = fit_frames(frame[None], arguments.side, arguments.side)[0]
            frame = game.step(explorer.act(fitted, game.room()))
            assert frame is not None, f"{name}: the episode is shorter than {number} frames"
        game.close()
        fitted = fit_frames(frame[None], arguments.side, arguments.side)[0]
        write_image(arguments.model / "first_frames" / f"{name}.png", fitted)


if __name__ == "__main__":
    main()
