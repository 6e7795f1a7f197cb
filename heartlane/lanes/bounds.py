"""Every numeric bound of the wire contract, in one place.

Lengths are counted in characters (Unicode code points), durations in whole seconds.
"""

from __future__ import annotations

from typing import Final

# Telemetry and claims
WORKER_ID_MAX: Final = 200
PHASE_MAX: Final = 200
LOG_LINE_MAX: Final = 2_000
EVENTS_PER_REPORT_MAX: Final = 100
LEASE_SECONDS_MIN: Final = 1
LEASE_SECONDS_MAX: Final = 3_600
LEASE_SECONDS_DEFAULT: Final = 300
WAIT_SECONDS_MAX: Final = 30
RETRY_AFTER_SECONDS_MAX: Final = 604_800
RELEASE_REASON_MAX: Final = 2_000
COUNTER_MAX: Final = 2**63 - 1
"""Largest `attempt` or `seq`: what a signed 64-bit column holds."""

# What a report's payload may leave on the run (longer text is cut, the event keeps it whole)
ERROR_MAX: Final = 2_000
PR_URL_MAX: Final = 2_000
BRANCH_MAX: Final = 500
COMMIT_MAX: Final = 200
SUMMARY_MAX: Final = 10_000

# Runs
MAX_FAILURES_DEFAULT: Final = 5
MAX_FAILURES_MIN: Final = 1
MAX_FAILURES_MAX: Final = 1_000
STALLED_AFTER_SECONDS_DEFAULT: Final = 900
STALLED_AFTER_SECONDS_MIN: Final = 1
STALLED_AFTER_SECONDS_MAX: Final = 604_800
PRIORITY_MIN: Final = -(2**31)
PRIORITY_MAX: Final = 2**31 - 1
GRACE_SECONDS_MAX: Final = 300
"""After a time without any server, a holder has one lease, at most this long, to be heard again."""

# Plans
TITLE_MIN: Final = 1
TITLE_MAX: Final = 200
LANE_KEY_MAX: Final = 100
LANES_PER_PLAN_MAX: Final = 2_000
TICKETS_PER_PLAN_MAX: Final = 1_000
PROMPT_MAX: Final = 200_000
LABELS_MAX: Final = 32
LABEL_KEY_MAX: Final = 63
LABEL_VALUE_MAX: Final = 255
REJECT_REASON_MAX: Final = 2_000

# Projects, milestones, tickets
NAME_MAX: Final = 200
URL_MAX: Final = 2_000
TICKET_TITLE_MIN: Final = 5
TICKET_TITLE_MAX: Final = 140
TICKET_DESCRIPTION_MIN: Final = 10
TICKET_DESCRIPTION_MAX: Final = 5_000
TICKETS_PER_BATCH_MAX: Final = 200
CAP_MAX: Final = 1_000_000
CAPS_BY_SOURCE_MAX: Final = 50
SOURCE_MAX: Final = 255
AGENT_NAME_MAX: Final = 100
FAILURE_REASON_MAX: Final = 60
TOKENS_CEILING_MAX: Final = 10**15
USD_CEILING_MAX: Final = 10**9
WAIVER_HOURS_MAX: Final = 24 * 31

# Overview
OVERVIEW_DAYS_DEFAULT: Final = 14
OVERVIEW_DAYS_MAX: Final = 90

# Lists
PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 200
