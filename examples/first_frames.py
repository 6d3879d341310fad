"""Takes pictures of its game for a shipped model to begin from: the files of `first_frames/` in its folder.

python examples/first_frames.py coinrun

The same pictures come of the same player alone (`Explorer.identity`). Doom's were taken while version 1 of the walker
played, which is gone: nothing of today's version would be at these places, and the pictures stay as they are.
"""

import argparse

from magi_video.errors import MagiError
from magi_video.files.json import read_json
from magi_video.files.weights import SHIPPED
from magi_video.recordings.environments import open_game
from magi_video.recordings.walker import player
from magi_video.video.image import fit_frames, write_image

PLACES = {  # model: player, steps of the game for a frame; name of a picture: game, seed of the episode, frame's number
    "doom": (
        "walker 1",
        2,
        {
            "courtyard": ("vizdoom/deathmatch", 101, 240),
            "supplies": ("vizdoom/deathmatch", 102, 200),
            "blue_doors": ("vizdoom/my_way_home", 103, 320),
            "engine_room": ("vizdoom/my_way_home", 102, 240),
            "grey_hall": ("vizdoom/my_way_home", 101, 280),
        },
    ),
    "coinrun": (
        "explorer 1",
        1,
        {
            "start": ("procgen/coinrun", 906, 0),
            "crates": ("procgen/coinrun", 904, 110),
            "tower": ("procgen/coinrun", 917, 90),
            "hill": ("procgen/coinrun", 909, 90),
            "cave": ("procgen/coinrun", 908, 90),
            "lava": ("procgen/coinrun", 922, 110),
        },
    ),
    "atari": (
        "explorer 1",
        4,
        {
            "face_to_face": ("ALE/Boxing-v5", 102, 700),
            "the_other_corner": ("ALE/Boxing-v5", 103, 150),
            "one_minute_left": ("ALE/Boxing-v5", 102, 900),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=PLACES, help="name of the shipped model")
    folder = SHIPPED / parser.parse_args().model
    config = read_json(folder / "model_index.json")
    taken_by, frame_skip, places = PLACES[folder.name]
    for name, (title, seed, number) in places.items():
        game = open_game(title, frame_skip)
        explorer = player(game.actions, [seed, 1], frame_skip)
        if not explorer.identity.startswith(taken_by):
            raise MagiError(f"{name}: {explorer.identity} would take another picture than {taken_by} did")
        frame = game.reset(seed)
        for _ in range(number):
            fitted = fit_frames(frame[None], config["height"], config["width"])[0]
            following = game.step(explorer.act(fitted, game.around()))
            assert following is not None, f"{name}: the episode is shorter than {number} frames"
            frame = following
        game.close()
        fitted = fit_frames(frame[None], config["height"], config["width"])[0]
        write_image(folder / "first_frames" / f"{name}.png", fitted)


if __name__ == "__main__":
    main()
