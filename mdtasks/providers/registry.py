"""The registry: which providers this process has, and in which order a request should try them.

Built from Settings once per process. An adapter's module is imported only when it is configured, so that nobody pays
for a vendor they do not use.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, Literal

from mdtasks.domain.errors import ConfigurationError, UnknownProviderError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.providers.base import Capabilities, Provider
from mdtasks.providers.gate import Gate, GateFor, OpenGate, open_gate
from mdtasks.settings import Settings

#: The order when no policy names one; made-up data only where nothing else is configured.
DEFAULT_ORDER: Final = ("lean", "files", "alpaca", "massive", "databento", "finnhub", "yfinance", "simulator")

#: The adapters of vendors' SDKs: the class in the module of the provider's name, and the setting that switches it on.
_VENDORS: Final = {
    "alpaca": ("AlpacaProvider", "alpaca_key"),
    "massive": ("MassiveProvider", "massive_key"),
    "databento": ("DatabentoProvider", "databento_key"),
    "finnhub": ("FinnhubProvider", "finnhub_key"),
    "yfinance": ("YfinanceProvider", "yfinance"),
}

#: What a request needs: bars of an interval, quotes, or corporate actions.
Capability = Interval | Literal["quotes", "actions"]

_POLICIES: Final = {"policy_bars": "POLICY_BARS_1M", "policy_eod": "POLICY_EOD", "policy_quotes": "POLICY_QUOTES_L1"}


class Registry:
    """The configured providers by name. Instances serve one thread at a time, as their providers do.

    Raises ConfigurationError when an adapter's own configuration is wrong, or a policy names an unknown provider.
    """

    def __init__(self, settings: Settings, calendars: Calendars | None = None, gate_for: GateFor = open_gate) -> None:
        self._settings = settings
        #: Of each provider the gate that its requests pass; of one that reads files none is shared.
        self._gates: dict[str, Gate] = {}
        self._providers = _configured(settings, calendars or Calendars(), self._gate_made_by(gate_for))
        for field, env in _POLICIES.items():
            for name in getattr(settings, field):
                if name not in self._providers:
                    error = UnknownProviderError(name, configured=self.names())
                    raise ConfigurationError(f"{env}: {error.message}", name=env, hint=error.hint)

    def names(self) -> list[str]:
        """The configured providers, in default order."""
        return list(self._providers)

    def get(self, name: str) -> Provider:
        """The provider of that name. Raises UnknownProviderError when it is not configured."""
        try:
            return self._providers[name]
        except KeyError:
            raise UnknownProviderError(name, configured=self.names()) from None

    def gate(self, name: str) -> Gate:
        """The gate of a configured provider."""
        return self._gates.get(name) or OpenGate()

    def _gate_made_by(self, gate_for: GateFor) -> GateFor:
        def kept(name: str, rates: tuple[Rate, ...]) -> Gate:
            self._gates[name] = gate_for(name, rates)
            return self._gates[name]

        return kept

    def preload(self) -> None:
        """Load now what the providers would import at their first answer, where they say so by a ``preload`` of their
        own: what a parent has loaded, the processes that it forks share.
        """
        for provider in self._providers.values():
            load: Callable[[], None] | None = getattr(provider, "preload", None)
            if load is not None:
                load()

    def order(self, capability: Capability, hint: str | None = None) -> list[Provider]:
        """The providers that serve the capability, first choice first; with a hint that one alone.

        [] when none serves it, also when the hinted one does not. Raises UnknownProviderError for an unknown hint.
        """
        if hint is not None:
            candidates = [self.get(hint)]
        elif capability == "actions":  # those of daily bars first, but a folder of bars knows none
            names = dict.fromkeys([*self._policy(Interval.D1), *self._unnamed_order()])
            candidates = [self._providers[name] for name in names]
        else:
            candidates = [self._providers[name] for name in self._policy(capability) or self._unnamed_order()]
        return [provider for provider in candidates if _serves(provider, capability)]

    def told(self, capability: Capability, mic: str) -> list[Capabilities]:
        """What those declare who serve the capability on an exchange, first choice first."""
        return [each.capabilities for each in self.order(capability) if each.capabilities.has(mic)]

    @staticmethod
    def is_made_up(name: str) -> bool:
        """Whether the bars of a provider of that name are made up: they are no measure of real ones."""
        return _is_simulator(name)

    def _unnamed_order(self) -> list[str]:
        """The order when nobody named one: made-up data never stands in for real data that is missing."""
        real = [name for name in self._providers if not _is_simulator(name)]
        return real or list(self._providers)

    def _policy(self, capability: Capability) -> tuple[str, ...]:
        if capability == "quotes":
            return self._settings.policy_quotes
        return self._settings.policy_eod if capability is Interval.D1 else self._settings.policy_bars


def _serves(provider: Provider, capability: Capability) -> bool:
    if isinstance(capability, Interval):
        return capability in provider.capabilities.intervals
    return provider.capabilities.quotes if capability == "quotes" else provider.capabilities.actions


def _configured(settings: Settings, calendars: Calendars, gate_for: GateFor) -> dict[str, Provider]:
    found: dict[str, Provider] = {}
    if settings.lean_dir is not None:
        from mdtasks.providers.lean import LeanProvider

        found["lean"] = LeanProvider(settings.lean_dir, calendars)
    if settings.files_map is not None:
        from mdtasks.providers.files import FilesProvider

        found["files"] = FilesProvider(settings.files_map, calendars)
    for name, (adapter, switch) in _VENDORS.items():
        if getattr(settings, switch):
            module = import_module(f"mdtasks.providers.{name}")
            found[name] = getattr(module, adapter)(settings, calendars, gate_for)
    if settings.simulator:
        found |= _simulators(settings, calendars, gate_for)
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> tuple[int, str]:
    """Where a provider stands in DEFAULT_ORDER; the simulators follow each other."""
    return DEFAULT_ORDER.index("simulator" if _is_simulator(name) else name), name


def _is_simulator(name: str) -> bool:
    return name.partition("_")[0] == "simulator"


def _simulators(settings: Settings, calendars: Calendars, gate_for: GateFor) -> dict[str, Provider]:
    """So many as are wanted, of the same data; the first suffers the faults."""
    from mdtasks.providers.faults import Faults
    from mdtasks.providers.outages import Schedule
    from mdtasks.providers.simulator import SimulatorProvider

    faults = Faults.parse(settings.simulator_faults)
    schedule = Schedule.parse(settings.simulator_schedule, settings.simulator_epoch, faults)
    found: dict[str, Provider] = {}
    for number in range(1, settings.simulators + 1):
        name = "simulator" if number == 1 else f"simulator_{number}"
        rates = settings.vendor_rates.get(name, ())
        found[name] = SimulatorProvider(
            calendars, schedule if number == 1 else None, name=name, rates=rates, gate=gate_for(name, rates)
        )
    return found
