"""Alerts: what a rule says of a figure, who is told when, and in which words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

type Verdict = Literal["breached", "good", "between", "unknown"]
type Comparison = Literal["above", "below"]
type NoticeKind = Literal["opened", "escalated", "worsened", "cleared", "resolved"]

DATABASE_RULE = "DATABASE_FAILURE"
COLLECTOR_FIGURE = "collector_failed"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as a collector found it; `value` is None where there was nothing to observe (`samples` 0).

    `subject` is empty where there is only one. `window_seconds` is 0 for a figure of the moment.
    """

    name: str
    value: Decimal | None
    samples: int = 1
    subject: str = ""
    window_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of alert_rules, as far as a figure is judged by it and somebody told."""

    name: str
    title: str
    figure: str
    comparison: Comparison
    threshold: Decimal
    clear_threshold: Decimal
    window_seconds: int
    samples_min: int
    severity: str
    channels: tuple[str, ...]
    escalation: str | None
    runbook: str | None

    def judge(self, figure: Figure) -> Verdict:
        """What `figure` comes to; unknown when there is too little of it to say anything."""
        if figure.value is None or figure.samples < self.samples_min:
            return "unknown"
        if self.comparison == "above":
            breached, good = figure.value > self.threshold, figure.value <= self.clear_threshold
        else:
            breached, good = figure.value < self.threshold, figure.value >= self.clear_threshold
        return "breached" if breached else "good" if good else "between"

    def is_about(self, figure: Figure) -> bool:
        """Whether this rule judges `figure`."""
        return self.figure == figure.name and self.window_seconds == figure.window_seconds


@dataclass(frozen=True, slots=True)
class Escalation:
    """Who is told `after_seconds` without an acknowledgement, on which channels."""

    policy: str
    level: int
    after_seconds: int
    addressee: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules that are enabled, who is told when, and for each channel the one that takes its place (or None)."""

    rules: tuple[Rule, ...]
    escalations: tuple[Escalation, ...]
    fallbacks: Mapping[str, str | None]

    def windows(self) -> list[int]:
        """The windows that figures are asked for, in seconds."""
        return sorted({rule.window_seconds for rule in self.rules if rule.window_seconds})

    def rule(self, name: str) -> Rule | None:
        """The enabled rule called `name`."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def due(self, rule: Rule, elapsed: timedelta) -> list[Escalation]:
        """The levels that are due `elapsed` after an alert of `rule` opened, the rule's own channels first."""
        levels = [each for each in self.escalations if each.policy == rule.escalation and each.level > 1]
        first = Escalation(rule.escalation or "", 1, 0, self._first_addressee(rule), rule.channels)
        return [each for each in (first, *levels) if elapsed.total_seconds() >= each.after_seconds]

    def _first_addressee(self, rule: Rule) -> str:
        named = (each.addressee for each in self.escalations if each.policy == rule.escalation and each.level == 1)
        return next(named, "team")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a figure comes to under a rule."""

    rule: str
    subject: str
    verdict: Verdict
    value: Decimal
    samples: int


@dataclass(frozen=True, slots=True)
class Response:
    """An automatic response of an alert: due, done, or failed for `error`."""

    kind: str
    state: str
    error: str | None = None

    @property
    def words(self) -> str:
        """How people are told of it."""
        return f"{self.kind} {self.state}" + (f" ({self.error.rstrip('.')})" if self.error else "")


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one channel. `id` is the same at each attempt, so that a receiver can tell a repeat.

    `value` and `threshold` are the figure's; `level` counts escalations from 1.
    """

    id: UUID | str
    kind: NoticeKind
    level: int
    addressee: str
    channel: str
    alert_id: UUID | str
    rule: str
    title: str
    subject: str
    severity: str
    figure: str
    value: Decimal
    threshold: Decimal
    samples: int
    opened_at: datetime
    ended_by: str | None = None
    note: str | None = None
    runbook: str | None = None
    incident_id: UUID | None = None
    responses: tuple[Response, ...] = ()

    @property
    def headline(self) -> str:
        """One line, for a subject or a short message."""
        severity = self.severity.upper()
        words = {"opened": severity, "escalated": f"STILL {severity}", "worsened": f"WORSE, {severity}"}
        about = f" ({self.subject})" if self.subject else ""
        return f"[{words.get(self.kind, self.kind.upper())}] {self.title}{about}"

    @property
    def text(self) -> str:
        """The whole message in plain text."""
        said = [
            f"{self.rule}: {self.figure} is {self.value.normalize():f}, the threshold {self.threshold.normalize():f} "
            f"({self.samples} observed).",
            f"Open since {self.opened_at:%Y-%m-%d %H:%M:%S} UTC. For {self.addressee.replace('_', ' ')}.",
            f"Alert {self.alert_id}" + (f", incident {self.incident_id}." if self.incident_id else "."),
        ]
        if self.kind in {"opened", "escalated", "worsened"} and self.runbook:
            said.append(f"Runbook: docs/runbooks/{self.runbook}.md")
        if self.responses:
            said.append(
                f"Automatic responses: {', '.join(each.words for each in self.responses)}. "
                "GET /api/v1/risk/interventions lists what is in force, DELETE with /{id} behind it ends one."
            )
        if self.ended_by or self.note:
            said.append(f"{self.ended_by or 'Note'}: {self.note or 'no note'}")
        return "\n".join([self.headline, *said])


