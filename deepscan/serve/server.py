"""Opens the queue and a socket and serves the page until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import uvicorn

from deepscan.config import Settings
from deepscan.errors import SettingsError
from deepscan.interrupt import until_stopped
from deepscan.model import weights
from deepscan.serve.app import Limits, build
from deepscan.serve.guard import is_loopback
from deepscan.serve.jobs import JobQueue
from deepscan.serve.worker import Worker


def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    limits: Limits | None = None,
    keep: float = 3600.0,
    argv: tuple[str, ...] = (),
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then delete all clips and results.

    Args:
        settings: for every analysis.
        host: the address to listen on; other machines reach those that are not loopback.
        port: 0 picks a free one.
        limits: how much is accepted at a time.
        keep: seconds for which results are kept.
        argv: the command line, for the reports.
        ready: called with the page's address, including the key, once it can be opened.

    Raises:
        SettingsError: the address cannot be used.
        OutputError: clips cannot be stored.
    """
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise SettingsError(
            f"{host}, port {port}: cannot listen there: {error.strerror}; choose another port with --port N"
        ) from error
    key = secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/?key={key}"
    folder = weights.cache_folder().with_name("serve")
    with (
        listening,
        JobQueue(Worker(settings, argv), folder, keep=keep) as queue,
        until_stopped(),  # uvicorn stops, then raises the signal that stopped it
    ):
        config = uvicorn.Config(
            build(queue, limits or Limits(), key, local=is_loopback(host)),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=1,
        )
        ready(address)
        uvicorn.Server(config).run(sockets=[listening])
