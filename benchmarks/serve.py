"""Frames a second and key-to-picture latency of a running page, as its visitors get them.

magi serve doom --port 8000 &
python benchmarks/serve.py http://127.0.0.1:8000 --interval 1 --seconds 20 --players 1
python benchmarks/serve.py http://127.0.0.1:8000 --interval 2 --browser      # what the page itself shows, in Chromium
python benchmarks/serve.py http://127.0.0.1:8000 --beside vizdoom/deathmatch              # how long the model keeps up
python benchmarks/serve.py http://127.0.0.1:8000 --beside ALE/Boxing-v5 --browser         # with the real game beside it

A player here is a WebSocket client that speaks as the page does: it presses or lets go a key at random moments and
waits for the first frame that was made with it. Latency is counted to the arrival of that frame's JPEG; with --browser,
to its drawing.
"""

import argparse
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

WARM_UP_SECONDS = 3.0
COMPARED_EPISODES, COMPARED_FRAMES = 8, 26


def play(url: str, interval: int, speed: str, seconds: float, results: list[dict[str, list[float]]]) -> None:
    from websockets.sync.client import connect

    with connect(url.replace("http", "ws", 1) + "/api/play", compression=None) as line:
        hello = json.loads(line.recv())
        assert hello["type"] == "hello", hello
        line.send(json.dumps({"type": "start", "first": 0, "interval": interval, "speed": speed, "seed": 0}))
        random = np.random.default_rng(threading.get_ident())
        arrivals: list[float] = []
        latencies: list[float] = []
        made: list[float] = []
        sent: dict[int, float] = {}
        number, index, keys = 0, 0, 0
        began = time.perf_counter()
        press_at = began + WARM_UP_SECONDS
        while (now := time.perf_counter()) < began + WARM_UP_SECONDS + seconds:
            if now >= press_at:
                number += 1
                held = ["TURN_LEFT"] if number % 2 else ["MOVE_FORWARD"]
                line.send(json.dumps({"type": "keys", "held": held, "keys": number}))
                sent[number] = now
                press_at = now + random.uniform(0.15, 0.45)
            try:
                message = line.recv(timeout=max(0.0, press_at - now))
            except TimeoutError:
                continue
            if isinstance(message, bytes):
                now = time.perf_counter()
                line.send(json.dumps({"type": "shown", "index": index}))
                if now > began + WARM_UP_SECONDS:
                    arrivals.append(now)
                for one in [one for one in sent if one <= keys]:
                    latencies.append(now - sent.pop(one))
            else:
                told = json.loads(message)
                if told["type"] == "begun":
                    continue
                assert told["type"] == "frame", told
                index, keys = told["index"], told["keys"]
                made.append(told["ms"] / 1000)
        line.send(json.dumps({"type": "bye"}))
    results.append({"arrivals": arrivals, "latencies": latencies, "made": made})


def compare(url: str, interval: int, speed: str, game: str) -> None:
    """PSNR of the model's frames against the real game's, by their number, in the median over episodes."""
    from websockets.sync.client import connect

    curves = []
    for seed in range(COMPARED_EPISODES):
        shown: dict[str, list[np.ndarray]] = {"model": [], "game": []}
        with connect(url.replace("http", "ws", 1) + "/api/play", compression=None) as line:
            start = {"type": "start", "interval": interval, "speed": speed, "seed": 100 + seed, "beside": game}
            line.send(json.dumps(start))
            held = ["TURN_LEFT"] if seed % 2 else ["MOVE_FORWARD"]
            line.send(json.dumps({"type": "keys", "held": held, "keys": 1}))
            while min(map(len, shown.values())) < COMPARED_FRAMES:
                told = json.loads(line.recv())
                if told["type"] == "frame":
                    picture = Image.open(io.BytesIO(line.recv(decode=False)))
                    shown[told["source"]].append(np.asarray(picture, dtype=float) / 255)
            line.send(json.dumps({"type": "bye"}))
        model, real = (np.stack(shown[name][:COMPARED_FRAMES]) for name in ("model", "game"))
        curves.append(-10 * np.log10(np.square(model - real).mean(axis=(1, 2, 3))))
    for number, value in enumerate(np.median(curves, axis=0)):
        print(f"frame {number:2}: {value:.1f} dB")


