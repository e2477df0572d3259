"""Data sets, their categories, images and pixels."""

import sqlite3
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelmelite import datasets, http, security
from labelmelite.images import MAX_SIDE, Pixels


async def list_all(request: Request) -> Response:
    """GET: all data sets with their progress."""
    security.require(request, "reader")
    return http.answer(await request.app.state.store.read(datasets.listed))


async def list_categories(request: Request) -> Response:
    """GET: the categories of a data set."""
    security.require(request, "reader")
    number = http.path_number(request, "dataset")
    return http.answer(await request.app.state.store.read(lambda c: datasets.categories(c, number)))


async def list_images(request: Request) -> Response:
    """GET: one page of images, filtered."""
    security.require(request, "reader")
    number = http.path_number(request, "dataset")
    query = request.query_params
    category = query.get("category")
    wanted: dict[str, Any] = {
        "offset": http.number_of(query.get("offset"), "offset", 0),
        "limit": http.number_of(query.get("limit"), "limit", 60, 1, 500),
        "category": http.number_of(category, "category", 0, -(1 << 53)) if category else None,
        "text": query.get("text", "")[:200],
        "state": query.get("state", ""),
    }
    return http.answer(await request.app.state.store.read(lambda c: datasets.images(c, number, **wanted)))


async def show_image(request: Request) -> Response:
    """GET: an image with its objects."""
    security.require(request, "reader")
    dataset, number = http.path_number(request, "dataset"), http.path_number(request, "image")
    row = await request.app.state.store.read(lambda c: datasets.image_row(c, dataset, number))
    if row["width"] is None:
        await _measure(request, row)
    return http.answer(await request.app.state.store.read(lambda c: datasets.image(c, dataset, number)))


async def pixels(request: Request) -> Response:
    """GET: the image itself."""
    security.require(request, "reader")
    dataset, number = http.path_number(request, "dataset"), http.path_number(request, "image")
    side = request.query_params.get("side")
    wanted = http.number_of(side, "side", 0, 16, MAX_SIDE) if side else None
    row = await request.app.state.store.read(lambda c: datasets.image_row(c, dataset, number))
    made: Pixels = request.app.state.pixels
    return await http.picture(
        request,
        lambda: made.tag(row["root"], row["file_name"], f"image {wanted}"),
        lambda: made.upright(row["root"], row["file_name"], wanted),
    )


async def put_state(request: Request) -> Response:
    """PUT: how far the work on an image is."""
    security.require(request, "annotator")
    dataset, number = http.path_number(request, "dataset"), http.path_number(request, "image")
    state = http.field(await http.body(request), "state", str)
    await request.app.state.store.write(lambda c: datasets.set_state(c, dataset, number, state))
    return http.answer({"state": state})


async def list_events(request: Request) -> Response:
    """GET: the events of an image."""
    security.require(request, "reader")
    dataset, number = http.path_number(request, "dataset"), http.path_number(request, "image")
    return http.answer(await request.app.state.store.read(lambda c: datasets.image_events(c, dataset, number)))


async def _measure(request: Request, row: sqlite3.Row) -> None:
    width, height = await run_in_threadpool(request.app.state.pixels.size, row["root"], row["file_name"])
    await request.app.state.store.write(lambda c: datasets.set_size(c, row["id"], width, height))


ROUTES = [
    Route("/api/datasets", list_all, methods=["GET"]),
    Route("/api/datasets/{dataset}/categories", list_categories, methods=["GET"]),
    Route("/api/datasets/{dataset}/images", list_images, methods=["GET"]),
    Route("/api/datasets/{dataset}/images/{image}", show_image, methods=["GET"]),
    Route("/api/datasets/{dataset}/images/{image}/pixels", pixels, methods=["GET"]),
    Route("/api/datasets/{dataset}/images/{image}/state", put_state, methods=["PUT"]),
    Route("/api/datasets/{dataset}/images/{image}/events", list_events, methods=["GET"]),
]
