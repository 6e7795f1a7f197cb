"""An agent is found from the command that starts it, or from what it prints first."""

from __future__ import annotations

import doctest
import json
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker.agents import detect, detect_line, names, open_adapter, program_of
from tests.worker.agents.cases import START, cases, read_all


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("claude -p 'Fix it' --output-format stream-json --verbose", "claude"),
        ("claude -p 'Fix it' --output-format=stream-json --verbose", "claude"),
        ("/usr/local/bin/claude -p x --output-format stream-json", "claude"),
        ("npx -y @anthropic-ai/claude-code@latest -p x --output-format stream-json", "claude"),
        ("env CI=1 -u HOME timeout -k 5 60 codex exec --json x", "codex"),
        ("CI=1 nice -n 5 codex exec --experimental-json x", "codex"),
        ("node /opt/node_modules/@openai/codex/bin/codex.js exec --json x", "codex"),
        ("bash -lc 'cd /src && exec codex exec --json \"$HEARTLANE_PROMPT\"'", "codex"),
        ("sh -c \"sh -c 'gemini -p x --output-format stream-json'\"", "gemini"),
        ("stdbuf -oL gemini -p x --output-format stream-json", "gemini"),
        ("bunx opencode-ai@1.2.3 run --format json x", "opencode"),
        ("pnpm dlx opencode-ai run --format=json x", "opencode"),
        ("cursor-agent -p --force --output-format stream-json x", "cursor"),
        ("amp -x x --stream-json", "amp"),
        ("qwen -p x --yolo --output-format stream-json", "qwen"),
        ("copilot -p x --output-format json --allow-all-tools", "copilot"),
        ("goose run -t x --output-format stream-json", "goose"),
        ("C:\\\\tools\\\\claude.cmd -p x --output-format stream-json", "claude"),
        ("CLAUDE.EXE -p x --output-format stream-json", "claude"),
    ],
)
def test_an_agent_is_found_from_its_command(command: str, name: str) -> None:
    words = shlex.split(command)
    assert (detect(words), program_of(words)) == (name, name)


@pytest.mark.parametrize(
    ("command", "name"),
    [("claude -p 'Fix it'", "claude"), ("codex exec x", "codex"), ("npx @github/copilot -p x", "copilot")],
)
def test_an_agent_that_prints_text_for_people_is_known_but_not_read(command: str, name: str) -> None:
    words = shlex.split(command)
    assert (detect(words), program_of(words)) == (None, name)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "make test",
        "aider --yes-always --no-pretty -m x",
        "python -m aider -m x",
        "echo claude --output-format stream-json",
        "grep -r codex --json",
        "bash run-claude.sh",
        "bash -c 'claude \"unclosed'",
        "docker run -it image claude --output-format stream-json",
        "--claude",
        "env",
        "timeout 60",
    ],
)
def test_other_commands_are_left_alone(command: str) -> None:
    words = command.split() if "'" not in command else shlex.split(command)
    assert (detect(words), program_of(words)) == (None, None)


@given(
    st.lists(
        st.text(max_size=10) | st.sampled_from(["env", "bash", "-c", "npx", "timeout", "codex", "--json"]), max_size=8
    )
)
def test_any_command_is_looked_at_without_harm(words: list[str]) -> None:
    assert detect(words) is None or detect(words) == program_of(words)


LINES = {
    '{"type":"system","subtype":"init","session_id":"s","tools":[],"model":"m","claude_code_version":"2"}': "claude",
    '{"type":"system","subtype":"hook_started","hook_id":"h","session_id":"s"}': "claude",
    '{"type":"result","subtype":"success","is_error":true,"result":"Not logged in","session_id":"s"}': "claude",
    '{"type":"system","subtype":"init","apiKeySource":"login","cwd":"/","session_id":"s","model":"m"}': "cursor",
    '{"type":"tool_call","subtype":"started","call_id":"c","tool_call":{}}': "cursor",
    '{"type":"system","subtype":"init","session_id":"T-1","cwd":"/","tools":["oracle"]}': "amp",
    '{"type":"system","subtype":"init","session_id":"s","tools":[],"qwen_code_version":"0.5"}': "qwen",
    '{"type":"thread.started","thread_id":"t"}': "codex",
    '{"type":"item.completed","item":{"id":"i","type":"error","message":"m"}}': "codex",
    '{"model":"gpt-5","provider":"openai","sandbox":"read-only","workdir":"/"}': "codex",
    '{"id":"0","msg":{"type":"task_started"}}': "codex",
    '{"type":"init","timestamp":"t","session_id":"s","model":"m"}': "gemini",
    '{"type":"message","timestamp":"t","role":"user","content":"x"}': "gemini",
    '{"type":"result","timestamp":"t","status":"error","error":{"type":"E","message":"m"}}': "gemini",
    '{"type":"step_start","timestamp":1,"sessionID":"ses_1","part":{}}': "opencode",
    '{"type":"error","timestamp":1,"sessionID":"ses_1","error":{"name":"E"}}': "opencode",
    '{"type":"session.start","data":{"sessionId":"s"},"id":"e"}': "copilot",
    '{"type":"assistant.turn_start","data":{"turnId":"0"},"id":"e"}': "copilot",
    '{"type":"result","sessionId":"s","exitCode":1}': "copilot",
    '{"type":"message","message":{"id":"m","role":"assistant","content":[]}}': "goose",
    '{"type":"complete","total_tokens":null}': "goose",
    "Loaded cached credentials.": None,
    '{"level":"info","msg":"listening"}': None,
    '{"type":"error","message":"boom"}': None,
    '{"type":"user","message":{"role":"user","content":"x"},"session_id":"s"}': None,
    '{"type":7}': None,
    "[1]": None,
    "{": None,
    "": None,
}


@pytest.mark.parametrize(("line", "name"), LINES.items())
def test_an_agent_is_found_from_a_line_of_its_own(line: str, name: str | None) -> None:
    assert detect_line(line + "\r\n") == name


@given(st.text(max_size=60) | st.from_regex(r'\{"type":"[a-z._]{1,12}","[a-z_]{1,10}":("[a-z]*"|\{\}|null|1)\}'))
def test_any_line_is_looked_at_without_harm(line: str) -> None:
    assert detect_line(line) in {None, *names()}


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "opencode", "copilot"])
def test_without_a_name_the_output_shows_which_agent_it_is(name: str) -> None:
    """Text first, as agents have it; then all that the agent's own adapter would read."""
    case = next(case for case in cases() if case.agent == name and detect_line(case.lines[0]) == name and case.events)
    adapter = open_adapter(None)
    adapter.begin(START, 99.0)
    assert (adapter.name, adapter.trust) == ("plain", "exit")
    events = read_all(adapter, ["npm notice: a new version", *case.lines])
    assert adapter.name == name
    assert events[0].payload == {"line": "npm notice: a new version"}
    assert [event.payload for event in events[1:]] == [payload for _, payload in case.events]
    assert adapter.plain_tail.startswith("npm notice")


def test_without_a_name_any_other_command_stays_a_plain_one() -> None:
    adapter = open_adapter(None)
    read_all(adapter, [*("compiling" for _ in range(60)), json.dumps({"type": "thread.started", "thread_id": "t"})])
    assert (adapter.name, adapter.trust, adapter.result) == ("plain", "exit", None)


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(sys.modules["heartlane.worker.agents.detect"]).failed == 0
