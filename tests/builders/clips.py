"""Makes the media files the tests read: sound, odd and hostile, with PyAV, Pillow and bytes alone.

Every picture of a clip carries its own number as twelve bright or dark blocks, which survive lossy
coding: `number` reads it back, so a test can say which frame it was really given.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 96, 64
COLUMNS, ROWS = 4, 3
DARK, BRIGHT = 40, 215

RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220)


# --- pictures --------------------------------------------------------------------------------------


def numbered(n: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A grey picture (height, width, 3) showing `n` in binary, lowest bit at the top left."""
    bits = np.array([n >> i & 1 for i in range(COLUMNS * ROWS)]).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns], BRIGHT, DARK).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def number(pixels: np.ndarray) -> int:
    """What `numbered` wrote."""
    height, width = pixels.shape[:2]
    rows = (np.arange(ROWS) * 2 + 1) * height // (2 * ROWS)
    columns = (np.arange(COLUMNS) * 2 + 1) * width // (2 * COLUMNS)
    bits = pixels[rows][:, columns].mean(2).ravel() > (DARK + BRIGHT) / 2
    return int(sum(1 << i for i in range(COLUMNS * ROWS) if bits[i]))


def quarters(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Red, green over blue, white: tells every turn and mirroring apart."""
    picture = np.empty((height, width, 3), np.uint8)
    half_y, half_x = height // 2, width // 2
    picture[:half_y, :half_x], picture[:half_y, half_x:] = RED, GREEN
    picture[half_y:, :half_x], picture[half_y:, half_x:] = BLUE, WHITE
    return picture


def corners(pixels: np.ndarray) -> str:
    """The colours of the quarters, row by row, as in "RG/BW"."""
    height, width = pixels.shape[:2]
    names = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            distance = [
                np.abs(pixels[y, x].astype(int) - c).sum() for c in (RED, GREEN, BLUE, WHITE)
            ]
            names.append("RGBW"[int(np.argmin(distance))])
    return f"{names[0]}{names[1]}/{names[2]}{names[3]}"


def plain(colour: Sequence[int], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """One colour all over."""
    return np.full((height, width, 3), colour, np.uint8)


# --- videos ----------------------------------------------------------------------------------------


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Undo what SVT-AV1 does where root runs it: it makes the thread that encodes a real-time one, for good.

    All that the process starts later would go before everything else on the machine, and of two threads that
    never make way for each other one may wait for ever.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write(
    path: Path,
    pictures: Iterable[np.ndarray] | int = 50,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    times: Sequence[Fraction | int] | None = None,
    rate: int = 25,
    ticks: int | None = None,
    options: dict[str, str] | None = None,
    container: str | None = None,
    movflags: str = "",
    sound: bool = False,
    frame: Callable[[av.VideoFrame], None] | None = None,
    stream: Callable[[Any], None] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Encode pictures (or so many numbered ones) into a file and give its path back.

    `times` are seconds, one a picture; by default frame i stands at i / rate. `frame` and `stream`
    may set what they like on each before it is encoded.
    """
    if isinstance(pictures, int):
        pictures = [numbered(i) for i in range(pictures)]
    pictures = list(pictures)
    if ticks is None:  # these know no finer clock than the frames themselves
        ticks = rate if path.suffix in (".avi", ".mpg") else 512 * rate
    base = Fraction(1, ticks)
    with (
        _scheduling_kept(),
        av.open(
            str(path), "w", format=container, options={"movflags": movflags} if movflags else {}
        ) as out,
    ):
        out.metadata.update(tags or {})
        video = out.add_stream(codec, rate=rate, options=options or {})
        height, width = pictures[0].shape[:2] if pictures else (HEIGHT, WIDTH)
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.codec_context.time_base = base
        video.codec_context.thread_count = 1
        video.time_base = base
        if stream:
            stream(video)
        if sound:
            _silence(out, Fraction(len(pictures), rate))
        for i, picture in enumerate(pictures):
            native = av.VideoFrame.from_ndarray(
                picture, "rgb24" if picture.shape[2] == 3 else "rgba"
            )
            native = native.reformat(format=pixels)
            if frame:
                frame(native)
            native.pts = int((times[i] if times is not None else Fraction(i, rate)) / base)
            native.time_base = base
            out.mux(video.encode(native))
        if pictures:
            out.mux(video.encode(None))
        else:
            out.start_encoding()
    return path


def mux(path: Path, codec: str, pictures: Iterable[bytes], rate: int = 25) -> Path:
    """Put pictures that are encoded already into a container."""
    with av.open(str(path), "w") as out:
        video = out.add_mux_stream(codec, rate=rate, width=WIDTH, height=HEIGHT)
        for i, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = video, i, i
            packet.time_base, packet.is_keyframe = Fraction(1, rate), True
            out.mux(packet)
    return path


def b_frames(**more: str) -> dict[str, str]:
    """x264 options: a keyframe every 10 frames, three B-frames between, one of them a reference."""
    return {
        "g": "10",
        "bf": "3",
        "crf": "18",
        "preset": "ultrafast",
        "x264-params": "b-adapt=0:b-pyramid=normal:ref=3:scenecut=0",
    } | more


def sound_only(path: Path, codec: str = "aac") -> Path:
    """A second of silence, without pictures."""
    with av.open(str(path), "w") as out:
        _silence(out, Fraction(1), codec)
    return path


def _silence(out: Any, seconds: Fraction, codec: str = "aac") -> None:
    audio = out.add_stream(codec, rate=44100, layout="mono")
    kind = "s16" if codec.startswith("pcm") else "fltp"
    for start in range(0, int(44100 * seconds), 1024):
        silence = np.zeros((1, 1024), np.int16 if kind == "s16" else np.float32)
        samples = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
        samples.sample_rate, samples.pts = 44100, start
        out.mux(audio.encode(samples))
    out.mux(audio.encode(None))


# --- time stamps, fields and takes -----------------------------------------------------------------


def restamped(path: Path, source: Path, stamp: Callable[[int, int], int | None]) -> Path:
    """Copy a clip's packets; `stamp` gives packet n its pts, in frames, from n and its true pts."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        video = given.streams.video[0]
        copy = out.add_stream_from_template(video)
        tick = int(1 / (video.average_rate * video.time_base))
        packets = [packet for packet in given.demux(video) if packet.size]
        first = min(packet.pts for packet in packets)
        for n, packet in enumerate(packets):
            pts = stamp(n, (packet.pts - first) // tick)
            packet.stream = copy
            packet.pts = None if pts is None else pts * tick
            packet.dts = (n if pts is None else min(n, pts)) * tick
            out.mux(packet)
    return path


def packed(path: Path, count: int) -> Path:
    """An AVI as DivX 5 wrote it: a B-frame lies in the packet of its P-frame, and an empty one follows."""
    plain = write(path.with_name("plain.avi"), count, "mpeg4", options={"bf": "1", "g": "10"})
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        video = given.streams.video[0]
        copy = out.add_stream_from_template(video)
        coded = [bytes(packet) for packet in given.demux(video) if packet.size]
        empty = b"\0\0\1\xb6" + int("01" + "0" + "1" + "00000" + "1" + "0" + "11111", 2).to_bytes(
            2, "big"
        )
        # Display follows coding but for B-frames (coding type 2 after the start code), which come one later.
        is_b = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 2 for data in coded]
        content = list(coded)
        at = coded[0].index(b"\0\0\1\xb6")
        content[0] = coded[0][:at] + b"\0\0\1\xb2DivX503b1393p" + coded[0][at:]
        for n in range(1, count):
            if is_b[n]:
                content[n - 1], content[n] = coded[n - 1] + coded[n], empty
        for n, data in enumerate(content):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = copy, n, n, Fraction(1, 25)
            packet.is_keyframe = n == 0
            out.mux(packet)
    return path


def unstamped(path: Path, kept: int) -> Path:
    """Take the time stamps off the frames of a transport stream, but for one in `kept`."""
    data, count = bytearray(path.read_bytes()), 0
    for at in range(0, len(data), 188):
        begins, pid = data[at + 1] & 0x40, (data[at + 1] & 0x1F) << 8 | data[at + 2]
        pes = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
        if begins and pid == 0x100 and data[pes : pes + 3] == b"\0\0\1":
            if count % kept:
                data[pes + 7] &= 0x3F  # neither PTS nor DTS
            count += 1
    path.write_bytes(data)
    return path


def joined(path: Path, *parts: Path) -> Path:
    """What `cat` makes of several files."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def fields(path: Path, count: int = 12, together: bool = False) -> Path:
    """Numbered pictures in H.264 coded as fields, without compression (I_PCM macroblocks).

    Each field is a packet, or, `together`, the two of a picture are.
    """

    def unit(kind: int, bits: str) -> bytes:
        bits += "1"
        bits += "0" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        out = bytearray()
        for byte in data:  # no start code may appear by chance
            if byte <= 3 and out[-2:] == b"\0\0":
                out.append(3)
            out.append(byte)
        return b"\0\0\0\1" + bytes([kind]) + bytes(out)

    def ue(n: int) -> str:
        binary = f"{n + 1:b}"
        return "0" * (len(binary) - 1) + binary

    across, down = WIDTH // 16, HEIGHT // 32  # macroblocks of a field
    # Main profile, 4 bits of frame number, order = decoding order, 2 references, no frames only.
    sps = f"{77:08b}{0:08b}{30:08b}" + ue(0) + ue(0) + ue(2) + ue(2) + "0" + ue(across - 1)
    sps += ue(down - 1) + "0" + "0" + "1" + "0" + "0"
    pps = ue(0) + ue(0) + "0" + "0" + ue(0) + ue(0) + ue(0) + "0" + "00" + ue(0) * 3 + "000"
    pictures = []
    for n in range(count):
        grey = numbered(n)[..., 0]
        for bottom in (0, 1):
            bits = ue(0) + ue(7) + ue(0) + f"{n % 16:04b}" + "1" + str(bottom)
            # The first field of all is an IDR picture, whose number is given; the others are references.
            idr = n == 0 and not bottom
            bits += (ue(0) + "00" if idr else "0") + ue(0)
            field = grey[bottom::2]
            for y in range(0, field.shape[0], 16):
                for x in range(0, WIDTH, 16):
                    bits += ue(25)
                    bits += "0" * (-len(bits) % 8)
                    block = bytes(np.maximum(field[y : y + 16, x : x + 16], 1)) + b"\x80" * 128
                    bits += "".join(f"{byte:08b}" for byte in block)
            pictures.append(unit(0x65 if idr else 0x61, bits))
    head = unit(0x67, sps) + unit(0x68, pps)
    pictures[0] = head + pictures[0]
    if together:
        pairs = zip(pictures[::2], pictures[1::2], strict=True)
        return mux(path, "h264", [a + b for a, b in pairs], rate=25)
    return mux(path, "h264", pictures, rate=50)


def edits(path: Path, *parts: tuple[Fraction, Fraction]) -> Path:
    """Have an MP4 show these parts of its media, one after the other: start and length, seconds."""

    def replaced(data: bytes, names: list[bytes], new: bytes) -> bytes:
        out, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + size]
            if kind == names[0]:
                body = replaced(body, names[1:], new) if names[1:] else new
            out += struct.pack(">I4s", len(body) + 8, kind) + body
            at += size
        return out

    data = path.read_bytes()
    start, _ = boxes(data, "moov/trak/edts/elst")
    first, scale_at = (
        struct.unpack(">I", data[start + 12 : start + 16])[0],
        boxes(data, "moov/trak/mdia/mdhd")[0] + 12,
    )
    (scale,) = struct.unpack(">I", data[scale_at : scale_at + 4])
    entries = [
        struct.pack(">IiI", int(length * 1000), first + int(at * scale), 0x10000)
        for at, length in parts
    ]
    new = struct.pack(">II", 0, len(entries)) + b"".join(entries)
    path.write_bytes(replaced(data, [b"moov", b"trak", b"edts", b"elst"], new))
    return path


