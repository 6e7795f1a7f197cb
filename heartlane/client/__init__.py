"""The Python client: every call of the API, and lanes that are kept while a program works on them.

    from heartlane import Client

    with Client("http://127.0.0.1:8484", "hlt_…") as client:
        with client.claim(role="backend", wait_seconds=60) as lane:
            lane.phase("tests")
            lane.ship(pr_url="https://git.example.com/shop/web/pulls/204")

It needs none of the server's libraries.
"""

from heartlane.client.aio import AsyncClient
from heartlane.client.call import KEEP
from heartlane.client.errors import ApiError, BadAnswer, HeartlaneError, LaneLost, NoLane, NotConfigured, Unreachable
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
