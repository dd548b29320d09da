"""The command `deepscan doctor`: checks this machine."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.console import Exit, printable, say


def doctor(
    json: options.Json = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only show problems.")] = False,
) -> None:
    """Check this machine, and compare a small scan with known values.

    Checks Python, packages, torch and CUDA, FFmpeg and its codecs, weights and their SHA-256, the cache and
    free space; then scores a small clip and compares the scores with stored values. Uses no network.

    Exit codes: 0 ready, perhaps with warnings; 1 something failed.
    """
    from deepscan.verification.doctor import Health, examine

    checks = []
    # Of all the checks the self-test alone takes its time.
    tell = lambda name: say("scoring a clip ...") if name == "self-test" and not quiet else None
    for check in examine(tell):
        checks.append(check)
        if not json and not (quiet and check.state is Health.OK):
            typer.echo(printable(f"{check.state:<8} {check.name}: {check.found}"))
            if check.advice:
                typer.echo(printable(f"{'':<8} -> {check.advice}"))
    failed = sum(check.state is Health.FAILED for check in checks)
    if json:
        document = {
            "schema": "deepscan.doctor/1",
            "state": "failed" if failed else "ok",
            "checks": [asdict(check) for check in checks],
        }
        typer.echo(jsonlib.dumps(document, indent=2))
    elif not quiet or failed:
        typer.echo(
            f"{failed} of {len(checks)} checks failed." if failed else "Ready to run deepscan."
        )
    raise typer.Exit(Exit.NOTHING_USABLE if failed else 0)