# --- damage ----------------------------------------------------------------------------------------


def boxes(data: bytes, path: str) -> tuple[int, int]:
    """Where the MP4 box at `path`, such as "moov/trak/tkhd", has its contents: start and end."""
    start, end = 0, len(data)
    for name in path.split("/"):
        place = start
        while place < end:
            size, kind = struct.unpack(">I4s", data[place : place + 8])
            if kind == name.encode():
                start, end = place + 8, place + size
                break
            place += size
        else:
            raise LookupError(f"no {name} in this file")
    return start, end


def patch(path: Path, place: int, new: bytes) -> Path:
    """Write `new` over the bytes at `place`."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(new)
    return path


def cut(path: Path, share: float) -> Path:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def break_packets(path: Path, which: Iterable[int]) -> Path:
    """Overwrite the insides of these packets, by decoding order, with noise."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    noise = np.random.default_rng(0)
    for i in which:
        place, size = packets[i]
        kept = 5 + (size - 5) // 4  # NAL length, header and a start of good slice data stay
        patch(path, place + kept, noise.integers(0, 256, size - kept, np.uint8).tobytes())
    return path


def edit_list(path: Path, skip: Fraction) -> Path:
    """Make an MP4's edit list start `skip` seconds into its media: what a cut without re-encoding leaves."""
    data = path.read_bytes()
    start, _ = boxes(data, "moov/trak/edts/elst")
    scale_at, _ = boxes(data, "moov/trak/mdia/mdhd")
    (scale,) = struct.unpack(">I", data[scale_at + 12 : scale_at + 16])
    (was,) = struct.unpack(">i", data[start + 12 : start + 16])
    return patch(path, start + 12, struct.pack(">i", was + int(skip * scale)))


