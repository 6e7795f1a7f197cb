"""A server, a plan, three workers with agents, one of them killed. `python -m demo` ends 0 when all lanes are shipped.

The workers are real (`heartlane work`, over HTTP); their agents are scripted (`demo.agent`) and print what Claude Code
and Codex print.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

SECONDS_MAX: Final = 60.0
TICKETS: Final = (
    ("Search by tag", ["backend", "frontend", "test"]),
    ("Export as CSV", ["backend", "test"]),
    ("Dark colours", ["design", "frontend"]),
)


class DemoError(Exception):
    """The demo can't go on; the text says why."""


@contextlib.contextmanager
def child(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, ended with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def token(scope: str, environment: dict[str, str]) -> str:
    """A new token, made as a person would make it."""
    command = [sys.executable, "-m", "heartlane", "token", "create", f"demo-{scope}", "--scope", scope]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        raise DemoError(made.stderr.strip())
    return made.stdout.strip()


def until_ready(server: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    for _ in range(200):
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if server.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise DemoError("The server did not start.")


def post(server: httpx.Client, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of a POST that has to go well."""
    answer = server.post(path, json=body) if body is not None else server.post(path)
    if answer.status_code >= 300:
        raise DemoError(f"{path}: {answer.text}")
    received: dict[str, Any] = answer.json()
    return received


def approved_plan(server: httpx.Client) -> tuple[str, list[dict[str, Any]]]:
    """A project with tickets, and the runs of a plan that was approved."""
    project = post(server, "/api/projects", {"name": "Demo"})["project"]["id"]
    milestone = post(server, f"/api/projects/{project}/milestones", {"name": "First release"})["milestone"]["id"]
    tickets = [
        post(
            server,
            f"/api/projects/{project}/tickets",
            {"title": title, "description": f"{title}, as our users asked for.", "request_type": "feature"}
            | {"priority": "medium", "blocking": False, "roles": roles, "milestone_id": milestone},
        )["ticket"]["id"]
        for title, roles in TICKETS
    ]
    plan = post(server, "/api/agents/plan", {"milestoneId": milestone, "ticketIds": tickets, "title": "Demo plan"})
    runs = post(server, f"/api/agents/plans/{plan['plan']['id']}/approve")["runs"]
    return project, runs


WORKERS: Final = {"ada": "claude", "bob": "codex", "cleo": "claude"}
"""Who works with which agent."""
LEASE_SECONDS: Final = 3
"""Short, so that a killed worker is missed soon. Real workers keep to 300."""


def spent(payload: dict[str, Any]) -> str:
    """What an agent's run took, as far as it said so."""
    parts = []
    if "input_tokens" in payload:
        parts.append(f"{payload['input_tokens'] + payload.get('output_tokens', 0):,} tokens")
    if "cost_usd" in payload:
        parts.append(f"{payload['cost_usd']:.2f} USD")
    return f" ({', '.join(parts)})" if parts else ""


def work(name: str, agent: str, project: str) -> list[str]:
    """The command line of a worker, as a person would type it."""
    flags = ["--name", name, "--project", project, "--lease", str(LEASE_SECONDS), "--plain"]
    return ["heartlane", "work", *flags, "--agent", agent, "--", sys.executable, "-m", "demo.agent", agent, "{prompt}"]


class Story:
    """Prints what the server's own event log says, as it is written there."""

    def __init__(self, console: Console, server: httpx.Client, runs: list[dict[str, Any]]) -> None:
        self._console = console
        self._server = server
        self._runs = {run["id"]: run for run in runs}
        self._seen = dict.fromkeys(self._runs, 0)

    def go_on(self) -> None:
        """Print the events that are new."""
        for run_id, run in self._runs.items():
            answer = self._server.get(f"/api/agents/runs/{run_id}/events", params={"after": self._seen[run_id]})
            for event in answer.json()["events"]:
                self._seen[run_id] = event["seq"]
                self._tell(run, event)

    def _tell(self, run: dict[str, Any], event: dict[str, Any]) -> None:
        payload, worker = event["payload"], (event["worker_id"] or "").partition(":")[0]
        text = {
            "claimed": f"claimed by {worker}, attempt {event['attempt']}",
            "error": f"error: {payload.get('message')}",
            "lease_expired": f"taken back from {worker}: last heard {payload.get('last_heard')}",
            "released": f"released by {worker}",
            "action": f"{payload.get('tool')} {payload.get('file') or payload.get('command') or ''}",
            "log_line": str(payload.get("line")),
            "ship_complete": f"shipped by {worker}, attempt {event['attempt']}{spent(payload)}",
        }.get(event["type"], event["type"])
        style = {"lease_expired": "bold red", "ship_complete": "green", "claimed": "cyan"}.get(event["type"], "")
        if event["type"] == "action" and "ok" in payload:
            return  # the end of a tool call whose start was told
        moment = event["recorded_at"][11:19]
        self._console.print(f"{moment}  {run['lane_key']:<12} {text}", style=style, markup=False, highlight=False)

    def runs_now(self) -> list[dict[str, Any]]:
        """The runs as they are now."""
        return [self._server.get(f"/api/agents/runs/{run_id}").json()["run"] for run_id in self._runs]


def play(console: Console, folder: Path) -> None:
    """The whole demo, in a folder of its own. Raises DemoError."""
    port, log = free_port(), folder / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEARTLANE_")}
    environment |= {"HEARTLANE_DATABASE": f"sqlite:///{folder / 'demo.db'}", "HEARTLANE_PORT": str(port)}
    environment["HEARTLANE_RATE_LIMITS"] = "off"
    with contextlib.ExitStack() as processes:
        address = f"http://127.0.0.1:{port}"
        serving = processes.enter_context(child(["heartlane", "serve"], environment, log))
        people = processes.enter_context(httpx.Client(base_url=address))
        try:
            until_ready(people, serving)
            people.headers["Authorization"] = f"Bearer {token('admin', environment)}"
            project, runs = approved_plan(people)
            console.print(f"A server at {address}, and an approved plan with {len(runs)} lanes.")
            link = post(people, "/api/login-links")["login_link"]["url"]
            console.print(f"Watch it in a browser (this logs in once): {link}", markup=False, highlight=False)
            for_worker = {name: value for name, value in environment.items() if not name.startswith("HEARTLANE_")}
            for_worker |= {"HEARTLANE_URL": address, "HEARTLANE_TOKEN": token("worker", environment)}
            for_worker["HEARTLANE_STATE"] = str(folder / "state")
            workers = {
                name: processes.enter_context(child(work(name, agent, project), for_worker, folder / f"{name}.log"))
                for name, agent in WORKERS.items()
            }
            watch(console, Story(console, people, runs), workers)
        except (DemoError, httpx.HTTPError) as error:
            tail = log.read_text(errors="replace").splitlines()[-15:]
            raise DemoError("\n".join([str(error), "The server's log ends:", *tail])) from error


def watch(console: Console, story: Story, workers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Tell what happens, kill one worker in the middle of a lane, and wait until every lane is shipped."""
    killed = ""
    ends = time.monotonic() + SECONDS_MAX
    while time.monotonic() < ends:
        story.go_on()
        runs = story.runs_now()
        if not killed:
            for run in runs:
                if run["state"] == "running" and run["event_count"] >= 4:
                    name = run["worker_id"].partition(":")[0]
                    os.kill(workers[name].pid, signal.SIGKILL)
                    killed = run["id"]
                    console.print(f"          kill -9 {name}, which works {run['lane_key']}", style="bold red")
                    break
        if all(run["state"] == "shipped" for run in runs):
            story.go_on()
            second = next((run for run in runs if run["id"] == killed), None)
            if second is None or second["attempt"] < 2:
                raise DemoError("No lane was taken back from the killed worker.")
            console.print(
                f"All {len(runs)} lanes are shipped; {second['lane_key']} took {second['attempt']} attempts.",
                style="bold green",
            )
            console.print(
                "Next: make up starts a server that stays; docs/first-worker.md puts your own agent to work on it."
            )
            return
        time.sleep(0.2)
    raise DemoError("Not every lane was shipped in time.")


def main() -> int:
    console = Console(soft_wrap=True)
    try:
        with tempfile.TemporaryDirectory(prefix="heartlane-demo-") as folder:
            play(console, Path(folder))
    except DemoError as error:
        console.print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
