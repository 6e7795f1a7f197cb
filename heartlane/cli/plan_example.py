"""The plan that `heartlane plan init` writes, for people to change."""

from __future__ import annotations

from typing import Final

EXAMPLE: Final = """\
# yaml-language-server: $schema={schema}
#
# heartlane plan create plan.yaml --dry-run     says what is wrong with it
# heartlane plan create plan.yaml               makes it; workers begin once it is approved

# The project's name or id. Without it: --project, or the only project that there is.
project: Web shop
title: Totals

lanes:
  - laneKey: api                # its name within this plan
    title: Totals in the API
    role: backend               # frontend, backend, test, design, devops, qa or other
    priority: 5                 # higher is claimed first; 0 where nothing is said
    prompt: |
      Add GET /totals. Tests are in tests/api.

  - laneKey: page
    title: Totals on the page
    role: frontend
    after: [api]                # waits until these are shipped
    prompt: |
      Show what GET /totals answers above the list.
    # promptFile: prompts/page.md   a file in place of `prompt`, beside this one

  - laneKey: model
    title: Forecast model
    role: backend
    labels:                     # only a worker that offers them gets the lane
      gpu: a100
    # ticketIds: [01a20d4a-14d6-7c76-a740-51170ff431a4]
"""