def judge_all(book: RuleBook, figures: Iterable[Figure]) -> list[Reading]:
    """What `figures` come to under every rule that is about them; what says nothing is left out."""
    found: list[Reading] = []
    for figure in figures:
        for rule in book.rules:
            if rule.is_about(figure) and (verdict := rule.judge(figure)) != "unknown":
                assert figure.value is not None
                found.append(Reading(rule.name, figure.subject, verdict, figure.value, figure.samples))
    return found


def rule_book(answer: Mapping[str, Any]) -> RuleBook:
    """The book in what list_alert_rules answers."""
    return RuleBook(
        tuple(_rule(row) for row in answer["rules"]),
        tuple(_escalation(row) for row in answer["escalations"]),
        {row["name"]: row["fallback"] for row in answer["channels"]},
    )


def _rule(row: Mapping[str, Any]) -> Rule:
    return Rule(
        row["name"],
        row["title"],
        row["figure"],
        row["comparison"],
        Decimal(row["threshold"]),
        Decimal(row["clear_threshold"]),
        row["window_seconds"],
        row["samples_min"],
        row["severity"],
        tuple(row["channels"]),
        row["escalation"],
        row["runbook"],
    )


def _escalation(row: Mapping[str, Any]) -> Escalation:
    channels: Sequence[str] = row["channels"]
    return Escalation(row["policy"], row["level"], row["after_seconds"], row["addressee"], tuple(channels))


# What holds when the rules can be read nowhere: the database is silent, and this is the first that is heard of it.
LAST_RESORT: Mapping[str, Any] = {
    "rules": [
        {
            "name": DATABASE_RULE,
            "title": "The database does not answer",
            "figure": "database_up",
            "comparison": "below",
            "threshold": 1,
            "clear_threshold": 1,
            "window_seconds": 0,
            "samples_min": 1,
            "severity": "critical",
            "channels": ["slack", "email", "sms", "phone", "database_team"],
            "escalation": "standard",
            "runbook": "database-failure",
        }
    ],
    "escalations": [
        {
            "policy": "standard",
            "level": 2,
            "after_seconds": 300,
            "addressee": "engineering_manager",
            "channels": ["management", "phone"],
        },
        {
            "policy": "standard",
            "level": 3,
            "after_seconds": 900,
            "addressee": "cto",
            "channels": ["management", "phone"],
        },
    ],
    "channels": [
        {"name": "slack", "fallback": "email"},
        {"name": "email", "fallback": "sms"},
        {"name": "sms", "fallback": "phone"},
        {"name": "phone", "fallback": "log"},
        {"name": "database_team", "fallback": "email"},
        {"name": "management", "fallback": "phone"},
    ],
}
