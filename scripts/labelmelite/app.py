"""The application: state, routes, and what holds for every request."""

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelmelite import http, security
from labelmelite.errors import ApiError
from labelmelite.images import Pixels
from labelmelite.security import Guard
from labelmelite.settings import Settings
from labelmelite.store import Store
from labelmelite.work import Work
from segloop.errors import SegloopError

logger = logging.getLogger("labelmelite")

THREADS: Final = 200
Start = Callable[[Store, Settings, Pixels], Work | None]
RESOURCES: Final = (
    *("session", "datasets", "events", "export", "imports", "invites"),
    *("tasks", "review", "progress", "gold", "tree", "map", "pages"),
)


def create_app(settings: Settings, store: Store, start: Start | None = None) -> Starlette:
    """Return the application.

    Parameters
    ----------
    store
        The open database; whoever opened it closes it after the application has ended.
    start
        Returns what gives people tasks, or None.
    """
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Gate, settings=settings)],
        exception_handlers={ApiError: _refused, HTTPException: _refused, Exception: _failed},
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.guard = Guard(store, settings)
    app.state.pixels = Pixels(settings.data / "cache", settings.roots, settings.cache_bytes)
    app.state.loop = None if start is None else start(store, settings, app.state.pixels)
    return app


def _routes() -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for name in RESOURCES:
        if importlib.util.find_spec(f"labelmelite.routes.{name}") is None:
            continue
        found += importlib.import_module(f"labelmelite.routes.{name}").ROUTES
    return found


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    # Requests for a task may wait for the policy, each in a thread; answers of others must find one.
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    settings: Settings = app.state.settings
    copying = asyncio.create_task(_copy(app.state.store, settings)) if settings.copies is not None else None
    try:
        yield
    finally:
        if app.state.loop is not None:
            await run_in_threadpool(app.state.loop.close)
        if copying is not None:
            copying.cancel()
            await run_in_threadpool(_copy_once, app.state.store, settings)


async def _copy(store: Store, settings: Settings) -> None:
    while True:
        await asyncio.sleep(settings.copy_minutes * 60)
        await run_in_threadpool(_copy_once, store, settings)


def _copy_once(store: Store, settings: Settings) -> None:
    assert settings.copies is not None
    try:
        store.copy(settings.copies)
    except SegloopError as error:
        logger.warning("%s; the next try is in %s minutes", error, settings.copy_minutes)


class Gate:
    """Before a route: who it is, and whether the request may come from there. After it: the headers.

    An ASGI class, because Starlette's own base for middleware copies bodies and costs more than the routes.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.extra = [(name.lower().encode(), value.encode()) for name, value in security.headers(settings).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.extra]
            await send(message)

        request = Request(scope, receive)
        guard: Guard = scope["app"].state.guard
        try:
            guard.check_host(request)
            request.state.person = await guard.person(request)
            if scope["method"] not in ("GET", "HEAD"):
                guard.check_origin(request, request.state.person)
        except ApiError as error:
            await http.answer(error.to_json(), error.status)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return http.answer(error.to_json(), error.status)
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 413: "too_large"}.get(status, "bad_request")
    message = "There is no such page or record." if status == 404 else "This request is not understood."
    return http.answer({"error": {"code": code, "message": message}}, status)


async def _failed(request: Request, error: Exception) -> Response:
    # The traceback goes to the log; a page shows a sentence.
    message = "The server made a mistake; nothing was saved. Its log says more."
    return http.answer({"error": {"code": "unavailable", "message": message}}, 500)
