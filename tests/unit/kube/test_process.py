import asyncio
import contextlib
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import aiohttp
import click
import pytest
from click.testing import CliRunner

from tramontane.kube import process
from tramontane.kube.errors import LeadershipLost
from tramontane.kube.logs import LineFormatter, set_up_logging
from tramontane.kube.metrics import Detail
from tramontane.kube.process import Checks, ProcessOptions, StopEvent, process_options, run


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def exit_code(main: object, **options: object) -> object:
    with pytest.raises(SystemExit) as caught:
        run(main, **options)  # type: ignore[arg-type]  # some are wrong on purpose
    return caught.value.code


def test_it_returns_when_main_does() -> None:
    async def main(_: StopEvent) -> None:
        await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_stop_event(number: signal.Signals) -> None:
    ended = []

    async def main(stop: StopEvent) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        ended.append(number)

    run(main)
    assert ended == [number]


def test_main_that_does_not_stop_is_cancelled() -> None:
    async def main(_: StopEvent) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    run(main, grace_s=0.01)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(RuntimeError("fault"), 1, id="fault"),
        pytest.param(LeadershipLost("lost"), 3, id="leadership-lost"),
        pytest.param(
            ExceptionGroup("group", [ExceptionGroup("inner", [LeadershipLost("lost")])]),
            3,
            id="leadership-lost-in-a-task-group",
        ),
        pytest.param(ExceptionGroup("group", [ValueError("v")]), 1, id="fault-in-a-task-group"),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    async def main(_: StopEvent) -> None:
        raise error

    assert exit_code(main) == code


@pytest.mark.parametrize("large", [False, True], ids=["scraped-in-the-loop", "in-a-thread"])
def test_health_and_metrics(large: bool) -> None:
    port = free_port()
    readiness = Checks()
    ready = False
    readiness.add("pods-synced", lambda: ready)
    answers = []

    async def main(_: StopEvent) -> None:
        nonlocal ready
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path in ("/healthz", "/readyz", "/metrics", "/readyz"):
                async with session.get(path) as answer:
                    answers.append((answer.status, await answer.text()))
                ready = path == "/metrics"

    run(main, ProcessOptions(metrics_port=port), readiness, large_scrapes=large)
    assert "_created" not in answers[2][1]
    assert answers[0] == (200, "ok\n")
    assert answers[1] == (503, "pods-synced: not ready\n")
    assert answers[2][0] == 200
    assert "tramontane_api_requests_total" in answers[2][1]
    assert answers[3] == (200, "ok\n")


def test_options_of_the_command_line() -> None:
    seen: list[ProcessOptions] = []

    @click.command()
    @click.option("--more")
    @process_options
    def command(options: ProcessOptions, more: str) -> None:
        assert more == "x"
        seen.append(options)

    argv = ["--more", "x", "--namespace=ns", "--metrics-port=9", "--metrics-bind=::1"]
    argv += ["--log-level=debug", "--identity=me", "--metrics-detail=low"]
    result = CliRunner().invoke(command, argv)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(command, ["--more", "x"])
    assert result.exit_code == 0, result.output
    assert seen[0] == ProcessOptions("ns", 9, "::1", "me", "debug", Detail.LOW)
    assert seen[1].metrics_detail is Detail.NORMAL
    assert seen[1].namespace == "tramontane-system"
    assert seen[1].metrics_bind == "127.0.0.1"
    assert seen[1].identity
    assert process.unique_identity() != process.unique_identity()


def test_log_lines() -> None:
    stream = io.StringIO()
    set_up_logging("info", stream)
    log = logging.getLogger("tramontane.tests")
    log.debug("not shown")
    log.info("lease acquired lease=%s", "x\ny")
    with contextlib.suppress(RuntimeError):
        try:
            raise RuntimeError("fault")
        finally:
            log.error("failed key=%s", "k", exc_info=sys.exc_info())
    first, second = stream.getvalue().splitlines()
    assert first.endswith("Z level=info logger=tramontane.tests lease acquired lease=x\\ny")
    assert first[10] == "T"
    assert "level=error" in second
    assert "RuntimeError: fault" in second
    assert isinstance(logging.getLogger().handlers[0].formatter, LineFormatter)
