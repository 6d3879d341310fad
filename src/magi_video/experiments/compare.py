"""`magi compare`: models, or recipes that are trained first, on the same held-out clips, with a verdict in words.

OUT/runs/NAME-seedS/       a recipe's training run
OUT/models/NAME/           what `magi evaluate` writes of a model: samples, metrics.json, report.html
OUT/compare.json, .md, .png
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from magi_video.codecs.registry import load_codec
from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.errors import MagiError
from magi_video.evaluation.features import Detectors
from magi_video.evaluation.generation import asked_protocol, evaluate
from magi_video.evaluation.options import EvaluateOptions
from magi_video.evaluation.scoring import Progress, silent
from magi_video.experiments.contenders import Contender, parse_contenders
from magi_video.experiments.costs import equal_steps
from magi_video.experiments.runs import share
from magi_video.experiments.sheets import SHEET_CLIPS, write_sheet
from magi_video.experiments.table1_report import number
from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import FEWEST_SEEDS, Judged, References, Verdict, better_model, span, verdict
from magi_video.files.atomic import write_bytes, write_json
from magi_video.files.folders import make_folder
from magi_video.files.json import read_json
from magi_video.files.weights import resolve_model
from magi_video.models.architecture import check_interval
from magi_video.recipe import Preset
from magi_video.training.display import Display, Silent
from magi_video.training.provenance import LIST_FILE
from magi_video.training.run import train
from magi_video.training.stopping import StopSignals

Budget = Literal["steps", "operations"]
Figures = dict[str, Any]
LABELS = {
    "real": "other real clips (floor)",
    "codec": "codec",
    "still": "still",
    "copy_last": "copy-last",
    "shuffled": "shuffled",
}


@dataclass
class Entrant:
    """A contender's trained models, one a seed, and what was measured of them."""

    name: str
    models: list[str]
    steps: int | None = None
    results: list[Figures] = field(default_factory=list)


def compare(
    contenders: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    train_data: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    budget: Budget = "steps",
    protocol: str = "small",
    options: EvaluateOptions | None = None,
    detectors: Detectors | None = None,
    display: Display | None = None,
    signals: StopSignals | None = None,
    progress: Progress = silent,
    **fields: Any,
) -> Figures:
    """Score several models on the same held-out clips and say what the figures allow; a stopped call goes on.

    Args:
        contenders: two or more, see `experiments.contenders`.
        data: folder of held-out videos.
        out: folder for everything.
        train_data: folder of videos that recipes are trained on; none of them may be in `data`.
        seeds: of the recipes' training runs.
        budget: "steps", every recipe trains for its own steps; "operations", as many as cost the operations of the
            first recipe.
        protocol, options, detectors: as for `evaluate`.
        display, signals, progress: see `train` and `evaluate`.
        fields: of `EvaluateOptions` by name, in place of those of `options`.

    Returns:
        What compare.json holds: `references` (rows without a model), `models` (name → seeds' figures), `verdicts` (a
        list of pairs with answer and reason), `warnings`, `words`.

    Raises:
        MagiError: fewer than two contenders, names that are not different, recipes without `train_data`, videos on
            both sides, or models that make frames of different sizes; and as `train` and `evaluate`.
        StoppedError: one of the `signals` came.
    """
    out, display, signals = Path(out), display or Silent(), signals or StopSignals()
    options = replace(options or EvaluateOptions(), over_length=False, baselines=False, **fields)
    sides = parse_contenders(contenders, train_data)
    asked_protocol(protocol, options)  # refused before a recipe is trained
    recipes = [side for side in sides if side.preset is not None]
    for side in recipes:
        check_recipe(side, options)
    held_out = contents(VideoFolder(data))
    if recipes and (both := held_out & contents(VideoFolder(Path(str(train_data))))):
        raise MagiError(f"{len(both)} videos of {data} are in {train_data} too; held-out clips must be of other videos")
    make_folder(out)
    entrants = [Entrant(side.name, [side.model] if side.model else []) for side in sides]
    train_recipes(sides, entrants, out, Path(str(train_data)), seeds, budget, display, signals)
    warnings = [warning for entrant in entrants for warning in training_warnings(entrant, held_out)]
    check_sizes(entrants)
    for entrant in entrants:
        for place, model in enumerate(entrant.models):
            folder = out / "models" / (entrant.name if len(entrant.models) == 1 else f"{entrant.name}-{place}")
            display.say(f"scoring {entrant.name}: {model}")
            alone = place == 0 and (entrant is entrants[0] or codec_of(model) != codec_of(entrants[0].models[0]))
            result = evaluate(
                model, data, protocol, replace(options, baselines=alone), out=folder, detectors=detectors,
                progress=progress, say=display.say,
            )  # fmt: skip
            entrant.results.append(result | {"folder": str(folder)})
    figures = summarise(entrants, warnings)
    write_json(out / "compare.json", figures)
    write_bytes(out / "compare.md", page(figures).encode())
    write_sheet(out / "compare.png", sheet_rows(entrants))
    return figures


