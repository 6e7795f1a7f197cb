"""What GitHub's webhooks tell: issues become tickets or change them, pull requests are noted on their lanes.

A message counts for every project that is linked with GitHub and whose `repo_url` is the message's repository. It is
believed by its signature (HMAC-SHA256 over the body as it came), and remembered by its `X-GitHub-Delivery`: a repeat
changes nothing.

    issues          any action        its ticket is made or follows, by the link's label and roles
                    unlabeled, deleted, transferred   the ticket is closed as no longer relevant
    pull_request    opened, reopened, closed          an event in the log of each lane whose `pr_url` it is; merged, the
                                                      role `merged` of its tickets is done
    ping            said to be heard
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog

from heartlane.lanes.commands import NotePullRequest
from heartlane.server.context import Context
from heartlane.sources.github import item_of
from heartlane.sources.read import object_of, text_of
from heartlane.sources.repository import repository_of
from heartlane.sources.roles import read_rules
from heartlane.sources.shape import shape
from heartlane.store import github, ticket_sync
from heartlane.store.github import Linked
from heartlane.store.ticket_sync import Told, told_of

log = structlog.get_logger(__name__)

GONE: Final = frozenset({"deleted", "transferred"})
SIGNATURE: Final = "sha256="


class Heard(NamedTuple):
    """What became of a message.

    duplicate   it was heard before, and changed nothing now
    ignored     why nothing came of it; None where something did
    projects    how many projects it counted for
    tickets     how many tickets were made or changed
    lanes       how many lanes it was noted on
    """

    duplicate: bool = False
    ignored: str | None = None
    projects: int = 0
    tickets: int = 0
    lanes: int = 0


def is_signed(body: bytes, signature: str, secrets: Sequence[str]) -> bool:
    """Whether the signature is that of one of the secrets. Takes as long for a wrong one as for a right one."""
    good = False
    for secret in secrets:
        expected = SIGNATURE + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        good |= hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
    return good


async def hear(context: Context, delivery_id: str, event: str, message: Mapping[str, Any]) -> Heard:
    """Do what a message that is believed asks for. Raises StoreError."""
    async with context.store.reading() as conn:
        if await github.was_heard(conn, delivery_id):
            return Heard(duplicate=True)
        linked = _of_repository(await github.linked_projects(conn), message)
    if event not in ("issues", "pull_request"):
        heard = Heard(ignored=None if event == "ping" else f"nothing follows from the event {event[:100]!r}")
        linked = []
    elif not linked:
        heard = Heard(ignored="no project here is linked with this repository")
    elif event == "issues":
        return await _issue(context, delivery_id, linked, message)
    else:
        return await _pull_request(context, delivery_id, linked, message)
    async with context.store.writing() as tx:
        return heard if await github.hear(tx, delivery_id) else Heard(duplicate=True)


def _of_repository(linked: Sequence[Linked], message: Mapping[str, Any]) -> list[Linked]:
    repository = repository_of(text_of(message, "repository", "html_url"))
    if repository is None:
        return []
    return [each for each in linked if repository_of(each.project.repo_url) == repository]


# --- issues -------------------------------------------------------------------------------------------------------


async def _issue(context: Context, delivery_id: str, linked: Sequence[Linked], message: Mapping[str, Any]) -> Heard:
    issue = object_of(message, "issue")
    if "pull_request" in issue or not text_of(issue, "html_url"):
        return Heard(ignored="it is no issue")
    changed = 0
    async with context.store.writing() as tx:
        if not await github.hear(tx, delivery_id):
            return Heard(duplicate=True)
        for each in linked:
            told = _told(each, issue, gone=text_of(message, "action") in GONE)
            (result,) = await ticket_sync.sync_tickets(tx, each.project.id, [told])
            changed += result.outcome in ("created", "updated")
    log.info("github_heard", about="issues", action=text_of(message, "action")[:50], tickets=changed)
    return Heard(projects=len(linked), tickets=changed)


def _told(linked: Linked, issue: dict[str, Any], *, gone: bool) -> Told:
    """The issue as the link wants it: what lost the link's label, or is gone, is no longer relevant."""
    link = linked.link
    item = item_of(issue)
    wanted = not gone and (link.label is None or link.label.lower() in {label.lower() for label in item.labels})
    create = wanted and not item.closed
    if not wanted and not item.closed:
        item = item._replace(closed=True, resolution="no_longer_relevant")
    rules = read_rules(json.loads(link.roles_json))
    fields = shape(item, rules, create=create, milestone_id=link.milestone_id).fields
    return told_of(fields)


# --- pull requests ------------------------------------------------------------------------------------------------


async def _pull_request(
    context: Context, delivery_id: str, linked: Sequence[Linked], message: Mapping[str, Any]
) -> Heard:
    pull = object_of(message, "pull_request")
    url = text_of(pull, "html_url")
    action = text_of(message, "action")
    states = {"opened": "opened", "reopened": "opened", "closed": "merged" if pull.get("merged") is True else "closed"}
    if action not in states or not url:
        return Heard(ignored=f"nothing follows from a pull request that is {action[:100] or 'nothing'}")
    state = states[action]
    command = NotePullRequest(
        url, state, text_of(pull, "title")[:300] or None, text_of(message, "sender", "login")[:100] or None
    )
    noted = settled = 0
    for each in linked:
        async with context.store.reading() as conn:
            lanes = await github.lanes_of(conn, each.project.id, url)
        # The log first: should the server die in between, GitHub's repeat notes it twice rather than never.
        for lane in lanes:
            await context.store.ledger.submit(lane.run_id, command)
        noted += len(lanes)
        async with context.store.writing() as tx:
            ticket_ids = [ticket_id for lane in lanes for ticket_id in lane.ticket_ids]
            settled += len(await github.note_pull_request(tx, each.project.id, url, state, ticket_ids))
    async with context.store.writing() as tx:
        if not await github.hear(tx, delivery_id):
            return Heard(duplicate=True)
    log.info("github_heard", about="pull_request", action=action, lanes=noted, tickets=settled)
    return Heard(projects=len(linked), tickets=settled, lanes=noted)