def track_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the turn (a, b, c, d) into an MP4's track header, where phones put it."""
    start, _ = boxes(path.read_bytes(), "moov/trak/tkhd")
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return patch(path, start + 40, matrix)


def huge_png(path: Path, width: int = 60000, height: int = 60000) -> Path:
    """A PNG of a few bytes whose (sound) header claims to be enormous."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    return path


def huge_h264(path: Path, side: int = 60000) -> Path:
    """A raw H.264 stream whose sequence header claims `side` x `side` pixels."""
    bits = ""

    def put(*values: int) -> None:  # Exp-Golomb codes
        nonlocal bits
        for value in values:
            code = f"{value + 1:b}"
            bits += "0" * (len(code) - 1) + code

    put(0, 0, 2, 1)  # id, frame number length, order by decoding, one reference
    bits += "0"
    put(side // 16 - 1, side // 16 - 1)
    bits += "1" + "1" + "0" + "0" + "1"  # frames only, 8x8 inference, no crop, no extras, stop
    body = int(bits.ljust(-len(bits) // 8 * -8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    sps = b"\x67\x42\x00\x33" + body
    slices = write(path.with_name("small.h264"), 3).read_bytes()
    path.write_bytes(b"\0\0\0\1" + sps + slices[slices.index(b"\0\0\0\1\x68") :])
    return path


def with_cover(path: Path, picture: bytes) -> Path:
    """Sound with a JPEG as its cover: a video stream to FFmpeg, though there is nothing to watch."""
    frame = b"\x00image/jpeg\x00\x03\x00" + picture  # text encoding, type, front cover, description
    size = len(frame)
    body = b"APIC" + struct.pack(">I", size) + b"\0\0" + frame
    synchsafe = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    sound = sound_only(path, "libmp3lame").read_bytes()
    path.write_bytes(b"ID3\x03\x00\x00" + synchsafe + body + sound)
    return path
