"""Answers the server's requests: JSON or a sentence for programs, pages under a policy of their own.

    GET    /                      the page
    GET    /jobs                  every clip, in order of arrival
    POST   /jobs?name=&case=...   a clip, its bytes as the body
    DELETE /jobs/ID               forget a clip and its results; a finished one after a minute
    POST   /jobs/ID/restore       undo that, within the minute
    GET    /jobs/ID/NAME          report.html, report.json, manifest.json or results.zip of a finished one

No address ever becomes a path: ids are looked up among the clips, names among these four.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from deepscan.judgement.words import HEADLINES
from deepscan.media.recognise import HEAD, is_media
from deepscan.records import Case
from deepscan.report import page, rendering
from deepscan.serve import front
from deepscan.serve.guard import Guard
from deepscan.serve.jobs import UNDO, Busy, Job, JobQueue, JobState
from deepscan.serve.uploads import safe_name

FILES = {
    page.NAME: "text/html; charset=utf-8",
    "report.json": "application/json",
    "manifest.json": "application/json",
    "results.zip": "application/zip",
}

# A report may only run its own script, in an origin of its own; save a picture, and print. It stands in this
# server's page, and in no other.
REPORT_HEADERS = {
    "content-security-policy": (
        f"{rendering.policy('page.js')}; frame-ancestors 'self';"
        " sandbox allow-scripts allow-downloads allow-modals"
    ),
    "x-frame-options": "SAMEORIGIN",
}

STEP = 2**20  # bytes written at a time


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is accepted at a time."""

    bytes: int = 2 * 10**9  # of one clip
    uploads: int = 2  # on their way at once
    stall: float = 30.0  # seconds without a byte


