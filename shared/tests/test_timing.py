from collections import Counter

import pytest

from tenfold.experiment import Timing, interleaved


def test_every_call_has_a_turn_in_every_round() -> None:
    turns: list[str] = []
    times = interleaved({name: lambda name=name: turns.append(name) for name in "ab"}, 3, warm_up=2)  # type: ignore[misc]
    assert turns == list("ababababab")
    assert list(times) == ["a", "b"]
    assert all(each.cpu >= 0 and each.wall >= 0 for each in times.values())


def test_a_time_is_the_median_of_the_rounds_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    lasts = iter([100.0, 3.0, 50.0, 4.0])

    def call() -> None:
        nonlocal now
        now += next(lasts)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.process_time", lambda: 2 * now)
    assert interleaved({"call": call}, 3) == {"call": Timing(cpu=8.0, wall=4.0)}


def test_what_is_soon_done_is_repeated_within_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    now = 0.0

    def taking(name: str, seconds: float):
        def call() -> None:
            nonlocal now
            now += seconds
            counts[name] += 1

        return call

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.process_time", lambda: now)
    calls = {"long": taking("long", 1.0), "short": taking("short", 0.0625), "none": taking("none", 0.0)}
    times = interleaved(calls, 2, least=0.25)
    assert counts == {"long": 1 + 2, "short": 1 + 2 * 4, "none": 1 + 2 * 50}
    assert times["short"] == Timing(0.0625, 0.0625)
