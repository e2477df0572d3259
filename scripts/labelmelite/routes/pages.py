"""The pages and what they load; all of it lies in static/ and is served as it is."""

import mimetypes
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from labelmelite.errors import ApiError

STATIC: Final = Path(__file__).resolve().parents[1] / "static"
PAGES: Final = {
    "/": "datasets",
    "/d/{dataset}": "images",
    "/d/{dataset}/{image}": "editor",
    **{f"/{name}": name for name in ("questions", "edit", "review", "progress", "tree", "map", "help", "join")},
    # Whom a platform sends is let in by the page of questions itself.
    "/study": "questions",
    "/mturk": "questions",
}
"""The file of each page, by its path."""
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def page(path: str, name: str) -> Route:
    """Return the route of a page."""

    async def show(request: Request) -> Response:
        return await _file(f"{name}.html")

    return Route(path, show, methods=["GET"])


async def static(request: Request) -> Response:
    """GET: a script, a style sheet, a picture."""
    return await _file(request.path_params["path"])


async def _file(name: str) -> Response:
    path = await run_in_threadpool(_found, name)
    if path is None:
        raise ApiError("not_found", "There is no such page.")
    media = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    # Browsers ask each time whether a file has changed, so that no page runs the scripts of an older server.
    return FileResponse(path, media_type=media, headers={"Cache-Control": "no-cache"})


def _found(name: str) -> Path | None:
    """Return the file of that name below static/, if there is one that everybody may see."""
    if not name.isprintable() or any(part.startswith(".") for part in Path(name).parts):
        return None
    try:
        path = (STATIC / name).resolve()
        return path if path.is_relative_to(STATIC) and path.is_file() else None
    except OSError:  # a name longer than any file's
        return None


ROUTES = [*(page(path, name) for path, name in PAGES.items()), Route("/static/{path:path}", static, methods=["GET"])]
