"""Formats --help: commands and options in groups, with examples to copy.

It is plain text, because importing rich would double the time --help takes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from deepscan.cli.console import Exit
from deepscan.plain import nearest

# Options that belong together, in any command; those in no group are shown last.
OPTION_GROUPS = {
    "Frames and faces": ("frames", "sampling", "no_second_look", "stream", "min_face"),
    "Detector": ("weights", "device", "precision", "offline"),
    "Heatmaps": ("heatmap", "shown_map", "cls_map", "explain"),
    "Many inputs": ("from_file", "resume", "jobs", "time_limit"),
    "On a cluster": ("engine", "job_cpus", "job_gpus", "parquet"),
    "Results": ("out", "pdf", "json", "force", "private", "sign", "fail_on", "quiet", "verbose"),
    "For the report": ("case", "exhibit", "examiner", "notes"),
}
GROUPED_FROM = 12  # fewer options are one list
SENTENCE = 200  # characters of a command's first sentence that its group shows

EXAMPLES = {
    "": (
        "deepscan demo",
        "deepscan doctor",
        "deepscan detect video.mp4",
        "deepscan detect folder --heatmap --out results",
    ),
    "detect": (
        "deepscan detect video.mp4",
        "deepscan detect folder photo.jpg --heatmap --out results",
        "deepscan detect video.mp4 --sampling every:0.5 --case 12/26",
        "deepscan detect folder --json > results.ndjson",
        "deepscan detect --from-file clips.txt --jobs 4 --resume --out case",
    ),
    "verify": (
        "deepscan verify deepscan-out/video.mp4 --rerun",
        "deepscan verify deepscan-out/video.mp4 --key lab.pub",
    ),
    "compare": ("deepscan compare monday/video.mp4 friday/video.mp4",),
    "keygen": ("deepscan keygen lab.key",),
    "watch": ("deepscan watch inbox --out results",),
    "serve": ("deepscan serve --open",),
    "demo": ("deepscan demo", "deepscan demo elsewhere"),
    "doctor": ("deepscan doctor", "deepscan doctor --json > doctor.json"),
    "prepare": ("deepscan prepare /data/FaceForensics++ --out /data/prepared",),
    "train": (
        "deepscan train --adapter lora --root /data",
        "deepscan train --resume runs/lora-global",
    ),
    "calibrate": ("deepscan calibrate b16-evidence --data /data/own --out own.safetensors",),
    "export-labels": ("deepscan export-labels deepscan-out -o labels",),
    "export": ("deepscan export b16-evidence --out detector.onnx",),
    "model": ("deepscan model --adapter effort --tower ViT-L-14-quickgelu",),
    "datasets": ("deepscan datasets --root /data",),
    "benchmark": (
        "deepscan benchmark --datasets cdf2,dfdc --weights detector.safetensors",
        "deepscan benchmark --table 1 --train",
        "deepscan benchmark --study all --root /data --dry-run",
    ),
    "weights fetch": (
        "deepscan weights fetch",
        "deepscan weights fetch gend-clip-l14",
        "deepscan weights fetch ViT-L-14-quickgelu:openai",
    ),
    "weights import": ("deepscan weights import effort_clip_L14_trainOn_FaceForensic.pth",),
    "config show": ("deepscan config show", "DEEPSCAN_SCORING_DEVICE=cuda deepscan config show"),
}


class Command(TyperCommand):
    """A command that shows its options in groups, if it has many, and examples at the end."""

    context_class = typer.Context

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line, without arguments that are only there to be refused with a reason."""
        shown = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        pieces = [piece for parameter in shown for piece in parameter.get_usage_pieces(ctx)]
        return [*([self.options_metavar] if self.options_metavar else []), *pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments: list[tuple[str, str]] = []
        rest: list[tuple[str, str]] = []
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in OPTION_GROUPS}
        named = {option: group for group, names in OPTION_GROUPS.items() for option in names}
        parameters = self.get_params(ctx)
        for parameter in parameters:
            if (record := parameter.get_help_record(ctx)) is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif len(parameters) >= GROUPED_FROM and parameter.name in named:
                groups[named[parameter.name]].append(record)
            else:
                rest.append(record)
        for heading, rows in {"Arguments": arguments, **groups, "Options": rest}.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        _write_examples(ctx, formatter)


class Group(TyperGroup):
    """A group that shows its commands under their headings; called alone, it shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(Exit.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the named command; an unknown word is an error that suggests the nearest one."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            known = self.list_commands(ctx)
            if "detect" in known and (Path(word).suffix or Path(word).exists()):
                ctx.fail(
                    f"No such command: {word}. To analyse it: deepscan detect {shlex.join(args)}."
                )
            near = nearest(word, known)
            ctx.fail(f"No such command: {word}." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = getattr(command, "rich_help_panel", None)
            heading = heading if isinstance(heading, str) else "Commands"
            groups.setdefault(heading, []).append((name, command.get_short_help_str(SENTENCE)))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        _write_examples(ctx, formatter)


def _write_examples(ctx: Any, formatter: Any) -> None:
    names: list[str] = []
    while ctx.parent is not None:
        names, ctx = [ctx.info_name, *names], ctx.parent
    if examples := EXAMPLES.get(" ".join(names)):
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
