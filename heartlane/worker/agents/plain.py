"""Any command: what it prints are lines, and its exit code says how it went. aider is run this way."""

from __future__ import annotations

from typing import Final

from heartlane.worker.agents.base import Trust
from heartlane.worker.agents.recipe import Agent
from heartlane.worker.agents.run_state import RunState


class Plain(RunState):
    """Every line a `log_line`."""

    name = "plain"
    trust: Trust = "exit"


AGENT: Final = Agent(name="plain", title="The command", adapter=Plain)
