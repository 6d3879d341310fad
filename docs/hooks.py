"""What MkDocs is given besides docs/*.md: the reference, made of the code at build time, so that it cannot drift; and
the repository's files that the pages link to, which then need no network."""

import ast
import contextlib
import importlib
import io
import os
import posixpath
import re
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = "source"
"""Folder of the site for files of the repository."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""Target and anchor of a Markdown link that is not to elsewhere."""

REFERENCE: dict[str, tuple[str, list[str]]] = {
    "pipeline": (
        "Pipeline",
        [
            "magi_video.pipeline.pipeline.MagiVideoPipeline",
            "magi_video.pipeline.pipeline.MagiVideoPipelineOutput",
            "magi_video.pipeline.pipeline.MagiPipeline",
            "magi_video.pipeline.model.TrainedModel",
            "magi_video.pipeline.diffusers_api.ConventionalPipeline",
            "magi_video.pipeline.diffusers_api.StepCallback",
            "magi_video.errors.MagiError",
        ],
    ),
    "presets": ("Presets", ["magi_video.presets.load_preset", "magi_video.recipe.*", "magi_video.codecs.config.*"]),
    "exposure": ("Cures for drift", ["magi_video.exposure"]),
    "paradigms": ("Paradigms", ["magi_video.paradigms", "magi_video.paradigms.masking.unmasking_schedule"]),
    "models": (
        "Models",
        [
            "magi_video.models.transformer.MagiVideoTransformer",
            "magi_video.models.transformer.MagiTransformer",
            "magi_video.models.configured.Network",
            "magi_video.models.sequence.FrameSequence",
            "magi_video.models.sequence.causal_mask",
            "magi_video.models.cache.FrameCache",
            "magi_video.models.architecture.Architecture",
            "magi_video.models.architecture.ConditionSpec",
            "magi_video.models.head.TokenHead",
            "magi_video.models.head.DiffusionHead",
            "magi_video.models.categorical.CategoricalHead",
            "magi_video.models.epsilon.EpsilonHead",
            "magi_video.models.flow.FlowHead",
        ],
    ),
    "sampling": (
        "Sampling",
        ["magi_video.sampling.sampling.*", "magi_video.sampling.rollout.*", "magi_video.sampling.past.*"],
    ),
    "codecs": (
        "Codecs",
        [
            "magi_video.codecs.base.Codec",
            "magi_video.codecs.image_vae.ImageVAECodec",
            "magi_video.codecs.pixels.PixelCodec",
            "magi_video.codecs.temporal.TemporalCodec",
            "magi_video.codecs.video_vae.VideoVAECodec",
            "magi_video.codecs.omnitokenizer.OmniTokenizerCodec",
            "magi_video.codecs.discrete.DiscreteCodec",
            "magi_video.codecs.vq.VQCodec",
            "magi_video.codecs.vq_model.VQModelCodec",
            "magi_video.codecs.registry.load_codec",
        ],
    ),
    "data": (
        "Data",
        [
            "magi_video.data.folder.Video",
            "magi_video.data.folder.VideoFolder",
            "magi_video.data.ucf101.UCF101",
            "magi_video.data.kinetics.Kinetics600",
            "magi_video.data.scan.Skipped",
            "magi_video.data.clips.ClipDataset",
            "magi_video.data.clips.ClipRequest",
            "magi_video.data.clips.ClipSampler",
            "magi_video.data.clips.FrameReader",
            "magi_video.data.clips.PixelReader",
            "magi_video.data.clips.clip_frames",
            "magi_video.data.clips.max_interval",
            "magi_video.latents.cache.LatentCache",
            "magi_video.video.video.VideoInfo",
            "magi_video.video.video.VideoWriter",
            "magi_video.video.video.inspect_video",
            "magi_video.video.video.read_frames",
            "magi_video.video.video.write_video",
            "magi_video.video.image.contact_sheet",
            "magi_video.video.image.fit_frames",
            "magi_video.video.image.read_image",
            "magi_video.video.image.to_model_range",
            "magi_video.video.image.to_uint8",
            "magi_video.video.image.write_image",
            "magi_video.codecs.text_encoder.TextEncoder",
            "magi_video.codecs.words.WordEncoder",
        ],
    ),
    "training": ("Training", ["magi_video.training.run.train", "magi_video.training.trainer.Trainer"]),
    "evaluation": (
        "Evaluation",
        [
            "magi_video.evaluation.protocols.Protocol",
            "magi_video.evaluation.generation.Sampling",
            "magi_video.evaluation.generation.evaluate",
            "magi_video.evaluation.scoring.score",
            "magi_video.evaluation.scoring.video_features",
            "magi_video.evaluation.detectors",
        ],
    ),
    "benchmark": (
        "Benchmark",
        [
            "magi_video.bench.options.BenchOptions",
            "magi_video.bench.report.Report",
            "magi_video.bench.report.benchmark",
        ],
    ),
    "planning": (
        "Planning",
        [
            "magi_video.bench.plan.Plan",
            "magi_video.bench.plan.Way",
            "magi_video.bench.plan.make_plan",
            "magi_video.bench.hardware.Hardware",
            "magi_video.bench.hardware.find_hardware",
        ],
    ),
}
"""Pages of the reference: title, and objects. `package` stands for what its `__all__` names, `module.*` for its public
classes."""

