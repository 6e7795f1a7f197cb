"""Webhooks of a project: where its news goes, and the log of what was sent there."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Path, Query, Request

from heartlane.lanes.news import CHOICES
from heartlane.server.auth import Principal
from heartlane.server.bodies import list_body
from heartlane.server.context import Context
from heartlane.server.depends import Admin, Json, Operator, PathId, Server, actor_of, body_of, not_found
from heartlane.server.egress import problem_of
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.routes.projects import find_project
from heartlane.server.vault import NoKey
from heartlane.store import audit, webhooks
from heartlane.store.store import WriteTransaction
from heartlane.store.webhooks import LoggedDelivery, Webhook
from heartlane.wire.fields import Id
from heartlane.wire.news import (
    CreateWebhookBody,
    DeliveryAnswer,
    DeliveryList,
    DeliveryQuery,
    PatchWebhookBody,
    RotateSecretBody,
    WebhookAnswer,
    WebhookList,
    WebhookWithSecret,
)
from heartlane.wire.queries import PageQuery

SECRET_BYTES: Final = 32

router = APIRouter(prefix="/api/projects/{id}/webhooks", tags=["Webhooks"])

PathWebhookId = Annotated[Id, Path(alias="webhookId", description="In any case.")]
PathDeliveryId = Annotated[Id, Path(alias="deliveryId", description="In any case.")]


@router.post("", status_code=201, response_model=WebhookWithSecret, summary="Create a webhook")
async def create_webhook(
    *,
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[CreateWebhookBody, body_of(CreateWebhookBody)],
) -> Json:
    """Every change that it chose is sent there from now on, at least once, and tried again for 24 hours.

    Keep the `secret`: it is not answered again.
    """
    _check_url(context, body.url)
    await find_project(context, principal, project_id)
    secret = _new_secret() if body.format == "standard" else None
    values: dict[str, Any] = {
        "name": body.name,
        "format": body.format,
        "url_sealed": _seal(context, body.url),
        "url_shown": shown(body.url),
        "events_json": _events(body.events),
        "secret_sealed": None if secret is None else _seal(context, secret),
        "enabled": body.enabled,
    }
    async with context.store.writing() as tx:
        if not body.enabled:
            values |= {"disabled_reason": "by_hand", "disabled_at": tx.now}
        webhook = await webhooks.create_webhook(tx, principal.account_id, project_id, values)
        if webhook is not None:
            await _record(tx, actor_of(request, principal), "webhook.created", webhook, _settings(webhook))
    if webhook is None:
        raise invalid_request([Issue("body", f"would be one too many: a project has {webhooks.WEBHOOKS_MAX} at most")])
    if body.enabled:
        context.store.audience.add(project_id)
    return Json({"webhook": webhook_body(webhook), "secret": secret}, status_code=201)


@router.get("", response_model=WebhookList, summary="List webhooks")
async def list_webhooks(
    principal: Operator, context: Server, project_id: PathId, query: Annotated[PageQuery, Query()]
) -> Json:
    """Newest first."""
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        page = await webhooks.list_webhooks(conn, project_id, cursor=query.cursor, limit=query.limit)
    return Json(list_body("webhooks", page, webhook_body))


@router.get("/{webhookId}", response_model=WebhookAnswer, summary="Read a webhook")
async def read_webhook(principal: Operator, context: Server, project_id: PathId, webhook_id: PathWebhookId) -> Json:
    """One webhook."""
    return Json({"webhook": webhook_body(await _find(context, principal, project_id, webhook_id))})


@router.patch("/{webhookId}", response_model=WebhookAnswer, summary="Change a webhook")
async def patch_webhook(
    *,
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    webhook_id: PathWebhookId,
    body: Annotated[PatchWebhookBody, body_of(PatchWebhookBody)],
) -> Json:
    """What is left out stays. Disabled, it drops what still waits for it; enabled again, it begins anew."""
    values: dict[str, Any] = body.model_dump(include={"name", "enabled"}, exclude_unset=True)
    if body.url is not None:
        _check_url(context, body.url)
        values |= {"url_sealed": _seal(context, body.url), "url_shown": shown(body.url)}
    if body.events is not None:
        values["events_json"] = _events(body.events)
    await find_project(context, principal, project_id)
    async with context.store.writing() as tx:
        before = await _lock(tx, project_id, webhook_id)
        webhook = await webhooks.change_webhook(tx, before, values)
        details = audit.changes(_settings(before), _settings(webhook)) | ({"new_url": True} if body.url else {})
        await _record(tx, actor_of(request, principal), "webhook.changed", webhook, details)
    if webhook.enabled:
        context.store.audience.add(project_id)
    return Json({"webhook": webhook_body(webhook)})


@router.delete("/{webhookId}", response_model=WebhookAnswer, summary="Delete a webhook")
async def delete_webhook(
    principal: Admin, context: Server, request: Request, project_id: PathId, webhook_id: PathWebhookId
) -> Json:
    """With its log, and with what still waits for it. Answers it as it was."""
    await find_project(context, principal, project_id)
    async with context.store.writing() as tx:
        webhook = await _lock(tx, project_id, webhook_id)
        await webhooks.delete_webhook(tx, webhook)
        await _record(tx, actor_of(request, principal), "webhook.deleted", webhook, _settings(webhook))
    return Json({"webhook": webhook_body(webhook)})


@router.post("/{webhookId}/secret", response_model=WebhookWithSecret, summary="Rotate a webhook's secret")
async def rotate_webhook_secret(
    *,
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    webhook_id: PathWebhookId,
    body: Annotated[RotateSecretBody, body_of(RotateSecretBody, optional=True)],
) -> Json:
    """Messages are signed with the new one at once, and for `overlap_seconds` with the old one, too."""
    webhook = await _find(context, principal, project_id, webhook_id)
    if webhook.format != "standard":
        raise invalid_request([Issue("webhookId", f"is a webhook of the format {webhook.format}, which has no secret")])
    secret = _new_secret()
    sealed = _seal(context, secret)
    async with context.store.writing() as tx:
        webhook = await _lock(tx, project_id, webhook_id)
        overlap = timedelta(seconds=body.overlap_seconds)
        webhook = await webhooks.rotate_secret(tx, webhook, sealed, overlap)
        details = {"overlap_seconds": body.overlap_seconds}
        await _record(tx, actor_of(request, principal), "webhook.secret_rotated", webhook, details)
    return Json({"webhook": webhook_body(webhook), "secret": secret})


@router.post("/{webhookId}/test", status_code=201, response_model=DeliveryAnswer, summary="Send a test")
async def test_webhook(principal: Operator, context: Server, project_id: PathId, webhook_id: PathWebhookId) -> Json:
    """It goes the way of all news, also to a webhook that is disabled: read the delivery to see what came of it."""
    project = await find_project(context, principal, project_id)
    async with context.store.writing() as tx:
        delivery = await webhooks.send_test(tx, await _lock(tx, project_id, webhook_id), project.name)
    return Json({"delivery": delivery_detail(delivery)}, status_code=201)


@router.get("/{webhookId}/deliveries", response_model=DeliveryList, summary="List deliveries")
async def list_deliveries(
    principal: Operator,
    context: Server,
    project_id: PathId,
    webhook_id: PathWebhookId,
    query: Annotated[DeliveryQuery, Query()],
) -> Json:
    """Newest first, each with its attempts."""
    webhook = await _find(context, principal, project_id, webhook_id)
    async with context.store.reading() as conn:
        page = await webhooks.list_deliveries(
            conn, webhook.id, state=query.state, cursor=query.cursor, limit=query.limit
        )
    return Json(list_body("deliveries", page, delivery_body))


@router.get("/{webhookId}/deliveries/{deliveryId}", response_model=DeliveryAnswer, summary="Read a delivery")
async def read_delivery(
    principal: Operator,
    context: Server,
    project_id: PathId,
    webhook_id: PathWebhookId,
    delivery_id: PathDeliveryId,
) -> Json:
    """With what is sent."""
    webhook = await _find(context, principal, project_id, webhook_id)
    async with context.store.reading() as conn:
        delivery = await webhooks.read_delivery(conn, webhook.id, delivery_id)
    if delivery is None:
        raise not_found("delivery")
    return Json({"delivery": delivery_detail(delivery)})


@router.post("/{webhookId}/deliveries/{deliveryId}/resend", response_model=DeliveryAnswer, summary="Send again")
async def resend_delivery(
    principal: Operator,
    context: Server,
    project_id: PathId,
    webhook_id: PathWebhookId,
    delivery_id: PathDeliveryId,
) -> Json:
    """Now, whatever became of it before, and under the same id. Takes no body."""
    await find_project(context, principal, project_id)
    async with context.store.writing() as tx:
        webhook = await _lock(tx, project_id, webhook_id)
        delivery = await webhooks.resend(tx, webhook.id, delivery_id)
    if delivery is None:
        raise not_found("delivery")
    return Json({"delivery": delivery_detail(delivery)})


def webhook_body(webhook: Webhook) -> dict[str, Any]:
    """A webhook as it is answered."""
    body = webhook._asdict()
    del body["billing_account_id"]
    return body | {"url": body.pop("url_shown"), "events": orjson.Fragment(body.pop("events_json"))}


def delivery_body(delivery: LoggedDelivery) -> dict[str, Any]:
    """A delivery as it is listed."""
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "type": delivery.type,
        "state": delivery.state,
        "next_attempt_at": delivery.next_at,
        "created_at": delivery.created_at,
        "finished_at": delivery.finished_at,
        "attempts": [
            {
                "attempt": each.attempt,
                "at": each.at,
                "status": each.status,
                "milliseconds": each.milliseconds,
                "error": each.error,
                "answer": each.answer,
            }
            for each in delivery.attempts
        ],
    }


def delivery_detail(delivery: LoggedDelivery) -> dict[str, Any]:
    """A delivery read alone."""
    return delivery_body(delivery) | {"body": orjson.Fragment(delivery.body)}


def shown(url: str) -> str:
    """What of an address may be seen: its path may be a secret, and often is.

    >>> shown("https://hooks.slack.example/services/T0/B0/x?y=1"), shown("http://example.com:8080")
    ('https://hooks.slack.example/***', 'http://example.com:8080')
    """
    parts = urlsplit(url)
    rest = "/***" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{rest}"


async def _find(context: Context, principal: Principal, project_id: str, webhook_id: str) -> Webhook:
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        webhook = await webhooks.read_webhook(conn, project_id, webhook_id)
    if webhook is None:
        raise not_found("webhook")
    return webhook


async def _lock(tx: WriteTransaction, project_id: str, webhook_id: str) -> Webhook:
    webhook = await webhooks.read_webhook(tx.conn, project_id, webhook_id, lock=True)
    if webhook is None:
        raise not_found("webhook")
    return webhook


async def _record(
    tx: WriteTransaction, actor: audit.Actor, action: str, webhook: Webhook, details: Mapping[str, Any]
) -> None:
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        action,
        account_id=webhook.billing_account_id,
        project_id=webhook.project_id,
        object_type="webhook",
        object_id=webhook.id,
        object_name=webhook.name or webhook.url_shown,
        details=details,
    )


def _settings(webhook: Webhook) -> dict[str, Any]:
    """What people set, as the audit log keeps it: of the address no more than is shown."""
    return {
        "name": webhook.name,
        "url": webhook.url_shown,
        "format": webhook.format,
        "events": json.loads(webhook.events_json),
        "enabled": webhook.enabled,
    }


def _check_url(context: Context, url: str) -> None:
    """Raise the 400 of an address that nothing will ever be sent to, as far as its text tells."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
    except ValueError:
        raise invalid_request([Issue("url", "is not an address that can be read")]) from None
    if "@" in parts.netloc:
        raise invalid_request([Issue("url", "must not hold a user name or a password")])
    if not host or not url.isascii():
        raise invalid_request([Issue("url", "must name a host, in ASCII (xn--… for others)")])
    problem = problem_of(host, port, context.settings.webhooks_allow)
    if problem is not None:
        raise invalid_request([Issue("url", problem)])


def _seal(context: Context, text: str) -> str:
    try:
        return context.vault.seal(text)
    except NoKey as error:
        raise ApiError("NO_SECRET_KEY", str(error)) from None


def _events(chosen: list[Any]) -> str:
    """What was chosen, each once and in one order."""
    return json.dumps([choice for choice in CHOICES if choice in chosen])


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(SECRET_BYTES)).decode()
