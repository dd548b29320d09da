"""Writes heatmap files: a PNG for each sampled face, a contact sheet, an overlay MP4 and the raw arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from deepscan.faces.alignment import seen as in_crop
from deepscan.faces.alignment import viewed
from deepscan.judgement.words import time_code
from deepscan.records import Crop, Frame, Output, Pixels, Source
from deepscan.report import heatmap
from deepscan.shapes import Float

FOLDER = "heatmaps"
IN_ATTENTION = "query_attention", "cls_attention"
IN_EVIDENCE = "evidence", "constant", "likelihood"
FILM_SIDE = 1280  # longer side of the overlay film

# The page's own film: fewer and smaller frames, so that it fits into the page.
SMALL_SIDE, SMALL_FRAMES, SMALL_BYTES = 512, 48, 400_000
SHEET_CELLS, CELL_SIDE = 64, 144
CLOCK = Fraction(1, 90_000)  # the film's time base, MPEG's own


class Overlays:
    """Takes frames as they are scored and draws them at once, to keep memory bounded.

    Args:
        folder: where to write; created here.
        source: the input; a still gets no film.
        cls: also draw [CLS]'s attention, in files ending in `_cls.png`.
        instants: the number of frames to expect; the contact sheet spreads its cells over them.
        kind: of the map that film and contact sheet show, a name in heatmap.SCALES; "auto": evidence, or
            attention from a detector that has none.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        cls: bool,
        instants: int,
        kind: str = "auto",
    ) -> None:
        self._folder, self._source, self._cls, self._kind = folder / FOLDER, source, cls, kind
        self._folder.mkdir()
        self._film = _Film(str(self._folder / "overlay.mp4")) if source.kind == "video" else None
        self._small = _Film(io.BytesIO(), "32") if self._film is not None else None
        self._cells: list[tuple[Pixels, str]] = []
        self._stride = max(1, -(-instants // SHEET_CELLS))
        self._sparse = max(1, -(-instants // SMALL_FRAMES))
        self._frames = 0
        self._rows: list[dict[str, Any]] = []
        self._scale: heatmap.Scale | None = (
            None  # what film and sheet show, known with the first output
        )
        self._beside: tuple[heatmap.Scale, ...] = ()  # what panels show

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Draw one sampled frame and its scored faces; `output` belongs to `crops`, None without any.

        Raises:
            SettingsError: the detector has no map of the kind asked for.
        """
        maps: list[Float[np.ndarray, "side side"]] = []
        seen: list[Crop] = []
        labels: list[str] = []
        if output is not None:
            if self._scale is None:
                own = heatmap.drawable(output)
                self._scale = own[0] if self._kind == "auto" else heatmap.SCALES[self._kind]
                # Evidence beside attention; likelihood where it is asked for.
                self._beside = tuple(
                    one for one in own if one is not heatmap.LIKELIHOOD or one is self._scale
                )
            maps = list(heatmap.maps(output, self._scale))
            seen = [viewed(crop, output.view) for crop in crops]
            labels = [
                f"{c.track}  {logit:+.2f}" for c, logit in zip(crops, output.logit, strict=True)
            ]
        if self._film is not None:
            scale = self._scale or heatmap.EVIDENCE
            painted = heatmap.paint(frame.pixels, list(zip(seen, maps, strict=True)), scale)
            outlined = heatmap.outline(painted, seen, labels)
            time = frame.time - self._source.start
            drawn = heatmap.with_legend(heatmap.resize(outlined, FILM_SIDE), [scale])
            self._film.add(drawn, time)
            if self._small is not None and self._frames % self._sparse == 0:
                self._small.add(heatmap.resize(outlined, SMALL_SIDE), time)
        if output is not None:
            self._panels(frame, crops, seen, output, maps, labels)
        self._frames += 1

    def _panels(
        self,
        frame: Frame,
        crops: Sequence[Crop],
        seen: Sequence[Crop],
        output: Output,
        maps: Sequence[Float[np.ndarray, "side side"]],
        labels: Sequence[str],
    ) -> None:
        assert self._scale is not None
        kinds = [(scale, heatmap.maps(output, scale)) for scale in self._beside]
        for i, crop in enumerate(seen):
            name = f"track{crop.track:02d}_{float(frame.time):010.3f}s"
            label = f"face {labels[i]}  {time_code(frame.time)}"
            drawn = [(scale, values[i]) for scale, values in kinds]
            self._save(f"{name}.png", heatmap.face_panel(frame.pixels, crop, drawn, label))
            if self._cls:
                cls_map = (heatmap.ATTENTION, heatmap.relative(output.cls_attention[i]))
                panel = heatmap.face_panel(frame.pixels, crop, [cls_map], f"[CLS]  {label}")
                self._save(f"{name}_cls.png", panel)
            if self._frames % self._stride == 0 and len(self._cells) < 2 * SHEET_CELLS:
                cell = heatmap.crop_view(crop, maps[i], self._scale, CELL_SIDE)
                words = f"{labels[i]}  {time_code(frame.time, 1)}"
                self._cells.append((cell, words))
            self._rows.append(
                {
                    "track": crop.track,
                    "frame_index": crop.frame_index,
                    "time": float(crop.time),
                    "logit": output.logit[i],
                    "to_frame": crops[i].to_frame,
                    "view": np.array(in_crop(output.view, len(crops[i].pixels))),
                    **{name: getattr(output, name)[i] for name in (*IN_ATTENTION, *IN_EVIDENCE)},
                }
            )

    def close(self) -> None:
        """Finish the film and write the contact sheet and the raw arrays."""
        for film in filter(None, (self._film, self._small)):
            film.close(self._source.duration)
        if self._cells:
            assert self._scale is not None
            sheet = heatmap.contact_sheet(self._cells, self._scale)
            self._save("contact_sheet.png", sheet)
        if self._rows:
            columns = {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}
            self._keep("attention.npz", columns, IN_EVIDENCE)
            if columns["evidence"].shape[1]:
                self._keep("evidence.npz", columns, IN_ATTENTION)

    def _keep(self, name: str, columns: dict[str, np.ndarray], but: Sequence[str]) -> None:
        kept = {key: values for key, values in columns.items() if key not in but and values.size}
        np.savez_compressed(self._folder / name, allow_pickle=False, **kept)

    def small_film(self) -> bytes | None:
        """The page's film, once closed; None if there is none, or it is too large for a page."""
        data = self._small.data() if self._small is not None else b""
        return data if 0 < len(data) <= SMALL_BYTES else None

    def abandon(self) -> None:
        """Close open files after a failure; the caller deletes what was drawn."""
        for film in filter(None, (self._film, self._small)):
            film.close(None)

    def _save(self, name: str, pixels: Pixels) -> None:
        # Level 1: a little larger than the default, written in a third of the time.
        Image.fromarray(pixels).save(self._folder / name, compress_level=1)


class _Film:
    """H.264 in MP4, each sampled frame shown until the next one's time."""

    def __init__(self, target: str | io.BytesIO, quality: str = "20") -> None:
        self._target, self._quality = target, quality  # libx264's constant rate factor
        self._container: Any = None
        self._stream: Any = None
        self._last: Pixels | None = None
        self._shown = -1  # pts of the last frame encoded

    def add(self, pixels: Pixels, time: Fraction) -> None:
        """Show `pixels` from `time` (seconds from the start of the film) on."""
        if self._container is None:
            self._open(pixels)
        height, width = self._stream.height, self._stream.width
        if pixels.shape[:2] != (height, width):
            fitted = np.zeros((height, width, 3), np.uint8)
            part = pixels[:height, :width]
            fitted[: part.shape[0], : part.shape[1]] = part
            pixels = fitted
        self._encode(pixels, int(time / CLOCK))
        self._last = pixels

    def close(self, duration: Fraction | None) -> None:
        """Hold the last frame until `duration`; without one, just close the file."""
        if self._container is None:
            return
        if duration is not None and self._last is not None:
            # Repeated just before the end, because players stop at the last frame's time stamp.
            self._encode(self._last, int(max(duration, Fraction(1, 2)) / CLOCK) - 3000)
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def data(self) -> bytes:
        """What was written to memory."""
        assert isinstance(self._target, io.BytesIO)
        return self._target.getvalue()

    def _open(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        # Moving the index to the front reads the file again by its name, which memory has not.
        options = {"movflags": "faststart"} if isinstance(self._target, str) else {}
        self._container = av.open(self._target, "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=30)
        # 4:2:0 needs even sides.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = CLOCK
        self._stream.codec_context.options = {"crf": self._quality, "preset": "veryfast"}

    def _encode(self, pixels: Pixels, pts: int) -> None:
        if pts <= self._shown:
            return
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = pts, CLOCK
        self._container.mux(self._stream.encode(frame))
        self._shown = pts
