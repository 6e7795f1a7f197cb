"""A run with all that its worker needs: the prompt and the tickets, which lists never carry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from heartlane.lanes.run import Run
from heartlane.server.bodies import ticket_body
from heartlane.store.runs import read_prompt
from heartlane.store.store import Store
from heartlane.store.tickets import read_tickets
from heartlane.wire.run_json import run_body


async def with_details(store: Store, run: Run, now: datetime) -> dict[str, Any]:
    """The run object with `prompt` (string or null) and `tickets` (in the lane's order). Raises StoreUnavailable."""
    async with store.reading() as conn:
        prompt = await read_prompt(conn, run.id)
        ticket_ids = run.ticket_ids
        found = await read_tickets(conn, run.project_id, ticket_ids) if ticket_ids else {}
    tickets = [ticket_body(found[ticket_id]) for ticket_id in ticket_ids if ticket_id in found]
    return {**run_body(run, now), "prompt": prompt, "tickets": tickets}
