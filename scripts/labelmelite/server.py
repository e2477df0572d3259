"""`segloop label`: opens the database and the data set, prints the address, serves until it is told to stop."""

import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import uvicorn

from labelmelite.app import create_app
from labelmelite.images import Pixels
from labelmelite.importing import import_source
from labelmelite.security import Guard
from labelmelite.settings import LOOPBACK, Settings
from labelmelite.sources.base import Source
from labelmelite.store import Store
from labelmelite.work import Work
from segloop.errors import SegloopError


class Opened(Protocol):
    """What is labelled: data sets, and the loop that asks questions, if there is one.

    Attributes
    ----------
    roots
        Folders and URL bases of its images.
    """

    @property
    def roots(self) -> tuple[str, ...]:
        """Folders and URL bases of the images."""
        ...

    def sources(self) -> list[Source]:
        """Return the data sets to read in."""
        ...

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> Work | None:
        """Return what gives people tasks; None: nothing does."""
        ...


def serve(
    settings: Settings,
    opened: Opened,
    *,
    allowed: tuple[str, ...] = (),
    open_browser: bool = False,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> int:
    """Serve until SIGINT or SIGTERM and return the exit status.

    Parameters
    ----------
    allowed
        Further folders and URL bases that may hold images.
    """
    listener = _listen(settings.host, settings.port)
    try:
        settings = replace(
            settings,
            port=listener.getsockname()[1],
            roots=tuple(dict.fromkeys((*settings.roots, *opened.roots, *allowed))),
        )
        store = Store(settings.data)
    except BaseException:
        listener.close()
        raise
    try:
        for source in opened.sources():
            _read(store, source, say)
        app = create_app(settings, store, opened.start)
        address = _address(settings, app.state.guard, store)
        for line in _hints(settings, address):
            say(line)
        if open_browser:
            webbrowser.open(address)
        # Each statement of the writer's thread gives up the interpreter's lock, and waits this long to get it back.
        sys.setswitchinterval(0.0005)
        # uvicorn ends well on SIGINT and SIGTERM: requests under way are finished first.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
            ws="none",
            proxy_headers=False,
        )
        # It repeats the signal when all is done; the database still has to be closed then.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
        store.close()
    say("stopped; everything that was acknowledged is saved")
    return 0


def _read(store: Store, source: Source, say: Callable[[str], None]) -> None:
    result = import_source(store, source, progress=True)
    if result.changed:
        say(f"{source.name}: the file has changed since people began to work on it; their state of it is kept")
    for one in source.skipped[:5]:
        say(f"skipped: {one['record']}: {one['reason']}")
    if len(source.skipped) > 5:
        say(f"... and {len(source.skipped) - 5} more records")


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named, asyncio switches Nagle's algorithm off; else each response waits for 40 ms.
        listener = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
        listener.listen(1024)
    except OSError as error:
        raise SegloopError(f"{host}, port {port} cannot be used ({error}). Choose another with --port.") from None
    return listener


def _address(settings: Settings, guard: Guard, store: Store) -> str:
    base = (settings.public or f"http://{_shown(settings.host)}:{settings.port}").rstrip("/")
    if not settings.tokens:
        return f"{base}/"
    return f"{base}/join#{store.write_now(guard.invite_owner)}"


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.getfqdn()
    return f"[{host}]" if ":" in host else host


def _hints(settings: Settings, address: str) -> list[str]:
    lines = [f"LabelMeLite: {address}"]
    if settings.host in LOOPBACK:
        if os.environ.get("SSH_CONNECTION"):
            here = f"{os.environ.get('USER', 'you')}@{socket.getfqdn()}"
            lines.append(f"on your own machine first: ssh -N -L {settings.port}:127.0.0.1:{settings.port} {here}")
    else:
        lines.append("Others can reach this address, unencrypted: put a proxy with TLS before it and use --public URL.")
    lines.append("Ctrl+C stops it; what was acknowledged is saved." if sys.stdin.isatty() else "SIGTERM stops it.")
    return lines
