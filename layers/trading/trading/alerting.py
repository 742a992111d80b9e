"""The evaluation of alerts: collect figures, judge them, book what they come to, respond, and tell people.

Whatever fails on the way is told: a collector that raises is a figure, a database that is silent is told past it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID, uuid4

from trading.alerts import (
    COLLECTOR_FIGURE,
    DATABASE_RULE,
    Escalation,
    Figure,
    Notice,
    Rule,
    RuleBook,
    judge_all,
)
from trading.channels.protocol import ChannelError
from trading.channels.registry import FindChannel
from trading.collectors.protocol import Collectors
from trading.database_silence import OutageMemory
from trading.errors import ErrorCode, TradingError
from trading.observability import logger
from trading.store.alerts import AlertStore, DueResponse, Outcome, Told

# What is compared with the past is kept of each minute.
SAMPLE_SECONDS = 60
SAMPLED = frozenset(
    {
        "performance_score",
        "orders_executed",
        "order_failure_percent",
        "order_latency_average_ms",
        "order_latency_p99_ms",
    }
)
NOTICES_A_CLAIM = 20
NOTICES_A_RUN_MAX = 200
RESPONSES_A_RUN_MAX = 20
# Longer than all messages of one claim may take.
LEASE_MS = 120_000
# No message is begun with less time left.
TIME_LEFT_MS_MIN = 5_000

type TimeLeft = Callable[[], int]


class Responder(Protocol):
    """Begins automatic responses."""

    def begin(self, response: DueResponse) -> Mapping[str, object]:
        """Begin it, once however often it is asked for; what was done. TradingError when it cannot be."""
        ...


@dataclass(slots=True)
class AlertReport:
    """What a run did. `failed` names the collectors that raised; `silent` says that the database did not answer."""

    figures: int = 0
    opened: int = 0
    cleared: int = 0
    escalated: int = 0
    sent: int = 0
    not_sent: int = 0
    responses: int = 0
    reports: int = 0
    failed: list[str] = field(default_factory=list[str])
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run with what it needs. `now` is the time of the readings where it is not the database's."""

    store: AlertStore
    collectors: Collectors
    channels: FindChannel
    responder: Responder
    memory: OutageMemory
    time_left_ms: TimeLeft
    release: str | None = None
    now: datetime | None = None
    holder: UUID = field(default_factory=uuid4)
    report: AlertReport = field(default_factory=AlertReport)

    def run(self) -> AlertReport:
        """Evaluate every rule once and send what is due. Safe to run twice at once."""
        try:
            self._evaluate()
        except TradingError as error:
            if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                raise
            logger().error("alerts are evaluated without the database", exc_info=error)
            self.report.silent = True
            self._tell_silence()
        return self.report

    def _evaluate(self) -> None:
        book = self.store.rules()
        self.memory.keep_rules(book)
        if (outage := self.memory.outage()) is not None:
            self.store.record_outage(outage.since, outage.told)
            self.memory.end()
        figures = self._collect(book)
        samples = [each for each in figures if _is_sampled(each)]
        booked = self.store.record(judge_all(book, figures), samples, release=self.release, at=self.now)
        self.report.figures = len(figures)
        self.report.opened = len(booked.opened)
        self.report.cleared = len(booked.cleared)
        self.report.escalated = len(booked.escalated)
        # People first: a response may take its time.
        self._send_due()
        self._respond()
        self._send_due()
        self._report_hours()

    def _collect(self, book: RuleBook) -> list[Figure]:
        """Every figure that can be had, and of each collector whether it failed."""
        windows = sorted({SAMPLE_SECONDS, *book.windows()})
        found: list[Figure] = []
        for name, collect in self.collectors.items():
            failed = 0
            try:
                found += collect(windows, self.now)
            except Exception as error:
                if isinstance(error, TradingError) and error.code is ErrorCode.DATABASE_UNAVAILABLE:
                    raise
                failed = 1
                self.report.failed.append(name)
                logger().exception("a collector failed", extra={"collector": name})
            found.append(Figure(COLLECTOR_FIGURE, Decimal(failed), 1, name))
        return found

    def _respond(self) -> None:
        for response in self.store.due_responses(limit=RESPONSES_A_RUN_MAX):
            try:
                details, done = self.responder.begin(response), True
            except Exception as error:  # noqa: BLE001 - whatever it was, people are told and the next one is begun
                logger().exception("an automatic response failed", extra={"kind": response.kind})
                # Our own words name nothing secret; anybody else's might.
                words = error.message if isinstance(error, TradingError) else type(error).__name__
                details, done = {"error": words}, False
            self.store.report_response(response, done=done, details=details)
            self.report.responses += done

    def _report_hours(self) -> None:
        """Last, because nobody waits for it; one that takes too long is no silence of the database."""
        try:
            self.report.reports = self.store.keep_reports(at=self.now)
        except TradingError as error:
            logger().error("the hour was not reported", exc_info=error)

    def _send_due(self) -> None:
        tried = 0
        while tried < NOTICES_A_RUN_MAX and self.time_left_ms() >= TIME_LEFT_MS_MIN:
            claimed = self.store.claim_notices(self.holder, limit=NOTICES_A_CLAIM, lease_ms=LEASE_MS, at=self.now)
            if not claimed:
                return
            for notice in claimed:
                # What is left here is due again when the lease has run out.
                if self.time_left_ms() < TIME_LEFT_MS_MIN:
                    return
                outcome, error = self._send(notice)
                self.store.report_notice(self.holder, notice, outcome, error=error, at=self.now)
                tried += 1

    def _send(self, notice: Notice) -> tuple[Outcome, str | None]:
        channel = self.channels(notice.channel)
        if channel is None:
            self.report.not_sent += 1
            return "unconfigured", "not configured"
        try:
            channel.send(notice)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next in line is told and so are all the others
            self.report.not_sent += 1
            # Our own words name nothing secret; anybody else's might.
            cause = str(error) if isinstance(error, ChannelError) else type(error).__name__
            logger().warning("a message was not sent", extra={"channel": notice.channel, "cause": cause})
            return "failed", cause
        self.report.sent += 1
        return "sent", None

    def _tell_silence(self) -> None:
        """Tell of the database's silence past it: by the rules as they were read last, each level and channel once."""
        book = self.memory.rules()
        rule = book.rule(DATABASE_RULE)
        if rule is None:  # switched off by an operator
            return
        now = self.now or datetime.now(UTC)
        outage = self.memory.begin(now)
        for level in book.due(rule, now - outage.since):
            for channel in level.channels:
                if self.memory.may_tell(level.level, channel):
                    self._tell_in_line(book, _silence(rule, level, channel, outage.since))

    def _tell_in_line(self, book: RuleBook, notice: Notice) -> None:
        """Send `notice` on its channel, or on the first of those in line behind it that takes it."""
        line: list[str] = [notice.channel]
        while (following := book.fallbacks.get(line[-1])) is not None and following not in line:
            line.append(following)
        for channel in line:
            sent = self._send(replace(notice, channel=channel))[0] == "sent"
            self.memory.note(Told(notice.kind, notice.level, notice.addressee, channel, sent))
            if sent:
                return


def _is_sampled(figure: Figure) -> bool:
    return figure.name in SAMPLED and figure.window_seconds == SAMPLE_SECONDS and figure.value is not None


def _silence(rule: Rule, level: Escalation, channel: str, since: datetime) -> Notice:
    """The message about a database that is silent; its name is the silence's, because there is no row to name it."""
    alert_id = f"database-{since:%Y%m%dT%H%M%SZ}"
    return Notice(
        id=f"{alert_id}-{level.level}-{channel}",
        kind="opened" if level.level == 1 else "escalated",
        level=level.level,
        addressee=level.addressee,
        channel=channel,
        alert_id=alert_id,
        rule=rule.name,
        title=rule.title,
        subject="",
        severity=rule.severity,
        figure=rule.figure,
        value=Decimal(0),
        threshold=rule.threshold,
        samples=1,
        opened_at=since,
        runbook=rule.runbook,
    )