def check_recipe(side: Contender, options: EvaluateOptions) -> None:
    """Refuse what a recipe's model will not take, before it is trained."""
    assert side.preset is not None
    net = side.preset.model
    for name, wanted, taken in (
        ("actions", options.actions, net.actions),
        ("labels", options.labels, net.labels),
        ("captions", options.captions, net.text),
    ):
        if wanted and not taken:
            raise MagiError(f"--{name}: the model of {side.name} takes none, by its recipe")
    if options.interval is not None:
        check_interval(options.interval, side.preset.data.max_interval)


def codec_of(model: str) -> str:
    """A model's codec, by its weights."""
    return load_codec(resolve_model(model) / "codec").fingerprint()


def contents(videos: VideoFolder) -> set[str]:
    """Digests of the videos' files."""
    return {facts.content for facts in DataIdentity.of(videos).videos.values() if facts.content}


def train_recipes(
    sides: Sequence[Contender], entrants: Sequence[Entrant], out: Path, data: Path, seeds: Sequence[int],
    budget: Budget, display: Display, signals: StopSignals,
) -> None:  # fmt: skip
    """Train each recipe with each seed, and note the models; recipes with one codec and one set of clips share them."""
    reference: Preset | None = None
    for side, entrant in zip(sides, entrants, strict=True):
        if side.preset is None:
            continue
        reference = reference or side.preset
        preset = side.preset
        if budget == "operations":
            preset = replace(preset, train=replace(preset.train, steps=equal_steps(preset, reference)))
        entrant.steps = preset.train.steps
        for seed in seeds:
            run = out / "runs" / f"{side.name}-seed{seed}"
            first = out / "runs" / f"{next(one.name for one in sides if one.preset)}-seed{seeds[0]}"
            if prepared_alike(preset, reference) and run != first and not (run / "run.json").exists():
                share(first, run)
            display.say(f"training {side.name}, seed {seed}, {preset.train.steps} steps")
            entrant.models.append(str(train(preset, data, run, seed, display, signals=signals)))
            signals.check("training")  # what came in the last step


def prepared_alike(a: Preset, b: Preset) -> bool:
    """Whether two recipes make the same codec and the same latents."""
    return (a.data, a.codec, a.small_vae, a.codec_precision) == (b.data, b.codec, b.small_vae, b.codec_precision)


def training_warnings(entrant: Entrant, held_out: set[str]) -> list[str]:
    """That a model was trained on held-out videos, where its run says which videos it saw."""
    warnings = []
    for model in entrant.models:
        seen = DataIdentity.read(Path(model) / LIST_FILE)
        both = held_out & {facts.content for facts in seen.videos.values() if facts.content} if seen else set()
        if both:
            warnings.append(
                f"{entrant.name} was trained on {len(both)} of these videos: its figures are not of held-out clips"
            )
    return warnings


def check_sizes(entrants: Sequence[Entrant]) -> None:
    """Refuse models whose clips would be scored at different sizes."""
    sizes = {}
    for entrant in entrants:
        config = read_json(resolve_model(entrant.models[0]) / "model_index.json")
        sizes[entrant.name] = f"{config.get('height')} × {config.get('width')}"
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise MagiError(f"the models make frames of different sizes ({listed}); expected one")


def summarise(entrants: Sequence[Entrant], warnings: Sequence[str]) -> Figures:
    """Figures of all, verdicts of every pair."""
    first = entrants[0].results[0]
    rows = first["baselines"]
    references = None
    if "real" in rows:
        real, mixed = rows["real"]["fvd_interval"], rows["shuffled"]["fvd_interval"]
        references = References(tuple(real), tuple(mixed), rows["copy_last"]["fvd"])
    verdicts = []
    for a, b in itertools.combinations(entrants, 2):
        given = judge(a, b, references, first["num_fake"])
        verdicts.append(
            {"a": a.name, "b": b.name, "answer": given.answer, "why": given.why, "words": sentence(a, b, given)}
        )
    models = {entrant.name: of_model(entrant, rows) for entrant in entrants}
    return {
        "references": rows,
        "models": models,
        "verdicts": verdicts,
        "warnings": [*warnings, *first["warnings"]],
        "num": first["num_fake"],
        "protocol": first["protocol"],
        "real_data": first["real_data"],
        "words": [*(f"{name} {one['beats_copy_last']} copying the last frame." for name, one in models.items()),
                  *(one["words"] for one in verdicts)],
    }  # fmt: skip


