"""A fleet at work, as the documentation's pictures show it: made through the API of a running server, nothing faked.

Plans of a small shop, workers that hold lanes of them, and each kind of lane that needs a hand.
"""

from __future__ import annotations

from typing import Any, Final

import httpx

Lane = tuple[str, str, str]
"""Its key, its title, its role."""

CHECKOUT: Final[tuple[Lane, ...]] = (
    ("totals", "Order totals with discounts", "backend"),
    ("basket", "Basket page keeps its place after login", "frontend"),
    ("totals-tests", "Property tests for rounding of totals", "test"),
    ("receipt", "Receipt as PDF", "backend"),
    ("vat", "VAT of the buyer's country", "backend"),
    ("empty-basket", "Drawing for the empty basket", "design"),
    ("load", "Load test of the checkout", "qa"),
    ("deploy", "Checkout behind a flag in staging", "devops"),
)
SEARCH: Final[tuple[Lane, ...]] = (
    ("tags", "Search by tag", "backend"),
    ("filters", "Filters that stay in the address", "frontend"),
    ("index", "Rebuild the index without a pause", "devops"),
    ("typos", "Search forgives typing errors", "backend"),
    ("results", "Results page for readers of screens", "frontend"),
    ("synonyms", "Synonyms from the editors' list", "backend"),
    ("search-tests", "Search tests on real queries", "test"),
    ("empty", "What a search without results says", "design"),
)
LINES: Final = (
    ("tests", "pytest tests/orders -q: 214 passed, 1 failed in 8.31s"),
    ("implementing", "Edit src/orders/totals.py: round half to even, per line and not per order"),
    ("reading", "Looking for every place that reads `basket.items` before the session is known"),
    ("tests", "tests/search/test_filters.spec.ts: 31 passed"),
    ("implementing", "Write db/migrations/0042_tags.sql"),
)


class Fleet:
    """Workers and people on one server.

    people, workers     clients with an operator's and a worker's token
    """

    def __init__(self, people: httpx.Client, workers: httpx.Client) -> None:
        self.people = people
        self.workers = workers

    def project(self, name: str) -> str:
        """The id of a new project."""
        return str(self._post("/api/projects", {"name": name})["project"]["id"])

    def plan(self, project: str, title: str, lanes: tuple[Lane, ...], *, approve: bool = True) -> list[dict[str, Any]]:
        """The runs of a new plan; none while nobody approved it. The last lane waits for the first."""
        bodies: list[dict[str, Any]] = [
            {"laneKey": key, "title": title, "role": role, "prompt": f"# {title}\n\nAs our buyers asked for."}
            for key, title, role in lanes
        ]
        if len(bodies) > 1:
            bodies[-1]["after"] = [bodies[0]["laneKey"]]
        plan = self._post("/api/agents/plan", {"projectId": project, "title": title, "lanes": bodies})["plan"]
        if not approve:
            return []
        runs: list[dict[str, Any]] = self._post(f"/api/agents/plans/{plan['id']}/approve")["runs"]
        return runs

    def claim(self, run: dict[str, Any], worker: str, lease_seconds: int = 300) -> None:
        """A worker takes a lane."""
        self._post(
            f"/api/agents/runs/{run['id']}/claim", {"worker_id": worker, "lease_seconds": lease_seconds}, worker=True
        )

    def report(self, run: dict[str, Any], worker: str, *events: dict[str, Any], **fields: Any) -> None:
        """A worker reports on the lane that it holds."""
        body = {"worker_id": worker, "events": list(events), **fields}
        self._post(f"/api/agents/runs/{run['id']}/events", body, worker=True)

    def hand(self, run: dict[str, Any], verb: str) -> None:
        """A person pauses, resumes, releases, cancels or retries a lane."""
        self._post(f"/api/agents/runs/{run['id']}/{verb}")

    def _post(self, path: str, body: dict[str, Any] | None = None, *, worker: bool = False) -> dict[str, Any]:
        answer = (self.workers if worker else self.people).post(path, json=body)
        answer.raise_for_status()
        received: dict[str, Any] = answer.json()
        return received


def event(kind: str, **payload: Any) -> dict[str, Any]:
    """An event of a report."""
    return {"type": kind, "payload": payload}


def work(fleet: Fleet, run: dict[str, Any], worker: str, place: int) -> None:
    """A worker claims a lane and gets somewhere with it."""
    phase, line = LINES[place % len(LINES)]
    folder = "src/orders" if place % 2 else "src/search"
    fleet.claim(run, worker)
    fleet.report(
        run,
        worker,
        event("phase_change", phase="reading"),
        event("action", tool="Grep", detail="basket.items"),
        event("log_line", line="I'll begin with the tests that are there."),
        event("phase_change", phase="implementing"),
        event("action", tool="Edit", file=f"{folder}/{run['lane_key']}.py", ok=True),
        event("action", tool="Edit", file=f"tests/test_{run['lane_key']}.py", ok=True),
        event("action", tool="Bash", command="make test", ok=False),
        event("error", message="1 failed: test_rounding_of_three_items (expected 9.99, was 10.00)"),
        event("phase_change", phase=phase),
        phase=phase,
        log_line=line,
    )


def ship(fleet: Fleet, run: dict[str, Any], worker: str, place: int) -> None:
    """A worker ships its lane."""
    fleet.report(
        run,
        worker,
        event("phase_change", phase="shipping"),
        event(
            "ship_complete",
            pr_url=f"https://git.example.com/shop/web/pulls/{200 + place}",
            branch=f"lane/{run['lane_key']}",
            summary=f"Did: {run['title']}.",
        ),
    )


def build(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """The whole scene; its lanes by key."""
    project = fleet.project("Web shop")
    lanes = fleet.plan(project, "Checkout that people finish", CHECKOUT)
    lanes += fleet.plan(project, "Search that finds", SEARCH)
    fleet.plan(project, "Accounts for teams", SEARCH[:3], approve=False)
    by_key = {run["lane_key"]: run for run in lanes}
    workers = {
        "totals": "ada:build-3:4121", "basket": "bob:build-3:4188", "receipt": "cleo:build-7:977",
        "tags": "dora:build-7:1204", "filters": "emil:mac-mini:61", "index": "finn:mac-mini:62",
        "vat": "gina:build-9:300", "results": "hugo:build-9:301", "typos": "ines:build-9:302",
        "empty-basket": "jon:laptop:8812",
    }  # fmt: skip
    for place, (key, worker) in enumerate(workers.items()):
        work(fleet, by_key[key], worker, place)
    for place, key in enumerate(("tags", "receipt")):
        ship(fleet, by_key[key], workers[key], place)
    fleet.report(by_key["filters"], workers["filters"], event("phase_change", phase="shipping"))
    question = "May I run `npm install sharp`? It is not in the lock file."
    fleet.report(
        by_key["basket"], workers["basket"], event("phase_change", phase="waiting", **{"for": "permission"}),
        log_line=question,
    )  # fmt: skip
    fleet.report(by_key["results"], workers["results"], event("error", message="Nothing new.", reason="stalled"))
    fleet.hand(by_key["vat"], "pause")
    failed = "The build image has no libvips; five tests can't start."
    fleet.report(by_key["empty-basket"], workers["empty-basket"], event("error", message=failed, fatal=True))
    return by_key
