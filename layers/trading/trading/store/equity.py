"""The database's procedure of equity snapshots."""

from dataclasses import dataclass

from trading.store.financing import Procedures


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """What one page of accounts came to; `finished` says that this hour's snapshots are all there."""

    checked: int
    taken: int
    finished: bool


class EquityStore:
    """Appends what accounts are worth, hour by hour."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def take_snapshots(self, *, accounts_max: int) -> SnapshotPage:
        """Take this hour's snapshots of the next page of at most `accounts_max` accounts."""
        answer = self._procedures.call("take_equity_snapshots", {"version": 1, "accounts_max": accounts_max})
        return SnapshotPage(answer["checked"], answer["taken"], answer["finished"])
