"""Which agents there are, how they are started and resumed, and how other packages add one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heartlane.worker.agents import (
    Adapter,
    Agent,
    BadAgent,
    Resume,
    UnknownAgent,
    agent,
    detect,
    names,
    open_adapter,
)
from heartlane.worker.agents.detect import MARKS, PROGRAMS
from heartlane.worker.agents.registry import BUILT_IN

STARTED = [name for name in BUILT_IN if name != "plain"]

COMMANDS = {
    "claude": "claude -p {prompt} --output-format stream-json --verbose --permission-mode acceptEdits",
    "codex": "codex exec --json --sandbox workspace-write {prompt}",
    "gemini": "gemini -p {prompt} --output-format stream-json --approval-mode yolo",
    "opencode": "opencode run --format json {prompt}",
    "cursor": "cursor-agent -p --force --output-format stream-json {prompt}",
    "amp": "amp -x {prompt} --stream-json",
    "qwen": "qwen -p {prompt} --yolo --output-format stream-json",
    "copilot": "copilot -p {prompt} --output-format json --allow-all-tools",
    "goose": "goose run -t {prompt} --output-format stream-json",
}
RESUMED = {
    "claude": "claude --resume S -p {prompt} --output-format stream-json --verbose --permission-mode acceptEdits",
    "codex": "codex exec --json --sandbox workspace-write resume S {prompt}",
    "gemini": "gemini --resume S -p {prompt} --output-format stream-json --approval-mode yolo",
    "opencode": "opencode run --session S --format json {prompt}",
    "cursor": "cursor-agent --resume S -p --force --output-format stream-json {prompt}",
    "amp": "amp threads continue S -x {prompt} --stream-json",
    "qwen": "qwen --resume S -p {prompt} --yolo --output-format stream-json",
    "copilot": "copilot --resume=S -p {prompt} --output-format json --allow-all-tools",
    "goose": "goose run -t {prompt} --output-format stream-json",
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_agent_has_what_it_takes(name: str) -> None:
    found = agent(name)
    assert found.name == name
    assert isinstance(found.adapter(), Adapter)
    assert found.adapter().name == name
    if name != "plain":
        assert found.version is not None
        assert found.install
        assert found.login.cure
        assert found.login.check is not None or found.login.variables


@pytest.mark.parametrize("name", STARTED)
def test_an_agent_is_started_so_that_its_adapter_can_read_it(name: str) -> None:
    prompt = 'Fix "it", {prompt} and $HOME; rm -rf /'
    argv = agent(name).argv(prompt)
    assert argv == [prompt if word == "{prompt}" else word for word in COMMANDS[name].split()]
    assert detect(argv) == name


@pytest.mark.parametrize("name", STARTED)
def test_an_agent_goes_on_with_a_session(name: str) -> None:
    assert agent(name).argv("On", "S") == [word.replace("{prompt}", "On") for word in RESUMED[name].split()]


def test_a_command_of_somebodys_own_is_resumed_at_the_right_place() -> None:
    own = ["env", "CI=1", "npx", "/opt/bin/claude", "-p", "Task: {prompt}", "--model", "opus"]
    assert agent("claude").resumed(own, "S") == [*own[:4], "--resume", "S", *own[4:]]
    own = ["codex", "exec", "--json", "-m", "gpt-5", "{prompt}", "--color", "never"]
    assert agent("codex").resumed(own, "S") == [*own[:5], "resume", "S", *own[5:]]
    assert agent("codex").resumed(["codex", "exec", "--json", "the prompt"], "S") is None
    assert agent("claude").resumed(["./run-it.sh", "{prompt}"], "S") is None
    assert agent("goose").resumed(["goose", "run", "-t", "{prompt}"], "S") is None


def test_a_session_that_looks_like_an_option_is_not_resumed() -> None:
    assert agent("claude").resumed(["claude", "-p", "{prompt}"], "--dangerously-skip-permissions") is None


def test_a_prompt_that_begins_with_a_dash_is_not_taken_for_an_option() -> None:
    assert agent("claude").argv("--help")[2] == " --help"


def test_a_plain_command_has_no_recipe() -> None:
    with pytest.raises(ValueError, match="give one after `--`"):
        agent("plain").argv("Fix it")


def test_what_finds_agents_knows_what_the_agents_say_of_themselves() -> None:
    agents = [agent(name) for name in STARTED]
    assert {program: found.name for found in agents for program in found.programs} == PROGRAMS
    assert {found.name: frozenset(found.marks) for found in agents} == MARKS


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownAgent, match=r"no agent 'cloud'; there are claude, codex, gemini, .*plain"):
        agent("cloud")


MODULE = """
from heartlane.worker.agents import Agent, Resume
from heartlane.worker.agents.json_lines import JsonLines

