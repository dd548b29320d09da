"""The command `deepscan keygen`: makes a key that signs results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument


def keygen(
    path: Annotated[
        Path, Argument(help="File for the private key; the public key gets .pub added.")
    ],
) -> None:
    """Make a private key that signs results (detect --sign) and a public key that checks them (verify --key).

    Anyone who has the private key can sign as you, so keep it where only you can read it. Give the public
    key, or its SHA-256, to those who receive results, and send it separately from the results.
    """
    from deepscan.report import signing

    public = signing.make_keys(path)
    typer.echo(f"private key: {path}")
    typer.echo(f"public key:  {public}")
    typer.echo(f"its SHA-256: {signing.fingerprint(signing.public_key(public))}")
