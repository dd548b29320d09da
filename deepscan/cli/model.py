"""The command `deepscan model`: counts a detector's parameters and operations."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.options import Adapter, Token


def model(
    adapter: Annotated[Adapter, Option(help="What trains in the tower.")] = "lora",
    token: Annotated[Token, Option(help="What is classified.")] = "global",
    no_query: Annotated[
        bool, Option("--no-query", help="The baseline: [CLS] is classified, no queries.")
    ] = False,
    tower: Annotated[str, Option(help="Name of a plain ViT in open_clip.")] = "ViT-B-16-quickgelu",
    queries: Annotated[int, Option(help="Query tokens K.")] = 4,
    depth: Annotated[int | None, Option(help="Layers of the tower that run. [all]")] = None,
    json: options.Json = False,
) -> None:
    """Count a detector's trainable parameters and operations, next to the paper's figures.

    No weights are loaded, so the tower can be any plain open_clip ViT.
    """
    from deepscan.model.header import DetectorSettings
    from deepscan.model.size import EXPLAINED, PUBLISHED, PUBLISHED_TOWER, size

    settings = DetectorSettings(
        tower=tower,
        adapter=adapter,
        token="cls" if no_query else token,
        queries=queries,
        depth=depth,
    )
    counted = size(settings)
    key = (settings.adapter, settings.with_queries)
    published = PUBLISHED.get(key) if tower == PUBLISHED_TOWER and depth is None else None
    if json:
        document = asdict(settings) | asdict(counted) | {"trained": counted.trained}
        if published is not None:
            document["published"] = {"trained_millions": published[0], "gflops": published[1]}
        typer.echo(jsonlib.dumps(document, indent=2))
        return
    rows = [
        ("trainable parameters", "", ""),
        (f"  adapter {settings.adapter}", f"{counted.tower:,}", ""),
        ("  query module", f"{counted.queries:,}", ""),
        ("  head", f"{counted.head:,}", ""),
        ("  together", f"{counted.trained:,}", f"paper {published[0]:.2f} M" if published else ""),
        ("GFLOPs a crop", "", ""),
        (
            "  as fvcore counts",
            f"{counted.flops_fvcore / 1e9:.2f}",
            f"paper {published[1]}" if published else "",
        ),
        ("  complete", f"{counted.flops_complete / 1e9:.2f}", ""),
        (
            "  of which queries",
            f"{counted.flops_queries / 1e9:.2f}",
            f"{counted.flops_queries_written / 1e9:.2f} if every patch were projected"
            if settings.with_queries
            else "",
        ),
    ]
    layers = "" if depth is None else f", first {depth} layers"
    typer.echo(f"{tower}{layers}, token {settings.token}")
    for name, value, beside in rows:
        typer.echo(f"{name:<22}{value:>14}  {beside}".rstrip())
    if published and abs(counted.trained / 1e6 - published[0]) > 0.01 and adapter in EXPLAINED:
        typer.echo(f"The paper's count differs: {EXPLAINED[adapter]}.")