def of_model(entrant: Entrant, rows: Figures) -> Figures:
    """A contender's figures, one a trained model; `codec` is the true clips through its own codec."""
    results = entrant.results
    distances = [one["fvd"] for one in results]
    better = sum(value < rows["copy_last"]["fvd"] for value in distances)
    return {
        "models": entrant.models,
        "steps": entrant.steps,
        "fvd": distances,
        "fvd_interval": [one["fvd_interval"] for one in results],
        "fid": [one["fid"] for one in results],
        "paired": {
            name: round(fmean(one["paired"][name] for one in results), 4) for name in results[0].get("paired", {})
        },
        "delta_psnr": round(fmean(one["controllability"]["delta_psnr"] for one in results), 4)
        if "controllability" in results[0]
        else None,
        "speed_ratio": round(fmean(one["motion"].get("speed_ratio", 0.0) for one in results), 4),
        "codec": results[0].get("baselines", rows)["codec"]["fvd"],
        "beats_copy_last": "beats"
        if better == len(distances)
        else "beats with some seeds"
        if better
        else "does not beat",
    }


def judge(a: Entrant, b: Entrant, references: References | None, clips: int) -> Verdict:
    """Over seeds where both have enough, else over clips."""
    one, other = ([result["fvd"] for result in entrant.results] for entrant in (a, b))
    if references is not None and min(len(one), len(other)) >= FEWEST_SEEDS:
        return verdict(one, other, references, (a.name, b.name))
    judged = [Judged(e.name, e.results[0]["fvd"], tuple(e.results[0]["fvd_interval"])) for e in (a, b)]
    return better_model(judged[0], judged[1], references, clips)


def sentence(a: Entrant, b: Entrant, given: Verdict) -> str:
    """What the figures say of a pair."""
    if given.answer == "cannot tell":
        return f"{a.name} or {b.name}: cannot tell, {given.why}."
    better, worse = (a, b) if given.answer == "confirmed" else (b, a)
    seeds = min(len(a.results), len(b.results))
    of = (
        "over seeds, so it is said of the recipes"
        if seeds >= FEWEST_SEEDS
        else "one training run each, so it is said of these two models and not of how they were trained"
    )
    words = f"{better.name} is better than {worse.name} by FVD: {given.why} ({of})."
    if all("lpips" in entrant.results[0].get("paired", {}) for entrant in (a, b)):
        first, second = (fmean(one["paired"]["lpips"] for one in entrant.results) for entrant in (better, worse))
        if first > second:
            words += f" LPIPS against the true frames says the opposite ({first:.3f} against {second:.3f})."
    return words


def page(figures: Figures) -> str:
    """compare.md."""
    head = ["", "FVD", "95 % interval", "FID", "PSNR", "LPIPS", "ΔPSNR", "speed, fake/real", "steps"]
    rows: list[list[object]] = []
    for name, label in LABELS.items():
        if (one := figures["references"].get(name)) is not None:
            several = {"fvd": [one["fvd"]], "fvd_interval": [one["fvd_interval"]], "fid": [one.get("fid")]}
            kept = {"paired": one.get("paired", {}), "speed_ratio": one["motion"].get("speed_ratio")}
            rows.append([f"*{label}*", *cells(several | kept), ""])
    rows += [[f"**{name}**", *cells(one), one["steps"] or ""] for name, one in figures["models"].items()]
    parts = [
        f"# Compared on {figures['num']} clips of the same held-out videos",
        table(head, rows),
        "\n".join(f"- {line}" for line in figures["words"]),
    ]
    if figures["warnings"]:
        parts.append("Warnings:\n\n" + "\n".join(f"- {line}" for line in figures["warnings"]))
    return "\n\n".join(parts) + "\n"


def cells(one: Figures) -> list[object]:
    """The figures of one line; those of several models from the lowest to the highest."""
    known = [value for value in one["fid"] if value is not None]
    low, high = one["fvd_interval"][0]
    return [
        span(one["fvd"]),
        f"{low:.0f}…{high:.0f}" if len(one["fvd"]) == 1 else "",
        span(known) if known else "",
        number(one["paired"].get("psnr"), 2),
        number(one["paired"].get("lpips"), 3),
        number(one.get("delta_psnr"), 2),
        number(one["speed_ratio"], 2),
    ]


def sheet_rows(entrants: Sequence[Entrant]) -> Iterator[tuple[str, np.ndarray]]:
    """The same clips continued by every contender, with its first model."""
    for clip, entrant in itertools.product(range(SHEET_CLIPS), entrants):
        sample = Path(entrant.results[0]["folder"]) / "samples" / f"{clip:06d}.npy"
        if sample.is_file():
            yield f"clip {clip}: {entrant.name}", np.load(sample, allow_pickle=False)
