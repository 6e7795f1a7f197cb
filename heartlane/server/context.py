"""What one running server consists of; every route reaches the rest through it."""

from __future__ import annotations

from dataclasses import dataclass, field

from heartlane.server.auth import Authenticator
from heartlane.server.gate import Gate
from heartlane.server.importer import Importer
from heartlane.server.limits import RateLimiter
from heartlane.server.metrics import Metrics
from heartlane.server.patience import Patience
from heartlane.server.presence import Presence
from heartlane.server.sessions import Sessions
from heartlane.server.settings import Settings
from heartlane.server.streams import Streams
from heartlane.server.vault import Vault
from heartlane.server.waiters import Waiters
from heartlane.store.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running server."""

    settings: Settings
    store: Store
    auth: Authenticator
    limiter: RateLimiter
    metrics: Metrics
    gate: Gate
    waiters: Waiters
    streams: Streams
    sessions: Sessions
    vault: Vault
    importer: Importer
    presence: Presence
    patience: Patience = field(default_factory=Patience)
