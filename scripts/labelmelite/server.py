"""`segloop label`: opens the database and the data set, prints the address, serves until it is told to stop."""

import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvicorn

from labelmelite import datasets
from labelmelite.app import create_app
from labelmelite.images import as_root, is_url
from labelmelite.security import Guard, owner
from labelmelite.settings import Settings
from labelmelite.sources.base import Source
from labelmelite.sources.coco import CocoSource
from labelmelite.sources.folder import folder_source
from labelmelite.store import Store
from segloop.errors import SegloopError

logger = logging.getLogger("labelmelite")


def source_of(annotations: Path | None, images: str) -> Source:
    """Return the data set of the command line."""
    root = as_root(images)
    if annotations is not None:
        return CocoSource(annotations, root)
    if is_url(images):
        raise SegloopError("A URL cannot be listed. Name the COCO file of the images too, with --annotations.")
    return folder_source(Path(images))


def serve(
    settings: Settings,
    source: Source | None,
    *,
    open_browser: bool = False,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> int:
    """Serve until SIGINT or SIGTERM and return the exit status."""
    listener = _listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    settings = replace(settings, port=port)
    store = Store(settings.data)
    try:
        if source is not None:
            settings = replace(settings, roots=(*settings.roots, source.root))
            datasets.import_source(store, source)
            for one in source.skipped[:5]:
                say(f"skipped: {one['record']}: {one['reason']}")
        app = create_app(settings, store)
        address = _address(settings, app.state.guard, store)
        for line in _hints(settings, address):
            say(line)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=10, ws="none"
        )
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
        store.close()
    say("stopped; everything that was acknowledged is saved")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
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

    def invite(connection: object) -> str:
        import sqlite3

        assert isinstance(connection, sqlite3.Connection)
        identity = owner(connection, store.clock.now())
        made = guard.invite(connection, "owner", "owner", days=1)
        connection.execute("UPDATE invite SET annotator = ? WHERE id = ?", (identity, made["id"]))
        return str(made["token"])

    return f"{base}/join#{store.write_now(invite)}"


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.getfqdn()
    return f"[{host}]" if ":" in host else host


def _hints(settings: Settings, address: str) -> list[str]:
    lines = [f"LabelMeLite: {address}"]
    if settings.host in ("127.0.0.1", "localhost", "::1"):
        if os.environ.get("SSH_CONNECTION"):
            here = f"{os.environ.get('USER', 'you')}@{socket.getfqdn()}"
            lines.append(f"on your own machine first: ssh -N -L {settings.port}:127.0.0.1:{settings.port} {here}")
    else:
        lines.append("Others can reach this address, unencrypted: put a proxy with TLS before it and use --public URL.")
    lines.append("Ctrl+C stops it; what was acknowledged is saved." if sys.stdin.isatty() else "SIGTERM stops it.")
    return lines
