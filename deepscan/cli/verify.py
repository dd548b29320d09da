"""The command `deepscan verify`: checks a folder of results."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import Exit, printable, progress_bars

EXIT = {"same": 0, "not_checked": Exit.NOTHING_USABLE, "differs": Exit.SOME_FAILED}


def verify(
    folder: Annotated[Path, Argument(help="A folder of results, or the report.json in it.")],
    given: Annotated[
        Path | None,
        Option("--input", help="The input file, if it has moved.", metavar="FILE"),
    ] = None,
    rerun: Annotated[
        bool, Option("--rerun", help="Repeat the analysis, and compare every logit.")
    ] = False,
    key: Annotated[
        Path | None,
        Option(help="The public key that must have signed the results.", metavar="FILE"),
    ] = None,
    json: options.Json = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Check that results, input and weights have not changed since the report was written.

    Exit codes: 0 all the same, 1 something cannot be checked, 2 usage error, 3 something differs.
    """
    from deepscan.verification.verify import NOTE, Match
    from deepscan.verification.verify import verify as check

    if folder.name == "report.json":
        folder = folder.parent
    with progress_bars(quiet) as bars:
        found = check(folder, given, rerun, bars.stages("rerun"), key)
    if json:
        document = {
            "schema": "deepscan.verify/1",
            "state": found.state,
            "folder": str(found.folder),
            "manifest_sha256": found.manifest_sha256,
            "findings": [asdict(finding) for finding in found.findings],
            "note": NOTE,
        }
        sys.stdout.write(jsonlib.dumps(document, indent=2) + "\n")
    else:
        for finding in found.findings:
            words = finding.state.replace("_", " ")
            typer.echo(printable(f"{words:<12} {finding.what}  {finding.detail}"))
        same = sum(finding.state is Match.SAME for finding in found.findings)
        typer.echo(f"{same} of {len(found.findings)} checks passed.")
        typer.echo(f"SHA-256 of manifest.json: {found.manifest_sha256}")
        typer.echo(NOTE)
    raise typer.Exit(EXIT[found.state])
