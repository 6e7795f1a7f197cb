"""Projects, milestones and tickets: every route as a function that builds a `Call`.

In a change, what isn't named is kept as it is (KEEP), and None clears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from heartlane.client.call import (
    KEEP,
    Call,
    Id,
    Keep,
    Page,
    changed,
    get,
    given,
    listing,
    part,
    patch,
    post,
    put,
    query_of,
)
from heartlane.wire import answers
from heartlane.wire.answers import MilestoneObject, ProjectObject, TicketObject
from heartlane.wire.github_answers import SyncedTicket, SyncedTickets
from heartlane.wire.names import ResolutionName, RoleName, RoleStateName, StageName, StatusName, TicketRoleName

# --- projects and milestones --------------------------------------------------------------------------------------


def create_project(
    name: str,
    *,
    repo_url: str | None = None,
    default_branch: str | None = None,
    max_failures: int | None = None,
    stalled_after_seconds: int | None = None,
) -> Call[ProjectObject]:
    """A new project."""
    body = given(
        name=name,
        repo_url=repo_url,
        default_branch=default_branch,
        max_failures=max_failures,
        stalled_after_seconds=stalled_after_seconds,
    )
    return post("/api/projects", answers.ProjectAnswer, lambda answer: answer.project, body)


def projects(*, limit: int | None = None) -> Call[Page[ProjectObject]]:
    """Projects, newest first."""
    return listing("/api/projects", answers.ProjectList, lambda answer: answer.projects, query_of(limit=limit))


def read_project(project_id: Id) -> Call[ProjectObject]:
    """One project."""
    return get(f"/api/projects/{part(project_id)}", answers.ProjectAnswer, lambda answer: answer.project)


def patch_project(
    project_id: Id,
    *,
    name: str | Keep = KEEP,
    repo_url: str | Keep | None = KEEP,
    default_branch: str | Keep | None = KEEP,
    max_failures: int | Keep = KEEP,
    stalled_after_seconds: int | Keep = KEEP,
) -> Call[ProjectObject]:
    """Change a project; what isn't named stays, None clears."""
    body = changed(
        name=name,
        repo_url=repo_url,
        default_branch=default_branch,
        max_failures=max_failures,
        stalled_after_seconds=stalled_after_seconds,
    )
    path = f"/api/projects/{part(project_id)}"
    return patch(path, answers.ProjectAnswer, lambda answer: answer.project, body)


def create_milestone(
    project_id: Id, name: str, *, description: str | None = None, due_at: datetime | str | None = None
) -> Call[MilestoneObject]:
    """A new milestone of a project."""
    body = given(name=name, description=description, due_at=due_at)
    return post(_milestones(project_id), answers.MilestoneAnswer, lambda answer: answer.milestone, body)


def milestones(
    project_id: Id, *, status: StatusName | None = None, limit: int | None = None
) -> Call[Page[MilestoneObject]]:
    """Milestones of a project, newest first."""
    query = query_of(status=status, limit=limit)
    return listing(_milestones(project_id), answers.MilestoneList, lambda answer: answer.milestones, query)


def read_milestone(project_id: Id, milestone_id: Id) -> Call[MilestoneObject]:
    """One milestone."""
    path = f"{_milestones(project_id)}/{part(milestone_id)}"
    return get(path, answers.MilestoneAnswer, lambda answer: answer.milestone)


def patch_milestone(
    project_id: Id,
    milestone_id: Id,
    *,
    name: str | Keep = KEEP,
    description: str | Keep | None = KEEP,
    status: StatusName | Keep = KEEP,
    due_at: datetime | str | Keep | None = KEEP,
) -> Call[MilestoneObject]:
    """Change a milestone; what isn't named stays, None clears."""
    body = changed(name=name, description=description, status=status, due_at=due_at)
    path = f"{_milestones(project_id)}/{part(milestone_id)}"
    return patch(path, answers.MilestoneAnswer, lambda answer: answer.milestone, body)


# --- tickets ------------------------------------------------------------------------------------------------------


