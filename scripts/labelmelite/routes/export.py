"""A data set goes out as a COCO file."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from labelmelite import http, security
from labelmelite.exporting import Export


async def export(request: Request) -> Response:
    """GET: the data set as it is now."""
    security.require(request, "reader")
    number = http.path_number(request, "dataset")
    store = request.app.state.store
    made: Export = await store.read(lambda c: Export(c, number))

    async def parts() -> AsyncIterator[str]:
        yield await store.read(made.head)
        first = True
        for images in made.pieces():
            for one in await store.read(lambda c, images=images: made.annotations(c, images)):
                yield one if first else f", {one}"
                first = False
        yield await store.read(made.tail)

    name = quote(f"{made.name}.json")
    disposition = f"attachment; filename=\"dataset.json\"; filename*=UTF-8''{name}"
    return StreamingResponse(
        parts(),
        media_type="application/json",
        headers={"Content-Disposition": disposition, "Cache-Control": "no-store"},
    )


ROUTES = [Route("/api/datasets/{dataset}/export", export, methods=["GET"])]
