"""Webhooks, their deliveries, notices and their rules: every route as a function that builds a `Call`.

In a change, what isn't named is kept as it is (KEEP), and None clears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heartlane.client.call import (
    KEEP,
    Call,
    Id,
    Keep,
    Page,
    changed,
    delete,
    get,
    given,
    listing,
    part,
    patch,
    post,
    put,
    query_of,
    whole,
)
from heartlane.wire import news as answers
from heartlane.wire.news import (
    ChoiceName,
    DeliveryDetail,
    DeliveryObject,
    DeliveryStateName,
    FormatName,
    NoticeKindName,
    NoticeObject,
    NoticeRulesObject,
    WebhookObject,
    WebhookWithSecret,
)


def create_webhook(
    project_id: Id,
    url: str,
    *,
    events: Sequence[ChoiceName] = (),
    format: FormatName | None = None,
    name: str | None = None,
    enabled: bool = True,
) -> Call[WebhookWithSecret]:
    """A new webhook, with the secret that it signs with: keep it, it is not answered again. Without `events`: all."""
    off = None if enabled else False
    body = given(url=url, events=list(events) or None, format=format, name=name, enabled=off)
    return post(_webhooks(project_id), WebhookWithSecret, whole(WebhookWithSecret), body)


def webhooks(project_id: Id, *, limit: int | None = None) -> Call[Page[WebhookObject]]:
    """Webhooks of a project, newest first."""
    return listing(_webhooks(project_id), answers.WebhookList, lambda answer: answer.webhooks, query_of(limit=limit))


def read_webhook(project_id: Id, webhook_id: Id) -> Call[WebhookObject]:
    """One webhook."""
    return get(_webhook(project_id, webhook_id), answers.WebhookAnswer, lambda answer: answer.webhook)


def patch_webhook(
    project_id: Id,
    webhook_id: Id,
    *,
    url: str | Keep = KEEP,
    events: Sequence[ChoiceName] | Keep = KEEP,
    name: str | Keep | None = KEEP,
    enabled: bool | Keep = KEEP,
) -> Call[WebhookObject]:
    """Change a webhook; what isn't named stays. Disabled, it drops what still waits for it."""
    chosen = events if isinstance(events, Keep) else list(events)
    body = changed(url=url, events=chosen, name=name, enabled=enabled)
    return patch(_webhook(project_id, webhook_id), answers.WebhookAnswer, lambda answer: answer.webhook, body)


def delete_webhook(project_id: Id, webhook_id: Id) -> Call[WebhookObject]:
    """Delete a webhook with its log; the webhook as it was."""
    return delete(_webhook(project_id, webhook_id), answers.WebhookAnswer, lambda answer: answer.webhook)


def rotate_webhook_secret(
    project_id: Id, webhook_id: Id, *, overlap_seconds: int | None = None
) -> Call[WebhookWithSecret]:
    """A new secret; messages are signed with the old one, too, for so long (left out: a day)."""
    path = f"{_webhook(project_id, webhook_id)}/secret"
    return post(path, WebhookWithSecret, whole(WebhookWithSecret), given(overlap_seconds=overlap_seconds))


def test_webhook(project_id: Id, webhook_id: Id) -> Call[DeliveryDetail]:
    """Send a test; read the delivery to see what came of it."""
    path = f"{_webhook(project_id, webhook_id)}/test"
    return post(path, answers.DeliveryAnswer, lambda answer: answer.delivery, None)


def deliveries(
    project_id: Id, webhook_id: Id, *, state: DeliveryStateName | None = None, limit: int | None = None
) -> Call[Page[DeliveryObject]]:
    """What was and will be sent to a webhook, newest first."""
    query = query_of(state=state, limit=limit)
    return listing(
        f"{_webhook(project_id, webhook_id)}/deliveries", answers.DeliveryList, lambda answer: answer.deliveries, query
    )


def read_delivery(project_id: Id, webhook_id: Id, delivery_id: Id) -> Call[DeliveryDetail]:
    """One delivery, with what is sent."""
    path = f"{_webhook(project_id, webhook_id)}/deliveries/{part(delivery_id)}"
    return get(path, answers.DeliveryAnswer, lambda answer: answer.delivery)


def resend_delivery(project_id: Id, webhook_id: Id, delivery_id: Id) -> Call[DeliveryDetail]:
    """Send a delivery again, under the same id."""
    path = f"{_webhook(project_id, webhook_id)}/deliveries/{part(delivery_id)}/resend"
    return post(path, answers.DeliveryAnswer, lambda answer: answer.delivery, None)


def notices(
    *,
    project_id: Id | None = None,
    open: bool | None = None,
    kind: NoticeKindName | None = None,
    limit: int | None = None,
) -> Call[Page[NoticeObject]]:
    """Notices, newest first; with `open` those alone that still hold, or that no longer do."""
    query = query_of(project_id=project_id, open=open, kind=kind, limit=limit)
    return listing("/api/agents/notices", answers.NoticeList, lambda answer: answer.notices, query)


def dismiss_notice(notice_id: Id) -> Call[NoticeObject]:
    """Close a notice by hand."""
    path = f"/api/agents/notices/{part(notice_id)}/dismiss"
    return post(path, answers.NoticeAnswer, lambda answer: answer.notice, None, repeatable=True)


def read_notice_rules(project_id: Id) -> Call[NoticeRulesObject]:
    """What is told about a project."""
    return get(_rules(project_id), answers.NoticeRulesAnswer, lambda answer: answer.notice_rules)


def write_notice_rules(
    project_id: Id,
    *,
    lane_failed: Mapping[str, Any] | None = None,
    attempts_used_up: Mapping[str, Any] | None = None,
    lane_waiting: Mapping[str, Any] | None = None,
    lane_stalled: Mapping[str, Any] | None = None,
    worker_silent: Mapping[str, Any] | None = None,
    plan_waiting: Mapping[str, Any] | None = None,
    budget_80: Mapping[str, Any] | None = None,
    budget_100: Mapping[str, Any] | None = None,
    webhook_disabled: Mapping[str, Any] | None = None,
) -> Call[NoticeRulesObject]:
    """Set what is told about a project: `{"enabled": …}` for each kind, and `after_seconds` for plans that wait.

    A kind that isn't named is as by default.
    """
    body = given(
        lane_failed=lane_failed,
        attempts_used_up=attempts_used_up,
        lane_waiting=lane_waiting,
        lane_stalled=lane_stalled,
        worker_silent=worker_silent,
        plan_waiting=plan_waiting,
        budget_80=budget_80,
        budget_100=budget_100,
        webhook_disabled=webhook_disabled,
    )
    return put(_rules(project_id), answers.NoticeRulesAnswer, lambda answer: answer.notice_rules, body)


def _webhooks(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/webhooks"


def _webhook(project_id: Id, webhook_id: Id) -> str:
    return f"{_webhooks(project_id)}/{part(webhook_id)}"


def _rules(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/notice-rules"