LABELS = ("ACTION", "LABEL", "MASKED", "NOISE_LEVEL", "OBSERVATION", "TEXT")
"""Public names that stand for a number or a word, of which there is nothing to tell."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"reference/commands.md": commands_page()}
    pages |= {f"reference/{name}.md": reference_page(title, of) for name, (title, of) in REFERENCE.items()}
    for path in linked_files(files):
        pages[source_page(path)] = file_page(path)
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Lead links that leave docs/ to the copies of what they name."""
    here = page.file.src_uri  # type: ignore[attr-defined]

    def lead(match: re.Match[str]) -> str:
        path = outside(here, match[1])
        if path is None:
            return match[0]
        return posixpath.relpath(source_page(path), posixpath.dirname(here) or ".")

    return LINK.sub(lead, markdown)


def outside(here: str, target: str) -> str | None:
    """The file or folder of the repository that a page of docs/ links to, if the site does not have it by itself."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), target))
    if path.startswith("..") or not (ROOT / path).exists():
        return None  # for MkDocs to complain of
    return path if not path.startswith("docs/") or (ROOT / path).is_dir() else None


def linked_files(files: Files) -> list[str]:
    """What `outside` finds in all pages."""
    found = set()
    for file in files.documentation_pages():
        links = LINK.findall(Path(file.abs_src_path or "").read_text(encoding="utf-8"))
        found |= {path for target, _ in links if (path := outside(file.src_uri, target))}
    return sorted(found)


def source_page(path: str) -> str:
    """Where the site has a file or folder of the repository."""
    return f"{SOURCE}/{path.removesuffix('.md')}.md"


def file_page(path: str) -> str:
    """A file as it is, or the list of a folder."""
    file = ROOT / path
    head = f"---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n# {path}\n\n"
    if file.is_dir():
        names = [one.name for one in sorted(file.iterdir()) if one.is_file() and not one.name.startswith(".")]
        up = "../" * (len(Path(source_page(path)).parts) - 1)
        if path.startswith("docs/"):
            return head + "\n".join(f"- [{name}]({up}{path.removeprefix('docs/')}/{name})" for name in names)
        lines = [f"- `{name}`: {summary(file / name)}" for name in names if name.endswith(".py")]
        return head + "\n".join(lines or [f"- `{name}`" for name in names])
    language = {".py": "python", ".json": "json", ".sbatch": "bash", ".md": "markdown"}.get(file.suffix, "text")
    return f"{head}`````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n`````\n"


def summary(module: Path) -> str:
    """First sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def commands_page() -> str:
    """Every command with what its --help says."""
    from magi_video.cli import VERBS, usage

    parts = ["# Commands\n\nAs `magi COMMAND --help` prints it.\n", f"```text\n{usage()}\n```\n"]
    for verb, does in VERBS.items():
        parts.append(f"## magi {verb}\n\n{does[0].upper()}{does[1:]}.\n\n```text\n{help_of(verb)}\n```\n")
    return "\n".join(parts)


def help_of(verb: str) -> str:
    """What `magi VERB --help` prints, 100 columns wide."""
    module, printed = importlib.import_module(f"magi_video.cli.{verb}"), io.StringIO()
    wide = mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    with wide, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        module.main(["--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def reference_page(title: str, of: list[str]) -> str:
    """A page on which mkdocstrings writes what the docstrings say."""
    names = [name for one in of for name in expand(one)]
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in dict.fromkeys(names))


def expand(name: str) -> list[str]:
    """The objects that an entry of `REFERENCE` stands for."""
    module = name.removesuffix(".*")
    path = ROOT / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return [name]
    body = ast.parse(path.read_text(encoding="utf-8")).body
    if name != module:
        return [f"{module}.{one.name}" for one in body if isinstance(one, ast.ClassDef) and one.name[0] != "_"]
    for one in body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__all__":
            return [f"{module}.{public}" for public in ast.literal_eval(one.value) if public not in LABELS]
    raise ValueError(f"{module} has no __all__")
