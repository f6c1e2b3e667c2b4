"""A ring of threads sums for real; wrong sums fail, peers that are missing do not."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest

from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.health.collective import ring
from tramontane.health.collective.group import (
    MAX_RANKS,
    Group,
    Member,
    PeerError,
    contribution,
    expected,
    member_from,
)
from tramontane.health.collective.launch import combine, heard, read
from tramontane.health.collective.measure import Settings, bus_gbps, measure
from tramontane.health.collective.ring import Ring
from tramontane.health.collective.torch_group import log_apart

PATIENCE_S = 30.0
KIB = Settings(size_bytes=4096, repeats=3)


def members(size: int, port: int) -> list[Member]:
    return [
        Member(rank, size, "127.0.0.1", port, blade=f"gpu-{rank}", name="g") for rank in range(size)
    ]


def together(
    port: int,
    size: int,
    act: Callable[[Ring], Outcome],
    absent: frozenset[int] = frozenset(),
    timeout_s: float = PATIENCE_S,
) -> list[Outcome | BaseException]:
    """Run each rank in a thread, and return what each came to."""

    def rank(member: Member) -> Outcome:
        group = ring.form(member, timeout_s)
        try:
            return act(group)
        finally:
            group.close()

    with ThreadPoolExecutor(size) as threads:
        futures = [
            threads.submit(rank, member)
            for member in members(size, port)
            if member.rank not in absent
        ]
        return [future.exception(PATIENCE_S) or future.result() for future in futures]


def measured(group: Ring) -> Outcome:
    return measure(group, KIB, lambda _: None)


def outcomes(came: list[Outcome | BaseException]) -> list[Outcome]:
    for one in came:
        assert isinstance(one, Outcome), one
    return [one for one in came if isinstance(one, Outcome)]


@pytest.mark.parametrize("size", [2, 3, 4, 7], ids=str)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(1, id="fewer words than ranks"),
        pytest.param(1001, id="pieces of uneven size"),
        pytest.param(1 << 18, id="large"),
    ],
)
def test_the_ring_sums(size: int, words: int, unused_tcp_port: int) -> None:
    def act(group: Ring) -> Outcome:
        for _ in range(2):
            group.prepare(words)
            group.reduce()
            places = np.arange(words)
            by_hand = sum(contribution(rank, places) for rank in range(size))
            assert np.array_equal(group._buffer, by_hand)
            assert group.wrong() == 0
        assert group.gather(group.member.rank * 1.5) == tuple(rank * 1.5 for rank in range(size))
        return Outcome("collective", Verdict.PASS, "")

    assert len(outcomes(together(unused_tcp_port, size, act))) == size


def test_pieces_larger_than_a_read_are_summed(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "_PIECE_WORDS", 100)
    came = outcomes(together(unused_tcp_port, 3, measured))
    assert {one.verdict for one in came} == {Verdict.PASS}


def test_a_ring_that_has_just_formed_loses_nothing(unused_tcp_port: int) -> None:
    """The first piece may come with the greeting, before it was read."""
    for _ in range(20):
        came = outcomes(together(unused_tcp_port, 5, measured))
        assert {one.verdict for one in came} == {Verdict.PASS}


def test_all_ranks_say_the_same(unused_tcp_port: int) -> None:
    came = outcomes(together(unused_tcp_port, 4, measured))
    assert len({(one.verdict, one.reason, one.value, one.unit) for one in came}) == 1
    assert came[0].verdict is Verdict.PASS
    assert came[0].value is not None
    assert came[0].value > 0
    assert [one.details["rank"] for one in came] == [0, 1, 2, 3]
    assert came[0].details["ranks"] == 4
    assert came[0].details["bytes"] == 4096


def test_a_sum_that_is_wrong_on_one_rank_fails_all(unused_tcp_port: int) -> None:
    def act(group: Ring) -> Outcome:
        if group.member.rank == 2:
            honest = group.reduce

            def reduce() -> float:
                elapsed_s = honest()
                group._buffer[5] += 1.0
                return elapsed_s

            group.reduce = reduce  # type: ignore[method-assign]
        return measured(group)

    came = outcomes(together(unused_tcp_port, 4, act))
    assert {one.verdict for one in came} == {Verdict.FAIL}
    assert came[0].details["wrong_ranks"] == [2]
    assert came[1].reason == (
        "rank 2: 4 of 4096 elements of the sums are wrong; 1 of 4 ranks saw such"
    )


def test_a_blade_that_adds_wrongly_fails_all(unused_tcp_port: int) -> None:
    def act(group: Ring) -> Outcome:
        if group.member.rank == 1:
            honest = group._add

            def add(target: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
                honest(target)
                target[0] -= 1.0

            group._add = add  # type: ignore[method-assign]
        return measured(group)

    came = outcomes(together(unused_tcp_port, 3, act))
    assert {one.verdict for one in came} == {Verdict.FAIL}
    assert came[0].details["wrong_ranks"] == [0, 1, 2]


@pytest.mark.parametrize("absent", [1, 3], ids=["in the middle", "the last"])
def test_a_peer_that_does_not_come_is_named(absent: int, unused_tcp_port: int) -> None:
    came = together(unused_tcp_port, 4, measured, absent=frozenset({absent}), timeout_s=1.0)
    assert [str(one) for one in came] == [f"rank {absent}: did not come within 1 s"] * 3
    assert all(isinstance(one, PeerError) for one in came)


def test_where_rank_0_does_not_come_it_is_named(unused_tcp_port: int) -> None:
    (came,) = together(unused_tcp_port, 2, measured, absent=frozenset({0}), timeout_s=0.5)
    assert isinstance(came, PeerError)
    assert str(came).startswith(f"rank 0: 127.0.0.1:{unused_tcp_port} must answer within 0.5 s")


def test_many_that_did_not_come_are_counted(unused_tcp_port: int) -> None:
    (came,) = together(unused_tcp_port, 12, measured, absent=frozenset(range(1, 12)), timeout_s=0.2)
    assert str(came).startswith("rank 1, rank 2, ")
    assert str(came).endswith("rank 8 and 3 more: did not come within 0.2 s")


def test_a_peer_that_leaves_is_named_by_its_neighbour(unused_tcp_port: int) -> None:
    def act(group: Ring) -> Outcome:
        if group.member.rank == 1:
            return Outcome("collective", Verdict.ERROR, "left")
        return measured(group)

    came = together(unused_tcp_port, 3, act)
    assert isinstance(came[2], PeerError)
    assert str(came[2]).startswith("rank 1 (gpu-1): ")
    assert isinstance(came[0], PeerError)


def test_a_peer_that_falls_silent_is_named(unused_tcp_port: int) -> None:
    over = threading.Event()

    def act(group: Ring) -> Outcome:
        if group.member.rank == 1:
            over.wait(PATIENCE_S)
            return Outcome("collective", Verdict.ERROR, "silent")
        try:
            return measured(group)
        finally:
            over.set()

    came = together(unused_tcp_port, 2, act, timeout_s=2.0)
    assert str(came[0]) == "rank 1 (gpu-1): fell silent"


def test_strangers_at_the_door_do_not_matter(unused_tcp_port: int) -> None:
    """One of another group, one that speaks another tongue, one that leaves at once."""
    said = [
        json.dumps({"rank": 1, "group": "other", "blade": "x", "port": 1}).encode() + b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
        json.dumps({"rank": 9, "group": "g", "blade": "x", "port": 1}).encode() + b"\n",
        b"[1]\n",
    ]
    member = members(2, unused_tcp_port)

    def knock() -> None:
        deadline = ring.Deadline(PATIENCE_S)
        for line in said:
            stranger = ring._connect("127.0.0.1", unused_tcp_port, deadline, "rank 0")
            with stranger, suppress(OSError):  # the door may be shut by then
                stranger.sendall(line)
                stranger.shutdown(socket.SHUT_WR)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ring.form, member[0], PATIENCE_S)
        knock()
        second = threads.submit(ring.form, member[1], PATIENCE_S)
        groups = [first.result(PATIENCE_S), second.result(PATIENCE_S)]
        came = [one.result(PATIENCE_S) for one in [threads.submit(measured, g) for g in groups]]
    for group in groups:
        group.close()
    assert [one.verdict for one in came] == [Verdict.PASS] * 2


@pytest.mark.parametrize("size", [2, 16, 17, 40, MAX_RANKS], ids=str)
def test_sums_are_exact_in_float32(size: int) -> None:
    places = np.arange(1000)
    right = expected(size, places)
    assert int(right.max()) <= 2**24
    assert np.array_equal(sum(contribution(rank, places) for rank in range(size)), right)


TWO = Member(0, 2, "x", 1, name="g")


@dataclass
class TwoClocks:
    """A group in which the other rank takes another time; nothing is summed."""

    times: list[tuple[float, float]]
    member: Member = TWO
    name: str = "fake"
    own: float = -1.0

    def prepare(self, words: int) -> None:
        assert words > 0
        self.own = -1.0

    def reduce(self) -> float:
        self.own = self.times[0][0]
        return self.own

    def wrong(self) -> int:
        return 0

    def gather(self, value: float) -> tuple[float, ...]:
        if self.own < 0 or value != self.own:
            return (value, 0.0)
        return self.times.pop(0)

    def close(self) -> None: ...


def test_the_figure_is_the_median_of_the_slowest_and_leaves_the_first_out() -> None:
    group: Group = TwoClocks([(9.0, 9.0), (1.0, 2.0), (8.0, 1.0), (1.0, 4.0)])
    outcome = measure(group, Settings(size_bytes=4 * 10**9, repeats=3), lambda _: None)
    assert outcome.value == pytest.approx(1.0)
    assert outcome.details["slowest_rank"] == 1
    assert outcome.details["time_ms"] == pytest.approx(4000.0)


@pytest.mark.parametrize(
    ("least", "verdict"),
    [
        pytest.param(None, Verdict.PASS, id="no threshold"),
        pytest.param(1.9, Verdict.PASS, id="fast enough"),
        pytest.param(2.1, Verdict.FAIL, id="slow"),
    ],
)
def test_bandwidth_is_compared(least: float | None, verdict: Verdict) -> None:
    group: Group = TwoClocks([(2.0, 2.0)] * 2)
    outcome = measure(
        group, Settings(size_bytes=4 * 10**9, repeats=1, min_gbps=least), lambda _: None
    )
    assert outcome.verdict is verdict
    assert outcome.value == pytest.approx(2.0)


@pytest.mark.parametrize("size", [1, MAX_RANKS + 1], ids=str)
def test_a_group_that_cannot_be_measured_is_refused(size: int) -> None:
    group: Group = TwoClocks([], member=Member(0, size, "x", 1))
    with pytest.raises(ValueError, match=f"2 to {MAX_RANKS} ranks \\(got {size}\\)"):
        measure(group, KIB, lambda _: None)


@pytest.mark.parametrize(
    ("ranks", "gbps"), [(2, 8.0), (4, 12.0), (16, 15.0)], ids=["two", "four", "sixteen"]
)
def test_bus_bandwidth(ranks: int, gbps: float) -> None:
    assert bus_gbps(ranks, 8 * 10**9, 1.0) == pytest.approx(gbps)


WORLD = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


def test_the_environment_says_who_it_is() -> None:
    assert member_from(WORLD) == Member(1, 4, "10.0.0.1", 29500)
    ours = {
        "TRAMONTANE_RANK": "3",
        "TRAMONTANE_GROUP_SIZE": "8",
        "TRAMONTANE_BLADE": "gpu-7",
        "TRAMONTANE_GROUP": "a-1",
        "MASTER_ADDR": "h",
        "MASTER_PORT": "1",
    }
    assert member_from(ours) == Member(3, 8, "h", 1, "gpu-7", "a-1")
    assert member_from(ours | WORLD).rank == 1, "RANK goes first: the launcher sets it"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"RANK": ""}, r"RANK: must be set \(got nothing\); or set TRAMONTANE_RANK"),
        ({"WORLD_SIZE": "four"}, r"WORLD_SIZE: must be a number \(got 'four'\)"),
        ({"RANK": "4"}, r"RANK: must be below WORLD_SIZE 4 \(got 4\)"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR: must be set"),
    ],
)
def test_an_environment_that_does_not_say_is_refused(change: dict[str, str], problem: str) -> None:
    with pytest.raises((LookupError, ValueError), match=problem):
        member_from(WORLD | change)


def test_processes_of_blades_are_ranks_of_a_larger_group() -> None:
    ranks = [Member(blade, 2, "h", 1).split(local, 8) for blade in (0, 1) for local in range(8)]
    assert [one.rank for one in ranks] == list(range(16))
    assert {one.size for one in ranks} == {16}


PASS, FAIL, ERROR = (Outcome("collective", one, one.name.lower(), 1.0, "GB/s") for one in Verdict)


@pytest.mark.parametrize(
    ("processes", "verdict", "reason"),
    [
        pytest.param([PASS, PASS], Verdict.PASS, "pass", id="all pass"),
        pytest.param([PASS, ERROR], Verdict.ERROR, "process 1: error", id="one broke"),
        pytest.param([PASS, ERROR, FAIL], Verdict.FAIL, "process 2: fail", id="one fails"),
    ],
)
def test_processes_make_one_outcome(
    processes: list[Outcome], verdict: Verdict, reason: str
) -> None:
    outcome = combine(processes)
    assert (outcome.verdict, outcome.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("output", "exit_code", "outcome"),
    [
        pytest.param("noise\n" + PASS.line() + "\n", 0, PASS, id="the last line"),
        pytest.param(
            PASS.line() + "\ngpu-1:7:7 NCCL INFO comm 0x1 - Destroy COMPLETE\n",
            0,
            PASS,
            id="a library logs as it ends",
        ),
        pytest.param(
            "",
            -6,
            Outcome("collective", Verdict.ERROR, "ended by signal 6 without an outcome"),
            id="aborted",
        ),
        pytest.param(
            "Traceback",
            1,
            Outcome("collective", Verdict.ERROR, "ended by exit code 1 without an outcome"),
            id="exit code 1 alone condemns nobody",
        ),
        pytest.param(
            '{"check": "collective", "verdict": "MAYBE"}',
            0,
            Outcome("collective", Verdict.ERROR, "ended by exit code 0 without an outcome"),
            id="no such verdict",
        ),
    ],
)
def test_a_process_is_heard(output: str, exit_code: int, outcome: Outcome) -> None:
    assert read(output, exit_code) == outcome


def test_a_process_that_does_not_end_is_named() -> None:
    codes = [f"print({PASS.line()!r})", "import threading; threading.Event().wait()"]
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for code in codes
    ]
    outcome = combine(heard(children, 0.1))
    assert outcome.verdict is Verdict.ERROR
    assert outcome.reason == "process 1: no end within 0.1 s of another one's"
    assert children[1].wait(PATIENCE_S) < 0


def test_what_nccl_logs_is_kept_out_of_the_outcome() -> None:
    environment: dict[str, str] = {}
    log_apart(environment)
    assert environment == {"NCCL_DEBUG_FILE": "/dev/stderr"}
    own = {"NCCL_DEBUG_FILE": "/tmp/nccl.%h.%p"}
    log_apart(own)
    assert own == {"NCCL_DEBUG_FILE": "/tmp/nccl.%h.%p"}
