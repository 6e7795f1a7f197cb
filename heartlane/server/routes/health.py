"""How the server is: alive, ready, and in figures. No token needed."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from heartlane import __version__
from heartlane.server.depends import Json, Server
from heartlane.server.errors import ApiError
from heartlane.wire.answers import HealthAnswer, ReadyAnswer

READY_SECONDS: Final = 2.0
"""A database that takes longer to say the time is not ready."""

router = APIRouter(tags=["Health"])


@router.get("/healthz", response_model=HealthAnswer, summary="Is the server alive?")
async def healthz() -> Json:
    """Answers as long as the process does; doesn't ask the database."""
    return Json({"status": "ok", "version": __version__})


@router.get("/readyz", response_model=ReadyAnswer, summary="Can the server work?")
async def readyz(context: Server) -> Json:
    """Whether the database answers and the server isn't shutting down."""
    if not context.gate.is_open:
        raise ApiError("UNAVAILABLE", "The server is shutting down.")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await context.store.now()
    except TimeoutError:
        raise ApiError("UNAVAILABLE", f"The database didn't answer within {READY_SECONDS:g} s.") from None
    return Json({"status": "ready"})


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
async def metrics(context: Server) -> Response:
    """In Prometheus' text format."""
    text = await context.metrics.render(context.store, waiting=len(context.waiters), streams=len(context.streams))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
