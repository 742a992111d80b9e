"""Which source of prices the settings name."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from trading.quotes.provider import FeedInstrument, QuoteProvider
from trading.settings import ConfigurationError, Settings, required

type Maker = Callable[[Settings, Sequence[FeedInstrument]], QuoteProvider]


def make_provider(given: Settings, instruments: Sequence[FeedInstrument], name: str | None = None) -> QuoteProvider:
    """The provider called `name`, by default the one that QUOTE_PROVIDER names, for `instruments`.

    ConfigurationError says what it lacks, or that it is neither that one nor the one that stands by.
    """
    wanted = name or given.quote_provider
    if wanted not in {given.quote_provider, given.quote_standby_provider}:
        raise ConfigurationError("the environment is wrong: QUOTE_STANDBY_PROVIDER does not name the provider wanted")
    maker = PROVIDERS.get(wanted)
    if maker is None:
        known = ", ".join(PROVIDERS)
        raise ConfigurationError(f"the environment is wrong: QUOTE_PROVIDER knows {known}")
    return maker(given, instruments)


def _simulated(given: Settings, instruments: Sequence[FeedInstrument]) -> QuoteProvider:
    from trading.quotes.simulated import SimulatedProvider

    return SimulatedProvider(instruments, seed=given.quote_seed, quotes_per_second=given.quotes_per_second)


def _replay(given: Settings, instruments: Sequence[FeedInstrument]) -> QuoteProvider:
    from trading.quotes.replay import EPOCH, ReplayProvider, open_recording

    recording = open_recording(Path(required(given.quote_replay_file, "QUOTE_REPLAY_FILE")))
    unknown = sorted(recording.symbols - {each.symbol for each in instruments})
    if unknown:
        raise ConfigurationError(f"QUOTE_REPLAY_FILE: {recording.path} has {unknown[0]}, which is no instrument here")
    start: datetime = given.quote_replay_start or EPOCH
    return ReplayProvider(recording, speed=given.quote_replay_speed, start=start)


PROVIDERS: Mapping[str, Maker] = {"simulated": _simulated, "replay": _replay}