def create_ticket(
    project_id: Id,
    *,
    title: str,
    description: str,
    request_type: str,
    priority: str,
    blocking: bool,
    roles: Sequence[RoleName] = (),
    evidence: Any = None,
    suggested_resolution: str | None = None,
    actor_role: str | None = None,
    verified_existing: bool = False,
    milestone_id: Id | None = None,
    external_url: str | None = None,
) -> Call[TicketObject]:
    """A new ticket: what is wanted, and of which roles."""
    body = given(
        title=title,
        description=description,
        request_type=request_type,
        priority=priority,
        blocking=blocking,
        roles=list(roles) or None,
        evidence=evidence,
        suggested_resolution=suggested_resolution,
        actor_role=actor_role,
        verified_existing=True if verified_existing else None,
        milestone_id=milestone_id,
        external_url=external_url,
    )
    return post(_tickets(project_id), answers.TicketAnswer, lambda answer: answer.ticket, body)


def sync_tickets(project_id: Id, tickets: Sequence[Mapping[str, Any]]) -> Call[Sequence[SyncedTicket]]:
    """Make or bring up to date tickets that a source tells of, 200 at most: all of them, or none.

    tickets     the fields of each: `external_url` or `external_key`, `title`, `description`, `request_type`,
                `priority`, and where wanted `blocking`, `roles`, `status`, `resolution_type`, `milestone_id`, `create`
    """
    body = {"tickets": [dict(ticket) for ticket in tickets]}
    return put(_tickets(project_id), SyncedTickets, lambda answer: answer.results, body)


def tickets(
    project_id: Id,
    *,
    status: StatusName | None = None,
    stage: StageName | None = None,
    milestone_id: Id | None = None,
    limit: int | None = None,
) -> Call[Page[TicketObject]]:
    """Tickets of a project, newest first."""
    query = query_of(status=status, stage=stage, milestone_id=milestone_id, limit=limit)
    return listing(_tickets(project_id), answers.TicketList, lambda answer: answer.tickets, query)


def read_ticket(project_id: Id, ticket_id: Id) -> Call[TicketObject]:
    """One ticket."""
    path = f"{_tickets(project_id)}/{part(ticket_id)}"
    return get(path, answers.TicketAnswer, lambda answer: answer.ticket)


def patch_ticket(
    project_id: Id,
    ticket_id: Id,
    *,
    title: str | Keep = KEEP,
    description: str | Keep = KEEP,
    request_type: str | Keep = KEEP,
    priority: str | Keep = KEEP,
    blocking: bool | Keep = KEEP,
    roles: Mapping[TicketRoleName, RoleStateName] | Keep = KEEP,
    stage: StageName | Keep = KEEP,
    status: StatusName | Keep = KEEP,
    resolution_type: ResolutionName | Keep = KEEP,
    evidence: Any = KEEP,
    suggested_resolution: str | Keep | None = KEEP,
    actor_role: str | Keep | None = KEEP,
    verified_existing: bool | Keep = KEEP,
    milestone_id: Id | Keep | None = KEEP,
    external_url: str | Keep | None = KEEP,
) -> Call[TicketObject]:
    """Change a ticket; what isn't named stays, None clears."""
    body = changed(
        title=title,
        description=description,
        request_type=request_type,
        priority=priority,
        blocking=blocking,
        roles=roles if isinstance(roles, Keep) else dict(roles),
        stage=stage,
        status=status,
        resolution_type=resolution_type,
        evidence=evidence,
        suggested_resolution=suggested_resolution,
        actor_role=actor_role,
        verified_existing=verified_existing,
        milestone_id=milestone_id,
        external_url=external_url,
    )
    path = f"{_tickets(project_id)}/{part(ticket_id)}"
    return patch(path, answers.TicketAnswer, lambda answer: answer.ticket, body)


def change_tickets(
    project_id: Id,
    ticket_ids: Sequence[Id],
    *,
    stage: StageName | Keep = KEEP,
    status: StatusName | Keep = KEEP,
    resolution_type: ResolutionName | Keep = KEEP,
    milestone_id: Id | Keep | None = KEEP,
) -> Call[Sequence[TicketObject]]:
    """The same change for many tickets: all of them, or none."""
    body = changed(
        ticket_ids=list(ticket_ids),
        stage=stage,
        status=status,
        resolution_type=resolution_type,
        milestone_id=milestone_id,
    )
    path = f"{_tickets(project_id)}/batch"
    return post(path, answers.TicketList, lambda answer: answer.tickets, body, repeatable=True)


def _milestones(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/milestones"


def _tickets(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/tickets"
