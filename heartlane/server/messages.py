"""News as the incoming webhooks of Slack and Discord take it: one short message, in which no text of an agent's can do
anything.

Slack reads `<…>` as links and mentions, so that `&`, `<` and `>` are escaped; Discord is told to mention nobody, and
what it would read as its markup is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from heartlane.lanes.news import NEWS_TYPES

LINE_MAX: Final = 300
CONTENT_MAX: Final = 2_000
"""Characters that Discord takes."""

_TITLES: Final = {
    "run.claimed": "Claimed",
    "run.waiting": "Waits for a person",
    "run.released": "Released",
    "run.lease_expired": "Lease expired",
    "run.paused": "Paused",
    "run.resumed": "Resumed",
    "run.retried": "Queued again",
    "run.cancelled": "Cancelled",
    "run.shipped": "Shipped",
    "run.failed": "Failed",
    "plan.created": "Plan to approve",
    "plan.approved": "Plan approved",
    "plan.rejected": "Plan rejected",
}
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_MARKUP: Final = re.compile(r"([\\*_~`|>#\[\]()<@:-])")


def body_for(kind: str, body: str, board_url: str | None = None) -> str:
    """The body of a delivery in a webhook's format; `body` is the one of the format `standard`.

    board_url   where people reach the board: messages end with a link to what they are about. None: without one
    """
    if kind == "standard":
        return body
    news = json.loads(body)
    if kind == "slack":
        text, place = _message(news, _slack, "*", lambda url: f"<{_slack(url)}>", board_url)
        return _dump({"text": text + place, "unfurl_links": False})
    text, place = _message(news, _discord, "**", lambda url: f"<{url}>", board_url)
    return _dump({"content": text[: CONTENT_MAX - len(place)] + place, "allowed_mentions": {"parse": []}})


def _message(
    news: Mapping[str, Any],
    safe: Callable[[str], str],
    bold: str,
    link: Callable[[str], str],
    board_url: str | None,
) -> tuple[str, str]:
    """The text, and the line that leads to the board, "" for none."""
    kind, data = news["type"], news["data"]
    project = safe(_line(data["project"]["name"]))
    if "run" in data:
        run = data["run"]
        lines = [f"{bold}{_TITLES[kind]}{bold}: {safe(_line(run['title']))}", _about(run, project, safe)]
        if kind in ("run.failed", "run.lease_expired") and run["error"]:
            lines.append(safe(_line(run["error"])))
        if kind == "run.shipped":
            lines += [safe(_line(run["summary"]))] if run["summary"] else []
            url = run["pr_url"] or ""
            lines += [link(url)] if re.fullmatch(r"https?://[^\s<>|\"]{1,1000}", url) else []
    elif "plan" in data:
        plan = data["plan"]
        lines = [f"{bold}{_TITLES[kind]}{bold}: {safe(_line(plan['title']))}"]
        lines.append(f"{plan['lane_count']} lanes, {project}")
        if plan["rejection_reason"]:
            lines.append(safe(_line(plan["rejection_reason"])))
    elif "notice" in data:
        lines = [f"{bold}{project}{bold}: {safe(_line(data['notice']['text'], 1_000))}"]
    else:
        lines = [f"{bold}{project}{bold}: {NEWS_TYPES.get(kind, kind).partition('.')[0]}: it works."]
    place = "" if board_url is None else "\n" + link(board_url + _page_of(data))
    return "\n".join(lines), place


def _page_of(data: Mapping[str, Any]) -> str:
    """The page of the board that shows what a message is about."""
    about = data.get("notice", {})
    run_id = data["run"]["id"] if "run" in data else about.get("run_id")
    plan_id = data["plan"]["id"] if "plan" in data else about.get("plan_id")
    if run_id is not None:
        return f"/lanes/{run_id}"
    if plan_id is not None:
        return f"/plans/{plan_id}"
    return "/notices" if about else "/"


def _about(run: Mapping[str, Any], project: str, safe: Callable[[str], str]) -> str:
    parts = [project, run["role"]]
    if run["worker_id"]:
        parts.append(f"worker {safe(_line(run['worker_id']))}")
    if run["attempt"]:
        parts.append(f"attempt {run['attempt']}")
    return ", ".join(parts)


def _line(text: str, longest: int = LINE_MAX) -> str:
    """One line without control characters, bidirectional ones included."""
    plain = " ".join(_CONTROLS.sub(" ", text).split())
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _discord(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
