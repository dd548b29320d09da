"""Search: decodes an input and finds, follows and cuts its faces, ahead of the scoring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscan.config import Settings
from deepscan.faces import Follower, align, look_of
from deepscan.flow import Clock, ahead, chunks
from deepscan.judgement import timeline
from deepscan.media import Decoder, Opened
from deepscan.media.video import DamagedFrame
from deepscan.model import load_finder
from deepscan.records import Crop, Frame, TrackEvidence

if TYPE_CHECKING:
    from deepscan.faces.finder import FaceFinder

# Frames searched for faces in one batch; fewer if they are large (8K), to bound memory.
CHUNK, CHUNK_PIXELS = 8, 2**25


@dataclass(frozen=True, slots=True)
class Looked:
    """A chunk of frames after the search for faces, with all that is needed to score and count them."""

    seen: int  # instants, damaged ones too
    frames: tuple[Frame, ...]
    crops: tuple[tuple[Crop, ...], ...]  # of each frame
    cuts: tuple[Fraction, ...]  # times of those before which the scene was cut
    too_small: int
    too_many: int


class Search:
    """An input that is decoded and searched for faces, ahead of the scoring by a chunk or two of frames.

    A context manager: it begins at once and ends with the block. `parts` are the frames with their faces.

    Args:
        path, settings, clock: as for `pipeline.scan`.

    Raises:
        UnreadableInput: `path` is not a readable file.
    """

    def __init__(self, path: Path, settings: Settings, clock: Clock | None = None) -> None:
        self.settings, self.clock = settings, clock or Clock()
        self.started = datetime.now(UTC)
        self.follower = Follower()
        self._opened: Future[Opened] = Future()
        self._ending = ExitStack()
        # Its process ends with the thread that starts it: no other thread may.
        self.decoding = Decoder(path, settings.sampling, settings.limits)
        self.parts = self._ending.enter_context(ahead([self._all()], 1, lambda _: 0))

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *error: Any) -> None:
        self.decoding.close()  # first: the search may be waiting for it
        self._ending.__exit__(*error)

    def close(self) -> None:
        """End the search at once."""
        self.__exit__(None, None, None)

    def opened(self) -> Opened:
        """What the decoder learnt on opening the input; waits for it.

        Raises:
            InputError: as `Decoder`.
        """
        return self._opened.result()

    def further(
        self, indices: Sequence[int], seen: TrackEvidence
    ) -> Iterator[tuple[Frame, Crop | None]]:
        """More frames, by display-order indices, each with the face of a track if it is there.

        Only after the decoder's `credentials`. A damaged frame is left out.
        """
        decoded = self.decoding.further(indices)
        for chunk in chunks(decoded, self._chunk()):
            frames = [item for item in chunk if isinstance(item, Frame)]
            for frame, here in zip(frames, self._finder().find(frames), strict=True):
                crops = [align(frame, face, seen.id) for face in here.faces]
                near = min(seen.frames, key=lambda known: abs(known.time - frame.time)).face
                looks = [look_of(crop.pixels) for crop in crops]
                own = self.follower.find(seen.id, near, here.faces, looks)
                yield frame, None if own is None else crops[own]

    def _all(self) -> Iterator[Looked]:
        try:
            with self.clock("opening"):
                self._opened.set_result(self.decoding.opened())
        except BaseException as error:
            self._opened.set_exception(error)
            raise
        with self.clock("loading"):
            self._finder()
        scenes = timeline.Scenes()
        for chunk in chunks(self.decoding.frames(), self._chunk()):
            with self.clock("faces"):
                looked = self._looked(chunk, scenes)
            yield looked

    def _looked(self, chunk: Sequence[Frame | DamagedFrame], scenes: timeline.Scenes) -> Looked:
        frames = tuple(item for item in chunk if isinstance(item, Frame))
        found = self._finder().find(frames)
        crops: list[tuple[Crop, ...]] = []
        cuts: list[Fraction] = []
        for frame, here in zip(frames, found, strict=True):
            own = [align(frame, face, track=0) for face in here.faces]
            looks = [look_of(crop.pixels) for crop in own]
            if cut := scenes.add(frame):
                cuts.append(frame.time)
            ids = self.follower.follow(here.faces, looks, frame.time, cut)
            crops.append(tuple(replace(c, track=i) for c, i in zip(own, ids, strict=True)))
        small, many = sum(one.too_small for one in found), sum(one.too_many for one in found)
        return Looked(len(chunk), frames, tuple(crops), tuple(cuts), small, many)

    def _finder(self) -> FaceFinder:
        return load_finder(self.settings.faces, self.settings.scoring.device)

    def _chunk(self) -> int:
        """The number of frames to search at a time."""
        source = self.opened().source
        return max(1, min(CHUNK, CHUNK_PIXELS // (source.width * source.height)))
