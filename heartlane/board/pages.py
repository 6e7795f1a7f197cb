"""The routes of the board: one document for every page, and the static files.

A page's document is the frame alone, the same for everyone; what a person may see comes through the API, with the
session's cookie. So the document holds no secret, and is there before the database has answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import Response

from heartlane import __version__
from heartlane.board import login
from heartlane.board.assets import FOREVER, File, load_assets, make_file, respond
from heartlane.server.errors import ApiError

REVALIDATE: Final = "no-cache"
CLASSIC: Final = ("theme.js", "login.js")
"""Scripts that are no modules."""


class Page(NamedTuple):
    """A page of the board.

    name        of its module (`static/NAME.js`) and of its icon
    path        its route; parameters as FastAPI writes them
    title       as the navigation and the window's title say it
    key         the key that leads there after `g`; "" for a page that the navigation doesn't hold
    """

    name: str
    path: str
    title: str
    key: str = ""


PAGES: Final = (
    Page("lanes", "/", "Lanes", "l"),
    Page("plans", "/plans", "Plans", "p"),
    Page("workers", "/workers", "Workers", "w"),
    Page("overview", "/overview", "Overview", "o"),
    Page("notices", "/notices", "Notices", "n"),
    Page("settings", "/settings", "Settings", "s"),
    Page("lane", "/lanes/{id}", "Lane"),
    Page("plan", "/plans/{id}", "Plan"),
)
"""Those whose module isn't there are neither routed nor shown."""


def pages_there() -> list[Page]:
    """The pages that have a module, in the order of the navigation."""
    return [page for page in PAGES if f"{page.name}.js" in load_assets().files]


@cache
def templates() -> Environment:
    """The board's templates. What they don't know is an error, and everything is escaped."""
    return Environment(
        loader=PackageLoader("heartlane.board"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def document(page: Page) -> File:
    """The document of a page."""
    assets = load_assets()
    text = (
        templates()
        .get_template("page.html")
        .render(
            page=page,
            pages=pages_there(),
            url=assets.url,
            modules=sorted(name for name in assets.files if name.endswith(".js") and name not in CLASSIC),
            version=__version__,
        )
    )
    return make_file(text.encode(), "html")


def make_router() -> APIRouter:
    """The board's routes, for the server to serve beside its own."""
    router = APIRouter(tags=["Pages"])
    router.include_router(login.make_router())
    for page in pages_there():
        router.add_api_route(
            page.path,
            _endpoint(page),
            methods=["GET"],
            name=f"board_{page.name}",
            response_class=Response,
            include_in_schema=False,
        )

    @router.get("/static/{version}/{name}", include_in_schema=False)
    async def static(request: Request, version: str, name: str) -> Response:
        """One of the board's files. One of another version (a page from before an upgrade asks) is never kept."""
        assets = load_assets()
        if name not in assets.files:
            raise ApiError("NOT_FOUND", f"The board has no file {name!r}.")
        return respond(request, assets.files[name], FOREVER if version == assets.version else "no-store")

    return router


def _endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        """The page that people look at: which lanes are being worked, by whom, what is stuck and needs a hand."""
        return respond(request, document(page), REVALIDATE)

    return show
