"""The server, as verbs for people ask it: answers as the JSON they came in, and things by name or a part of their id.

    with connected() as api:
        answer = api.ask(calls.read_run(api.run_id(text)))      # {"run": {…}}, with whatever a newer server adds
        rows = api.rows(calls.runs(state=states), limit)         # an iterator over dictionaries; `rows.next_cursor`

Where the server is and who we are comes from `heartlane.client.settings`. What goes wrong raises HeartlaneError, which
`heartlane.cli.errors` makes a line (or JSON) and an exit code of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from heartlane.cli.errors import CODE_OF, CommandError
from heartlane.cli.output import ago, one_line, short_id
from heartlane.client import calls, news_calls, project_calls
from heartlane.client.call import Call, Page
from heartlane.client.errors import BadAnswer
from heartlane.client.retry import RetryPolicy
from heartlane.client.sync import Client
from heartlane.lanes.bounds import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

Json = dict[str, Any]

UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PART_OF_ID: Final = re.compile(r"[0-9a-f-]{4,36}")
CANDIDATES_MAX: Final = 5
RETRY: Final = RetryPolicy(tries=4, seconds=5.0)
"""Somebody waits for the answer: over a hiccup or a rate limit of a moment, not over a server that is down."""

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most to show.")]
All = Annotated[bool, typer.Option("--all", help="Show all of them, however many pages.")]
LIMIT: Final = PAGE_SIZE_DEFAULT
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", metavar="NAME_OR_ID", help="Only of this project.", show_default=False)
]


@contextmanager
def connected() -> Iterator[Api]:
    """The server that the environment or the stored login names. Raises HeartlaneError."""
    with Client(retry=RETRY) as client:
        yield Api(client)


class Rows:
    """The rows of a list, page by page as they are taken, `limit` at most (None: all of them).

    next_cursor     once all are taken: where the next page begins, None after the last
    beside          what the last page that was read says besides its rows and its cursor
    """

    def __init__(self, api: Api, call: Call[Page[Any]], limit: int | None, keep: Callable[[Json], bool] | None) -> None:
        self.next_cursor: str | None = None
        self.beside: Json = {}
        self._api = api
        self._call = call
        self._limit = limit
        self._keep = keep

    def __iter__(self) -> Iterator[Json]:
        call, left = self._call, self._limit
        while left is None or left > 0:
            # What is thrown away here has to be read all the same, in pages as large as they come.
            wanted = PAGE_SIZE_MAX if left is None or self._keep is not None else min(left, PAGE_SIZE_MAX)
            query = (*(pair for pair in call.query if pair[0] != "limit"), ("limit", str(wanted)))
            answer = self._api.ask(replace(call, query=query))
            self.beside = {name: said for name, said in answer.items() if said is not rows_of(answer)}
            self.beside.pop("next_cursor", None)
            for row in rows_of(answer):
                if self._keep is not None and not self._keep(row):
                    continue
                yield row
                if left is not None:
                    left -= 1
                    if left == 0 and self._keep is not None:
                        return
            self.next_cursor = answer.get("next_cursor")
            if self.next_cursor is None:
                return
            call = call.at(self.next_cursor)


def rows_of(answer: Json) -> list[Json]:
    """The rows of a list's page."""
    return next((rows for rows in answer.values() if isinstance(rows, list)), [])


