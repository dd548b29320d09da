"""Makes report.pdf: the report page as it prints, by Chromium where there is one, else by WeasyPrint."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepscan.errors import OutputError, SettingsError
from deepscan.report import page
from deepscan.report.pictures import FramePicture

NAME = "report.pdf"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

MOST_SECONDS = 180.0


def browser() -> str | None:
    """The path of a Chromium, or of a browser made of it."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def check() -> None:
    """Check, before other work is done, that PDFs can be made.

    Raises:
        SettingsError: there is not.
    """
    if browser() is None:
        try:
            import weasyprint  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: it is here, and Pango is not
            raise SettingsError(
                f"--pdf needs Chromium, or pip install 'deepscan-forensics[pdf]' and Pango"
                f" ({error}); or print report.html with its button"
            ) from error


def write(document: dict[str, Any], folder: Path, pictures: Sequence[FramePicture] = ()) -> Path:
    """Write report.pdf into `folder`, which holds report.html.

    Raises:
        SettingsError: see `check`.
        OutputError: the browser did not make it.
    """
    check()
    path, found = folder / NAME, browser()
    html = page.html(document, pictures, paper=True)
    if found is not None:
        _browsed(found, html, path)
    else:
        _printed(html, path)
    return path


def _browsed(program: str, html: str, path: Path) -> None:
    """Let a browser print the page, with a profile of its own and no name of its system in the file."""
    with tempfile.TemporaryDirectory(prefix="deepscan-pdf-") as profile:
        source = Path(profile) / page.NAME
        source.write_text(html, "utf-8")
        command = [
            program,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--user-agent=deepscan",
            "--no-pdf-header-footer",
            f"--print-to-pdf={path.resolve()}",
            source.as_uri(),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # as root it starts in no other way
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=MOST_SECONDS,
                env={**os.environ, "HOME": profile},
            )
        except subprocess.TimeoutExpired as error:
            raise OutputError(
                f"{path.name}: {program} did not finish in {MOST_SECONDS:.0f} s; the report itself"
                f" is complete, and its button prints it"
            ) from error
    if done.returncode or not path.is_file():
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise OutputError(
            f"{path.name}: {program} did not write it ({said[-1] if said else done.returncode}); the"
            f" report itself is complete, and its button prints it"
        )


def _printed(html: str, path: Path) -> None:
    """Let WeasyPrint print the page; it may fetch nothing, for everything is inside."""
    from weasyprint import HTML
    from weasyprint.urls import URLFetcher

    inside = URLFetcher(allowed_protocols=["data"], fail_on_errors=True)
    HTML(string=html, url_fetcher=inside).write_pdf(path)
