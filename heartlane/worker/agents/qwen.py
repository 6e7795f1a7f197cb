"""Qwen Code: `qwen -p … --output-format stream-json`, which prints as Claude Code does. Source: its "Headless mode"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.claude import ClaudeLike
from heartlane.worker.agents.gemini import EXIT_REASONS
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.reasons import Reason


class Qwen(ClaudeLike):
    """Qwen Code's lines. Its exit codes are those of Gemini CLI, of which it is a fork."""

    name = "qwen"
    exit_reasons: Mapping[int, Reason] = EXIT_REASONS


AGENT: Final = Agent(
    name="qwen",
    title="Qwen Code",
    adapter=Qwen,
    programs=("qwen", "qwen-code"),
    marks=("stream-json",),
    command=("qwen", "-p", "{prompt}", "--yolo", "--output-format", "stream-json"),
    resume=Resume(("--resume", "{session_id}")),
    version=("qwen", "--version"),
    install="Install Qwen Code: npm install -g @qwen-code/qwen-code",
    login=Login(
        check=("qwen", "auth", "status"),
        absent="No authentication method configured",
        variables=("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "QWEN_API_KEY"),
        cure="Run `qwen auth`, or set OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL).",
    ),
)