class Api:
    """One server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def ask(self, call: Call[Any]) -> Json:
        """The answer to a call, as the JSON object it came in. Raises HeartlaneError."""
        answer = self.client.send(raw(call))
        if not isinstance(answer, dict):
            raise BadAnswer(f"{call.method} {call.path} was answered with no JSON object.", status=200)
        return answer

    def rows(
        self, call: Call[Page[Any]], limit: int | None = None, *, keep: Callable[[Json], bool] | None = None
    ) -> Rows:
        """The rows of a list as dictionaries. `keep` leaves out what the server has no filter for."""
        return Rows(self, call, limit, keep)

    # --- things by name or by a part of their id ------------------------------------------------------------------

    def find_run(
        self, text: str, *, project_id: str | None = None, plan_id: str | None = None, fits: Collection[str] = ()
    ) -> Json:
        """The run that is meant: by its id, the beginning or end of its id, or its lane's key.

        fits    states in which the run may be of use: where several are called so, the only one in such a state counts

        Raises CommandError for none, and for several, which it names.
        """

        def name(run: Json) -> str:
            told = (one_line(run["lane_key"], 40), run["state"], f"made {ago(run['created_at'])}")
            return f"{short_id(run['id'])} ({', '.join(told)})"

        if is_id(text):
            return dict(self.ask(calls.read_run(text.strip().lower()))["run"])
        listed = self.rows(calls.runs(project_id=project_id, plan_id=plan_id))
        return self._find("lane", text, listed, "lane_key", name=name, fits=lambda run: run["state"] in fits)

    def run_id(self, text: str, *, fits: Collection[str] = ()) -> str:
        """The id of the run that is meant; an id isn't looked up."""
        return text.strip().lower() if is_id(text) else str(self.find_run(text, fits=fits)["id"])

    def plan_id(self, text: str) -> str:
        """The plan that is meant: its id, the beginning or end of its id, or its title."""
        return self._id("plan", text, self.rows(calls.plans()), "title")

    def project_id(self, text: str) -> str:
        """The project that is meant: its id, the beginning or end of its id, or its name."""
        return self._id("project", text, self.rows(project_calls.projects()), "name")

    def milestone_id(self, project_id: str, text: str) -> str:
        """The milestone that is meant: its id, the beginning or end of its id, or its name."""
        return self._id("milestone", text, self.rows(project_calls.milestones(project_id)), "name")

    def ticket_id(self, project_id: str, text: str) -> str:
        """The ticket that is meant: its id, the beginning or end of its id, or its title."""
        return self._id("ticket", text, self.rows(project_calls.tickets(project_id)), "title")

    def webhook_id(self, project_id: str, text: str) -> str:
        """The webhook that is meant: its id, the beginning or end of its id, or its name."""
        return self._id("webhook", text, self.rows(news_calls.webhooks(project_id)), "name")

    def delivery_id(self, project_id: str, webhook_id: str, text: str) -> str:
        """The delivery that is meant: its id, or the beginning or end of its id."""
        return self._id("delivery", text, self.rows(news_calls.deliveries(project_id, webhook_id)), "id")

    def notice_id(self, text: str) -> str:
        """The notice that is meant: its id, or the beginning or end of its id."""
        if is_id(text):
            return text.strip().lower()

        def name(notice: Json) -> str:
            return f"{short_id(notice['id'])} ({notice['kind']}, {ago(notice['raised_at'])})"

        return str(self._find("notice", text, self.rows(news_calls.notices()), "id", name=name)["id"])

    def only_project_id(self, given: str | None) -> str:
        """The project that is named or, where none is, the only one that there is. Raises CommandError."""
        if given is not None:
            return self.project_id(given)
        found = list(self.rows(project_calls.projects(), 2))
        if len(found) != 1:
            what = "there is none" if not found else "there are several (`heartlane projects list`)"
            raise CommandError(f"--project must say which project: {what}")
        return str(found[0]["id"])

    def _id(self, what: str, text: str, listed: Rows, field: str) -> str:
        return text.strip().lower() if is_id(text) else str(self._find(what, text, listed, field)["id"])

    def _find(
        self,
        what: str,
        text: str,
        listed: Rows,
        field: str,
        *,
        name: Callable[[Json], str] = lambda row: f"{short_id(row['id'])} (made {ago(row['created_at'])})",
        fits: Callable[[Json], bool] = lambda row: False,
    ) -> Json:
        wanted = text.strip()
        named, by_id = [], []
        for row in listed:
            if row[field] == wanted:
                named.append(row)
            elif is_part_of_id(wanted, row["id"]):
                by_id.append(row)
        found = named or by_id
        fitting = [row for row in found if fits(row)]
        if len(fitting) == 1:
            found = fitting
        if len(found) == 1:
            return found[0]
        if not found:
            raise CommandError(f"there is no {what} {one_line(wanted, 100)!r}", CODE_OF["not_found"])
        shown = ", ".join(map(name, found[:CANDIDATES_MAX]))
        more = f", and {len(found) - CANDIDATES_MAX} more" if len(found) > CANDIDATES_MAX else ""
        raise CommandError(f"{one_line(wanted, 100)!r} may be any of {len(found)} {what}s: {shown}{more}")


def raw(call: Call[Any]) -> Call[Any]:
    """The same call, answered with the JSON that came: with all that a newer server says."""
    return replace(call, answer=None, pick=json.loads)


def is_id(text: str) -> bool:
    """Whether a text is a whole id."""
    return UUID.fullmatch(text.strip().lower()) is not None


def is_part_of_id(text: str, id: str) -> bool:
    """Whether a text of four characters or more is the beginning or the end of an id.

    >>> is_part_of_id("FF431A4", "01a20d4a-14d6-7c76-a740-51170ff431a4"), is_part_of_id("1a4", "…-51170ff431a4")
    (True, False)
    """
    text = text.lower()
    return PART_OF_ID.fullmatch(text) is not None and (id.startswith(text) or id.endswith(text))