class Acme(JsonLines):
    name = "acme"
    def handlers(self):
        return {"say": lambda record: self.say(record.get("text"))}

AGENT = Agent(
    name="acme", title="Acme", adapter=Acme, command=("acme", "{prompt}"), resume=Resume(("-r", "{session_id}"))
)

class NoAdapter:
    pass

class Breaks:
    def __init__(self):
        raise OSError("no such licence")
"""
ENTRY_POINTS = """
[heartlane.agents]
acme = acme_agent:Acme
acme-whole = acme_agent:AGENT
claude = acme_agent:Acme
wrong = acme_agent:NoAdapter
breaks = acme_agent:Breaks
missing = no_such_module:Acme
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers agents, installed as far as Python can tell."""
    (tmp_path / "acme_agent.py").write_text(MODULE, "utf-8")
    information = tmp_path / "acme_agent-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-agent\nVersion: 1.0\n", "utf-8")
    (information / "entry_points.txt").write_text(ENTRY_POINTS, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_agent", raising=False)


@pytest.mark.usefixtures("installed")
def test_another_package_adds_an_agent() -> None:
    assert names() == [*BUILT_IN, "acme", "acme-whole", "breaks", "missing", "wrong"]
    (event,) = open_adapter("acme").read('{"type":"say","text":"Hello."}', 1.0)
    assert event.payload == {"line": "Hello."}
    assert agent("acme") == Agent("acme", "acme", agent("acme").adapter)
    whole = agent("acme-whole")
    assert (whole.name, whole.title, whole.resume) == ("acme-whole", "Acme", Resume(("-r", "{session_id}")))
    assert whole.argv("On", "S") == ["acme", "On"]  # its program has no name to find the place by


@pytest.mark.usefixtures("installed")
def test_an_agent_that_comes_with_heartlane_is_not_replaced() -> None:
    assert agent("claude").title == "Claude Code"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wrong", r"'wrong' \(acme_agent:NoAdapter\) makes no adapter"),
        ("breaks", r"'breaks' \(acme_agent:Breaks\) can't be loaded: OSError: no such licence"),
        ("missing", r"'missing' \(no_such_module:Acme\) can't be loaded: ModuleNotFoundError"),
    ],
)
def test_an_agent_that_cannot_be_used_is_named_with_its_fault(name: str, says: str) -> None:
    with pytest.raises(BadAgent, match=says):
        open_adapter(name)


def test_finding_out_which_agents_there_are_loads_next_to_nothing() -> None:
    program = (
        "import sys, json\n"
        "before = set(sys.modules)\n"
        "import heartlane.worker.agents as agents\n"
        "assert agents.detect(['codex', 'exec', '--json', 'x']) == 'codex'\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    ours = [name for name in loaded if name.startswith("heartlane")]
    assert set(ours) == {
        "heartlane",
        "heartlane.worker",
        "heartlane.worker.agents",
        *(f"heartlane.worker.agents.{module}" for module in ("base", "detect", "recipe", "registry")),
    }
    assert not {"asyncio", "dataclasses", "importlib.metadata", "pydantic", "datetime", "zoneinfo"} & set(loaded)


def test_an_adapter_loads_nothing_but_itself_and_the_standard_library() -> None:
    program = (
        "import sys, json\n"
        "from heartlane.worker.agents import names, agent\n"
        "[agent(name) for name in names()]\n"
        "import heartlane.worker.ending\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, check=True).stdout)
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= {"heartlane", "__main__", "__mp_main__"}
