"""The environment variables of clients, workers and the agents in their lanes, with what each of them says.

Whoever reads or sets one takes its name from here. They may stand beside a server's settings, which share the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "HEARTLANE_"

CLIENT_VARIABLES: Final[Mapping[str, str]] = {
    "HEARTLANE_URL": "Where the server is, such as https://lanes.example.com.",
    "HEARTLANE_TOKEN": "The token that clients and workers send.",
    "HEARTLANE_STATE": "The folder in which a worker keeps its files. Default: one in the user's state folder.",
}
"""What people set for `heartlane work` and for clients."""

LANE_VARIABLES: Final[Mapping[str, str]] = {
    "HEARTLANE_RUN_ID": "The run's id.",
    "HEARTLANE_ATTEMPT": "Number of this claim: 1 for the first that worked the lane.",
    "HEARTLANE_LANE_KEY": "The lane's name within its plan.",
    "HEARTLANE_TITLE": "The lane's title.",
    "HEARTLANE_ROLE": "The lane's role: frontend, backend, test, design, devops, qa or other.",
    "HEARTLANE_PROMPT_FILE": "File with the prompt, and with what the last attempt left.",
    "HEARTLANE_LANE_FILE": "File with the run as JSON, its prompt, its tickets and what earlier attempts left.",
    "HEARTLANE_BRANCH": "The lane's branch; only with --worktree.",
    "HEARTLANE_SOCKET": "Unix socket on which the worker listens, for `heartlane report`, `ship`, `fail` and `lane`.",
    "HEARTLANE_WORKER_ID": "The worker that holds the lane.",
    "HEARTLANE_PREVIOUS_BRANCH": "Branch that an earlier attempt left.",
    "HEARTLANE_PREVIOUS_PR_URL": "Pull request that an earlier attempt opened.",
    "HEARTLANE_PREVIOUS_PHASE": "Phase in which the last attempt stopped.",
    "HEARTLANE_PREVIOUS_ERROR": "Why the last attempt ended.",
    "HEARTLANE_PREVIOUS_SESSION_ID": "Session of the agent that worked the lane last, for agents that can resume one.",
    "HEARTLANE_PREVIOUS_AGENT": "Which agent that session belongs to, such as claude or codex.",
    "HEARTLANE_LANE_MARK": "The same in every process of the lane, so that none outlives it.",
}
"""What an agent in a lane finds; those about earlier attempts only where there is something to say."""
