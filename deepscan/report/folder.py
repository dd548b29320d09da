"""Writes a result's folder: pictures while a video is scored, then the page, report.json, manifest.json."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from deepscan.config import Settings
from deepscan.flow import Clock
from deepscan.media.video import DamagedFrame
from deepscan.records import Crop, Evidence, Frame, Output, Report, Source
from deepscan.report import json as report_json
from deepscan.report import page, paper, privacy, provenance
from deepscan.report.overlays import Overlays
from deepscan.report.pictures import THUMBNAIL, FramePicture, Pictures, thumbnail


class ResultFolder:
    """Draws frames as they are scored, and writes the report beside what it drew.

    Call `add` for every frame, then `draw`, then `write`. A context manager: leaving it closes open films.

    Args:
        folder: exists, empty; `write` fills it.
        source: the input.
        instants: the number of frames to expect.
        settings: whether maps are drawn, and what is kept back, printed and signed.
    """

    def __init__(self, folder: Path, source: Source, instants: int, settings: Settings) -> None:
        drawn, self._output = settings.heatmaps, settings.output
        self._folder, self._source = folder, source
        self._pictures = Pictures(instants, drawn.draw)
        self._overlays = (
            Overlays(folder, source, drawn.cls, instants, drawn.map) if drawn.draw else None
        )
        self._drawers = [each for each in (self._overlays, self._pictures) if each is not None]
        self._awaited = privacy.Awaited() if settings.output.private else None
        self._film: bytes | None = None
        self._kept: list[FramePicture] = []
        self._thumbnail: bytes | None = None

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._overlays is not None:
            self._overlays.abandon()

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Draw one scored frame; where only one face may be shown, note it until it is known which."""
        for each in self._drawers if self._awaited is None else (self._awaited,):
            each.add(frame, crops, output)

    def draw(self, evidence: Evidence, again: Callable[[], Iterable[Frame | DamagedFrame]]) -> None:
        """Finish what is drawn; `again` decodes the sampled frames once more, if they are still needed."""
        deciding = next((t for t in evidence.tracks if t.id == evidence.deciding), None)
        if self._awaited is not None:
            shown = () if deciding is None else (deciding.id, *deciding.merged)
            self._awaited.draw(again(), shown, self._drawers)
        if self._overlays is not None:
            self._overlays.close()
            self._film = self._overlays.small_film()
            self._overlays = None
        self._kept = self._pictures.frames(_foremost(evidence))
        highest = None
        if deciding is not None:
            highest = max(deciding.frames, key=lambda frame: frame.logit).frame_index
        self._thumbnail = thumbnail(self._kept, evidence.deciding, highest)

    def write(self, report: Report, out: Path, clock: Clock) -> Report:
        """Write the page, report.json and manifest.json, with a PDF and a signature where they are wanted.

        Returns:
            The report as it was written: what is private is kept back, its folder will be `out`.

        Raises:
            OutputError, SettingsError: a file cannot be written or signed.
        """
        folder = self._folder
        if self._output.private:
            report = privacy.withheld(report)
        if self._thumbnail:
            (folder / THUMBNAIL).write_bytes(self._thumbnail)
        pdf = [paper.NAME] if self._output.pdf else []
        names = sorted([*provenance.files(folder), page.NAME, *pdf])
        report = replace(report, folder=out, outputs=tuple(names))
        document = report_json.to_dict(report)
        page.write(document, folder, self._kept, self._film)
        if pdf:
            with clock("printing"):
                paper.write(document, folder, self._kept)
        (folder / "report.json").write_text(report_json.text(report), "utf-8")
        provenance.write_manifest(folder, self._source)
        if self._output.sign:
            from deepscan.report import signing

            signing.sign(folder, signing.private_key(Path(self._output.sign)))
        return report


def _foremost(evidence: Evidence) -> Collection[int]:
    """The tracks that the result depends on; their pictures matter most."""
    scores = evidence.scores
    if scores is None:
        return set()
    named = {scores.track, *([scores.stretch.track] if scores.stretch else [])}
    return named.union(*(track.merged for track in evidence.tracks if track.id in named))
