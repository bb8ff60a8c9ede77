"""Results of benchmarks that were never run: with everything that a report has to cope with."""

from __future__ import annotations

from weighbridge.benchmarks.case import Case, Goal, Limit
from weighbridge.benchmarks.contender import Call, Outcome, Role
from weighbridge.benchmarks.measure import Sample
from weighbridge.benchmarks.results import CaseResult, Machine, Results, Settings, Speed
from weighbridge.benchmarks.run import Lane, summed_up

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{0}|`\x1b[31m\u202e"
LONG = "a-name-without-a-place-to-break-it-" * 8


def lane(name: str, role: Role, *seconds: float, private: float = 0.5, why: str = "") -> Lane:
    """Return a contender whose measurements take so long, in 100 MB for a second."""
    samples = [
        Sample(each, each * 2, each / 2, int(each * 1e8), int(each * private * 1e8), read=1 << 20,
               cached=1.0, seen={"bytes": 1})
        for each in seconds
    ]  # fmt: skip
    call = Call(name, f"call {name}", role=role, prepare=lambda *_: lambda: Outcome({}))
    return Lane(call, why or None, samples)


def case(name: str, group: str, title: str, *lanes: Lane) -> CaseResult:
    """Return a case with goals of which one is met."""
    goals = (Goal("peer", 1.5), Goal("peer", 100), Limit(1e9, "beyond"))
    made = Case(name, group, title, None, (), goals=goals, headline=True)
    return summed_up(made, list(lanes), 1_000_000)


def made_up() -> Results:
    """Return results of five cases and two encodings."""
    ours, peer, floor = Role.OURS, Role.PEER, Role.FLOOR
    cases = [
        case(
            "open", "Open", "Open a file ({size}): names and shapes",
            lane("weighbridge", ours, 0.004, 0.005, 0.006), lane("peer", peer, 2.2, 2.4, 2.9),
            lane("absent", peer, why="no-such-thing is not installed"),
        ),
        case(
            "load", "Load all", f"Load {HOSTILE}",
            lane("weighbridge", ours, 0.5, 0.6, private=0.1), lane("peer", peer, 0.3, 0.4),
            lane(HOSTILE, peer, 0.7), lane("floor", floor, 0.2, 0.3),
        ),
        case(
            "decode", "Decode to BF16", f"Decode {LONG}",
            lane("weighbridge", ours, 1.0, 1.1), lane("peer", peer, 12.0), lane(LONG, peer, 9.0),
            lane("broken", peer, why=f"RuntimeError: {HOSTILE} {LONG}"),
        ),
        case(
            "nobody", "Convert", "Convert nothing",
            lane("weighbridge", ours, why="it broke"), lane("peer", peer, 0.2, 0.1),
        ),
        case("tie", "Convert", "Tie", lane("weighbridge", ours, 1.0), lane("peer", peer, 1.0)),
    ]  # fmt: skip
    machine = Machine(f"CPU {HOSTILE}", 2, 25_000_000_000, "Linux 6", "ext4", 0.5, [])
    settings = Settings({"main": "llama-500m"}, None, 12.0, ["cpu"])
    versions = {"python": "3.12", "absent": None, HOSTILE: LONG}
    speeds = [
        Speed("q4_k", "encode", 0.5, 0.05, None, 8.0, same=True),
        Speed(HOSTILE, "cast", 4.0, None, 1.0, 8.0, same=False),
    ]
    return Results(machine, "2026-01-01T00:00:00+00:00", 61.0, versions, settings, cases, speeds)
