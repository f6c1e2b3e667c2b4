"""The serving agent, as a real process over a stub engine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tramontane.controllers.inferencedeployment.engines.launch import MODEL_FILE
from tramontane.controllers.inferencedeployment.podfiles import weightcache, weightfiles
from unit.inferencedeployment.agents import Pod, Stream

TOLD = 143
MakePod = Callable[..., Pod]


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[MakePod]:
    """Return what makes pods of one replica; they are cleaned away in the end."""
    made: list[Pod] = []

    def make(seat: int = 0) -> Pod:
        port = made[0].agent_port if made else 0
        made.append(Pod(tmp_path / f"seat-{seat}", seat, port))
        return made[-1]

    yield make
    for pod in made:
        pod.clean()


@pytest.fixture
def pod(pods: MakePod) -> Pod:
    return pods()


def test_it_is_ready_once_the_engine_is_healthy_and_lets_its_output_through(pod: Pod) -> None:
    pod.order(health=503)
    pod.start()
    pod.until(lambda: "health: 503" in pod.get("/readyz")[1] or pod.events("start"))
    pod.until(lambda: pod.get("/readyz")[0] == 503)

    assert pod.get("/livez") == (200, "ok\n")
    assert pod.state()["state"] == "Starting"
    pod.order(steps=41, busy=2)
    pod.until(pod.ready)
    pod.until(lambda: pod.state()["steps"] == 41)
    state = pod.state()
    assert (state["seat"], state["state"], state["running"]) == (0, "Serving", 2)
    [start] = pod.events("start")
    assert state["engine"] == {"pid": start["pid"]}
    assert pod.stdout == "engine: a line of its own\n"
    assert pod.get("/elsewhere")[0] == 404


def test_seat_0_is_its_own_master_and_tells_the_engine_its_start_up_budget(pod: Pod) -> None:
    measured = {"bytes": 20_000_000_000, "seconds": 10.0}
    (pod.folder / "state" / "weights.json").write_text(json.dumps(measured))
    pod.start()
    pod.until(lambda: pod.events("start"))
    [start] = pod.events("start")

    assert start["argv"][1:] == ["--master", "127.0.0.1"]
    assert start["master"] == "127.0.0.1:29500"
    assert start["ready"] == "330"
    assert pod.state()["startBudgetSeconds"] == 330


def test_the_engine_is_told_which_file_to_load(pod: Pod) -> None:
    (pod.folder / "state" / "weights.json").write_text('{"file": "/models/x.gguf"}')
    pod.start(sys.executable, "-c", "import sys; print(sys.argv[1])", MODEL_FILE)

    assert pod.ended() == 1
    assert pod.stdout == "/models/x.gguf\n"


def test_what_the_user_has_set_for_the_engine_stays(pod: Pod) -> None:
    pod.start(STUB_READY="77")
    pod.until(lambda: pod.events("start"))

    assert pod.events("start")[0]["ready"] == "77"


@pytest.mark.parametrize(
    ("dies", "code", "words"),
    [
        pytest.param(lambda pod: pod.order(die=9), 9, "code 9", id="its code"),
        pytest.param(lambda pod: pod.order(die=0), 1, "code 0", id="a server has no end"),
        pytest.param(
            lambda pod: os.kill(pod.state()["engine"]["pid"], signal.SIGKILL),
            137,
            "signal 9",
            id="its signal",
        ),
    ],
)
def test_an_engine_that_dies_ends_the_container(
    pod: Pod, dies: Callable[[Pod], None], code: int, words: str
) -> None:
    pod.start()
    pod.until(pod.ready)
    dies(pod)

    assert pod.ended() == code
    assert pod.last_words["reason"] == "EngineFailed"
    assert words in pod.last_words["message"]
    assert len(pod.events("start")) == 1, "the operator starts all ranks anew, or none"


def test_an_engine_that_cannot_be_started_says_so(pod: Pod) -> None:
    pod.start("/no/such/engine")

    assert pod.ended() == 127
    assert pod.last_words == {
        "reason": "EngineFailed",
        "message": "the engine could not be started: /no/such/engine: ENOENT",
    }


def test_what_the_engine_left_behind_is_ended_too(pod: Pod) -> None:
    script = """
        import os, signal, subprocess, sys, time
        worker = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
        open(os.environ["STUB"] + "/child", "w").write(str(child.pid))
        sys.exit(4)
        """
    text = "\n".join(line.strip() for line in script.splitlines())
    pod.start(sys.executable, "-c", text)

    assert pod.ended() == 4
    with pytest.raises(ProcessLookupError):
        os.kill(int((pod.folder / "child").read_text()), 0)


def test_a_start_that_takes_longer_than_its_budget_is_given_up(pod: Pod) -> None:
    pod.order(health=503)
    (pod.folder / "state" / "weights.json").write_text('{"bytes": 1000000000, "seconds": 0.5}')
    pod.start(TRAMONTANE_START_BASE_S="1")

    assert pod.ended() == 72
    assert pod.last_words["reason"] == "EngineFailed"
    assert "budget of 2 s (1 s + 3 x 1.0 GB at 2.00 GB/s)" in pod.last_words["message"]


def test_a_start_within_its_budget_is_no_hang_however_long(pod: Pod) -> None:
    pod.start(STUB_LATE="2", TRAMONTANE_HANG_AFTER_S="1", TRAMONTANE_START_BASE_S="600")
    pod.until(pod.ready)

    assert pod.process.poll() is None


@pytest.mark.parametrize(
    ("order", "words"),
    [
        pytest.param({"steps": 5, "busy": 3}, "no step for", id="steps frozen, health 200"),
        pytest.param({"silent": ["/metrics"]}, "metrics do not answer", id="no metrics"),
        pytest.param({"silent": ["/health", "/metrics"]}, "health: no answer", id="no answers"),
        pytest.param({"steps": 5, "busy": 0, "health": 500}, "health: 500", id="sick"),
    ],
)
def test_an_engine_that_hangs_is_ended(pod: Pod, order: dict[str, object], words: str) -> None:
    pod.start(TRAMONTANE_HANG_AFTER_S="2", STUB_TERM="ignore")
    pod.until(pod.ready)
    pod.order(**order)
    began_at = time.monotonic()

    assert pod.ended() == 71
    assert time.monotonic() - began_at >= 1.0
    assert pod.last_words["reason"] == "Hung"
    assert words in pod.last_words["message"]
    with pytest.raises(ProcessLookupError):
        os.kill(pod.events("start")[0]["pid"], 0)


def test_one_that_only_looks_frozen_makes_a_token_and_goes_on(pod: Pod) -> None:
    pod.start(TRAMONTANE_HANG_AFTER_S="5")
    pod.until(pod.ready)
    pod.order(steps=5, busy=1, lives=True)  # the gauge of a request that was aborted
    pod.until(lambda: pod.events("completion"))
    pod.until(lambda: pod.state()["steps"] == 6)
    time.sleep(5.5)

    assert pod.process.poll() is None
    assert pod.ready()
    assert [one["model"] for one in pod.events("completion")] == ["base"]


def test_an_idle_engine_is_left_alone(pod: Pod) -> None:
    pod.start(TRAMONTANE_HANG_AFTER_S="3")
    pod.until(pod.ready)
    time.sleep(4.0)

    assert pod.process.poll() is None


def test_a_slow_health_page_takes_no_requests_away_but_a_bad_one_does_at_once(pod: Pod) -> None:
    pod.start()
    pod.until(pod.ready)
    pod.order(silent=["/health"])
    time.sleep(2.5)
    assert pod.ready()
    pod.order(health=503)
    pod.until(lambda: pod.get("/readyz") == (503, "health: 503\n"))
    pod.order()
    pod.until(pod.ready)


class TestDrain:
    def test_an_engine_that_drains_itself_finishes_its_streams(self, pod: Pod) -> None:
        pod.start(STUB_TERM="finish", TRAMONTANE_DRAINS_ITSELF="1", TRAMONTANE_SETTLE_S="3")
        pod.until(pod.ready)
        stream = pod.stream()
        told_at = pod.term()
        pod.until(lambda: pod.get("/readyz") == (503, "draining\n"))
        assert pod.get("/livez")[0] == 200
        late = pod.stream()  # requests still come for a while: the engine takes them
        pod.until(lambda: pod.events("term"))
        assert pod.process.poll() is None
        pod.order(enough=True)

        assert pod.ended() == TOLD
        assert stream.whole()
        assert late.whole()
        assert order_of(pod) == ["term", "streamed", "streamed", "finished"]
        assert pod.events("term")[0]["at"] >= told_at + 3.0
        assert pod.last_words == {
            "reason": "Preempted",
            "message": "told to end; the engine ended with code 0",
        }

    @pytest.mark.parametrize(
        "metrics",
        [
            pytest.param({}, id="by its metrics"),
            pytest.param(
                {"TRAMONTANE_STEPS_METRIC": "", "TRAMONTANE_BUSY_METRICS": ""},
                id="by its connections",
            ),
        ],
    )
    def test_another_engine_is_ended_once_it_is_idle(
        self, pod: Pod, metrics: dict[str, str]
    ) -> None:
        pod.start(**metrics)
        pod.until(pod.ready)
        stream = pod.stream()
        pod.until(lambda: pod.state()["running"] == 1)
        pod.term()
        pod.until(lambda: pod.state()["state"] == "Draining")
        pod.order(enough=True)

        assert pod.ended() == TOLD
        assert stream.whole()
        assert order_of(pod) == ["streamed", "term"]

    def test_a_second_term_changes_nothing(self, pod: Pod) -> None:
        pod.start()
        pod.until(pod.ready)
        stream = pod.stream()
        pod.until(lambda: pod.state()["running"] == 1)
        pod.term()
        pod.until(lambda: pod.state()["state"] == "Draining")
        pod.term()
        pod.until(lambda: pod.said.count("event=signal") == 2)
        assert pod.process.poll() is None
        pod.order(enough=True)

        assert pod.ended() == TOLD
        assert stream.whole()
        assert order_of(pod) == ["streamed", "term"]
        assert pod.said.count("event=draining") == 1

    def test_an_engine_that_ignores_term_is_killed_when_the_time_is_up(self, pod: Pod) -> None:
        pod.start(STUB_TERM="ignore", TRAMONTANE_DRAINS_ITSELF="1", TRAMONTANE_DRAIN_S="1")
        pod.until(pod.ready)
        stream = pod.stream()
        told_at = pod.term()

        assert pod.ended() == TOLD
        assert time.monotonic() - told_at >= 6.0, "SETTLE, DRAIN, and what an engine needs to end"
        assert not stream.whole()
        assert "had not ended after" in pod.last_words["message"]

    def test_a_stream_that_is_too_long_is_cut_off(self, pod: Pod) -> None:
        pod.start(TRAMONTANE_DRAIN_S="2")
        pod.until(pod.ready)
        stream = pod.stream()
        pod.until(lambda: pod.state()["running"] == 1)
        pod.term()

        assert pod.ended() == TOLD
        assert not stream.whole()
        assert order_of(pod) == ["term"]

    def test_only_the_engine_itself_is_told_not_its_workers(self, pod: Pod) -> None:
        script = """
            import os, signal, subprocess, sys, time
            def told(who, after_s):
                def tell(*_):
                    time.sleep(after_s)
                    open(os.environ["STUB"] + "/told", "a").write(who + " ")
                    sys.exit(0)
                return tell
            if os.fork() == 0:
                signal.signal(15, told("worker", 0))
                time.sleep(600)
            signal.signal(15, told("engine", 1))
            sys.stdout.write("ready"); sys.stdout.flush()
            time.sleep(600)
            """
        text = "\n".join(line[12:] for line in script.splitlines())
        pod.start(sys.executable, "-c", text)
        pod.until(lambda: pod.stdout == "ready")
        pod.term()
        pod.until((pod.folder / "told").exists)

        assert pod.ended() == TOLD
        assert (pod.folder / "told").read_text().split()[0] == "engine"

    def test_an_engine_that_never_served_is_ended_at_once(self, pod: Pod) -> None:
        pod.start(STUB_LATE="600", TRAMONTANE_SETTLE_S="600")
        pod.until(lambda: pod.events("start"))
        pod.term()

        assert pod.ended() == TOLD

    def test_one_that_dies_while_it_drains_was_told_to_end(self, pod: Pod) -> None:
        pod.start(TRAMONTANE_SETTLE_S="600")
        pod.until(pod.ready)
        pod.term()
        pod.until(lambda: pod.state()["state"] == "Draining")
        pod.order(die=5)

        assert pod.ended() == TOLD
        assert "code 5" in pod.last_words["message"]


def order_of(pod: Pod) -> list[str]:
    told = pod.events("term", "streamed", "finished")
    return [one["what"] for one in sorted(told, key=lambda one: one["at"])]


class TestOtherSeats:
    def pair(self, pods: MakePod, **env: str) -> tuple[Pod, Pod]:
        """Return seat 0 and seat 1, both of them up."""
        first, second = pods(0), pods(1)
        second.put("peers", {"0": first.address})
        first.start(**env)
        first.until(first.ready)
        second.start(**env)
        second.until(second.ready)
        return first, second

    def test_one_waits_for_seat_0_and_is_told_its_address(self, pods: MakePod) -> None:
        first, second = pods(0), pods(1)
        second.start()
        second.until(lambda: second.get("/readyz") == (503, "waiting for seat 0\n"))
        assert second.get("/livez")[0] == 200
        second.put("peers", {"0": first.address})
        time.sleep(0.6)
        assert second.state()["state"] == "Waiting", "seat 0 is not there to be joined"
        first.start()
        second.until(second.ready)
        second.until(lambda: second.events("start"))

        [start] = second.events("start")
        assert start["argv"][1:] == ["--master", "127.0.0.1"]
        assert start["master"] == "127.0.0.1:29500"
        assert second.state()["state"] == "Serving"

    def test_one_that_loses_seat_0_ends(self, pods: MakePod) -> None:
        first, second = self.pair(pods, TRAMONTANE_LOST_AFTER_S="2")
        first.process.kill()
        lost_at = time.monotonic()
        second.until(lambda: second.get("/readyz") == (503, "seat 0 does not answer\n"))
        assert second.get("/livez")[0] == 200

        assert second.ended() == 73
        assert time.monotonic() - lost_at >= 1.0
        assert second.last_words == {
            "reason": "RankDead",
            "message": "seat 0 has not answered at 127.0.0.1 for 2 s",
        }

    def test_one_whose_seat_0_has_been_replaced_ends(self, pods: MakePod) -> None:
        _, second = self.pair(pods, TRAMONTANE_LOST_AFTER_S="1")
        second.put("peers", {"0": "127.0.0.9"})

        assert second.ended() == 73

    def test_a_seat_0_that_answers_nobody_is_lost(self, pods: MakePod) -> None:
        first, second = self.pair(pods, TRAMONTANE_LOST_AFTER_S="1")
        first.process.send_signal(signal.SIGSTOP)

        assert second.ended() == 73
        first.process.send_signal(signal.SIGCONT)

    def test_one_that_dies_is_a_dead_rank(self, pods: MakePod) -> None:
        _, second = self.pair(pods)
        second.order(die=9)

        assert second.ended() == 9
        assert second.last_words["reason"] == "RankDead"

    def test_one_that_drains_keeps_its_engine_until_seat_0_has_left(self, pods: MakePod) -> None:
        first, second = self.pair(pods, TRAMONTANE_LOST_AFTER_S="1")
        stream = first.stream()
        first.until(lambda: first.state()["running"] == 1)
        second.term()
        first.term()
        first.until(lambda: first.get("/readyz") == (503, "draining\n"))
        second.until(lambda: second.get("/readyz") == (503, "draining\n"))
        first.order(enough=True)

        assert first.ended() == TOLD
        assert second.ended() == TOLD
        assert stream.whole()
        [left], [ended] = first.events("term"), second.events("term")
        assert left["at"] < ended["at"]

    def test_one_that_drains_alone_ends_when_the_time_is_up(self, pods: MakePod) -> None:
        first, second = self.pair(pods, TRAMONTANE_DRAIN_S="2")
        told_at = second.term()

        assert second.ended() == TOLD
        assert second.events("term")[0]["at"] >= told_at + 2.5
        assert first.process.poll() is None

    def test_one_that_never_met_seat_0_ends_at_once(self, pods: MakePod) -> None:
        lonely = pods(1)
        lonely.start()
        lonely.until(lambda: lonely.get("/readyz")[0] == 503)
        lonely.term()

        assert lonely.ended() == TOLD
        assert "before the start" in lonely.last_words["message"]


MOTOR = {"name": "motor", "path": "/adapters/motor"}
HOME = {"name": "home", "path": "/adapters/home"}


class TestAdapters:
    def test_all_are_loaded_before_it_is_ready_also_after_a_restart(self, pod: Pod) -> None:
        pod.put("adapters", [MOTOR, HOME])
        pod.order(fails={"home": "try later"})
        pod.start()
        pod.until(lambda: pod.events("refuse"))
        assert not pod.ready()
        pod.order()
        pod.until(pod.ready)
        assert pod.state()["adapters"] == {"motor": "loaded", "home": "loaded"}

        pod.process.kill()
        pod.ended()
        os.kill(pod.events("start")[0]["pid"], signal.SIGKILL)
        pod.start()
        pod.until(pod.ready)
        loads = [one["name"] for one in pod.events("load")]
        assert loads == ["motor", "home", "motor", "home"]

    def test_they_come_and_go_while_it_serves(self, pod: Pod) -> None:
        pod.put("adapters", [MOTOR])
        pod.start()
        pod.until(pod.ready)
        pod.put("adapters", [HOME])
        pod.until(lambda: pod.state()["adapters"] == {"home": "loaded"})
        pod.put("adapters", [{**HOME, "path": "/adapters/home-2"}])
        pod.until(lambda: len(pod.events("load")) == 3)

        told = [(one["what"], one["name"]) for one in pod.events("load", "unload")]
        assert told[:1] == [("load", "motor")]
        assert sorted(told[1:3]) == [("load", "home"), ("unload", "motor")]
        assert told[3:] == [("unload", "home"), ("load", "home")]
        assert pod.ready()

    def test_one_that_cannot_be_loaded_keeps_the_replica_out_for_three_tries(
        self, pod: Pod
    ) -> None:
        pod.put("adapters", [MOTOR, HOME])
        pod.order(fails={"motor": "rank 64 > 16"})
        pod.start()
        pod.until(pod.ready)

        assert len(pod.events("refuse")) >= 3
        adapters = pod.state()["adapters"]
        assert adapters["home"] == "loaded"
        assert adapters["motor"].startswith("load: 400 rank 64 > 16 (tries: ")
        pod.order()
        pod.until(lambda: pod.state()["adapters"]["motor"] == "loaded")

    def test_a_later_one_that_cannot_be_loaded_keeps_nobody_out(self, pod: Pod) -> None:
        pod.start()
        pod.until(pod.ready)
        pod.order(fails={"motor": "no"})
        pod.put("adapters", [MOTOR])
        pod.until(lambda: pod.events("refuse"))

        assert pod.ready()

    def test_an_engine_that_loads_none_says_so_and_serves(self, pod: Pod) -> None:
        pod.put("adapters", [MOTOR])
        pod.start(TRAMONTANE_LORA="none")
        pod.until(pod.ready)

        assert pod.state()["adapters"] == {"motor": "this engine takes none at run time"}
        assert pod.events("load") == []

    def test_another_seat_than_0_loads_none(self, pods: MakePod) -> None:
        first, second = pods(0), pods(1)
        second.put("peers", {"0": first.address})
        second.put("adapters", [MOTOR])
        first.start()
        second.start()
        second.until(second.ready)

        assert second.events("load") == []


def test_other_signals_are_passed_on(pod: Pod) -> None:
    pod.start()
    pod.until(pod.ready)
    pod.process.send_signal(signal.SIGUSR1)

    assert pod.ended() == 128 + signal.SIGUSR1


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        pytest.param([], {}, "usage: serving.py ENGINE", id="no command"),
        pytest.param(["true"], {"TRAMONTANE_SEAT": "first"}, "(got 'first')", id="no number"),
    ],
)
def test_bad_usage_is_told(pod: Pod, arguments: list[str], env: dict[str, str], words: str) -> None:
    command = [sys.executable, str(pod.agent_folder / "serving.py"), *arguments]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    pod.process = subprocess.Popen(["true"], text=True)

    assert ended.returncode == 64
    assert words in ended.stderr


def test_a_port_that_is_taken_is_told(pod: Pod) -> None:
    with socket.create_server((pod.address, pod.agent_port)):
        pod.start()
        assert pod.ended() == 64
    assert "Address already in use" in pod.said


def test_a_connection_that_says_nothing_keeps_nobody_waiting(pod: Pod) -> None:
    pod.start()
    pod.until(pod.ready)
    with socket.create_connection((pod.address, pod.agent_port)):
        assert pod.ready()


def test_a_stream_class_knows_a_broken_one() -> None:
    assert not Stream(1).whole()


def held(root: Path, pod: Pod) -> weightcache.Entry:
    """Return an entry of a cache that the pod's init container has verified, hours ago."""
    one = weightcache.Entry(str(root / "one"))
    assert one.try_to_share()
    (root / "one").mkdir()
    weightcache.note_holds(str(pod.folder / "state"), [one])
    one.release()
    os.utime(one.lock_path, (1, 1))
    return one


