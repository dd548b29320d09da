"""Decodes each input in its own process, so that a hostile file can harm only that process.

    scan() ──path, sampling──> python -c ... main()        a fresh process for each input, with limits
           <──source, frames, credentials──                JSON lines, each frame's pixels after its line
           ──further frames?──> <──frames──                as often as wanted

A crash, a hang or a decompression bomb costs one input and cannot affect the next one's evidence. The
process may compute and read the input, nothing else (see `confinement`). What it sends is parsed strictly
(see `messages`); it is never unpickled or executed. The decoder runs ahead while the networks load;
the pipe and its own queue bound how far.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from deepscan.config import Limits, Sampling
from deepscan.errors import (
    InputError,
    LimitExceeded,
    NoVideoStream,
    ProcessDied,
    UnreadableInput,
)
from deepscan.files import check_readable
from deepscan.flow import Clock, ahead, keep_memory_level, timed
from deepscan.media.animation import WebpAnimation
from deepscan.media.confinement import confine
from deepscan.media.messages import (
    LONGEST_LINE,
    LONGEST_TEXT,
    Ending,
    Failure,
    Header,
    Held,
    Message,
    Nonsense,
    Opening,
    parse,
)
from deepscan.media.stills import StillSource, is_still, is_webp_animation
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.plain import read
from deepscan.records import Confinement, Credentials, Frame, Source

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

# A decoder that is silent for this long hangs, even without a time limit. Opening a file reads all of it, so
# large files get more time, at this many bytes a second.
SILENCE, SLOWEST = 600.0, 10 * 2**20

# Decoders for one video: more would only wait for the networks. Each may hold twenty pictures at three
# bytes a pixel, so large videos get fewer.
DECODERS = min(4, os.cpu_count() or 1)
HELD, HELD_PIXEL = 2 * 2**30, 20 * 3

# Bytes of decoded frames that may wait to be scored: 32 instants at 1080p, so that a short clip is decoded
# while the networks load.
WAITING = 200 * 2**20

SAID = {"UnreadableInput": UnreadableInput, "NoVideoStream": NoVideoStream}

# Of the environment, which may hold secrets, only what Python may need to find its libraries.
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# The parent's import path, without the working folder, which may be full of hostile files.
START = "import sys; sys.path[:] = {path!r}; from deepscan.media.isolation import main; main()"


Media = VideoSource | WebpAnimation | StillSource


def open_source(path: Path, stream: int | None = None) -> Media:
    """Open a file in this process: a source with `source`, `choose`, `split` and `decode`.

    `stream` is the number of the video stream or picture to take, if not the one that players show.
    """
    if is_still(path):
        return StillSource(path, stream)
    return (WebpAnimation if is_webp_animation(path) else VideoSource)(path, stream)


@dataclass(frozen=True, slots=True)
class Opened:
    """What the decoder learnt on opening the input."""

    source: Source
    declared_duration: float | None  # seconds the header promises
    indices: tuple[int, ...]  # display-order indices of the sampled frames
    confinement: Confinement  # of the decoder, before it read a byte


class Decoder:
    """The parent's side of one input's decoder; made by `decoder`.

    Every method may raise:
        UnreadableInput, NoVideoStream: as VideoSource and StillSource do.
        ProcessDied: the process crashed, or sent what no decoder of ours would.
        LimitExceeded: it took more time or memory than allowed, or hung.
    """

    def __init__(self, path: Path, sampling: Sampling, limits: Limits) -> None:
        check_readable(path)
        self._path, self._limits = path, limits
        self._began = time.monotonic()
        self._silence = SILENCE + path.stat().st_size / SLOWEST
        self._late = False
        self._done, self._of = 0, 0
        self._opened: Opened | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (`close` does)
        start = START.format(path=[entry for entry in sys.path if entry])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={name: os.environ[name] for name in KEPT if name in os.environ} | ONE_THREAD,
            # Without the parent's terminal; Ctrl-C is for the parent, which then ends this process.
            start_new_session=True,
        )
        self._ask(
            {
                "path": os.fsencode(
                    path
                ).hex(),  # whatever encodings the two processes take names in
                "sampling": asdict(sampling),
                "memory": limits.memory,
                "parent": os.getpid(),
            }
        )

    def count_from_now(self) -> None:
        """Start the time limit now, for a decoder that was started early."""
        self._began = time.monotonic()

    def opened(self) -> Opened:
        """What the decoder learnt on opening the input; waits for it."""
        if self._opened is None:
            held = Confinement(self._message(Held).confinement)
            said = self._message(Opening)
            self._opened = Opened(said.source, said.declared_duration, said.indices, held)
        return self._opened

    def frames(self) -> Iterator[Frame | DamagedFrame]:
        """The sampled frames in order, each once."""
        return self._frames(self.opened().indices)

    def further(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """Further frames by ascending display-order indices; only after `credentials`."""
        self._ask({"frames": list(indices)})
        return self._frames(indices)

    def _frames(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        before: Fraction | None = None
        self._done, self._of = 0, len(indices)
        for index in indices:
            said = self._message(Header)
            if said.index != index:
                raise self._nonsense(f"frame {said.index} in place of {index}")
            if before is not None and said.time < before:
                raise self._nonsense(f"of frame {index}: it is earlier than the one before it")
            before = said.time
            self._done += 1
            if not said.shape:
                yield DamagedFrame(index, said.time)
                continue
            pixels = np.empty(said.shape, np.uint8)
            with self._patience():
                self._fill(memoryview(pixels.data).cast("B"))
            yield Frame(index, said.time, pixels, said.interlaced)

    def credentials(self, clock: Clock) -> Credentials:
        """Content Credentials, after the last frame; adds the decoder's time and memory to `clock`."""
        said = self._message(Ending)
        clock.seconds["decoding"] = said.seconds
        clock.peak["decoding"] = said.peak
        return said.credentials

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):  # what could not be flushed to a dead process
                end.close()  # type: ignore[union-attr]

    # -- asking and reading ---------------------------------------------------------------------

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # dead already: reading says how
            self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            self._process.stdin.flush()

    def _message(self, kind: type[Message]) -> Message:
        stream = self._stream()
        with self._patience():
            line = stream.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise self._ended()
        try:
            said = parse(line, kind, self._path)
        except Nonsense as error:
            raise self._nonsense(f"of the {error}") from error
        if not isinstance(said, Failure):
            return said
        if said.error == "memory":
            raise LimitExceeded(
                f"{self._path}: decoding it takes more than {self._limits.memory} MiB of memory; convert it"
                " to smaller pictures, and note that you did"
            )
        if said.error not in SAID:
            raise self._nonsense(f"error {said.error!r:.80}")
        raise SAID[said.error](said.message)

    def _stream(self) -> IO[bytes]:
        stream = self._process.stdout
        assert stream is not None
        return stream

    def _fill(self, pixels: memoryview) -> None:
        at = 0
        while at < len(pixels):
            got = self._stream().readinto(pixels[at:])  # type: ignore[attr-defined]
            if not got:
                raise self._ended()
            at += got

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Kill the decoder if the block takes longer than the time left."""
        left = self._silence
        if self._limits.seconds is not None:
            left = min(left, self._began + self._limits.seconds - time.monotonic())
            if left <= 0:
                raise self._too_late()
        timer = threading.Timer(left, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _ended(self) -> InputError:
        """The error with the reason why the decoder stopped."""
        if self._late:
            return self._too_late()
        self._process.kill()
        code = self._process.wait()
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 4000))
        last = self._said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        words = "".join(f"; it said: {line}" for line in last)
        return ProcessDied(
            f"{self._path}: the decoder crashed on it ({how}{words}); the file is damaged, or built"
            f" to do so. Other inputs are not affected; copy it again from its source, or convert it"
            f" and note that you did"
        )

    def _too_late(self) -> LimitExceeded:
        if self._limits.seconds is not None:
            return LimitExceeded(
                f"{self._path}: not finished within the time limit of {self._limits.seconds:g} s"
                f" ({self._done} of {self._of or '?'} frames decoded); raise --time-limit, or look"
                f" at fewer frames"
            )
        return LimitExceeded(
            f"{self._path}: the decoder gave nothing for {self._silence:.0f} s; the file is damaged,"
            f" or built to hang it"
        )

    def _nonsense(self, what: str) -> ProcessDied:
        return ProcessDied(
            f"{self._path}: the decoder answered {what}; the file may have taken control of it, so"
            f" no result is used"
        )


@contextmanager
def decoder(path: Path, sampling: Sampling, limits: Limits) -> Iterator[Decoder]:
    """Start a decoder for `path`; it is gone when the block ends.

    Raises:
        UnreadableInput: `path` is not a readable file.
    """
    one = Decoder(path, sampling, limits)
    try:
        yield one
    finally:
        one.close()


# --- the decoder's own process ---------------------------------------------------------------------


def main() -> None:
    """Read requests for one file from stdin, answer them on stdout, and end with stdin."""
    asked = os.fdopen(os.dup(0), "rb")
    request = json.loads(asked.readline())
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    keep_memory_level()
    held = confine(path, int(request["memory"]), int(request["parent"]))
    _say(out, {"confinement": held})
    try:
        sampling = read(Sampling, request["sampling"], "sampling")
        source = _answer(out, path, sampling)
        for line in asked:
            _decode(out, source, json.loads(line)["frames"], Clock())
    except InputError as error:
        _say(out, {"error": type(error).__name__, "message": str(error)[:LONGEST_TEXT]})
    except MemoryError:
        _say(out, {"error": "memory", "message": ""})
    except BrokenPipeError:
        pass  # the parent is gone or has had enough
    os._exit(0)  # so that no destructor can hang


def _answer(out: IO[bytes], path: Path, sampling: Sampling) -> Media:
    """Send what every scan needs; return the open source."""
    clock = Clock()
    source = open_source(path, sampling.stream)
    found = source.source
    indices = source.choose(sampling)
    declared = source.declared_duration
    plain = asdict(found)
    del plain["path"]
    _say(
        out,
        {
            "source": plain,
            "declared_duration": None if declared is None else float(declared),
            "indices": list(indices),
        },
    )
    _decode(out, source, indices, clock)
    from deepscan.media import credentials

    signed = credentials.check(path)
    peak = 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = {"status": signed.status, "detail": signed.detail[:LONGEST_TEXT]}
    _say(out, said | {"seconds": clock.seconds.get("decoding", 0.0), "peak": peak})
    return source


def _decode(out: IO[bytes], source: Media, indices: Sequence[int], clock: Clock) -> None:
    size = source.source.width * source.source.height
    ways = max(1, min(DECODERS, HELD // (HELD_PIXEL * size)))
    parts = [timed(source.decode(part), clock, "decoding") for part in source.split(indices, ways)]
    with ahead(parts, WAITING // (3 * size), lambda item: item.index) as items:
        for item in items:
            plain = {"index": item.index, "time": item.time}
            if isinstance(item, DamagedFrame):
                _say(out, plain | {"shape": (), "interlaced": False})
                continue
            _say(out, plain | {"shape": item.pixels.shape, "interlaced": item.interlaced})
            _send(out, memoryview(item.pixels.data).cast("B"))


def _say(out: IO[bytes], message: dict[str, Any]) -> None:
    _send(out, memoryview(json.dumps(message, default=str).encode() + b"\n"))


def _send(out: IO[bytes], content: memoryview) -> None:
    while content:
        content = content[out.write(content) :]
