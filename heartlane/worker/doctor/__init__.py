"""Whether a worker would get to work here: each thing that it needs, in plain words, with the cure for what is amiss.

Nothing is changed by it: no lane is claimed; the file and the control group that are made on trial are removed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from heartlane.worker.doctor.agent import look_at_agent
from heartlane.worker.doctor.findings import AgentInfo, Finding, Level, LoginInfo, Patient
from heartlane.worker.doctor.machine import look_at_disk, look_at_git, look_at_group, look_at_spool
from heartlane.worker.doctor.server import look_at_server

__all__ = ["AgentInfo", "Finding", "Level", "LoginInfo", "Patient", "examine"]


def examine(patient: Patient, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Everything that was found, one by one, as it is found. Raises nothing."""
    yield from look_at_server(patient, now)
    if patient.agent is not None:
        yield from look_at_agent(patient.agent, patient.environment)
    yield from look_at_git(patient)
    yield from look_at_disk(patient.places)
    yield from look_at_group()
    yield from look_at_spool(patient.places.spool)
