"""What a collector is."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from trading.alerts import Figure

# Asked for windows in seconds, at a time (None: now).
type Collector = Callable[[Sequence[int], datetime | None], list[Figure]]
type Collectors = Mapping[str, Collector]
