"""The Python client: every call of the API, and lanes that are kept while a program works on them.

    from heartlane import Client

    with Client("http://127.0.0.1:8484", "hlt_…") as client:
        with client.claim(role="backend", wait_seconds=60) as lane:
            lane.phase("tests")
            lane.ship(pr_url="https://git.example.com/shop/web/pulls/204")

It needs none of the server's libraries. Each name is loaded when it is asked for: a worker takes the lease's arithmetic
from here, and should not pay for the models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartlane.client.aio import AsyncClient
    from heartlane.client.call import KEEP
    from heartlane.client.errors import (
        ApiError,
        BadAnswer,
        HeartlaneError,
        LaneLost,
        NoLane,
        NotConfigured,
        Unreachable,
    )
    from heartlane.client.lane import AsyncLane
    from heartlane.client.retry import RetryPolicy
    from heartlane.client.sync import Client, Lane

__all__ = [
    "KEEP",
    "ApiError",
    "AsyncClient",
    "AsyncLane",
    "BadAnswer",
    "Client",
    "HeartlaneError",
    "Lane",
    "LaneLost",
    "NoLane",
    "NotConfigured",
    "RetryPolicy",
    "Unreachable",
]
_HOMES = {
    "aio": ("AsyncClient",),
    "call": ("KEEP",),
    "errors": ("ApiError", "BadAnswer", "HeartlaneError", "LaneLost", "NoLane", "NotConfigured", "Unreachable"),
    "lane": ("AsyncLane",),
    "retry": ("RetryPolicy",),
    "sync": ("Client", "Lane"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"heartlane.client.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
