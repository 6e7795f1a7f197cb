"""Heartlane: the control plane for fleets of workers that work the lanes of an approved plan side by side.

`Client` and `AsyncClient` are here, and are loaded when they are asked for: importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartlane.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from heartlane import client  # noqa: PLC0415 - loaded when it is asked for

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
