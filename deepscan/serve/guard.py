"""Guards every request: decides who may ask, and tells browsers what they may do with the response.

Any web page open in this machine's browser can send requests to this server, and any account of this machine
can open its port. Three rules keep them out. Every request needs the key, which only the printed address
holds; a cookie keeps it from then on. A request that changes something must come from this server's own page
(no forged requests). And a server for this machine alone answers to loopback names only, which excludes
foreign names pointed at this machine (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = (
    "deepscan-key-"  # and a part of the key's hash: cookies are shared by all ports of a machine
)

# Responses hold evidence: browsers must not cache, frame or sniff them, or let other sites read them.
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
POLICY = "default-src 'none'; frame-ancestors 'none'"  # for every response that is not a page


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(address: str) -> SplitResult:
    """Split an address into its parts; an invalid one has empty parts."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


class Guard:
    """An ASGI application that wraps and protects another."""

    def __init__(self, app: App, key: str, local: bool) -> None:
        """Guard `app`; callers must know `key` and, if it is `local`, use a loopback name."""
        self._app, self._key, self._local = app, key, local
        self._cookie = COOKIE + hashlib.sha256(key.encode()).hexdigest()[:8]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no WebSocket is ever accepted

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                added = {**HEADERS, "content-security-policy": POLICY}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (n.encode(), v.encode())
                        for n, v in added.items()
                        if n.encode() not in there
                    ),
                ]
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Message) -> Response | None:
        """The response to a request that must be refused, or None."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self._local and not is_loopback(_split(f"//{host}").hostname or ""):
            return PlainTextResponse(
                "This server answers only as 127.0.0.1 or localhost; open one of these.", 421
            )
        foreign = origin is not None and _split(origin).netloc.lower() != host
        if scope["method"] not in ("GET", "HEAD") and (
            foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        ):
            return PlainTextResponse(
                "This request came from another site's page, so it was refused.", 403
            )
        return self._locked(scope, headers.get("cookie", ""))

    def _locked(self, scope: Message, cookies: str) -> Response | None:
        """None for a caller with the key; one who has it in the address gets a cookie with it."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
        if scope["path"] == "/" and secrets.compare_digest(given.encode(), self._key.encode()):
            opened = RedirectResponse("/", 303)
            opened.set_cookie(self._cookie, self._key, httponly=True, samesite="strict")
            return opened
        try:
            held = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            held = None
        if held is not None and secrets.compare_digest(held.value.encode(), self._key.encode()):
            return None
        return PlainTextResponse(
            "Open the full address that deepscan serve printed, including its key.", 401
        )
