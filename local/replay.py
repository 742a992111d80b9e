"""An order's life as text for a person; see database/procedures/audit/replay_order.sql."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

type Facts = Mapping[str, Any]

# Of what was asked for, the head line says the rest.
_IN_THE_HEAD = ("side", "quantity", "symbol", "order_type")
_OF_A_FILL = ("quantity", "price", "commission", "realized_pnl", "balance_after", "position")
_OF_A_POSITION = ("side", "quantity", "symbol", "entry_price", "status")


def replay_agrees(replay: Facts) -> bool:
    """Whether no row of the audit was changed, and the tables hold what is rebuilt from it."""
    held = [replay["order"], *replay["positions"]]
    return all(_agrees(facts) for facts in held) and not any(step["changed"] for step in replay["steps"])


def replay_lines(replay: Facts) -> Iterator[str]:
    """The lines of what replay_order found, the verdict last."""
    yield f"Order {replay['order_id']}{_asked_in_short(replay['order'])}"
    yield f"of user {replay['user_id']}, account {replay['account_id']}; amounts in {replay['currency']}, times in UTC"
    yield ""
    for step in replay["steps"]:
        yield from _step_lines(step)
    if not replay["steps"]:
        yield "The audit tells nothing of it."
    yield ""
    yield from _held_lines("The order", replay["order"])
    for position in replay["positions"]:
        yield ""
        yield from _held_lines(f"Position {position['id']} as it is now", position)
    yield ""
    yield from _verdict(replay)


def _asked_in_short(order: Facts) -> str:
    facts = order["rebuilt"] or order["stored"]
    return ": " + " ".join(_text(facts[name]) for name in (*_IN_THE_HEAD, "status"))


def _step_lines(step: Facts) -> Iterator[str]:
    attempt = "" if step["retry_attempt"] is None else f", attempt {step['retry_attempt'] + 1}"
    told = "told by no event" if step["sequence"] is None else f"told by event {step['sequence']}"
    yield (
        f"{step['at']}  row {step['version']}  {step['action']}  {step['status_before']} -> {step['status']}  "
        f"by {step['actor']}{attempt}, {told}"
    )
    if step["changed"]:
        yield "    THIS ROW WAS CHANGED after it was written. `make verify-audit` names where its chain breaks."
    lines = _DETAILS.get(step["action"], _other_details)(step["details"])
    yield from (f"    {line}" for line in lines if line)
    if step["reason"]:
        yield f"    because: {step['reason']}"


def _submitted(details: Facts) -> Sequence[str]:
    return (" ".join(_text(details.get(name)) for name in _IN_THE_HEAD), _pairs(details, but=_IN_THE_HEAD))


def _filled(details: Facts) -> Sequence[str]:
    position = details.get("position") or {}
    return (
        f"{_text(details.get('quantity'))} at {_text(details.get('price'))}, commission "
        f"{_text(details.get('commission'))}, realized P&L {_text(details.get('realized_pnl'))}, balance after it "
        f"{_text(details.get('balance_after'))}",
        f"leaves the position {_text(position.get('status'))}: {_text(position.get('side'))} "
        f"{_text(position.get('quantity'))} {_text(position.get('symbol'))} entered at "
        f"{_text(position.get('entry_price'))}, {_pairs(position, but=_OF_A_POSITION)}",
        _pairs(details, but=_OF_A_FILL),
    )


def _other_details(details: Facts) -> Sequence[str]:
    return (_pairs(details),)


_DETAILS = {"SUBMITTED": _submitted, "FILLED": _filled}


def _pairs(facts: Facts, but: Sequence[str] = ()) -> str:
    said = (name for name in sorted(facts) if name not in but and facts[name] is not None)
    return ", ".join(f"{name} {_text(facts[name])}" for name in said)


def _held_lines(title: str, facts: Facts) -> Iterator[str]:
    rebuilt, stored = facts["rebuilt"], facts["stored"]
    if rebuilt is None or stored is None:
        yield f"{title}: {'the audit tells of none' if rebuilt is None else 'the table has none'}"
        return
    differing = {difference["field"] for difference in facts["differences"]}
    rows = [
        (name, _text(rebuilt.get(name)), _text(stored.get(name)), "<-- DIFFERS" if name in differing else "")
        for name in sorted(rebuilt.keys() | differing)
        if name in differing or rebuilt[name] is not None or stored[name] is not None
    ]
    table = [(title, "by the audit", "in the table", ""), *rows]
    widths = [max(len(row[place]) for row in table) for place in range(3)]
    for row in table:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()


def _verdict(replay: Facts) -> Iterator[str]:
    if replay_agrees(replay):
        yield "The tables are what the audit tells."
        return
    yield "NOT IN ORDER:"
    for step in replay["steps"]:
        if step["changed"]:
            yield f"  row {step['version']} of the audit was changed after it was written"
    held = [("the order", replay["order"]), *((f"position {facts['id']}", facts) for facts in replay["positions"])]
    for name, facts in held:
        if facts["stored"] is None:
            yield f"  {name} is told by the audit and not in the table"
        elif facts["rebuilt"] is None:
            yield f"  {name} is in the table and not told by the audit"
        for differs in facts["differences"]:
            by_table, by_audit = differs["by_table"], differs["by_audit"]
            yield f"  {name}: {differs['field']} is {by_table} in the table, {by_audit} by the audit"
    yield "`make verify-books` and `make verify-audit` say what else is wrong. Change nothing before it is understood."


def _agrees(facts: Facts) -> bool:
    return facts["rebuilt"] is not None and facts["stored"] is not None and not facts["differences"]


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return f"({_pairs(value)})"
        case _:
            return str(value)
