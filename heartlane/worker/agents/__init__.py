"""Adapters: from what coding agents print to telemetry events. `registry` says which there are, `base` what one is."""

from heartlane.worker.agents.base import NOTHING_USED, Adapter, AgentEvent, Result, Trouble, Usage
from heartlane.worker.agents.detect import detect, detect_line, program_of
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.registry import BadAgent, UnknownAgent, agent, names, open_adapter

__all__ = [
    "NOTHING_USED",
    "Adapter",
    "Agent",
    "AgentEvent",
    "BadAgent",
    "Login",
    "Result",
    "Resume",
    "Trouble",
    "UnknownAgent",
    "Usage",
    "agent",
    "detect",
    "detect_line",
    "names",
    "open_adapter",
    "program_of",
]