def frame_rate(arrivals: list[float]) -> float:
    """Frames/s of frames that came at these times."""
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def cpu_seconds(process: int | None) -> dict[str, float]:
    """CPU time that each thread of a process has used."""
    seconds: dict[str, float] = {}
    for thread in Path(f"/proc/{process}/task").glob("[0-9]*") if process is not None else ():
        try:
            seconds[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it has ended
            continue
    return seconds


def show_page(url: str, interval: int, speed: str, seconds: float, game: str | None) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(url)
        page.wait_for_selector("#play:not([hidden])")
        page.select_option("#play-interval", str(interval))
        page.select_option("#play-speed", speed)
        if game is not None:
            page.check("#beside", force=True)
            if page.is_visible("#beside-which"):  # of several games
                page.select_option("#beside-which", game)
        page.click("#enter")
        page.wait_for_timeout(1000 * WARM_UP_SECONDS)
        rates = []
        for turn in range(int(seconds)):
            key = ["ArrowLeft", "ArrowUp"][turn % 2]
            page.keyboard.down(key)
            page.wait_for_timeout(500)
            page.keyboard.up(key)
            page.wait_for_timeout(500)
            rates.append(float(page.inner_text("#rate")))
        print(
            f"page: {np.median(rates):.1f} {page.inner_text('#rate-of')} frames/s, "
            f"key to picture {page.inner_text('#latency')} ms" + (f", beside {game}" if game is not None else "")
        )
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the running page")
    parser.add_argument("--interval", type=int, default=2, help="game tics a frame")
    parser.add_argument("--speed", default="realtime")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--players", type=int, default=1)
    parser.add_argument("--server", type=int, help="process id of magi serve: tells its CPU time a frame, by thread")
    parser.add_argument("--browser", action="store_true", help="read the figures that the page shows in Chromium")
    parser.add_argument(
        "--beside",
        help="a game that the page offers: how long the model keeps up with it; with --browser, that it runs beside",
    )
    arguments = parser.parse_args()
    url = arguments.url.rstrip("/")
    asked = (url, arguments.interval, arguments.speed, arguments.seconds)
    if arguments.browser:
        show_page(*asked, arguments.beside)
    elif arguments.beside:
        compare(url, arguments.interval, arguments.speed, arguments.beside)
    else:
        results: list[dict[str, list[float]]] = []
        threads = [threading.Thread(target=play, args=(*asked, results)) for _ in range(arguments.players)]
        for thread in threads:
            thread.start()
        time.sleep(WARM_UP_SECONDS)
        before, began = cpu_seconds(arguments.server), time.perf_counter()
        time.sleep(max(0.0, arguments.seconds - 0.5))  # while the threads of the players' worlds are there
        after, seconds = cpu_seconds(arguments.server), time.perf_counter() - began
        for thread in threads:
            thread.join()
        if arguments.server:
            frames = sum(seconds * frame_rate(one["arrivals"]) for one in results)
            spent = sorted((1000 * (after[name] - before.get(name, 0)) / frames for name in after), reverse=True)
            threads_ms = ", ".join(f"{one:.1f}" for one in spent if one >= 0.1)
            print(f"server: {sum(spent):.1f} ms of CPU time a frame; by thread {threads_ms}")
        for one in results:
            latencies, made = (1000 * np.array(one[key]) for key in ("latencies", "made"))
            print(
                f"player: {frame_rate(one['arrivals']):.1f} frames/s; "
                f"key to frame {np.median(latencies):.0f} ms in the median, "
                f"{np.percentile(latencies, 95):.0f} ms at 95 % ({len(latencies)} presses); "
                f"a frame takes {np.median(made):.1f} ms"
            )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
