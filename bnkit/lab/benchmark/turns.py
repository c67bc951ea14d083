"""bnkit and its peers take turns, so that a slow moment of the machine affects all of them."""

from collections.abc import Callable, Sequence
from typing import Any

from bnkit.backend import Backend
from bnkit.lab.benchmark import measure
from bnkit.lab.benchmark.measure import Timing
from bnkit.lab.benchmark.peers import Peer, PeerError


def by_turns(
    call: Callable[[], object],
    backend: Backend,
    peers: Sequence[Peer],
    specification: dict[str, Any],
    *,
    rounds: int,
    seconds: float,
    warm_up: bool = True,
) -> tuple[Timing, dict[str, dict[str, Any]]]:
    """bnkit's time, and for each peer its time and its ratio to bnkit's, or the reason why it has none.

    specification: what the peers prepare. seconds: the length of a turn, which makes at least one call. warm_up: each
    turn begins with a call that is not timed.
    """
    sampling = {"seconds": seconds, "least": 1, "warm_up": warm_up}
    results: dict[str, dict[str, Any]] = {}
    samples: list[float] = []
    times: dict[str, list[float]] = {}
    for peer in peers:
        try:
            results[peer.name] = _fastest_entry(peer, specification, sampling)
            times[peer.name] = []
        except PeerError as error:
            results[peer.name] = {"skipped": str(error)}
    for _ in range(rounds):
        samples += measure.sample(call, backend.elapsed, seconds=seconds, least=1, warm_up=warm_up)
        for peer in peers:
            if peer.name in times:
                try:
                    times[peer.name] += _measured(peer, results[peer.name]["entry"], sampling)
                except PeerError as error:
                    results[peer.name] = {"skipped": str(error)}
                    del times[peer.name]
    timing = measure.summarize(samples)
    for name, values in times.items():
        peer_timing = measure.summarize(values)
        results[name] |= {**microseconds(peer_timing), "ratio": peer_timing.median / timing.median}
    return timing, results


def microseconds(timing: Timing) -> dict[str, float]:
    return {f"{name}_us": value * 1e6 for name, value in timing._asdict().items()}


def _fastest_entry(peer: Peer, specification: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """The peer's fastest entry, and the first median of each; PeerError if no entry runs."""
    entries = peer.ask({"prepare": specification})["entries"]
    medians: dict[str, float] = {}
    failures = []
    for entry in entries:
        try:
            medians[entry] = measure.summarize(_measured(peer, entry, sampling)).median
        except PeerError as error:
            if not error.alive:
                raise
            failures.append(f"{entry}: {error}")
    if not medians:
        raise PeerError("; ".join(failures), alive=True)
    best = min(medians, key=medians.__getitem__)
    return {"entry": best, "tried_us": {entry: median * 1e6 for entry, median in medians.items()}}


def _measured(peer: Peer, entry: str, sampling: dict[str, Any]) -> list[float]:
    times: list[float] = peer.ask({"measure": entry, **sampling})["times"]
    return times
