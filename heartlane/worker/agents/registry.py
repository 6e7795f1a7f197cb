"""Which agents there are: those that come with Heartlane, and those of the entry point group `heartlane.agents`.

An agent's module is imported when that agent is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

from heartlane.worker.agents.base import Adapter
from heartlane.worker.agents.recipe import Agent

BUILT_IN: Final = ("claude", "codex", "gemini", "opencode", "cursor", "amp", "qwen", "copilot", "goose", "plain")
GROUP: Final = "heartlane.agents"
"""The entry point group: a name, and an `Agent`, or a class (or function) that makes an adapter without arguments."""


class UnknownAgent(LookupError):
    """There is no agent of that name. The text says which there are."""


class BadAgent(Exception):
    """An installed package offers an agent that can't be used. The text says which, and why."""


def agent(name: str) -> Agent:
    """The agent of that name. One that comes with Heartlane can't be replaced. Raises UnknownAgent, BadAgent."""
    if name in BUILT_IN:
        return cast("Agent", import_module(f"heartlane.worker.agents.{name}").AGENT)
    offered = _offered()
    if name not in offered:
        raise UnknownAgent(f"there is no agent {name!r}; there are {', '.join([*BUILT_IN, *sorted(offered)])}")
    return _loaded(name, offered[name])


def names() -> list[str]:
    """All names, those of other packages behind those that come with Heartlane."""
    return [*BUILT_IN, *sorted(_offered())]


def open_adapter(name: str | None) -> Adapter:
    """A new adapter of that agent; without a name, one that finds out by itself. Raises UnknownAgent, BadAgent."""
    if name is None:
        from heartlane.worker.agents.auto import Auto  # noqa: PLC0415 - only where nothing was named

        return Auto()
    return agent(name).adapter()


def _offered() -> dict[str, Any]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - dearer than all the rest of this package

    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN}


def _loaded(name: str, entry: Any) -> Agent:
    try:
        found = entry.load()
        if isinstance(found, Agent):
            return found._replace(name=name)
        made = found()
    except Exception as error:
        raise BadAgent(
            f"the agent {name!r} ({entry.value}) can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Adapter):
        raise BadAgent(f"the agent {name!r} ({entry.value}) makes no adapter: see docs/write-an-adapter.md")
    return Agent(name=name, title=name, adapter=found)