def evict(root: Path) -> None:
    new = weightcache.Entry(str(root / "new"))
    assert new.try_to_take()
    weightcache.make_room(new, 1, 1, time.time())
    new.release()


def test_what_it_serves_from_stays_in_the_blade_s_cache_until_it_ends(pod: Pod) -> None:
    root = pod.folder / "cache"
    one = held(root, pod)
    (root / "one" / "weights").write_bytes(bytes(8192))
    pod.start()
    pod.until(pod.ready)
    evict(root)
    assert one.is_there
    pod.process.kill()
    pod.ended()
    evict(root)
    assert not one.is_there


def test_weights_that_were_replaced_since_are_not_served(pod: Pod) -> None:
    one = held(pod.folder / "cache", pod)
    weightfiles.write_manifest(one.path, "others\n")
    pod.start()

    assert pod.ended() == 69
    assert pod.last_words["reason"] == "SourceMissing"
    assert "must not be replaced once it is verified" in pod.last_words["message"]
    assert pod.events("start") == []


@pytest.mark.parametrize(
    ("words", "env", "text"),
    [
        ((MODEL_FILE,), {}, "must stand for one .gguf file"),
        (("engine",), {"TRAMONTANE_DRAIN_S": "x"}, "TRAMONTANE_DRAIN_S must be a number"),
    ],
    ids=["no file to load", "no number"],
)
def test_words_that_make_no_sense_are_said(
    pod: Pod, words: tuple[str, ...], env: dict[str, str], text: str
) -> None:
    pod.start(*words, **env)

    assert pod.ended() == 64
    assert pod.last_words["reason"] == "Misconfigured"
    assert text in pod.last_words["message"]


def test_an_order_to_end_that_comes_before_all_is_read_is_not_lost(pod: Pod) -> None:
    """Of PID 1 the kernel would drop it, and the pod wait for its whole grace."""
    file = pod.agent_folder / "servinghttp.py"
    early = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
    head, future, rest = file.read_text().partition("from __future__ import annotations\n")
    file.write_text(head + future + early + rest)
    pod.start()

    assert pod.ended() == TOLD
