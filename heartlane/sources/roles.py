"""Which labels of a ticket ask for which of Heartlane's roles.

A rule is a role and a label, in any case, where `*` stands for anything: `backend=area/backend`, `qa=needs-*`. Beside
the rules that are given, a label counts that is a role's name, alone or behind `role`, `area` or `team`: `backend`,
`role/backend`, `area: backend`. A ticket without any such label is for `other`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from heartlane.lanes.run import Role

ROLES: Final = tuple(str(role) for role in Role)
DEFAULT: Final = "other"
RULES_MAX: Final = 200
LABEL_MAX: Final = 200
_BY_NAME: Final = re.compile(rf"(?:(?:role|area|team)s?\s*[:/=_ -]+\s*)?({'|'.join(ROLES)})")


class BadRule(ValueError):
    """A rule that can't be taken; the text says why."""


class RoleRules(NamedTuple):
    """The rules in the order given: a role, and the pattern of a label in lower case."""

    rules: tuple[tuple[str, str], ...] = ()

    def roles_of(self, labels: Iterable[str]) -> list[str]:
        """The roles that these labels ask for, in the order of `ROLES`; `other` where they ask for none.

        >>> RoleRules((("backend", "api*"),)).roles_of(["API v2", "Area: Frontend", "urgent"])
        ['frontend', 'backend']
        """
        asked = set()
        for label in labels:
            plain = label.strip().lower()
            by_rule = {role for role, pattern in self.rules if fnmatchcase(plain, pattern)}
            named = _BY_NAME.fullmatch(plain)
            asked |= by_rule or ({named[1]} if named else set())
        return [role for role in ROLES if role in asked] or [DEFAULT]

    def as_object(self) -> dict[str, list[str]]:
        """Role → its labels, as `read_rules` takes them."""
        found: dict[str, list[str]] = {}
        for role, pattern in self.rules:
            found.setdefault(role, []).append(pattern)
        return found


def parse_rule(text: str) -> tuple[str, str]:
    """A rule as it is typed: `backend=area/backend`. Raises BadRule."""
    role, equals, label = text.partition("=")
    if not equals:
        raise BadRule(f"must look like backend=area/backend, not {text!r}")
    return _rule(role, label)


def read_rules(value: object) -> RoleRules:
    """Rules as an object of role → label, or array of labels. Raises BadRule."""
    if not isinstance(value, Mapping):
        raise BadRule("must be an object of role → labels")
    rules = []
    for role, labels in value.items():
        listed: Sequence[object] = [labels] if isinstance(labels, str) else labels if isinstance(labels, list) else []
        if not listed or not all(isinstance(label, str) for label in listed):
            raise BadRule(f"must give {role} a label, or an array of labels")
        rules += [_rule(str(role), str(label)) for label in listed]
    if len(rules) > RULES_MAX:
        raise BadRule(f"must not be more than {RULES_MAX}")
    return RoleRules(tuple(rules))


def load_rules(text: str) -> RoleRules:
    """Rules from a JSON text. Raises BadRule."""
    try:
        return read_rules(json.loads(text))
    except ValueError as error:
        raise error if isinstance(error, BadRule) else BadRule(f"must be JSON: {error}") from None


def _rule(role: str, label: str) -> tuple[str, str]:
    role, label = role.strip().lower(), label.strip().lower()
    if role not in ROLES:
        raise BadRule(f"must be for one of {', '.join(ROLES)}, not {role!r}")
    if not 1 <= len(label) <= LABEL_MAX:
        raise BadRule(f"must give {role} a label of 1 to {LABEL_MAX} characters")
    return role, label
