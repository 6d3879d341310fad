"""Two hundred things and more that cannot be, typed into every verb: one line says what was wrong, and it ends."""

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from magi_video.cli import VERBS, main
from magi_video.video.image import write_image
from magi_video.video.video import write_video
from tests.training.conftest import moving_square

MISTAKES = """
record magi/BouncingBalls-v0 --out out --episodes 0
record magi/BouncingBalls-v0 --out out --max-frames -1
record magi/BouncingBalls-v0 --out out --height 0
record magi/BouncingBalls-v0 --out out --width 1000000000
record magi/BouncingBalls-v0 --out out --frame-skip 0
record magi/BouncingBalls-v0 --out out --seed -1
record magi/BouncingBalls-v0 --out text.txt
record magi/BouncingBalls-v0 --out text.txt/deeper
record "no such game" --out out
record ALE/Nothing-v5 --out out
record ../../etc/passwd --out out
import lerobot empty --out out
import lerobot text.txt --out out
import minari nowhere --out out
import minari videos --out out
train tiny --data nowhere --out out
train tiny --data empty --out out
train tiny --data text.txt --out out
train tiny --data broken --out out
train tiny --data videos --out text.txt
train tiny --data videos --out text.txt/deeper
train tiny --out out
train tiny --latents empty --out out
train tiny --latents videos --out out
train nonsense --data videos --out out
train empty --data videos --out out
train text.txt --data videos --out out
train list.json --data videos --out out
train twice.json --data videos --out out
train deep.json --data videos --out out
train tiny --data videos --out out --batch-size 0
train tiny --data videos --out out --batch-size 1000000000000
train tiny --data videos --out out --learning-rate nan
train tiny --data videos --out out --learning-rate -1
train tiny --data videos --out out --patch-size 5
train tiny --data videos --out out --patch-size 0
train tiny --data videos --out out --heads 7
train tiny --data videos --out out --depth -2
train tiny --data videos --out out --hidden 1000000000
train tiny --data videos --out out --workers 1000000
train tiny --data videos --out out --min-interval 5 --max-interval 2
train tiny --data videos --out out --max-interval 26
train tiny --data videos --out out --num-frames 0
train tiny --data videos --out out --num-frames 10000
train small --data videos --out out --min-interval 5 --max-interval 5
train tiny --data videos --out out --mask-ratio-min 0
train tiny --data videos --out out --ema-decay 2
train tiny --data videos --out out --seed -3
train tiny --data videos --out out --labels
train tiny --data videos --out out --actions
train tiny --data videos --out out --text --text-encoder empty
train tiny --data videos --out out --dataset ucf101
train tiny --data videos --out out --codec image_vae --vae nowhere/at-all/ever
train tiny --data videos --out out --codec omnitokenizer --vae empty
train tiny --data videos --out out --codec small_vae --height 17
train tiny --data videos --out out --batch-size 4 --accumulate 3
encode doom --data empty --out out
encode tiny --data nowhere --out out
encode tiny --data videos --out out --shard-size 0
encode tiny --data videos --out out --intervals 1 2
generate nowhere --out out
generate empty --out out
generate text.txt --out out
generate run --out text.txt
generate run --out out --frames 0
generate run --out out --frames -5
generate run --out out --num 0
generate run --out out --num 1000000000
generate run --out out --interval 0
generate run --out out --interval 26
generate run --out out --setting warp
generate run --out out --sampler euler
generate run --out out --mask-steps 0
generate run --out out --denoise-steps 0
generate run --out out --denoise-steps 1000000000
generate run --out out --temperature -1
generate run --out out --temperature nan
generate run --out out --guidance-scale nan
generate run --out out --guidance-scale 3
generate run --out out --refresh 0
generate run --out out --seed -1
generate run --out out --seed 999999999999999999999999
generate run --out out --device gpu9
generate run --out out --first-frame nowhere.png
generate run --out out --first-frame text.txt
generate run --out out --first-frame empty
generate run --out out --context broken/0.mp4
generate run --out out --context first.png
generate run --out out --context videos/0.mp4 --context-frames 1000
generate run --out out --context videos/0.mp4 --context-frames 0
generate run --out out --context-frames 3
generate run --out out --first-frame first.png --context videos/0.mp4
generate run --out out --actions FLY
generate run --out out --label cat
generate run --out out --text "a cat"
evaluate run --data empty --out out
evaluate run --data videos --out out --protocol nonsense
evaluate run --data videos --out out --num 1
evaluate run --data videos --out out --frames 3
evaluate run --data videos --out out --context-frames 99
evaluate run --data videos --out out --batch-size 0 --num 2
evaluate nowhere --data videos --out out
score nowhere videos --out out
score videos empty --out out
score floats floats --out out
score videos videos --out out --num 1
score arrays arrays --out out --protocol nonsense
bench nonsense
bench tiny --setting warp
bench tiny --frames 0
serve nowhere
serve run --port 99999
serve run --port -1
plan tiny --devices 0
plan tiny --devices 1 --data empty
plan tiny --devices 1 --device-memory -1
info nowhere
info empty
info text.txt
info videos
export nowhere --out out
export run --out text.txt
export run --out out --frames 0
push nowhere me/model --dry-run --out out
push run "not a name" --dry-run --out out
weights fetch nonsense
weights convert-omnitokenizer text.txt --out out
compare run --data videos --out out
compare run run --data videos --out out
compare run tiny --data videos --out out
compare run tiny --data videos --train videos --out out
compare run tiny:nonsense --data videos --train empty --out out
compare a=run b=run --data nowhere --out out
reproduce table1 --out out --rows nonsense
reproduce nonsense --out out
reproduce ctf-vs-mtf --out text.txt --worlds balls
reproduce ctf-vs-mtf --out out --worlds ucf101
demo --frames 0
demo --num -1
record procgen/no-such-game --out out
record procgen/ --out out
record vizdoom/nothing --out out
record magi/BouncingBalls-v0 --out out --episodes many
record magi/BouncingBalls-v0
import lerobot empty --out out --episodes 0
import minari empty --out out --height -1
import lerobot nowhere --out text.txt
import rlds empty --out out
train --data videos --out out
train tiny --data videos --out out --forcing nonsense
train tiny --data videos --out out --forcing window
train tiny --data videos --out out --forcing window --forcing-options context 0
train tiny --data videos --out out --forcing joint --forcing-options unconditional 2
train tiny --data videos --out out --forcing diffusion --forcing-options schedule sideways
train tiny --data videos --out out --forcing-options context 3
train tiny --data videos --out out --head nonsense
train tiny --data videos --out out --head categorical
train tiny --data videos --out out --precision fp8
train tiny --data videos --out out --steps -1
train tiny --data videos --out out --accumulate 0
train tiny --data videos --out out --sharding sideways
train tiny --data videos --out out --tracker nonsense
train tiny --data videos --out out --guidance-schedule sideways
train tiny --data videos --out out --codec vq --head epsilon --vq.codes 1
train tiny --data videos --out out --codec small_vae --small-vae.steps -1
train tiny --data videos --out run --hidden 64
encode run --data empty --out out
encode tiny --data videos --out text.txt
encode tiny --data videos --out out --stride 0
encode tiny --data videos --out out --workers 0
encode tiny --data videos --out out --device tpu
generate run --out out --engine tensorrt
generate run --out out --engine onnx --compile
generate run --out out --engine onnx --precision bf16
generate run --out out --engine cudagraphs --device cpu
generate run --out out --engine cudagraphs --compile
generate run --out out --precision fp4
generate run --out out --threads 0
generate run --out out --threads 99999
generate run --out out --guidance-schedule sideways
generate run --out out --guide smell
generate run --out out --top-p 0
generate run --out out --top-p 2
generate run --out out --order sideways
generate run --out out --choice-temperature nan
generate run --out out --first-step 5000
generate run --out out --actions nowhere.actions.jsonl
generate run --out out --negative-text "a cat"
generate run --out out --context videos
generate ../.. --out out
evaluate run --data text.txt --out out
evaluate run --data videos --out text.txt --num 2 --context-frames 1
evaluate run --data videos --out out --num 2 --engine tensorrt
evaluate run --data videos --out out --num 2 --interval 99
evaluate run --data videos --out out --num 2 --num-real 1
evaluate run --data videos --out out --num 2 --threads 0
evaluate run --data videos --out out --num 2 --actions
evaluate run --data videos --out out --num 2 --labels
evaluate run --data videos --out out --num 2 --captions
evaluate run --data videos --out out --num 2 --device gpu9
score nope first.png --out out
score videos nope --out out
score text.txt arrays --out out
score arrays first.png --out out
score arrays videos --out out --paired
score videos arrays --out out --frames 3
score videos arrays --out out --context-frames 99
score videos arrays --out out --threads 0
bench run --parts nonsense
bench run --engine tensorrt
bench tiny --batch 0
bench tiny --device tpu
bench tiny --train-steps 0
bench tiny --precision fp8
serve run --host nowhere.invalid
serve run --engine tensorrt
serve run --max-share 2
serve run --max-share nan
serve run --threads 0
serve run --trust-proxy nonsense
serve run --precision fp8
plan tiny
plan nonsense --devices 1
plan tiny --devices 1 --hardware abacus
plan tiny --devices 1 --mfu 0
plan tiny --devices 3 --batch-size 4
plan tiny --devices 1 --peak-tflops nan
info first.png
info ../..
export run --out out --form exe
export run --out out --frames 100000
push run me/model --dry-run
push run me/model --out out
push run me/model --dry-run --out videos
push run me/model --dry-run --out out --metrics nowhere.json
weights fetch i3d --file nowhere
weights fetch i3d --file text.txt
weights list --out out
weights convert-omnitokenizer --out out
weights destroy
compare a=run a=run --data videos --out out
compare run b=nowhere --data videos --out out
compare run b=run --data text.txt --out out
compare run b=run --data videos --out out --num 1
compare run b=run --data videos --out out --engine tensorrt
compare run ../b=run --data videos --out out
compare run tiny:masked --data videos --train nowhere --out out
compare run tiny:masked --data videos --train empty --out out --budget money
reproduce table1 --out out --worlds mars
reproduce table1 --out out --rows raster:attention=sideways
reproduce table1 --out out --rows window:context=0
reproduce table1 --out out --worlds balls --budget money
reproduce table1 --out out --scale huge
reproduce ctf-vs-mtf --out out --worlds balls --seeds -1
reproduce report --out empty
reproduce report --out nowhere
distill nowhere --out out
distill run --out text.txt
distill run --out out --data nowhere
distill run --out out --data empty
distill run --out out --denoise-steps 0
distill run --out out --denoise-steps 1001
distill run --out out --steps 0
distill run --out out --batch-size 0
distill run --out out --device gpu9
distill run --out out --max-interval 99
distill run --out run
train run --data videos --out out
plan run --devices 1
encode empty --data videos --out out
train tiny --data videos --out out --exposure none --noise-levels 5
train tiny --data videos --out out --exposure none --noise-sigma 0.1
train tiny --data videos --out out --exposure-options size
train tiny --data videos --out out --exposure error-bank --exposure-options size 9999999999
train tiny --data videos --out out --exposure resampling
generate run --out out --past-noise 100 --past-level 1
generate run --out out --past-noise 0.3
generate run --out out --schedule sideways
compare =run b=run --data videos --out out
reproduce drift --out out --rows nosuch
reproduce drift --out out --worlds ucf101
reproduce kv-cache --out out --rows noise
reproduce ablation --out out --rows noise
bench run --out text.txt
bench run --plot empty
record magi/BouncingBalls-v0 --out first.png
import lerobot empty --out text.txt
demo chess
demo --interval 0
demo --seed -1
demo --speed warp
demo --engine tensorrt
demo --frames 1 --out text.txt
"""
COMMANDS = [line for line in MISTAKES.splitlines() if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name, a run of `tiny` among it."""
    root = tmp_path_factory.mktemp("bad")
    for folder in ("empty", "broken", "videos", "arrays", "floats"):
        (root / folder).mkdir()
    for number in range(3):
        write_video(root / "videos" / f"{number}.mp4", moving_square(20, number, 1), 10.0, crf=4)
    (root / "broken" / "0.mp4").write_bytes(b"not a video")
    (root / "text.txt").write_text("not a folder, a model, a picture or a recipe\n")
    (root / "list.json").write_text("[1, 2]")
    (root / "twice.json").write_text('{"forcing": "masked", "forcing": "complete"}')
    (root / "deep.json").write_text("[" * 100_000)
    write_image(root / "first.png", moving_square(1, 0, 1, size=16)[0])
    for number in range(2):
        np.save(root / "floats" / f"{number}.npy", np.zeros((16, 8, 8, 3), np.float32))
        np.save(root / "arrays" / f"{number}.npy", np.zeros((16, 8, 8, 3), np.uint8))
    options = ["--steps", "1", "--checkpoint-every", "1", "--sample-every", "0", "--hidden", "32", "--tracker", "none"]
    assert main(["train", "tiny", "--data", str(root / "videos"), "--out", str(root / "run"), *options]) == 0
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_one_line_says_what_was_wrong(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.rmtree(place / "out", ignore_errors=True)
    before = set(os.listdir(place))
    verb, *words = shlex.split(command)
    code = main([verb, *words])
    error = capsys.readouterr().err.strip()
    assert code in (1, 2) and error, f"accepted, code {code}: {error}"
    assert "Traceback" not in error and len(error) < 2000
    last = error.splitlines()[-1]
    assert last.startswith(f"magi {verb}: ") and len(last) < 500, error
    assert set(os.listdir(place)) - before <= {"out"}, "nothing is written elsewhere"
    out = place / "out"
    assert not out.exists() or os.listdir(out), "a folder is made only when something is written into it"


def test_every_verb_is_tried() -> None:
    assert {command.split()[0] for command in COMMANDS} == set(VERBS)
    assert len(set(COMMANDS)) == len(COMMANDS) >= 200