class Refused(Exception):
    """A clip is refused, with the response's status and a reason."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def build(queue: JobQueue, limits: Limits, key: str, local: bool) -> Guard:
    """Build the application. Callers must know `key`; see `Guard`."""
    app = FastAPI(title="deepscan", docs_url=None, redoc_url=None, openapi_url=None)
    uploads = asyncio.Semaphore(limits.uploads)

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(
            front.html(limits.bytes, queue.keep),
            headers={"content-security-policy": f"{front.policy()}; frame-ancestors 'none'"},
        )

    @app.get("/jobs")
    def all_jobs() -> JSONResponse:
        return JSONResponse([_plain(job, queue.keep) for job in queue.jobs()])

    @app.post("/jobs")
    async def upload(
        request: Request,
        name: str = "clip",
        case: Annotated[str, Query(max_length=200)] = "",
        exhibit: Annotated[str, Query(max_length=200)] = "",
        examiner: Annotated[str, Query(max_length=200)] = "",
        notes: Annotated[str, Query(max_length=2000)] = "",
    ) -> Response:
        body = _Body(request, limits)
        try:
            body.check()
            if uploads.locked():
                raise Refused(
                    429,
                    f"{limits.uploads} clips are being received already; send this one when they are done.",
                )
            stated = Case.noted(case, exhibit, examiner, notes)
            async with uploads:
                job = await _received(body, queue, safe_name(name), stated)
        except Refused as refused:
            # A browser shows the response only after sending everything, so the rest is read and dropped.
            await body.drain()
            headers = {"retry-after": "10"} if refused.status in (429, 503) else {}
            return PlainTextResponse(
                str(refused), refused.status, {**headers, "connection": "close"}
            )
        return JSONResponse(_plain(job, queue.keep), 202)

    @app.delete("/jobs/{job_id}")
    def remove(job_id: str) -> Response:
        if not queue.remove(job_id):
            raise HTTPException(404, "No such clip: it was removed, or its report has expired.")
        return Response(status_code=204)

    @app.post("/jobs/{job_id}/restore")
    def restore(job_id: str) -> Response:
        if not queue.restore(job_id):
            raise HTTPException(404, "No such clip: it was removed, or its report has expired.")
        return Response(status_code=204)

    @app.get("/jobs/{job_id}/{name}")
    def result(job_id: str, name: str) -> Response:
        job = queue.job(job_id)
        if job is None:
            raise HTTPException(404, "No such clip: it was removed, or its report has expired.")
        if name not in FILES or job.state is not JobState.FINISHED:
            raise HTTPException(404, f"This clip has no {name!r}.")
        if name == "results.zip":
            return FileResponse(
                queue.archive(job), media_type=FILES[name], filename=f"{job.name}.deepscan.zip"
            )
        return FileResponse(
            queue.results(job) / name,
            media_type=FILES[name],
            headers=REPORT_HEADERS if name == page.NAME else {},
        )

    @app.exception_handler(HTTPException)
    async def in_words(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(str(error.detail), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return PlainTextResponse(f"{first['loc'][-1]}: {first['msg']}.", 422)

    return Guard(app, key, local)


# --- receiving -------------------------------------------------------------------------------------


class _Body:
    """A request's body, with its size and time limited."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request, self._limits = request, limits
        self._pieces = request.stream()
        stated = request.headers.get("content-length", "")
        self.stated = int(stated) if stated.isdecimal() else None
        self._taken = 0
        self._over = False

    def check(self) -> None:
        """Refuse a body whose headers are already wrong."""
        if self.stated is not None and self.stated > self._limits.bytes:
            raise self._too_large()
        if self._request.headers.get("content-type", "").startswith("multipart/"):
            raise Refused(415, "Send the clip's bytes as the body itself, not as a form.")

    def _too_large(self) -> Refused:
        return Refused(
            413,
            f"The clip is larger than the {rendering.size(self._limits.bytes)} that this server"
            f" accepts. Cut out the part in question, or use deepscan detect, which has no limit.",
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in pieces.

        Raises:
            Refused: it grows beyond the limit, or stops arriving.
        """
        while not self._over:
            try:
                async with asyncio.timeout(self._limits.stall):
                    piece = await anext(self._pieces, None)
            except TimeoutError:
                self._over = True
                raise Refused(
                    408, f"Nothing arrived for {self._limits.stall:.0f} s; send the clip again."
                ) from None
            except ClientDisconnect:
                self._over = True
                raise Refused(
                    400, "The connection ended before the whole clip had arrived."
                ) from None
            if piece is None:
                self._over = True
                return
            self._taken += len(piece)
            if self._taken > self._limits.bytes:
                self._over = True
                raise self._too_large()
            yield piece

    async def drain(self) -> None:
        """Read and drop the rest, unless it is more than would have been accepted."""
        if self.stated is not None and self.stated > self._limits.bytes:
            return
        try:
            async for _ in self.pieces():
                pass
        except Refused:
            return


async def _received(body: _Body, queue: JobQueue, name: str, case: Case | None) -> Job:
    """Receive a clip and put it into the queue.

    Raises:
        Refused: the queue is full, the clip is not media, or it did not arrive.
    """
    try:
        job = await run_in_threadpool(queue.receive, name, body.stated or 0, case)
    except Busy as busy:
        raise Refused(503, f"Not taken: {busy}.") from busy
    submitted = None
    try:
        with queue.clip(job).open("xb") as file:
            await _write(body, file)
        submitted = await run_in_threadpool(queue.submit, job)
    except OSError as error:
        raise Refused(503, f"The clip could not be stored: {error.strerror}.") from error
    finally:
        if submitted is None:  # refused, removed meanwhile, or the server is closing
            queue.remove(job.id)
    if submitted is None:
        raise Refused(409, "The clip was removed before it had arrived.")
    return submitted


async def _write(body: _Body, file: BinaryIO) -> None:
    waiting = bytearray()
    judged = False

    def judge() -> None:
        if not waiting:
            raise Refused(400, "The file is empty; copy it again from its source.")
        if not is_media(bytes(waiting[:HEAD])):
            raise Refused(
                415,
                "This is not a video or picture that deepscan knows, whatever its name says. It"
                " reads the usual "
                "ones, such as MP4, MOV, MKV, WebM, AVI, JPEG and PNG.",
            )

    async for piece in body.pieces():
        waiting += piece
        if not judged and len(waiting) >= HEAD:
            judge()
            judged = True
        if len(waiting) >= STEP:
            await run_in_threadpool(file.write, bytes(waiting))
            waiting.clear()
    if not judged:
        judge()
    await run_in_threadpool(file.write, bytes(waiting))


def left(job: Job, keep: float) -> int | None:
    """Seconds until a clip's results are deleted; None while they are not there."""
    ends = job.removed + UNDO if job.removed else job.ended and job.ended + keep
    return None if ends is None else max(0, round(ends - time.time()))


def _plain(job: Job, keep: float) -> dict[str, Any]:
    """A clip as the page shows it."""
    analysis = job.analysis
    return {
        "id": job.id,
        "name": job.name,
        "bytes": job.bytes,
        "state": job.state,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "verdict": analysis.verdict if analysis else None,
        "headline": HEADLINES[analysis.verdict] if analysis else None,
        "sentence": analysis.sentence if analysis else job.words,
        "warnings": analysis.warnings if analysis else 0,
        "seconds_left": left(job, keep),
    }
