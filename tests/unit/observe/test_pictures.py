"""The pictures' own Python: the page's sources, its server, the browser's manners, small PNGs.

Drawing itself needs npm and Chromium and is run by `make screenshots`; here is what must hold
without them.
"""

import base64
import io
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from tramontane.lab.observe.pictures import bundle, scenes
from tramontane.lab.observe.pictures.__main__ import parse
from tramontane.lab.observe.pictures.browser import Page, find
from tramontane.lab.observe.pictures.image import shrink
from tramontane.lab.observe.pictures.server import application, serving
from tramontane.lab.observe.pictures.shots import PanelReport, Scene, Shot, read_boards, take
from tramontane.lab.paths import LabError

PAGE = bundle.PAGE


def noise(width: int, height: int) -> bytes:
    """A PNG that cannot be packed: each pixel another colour."""
    pixels = bytes((at * 7919 * (at % 251 + 1)) % 256 for at in range(3 * width * height))
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(out, "PNG")
    return out.getvalue()


class TestSources:
    def test_lock_fits_the_manifest(self) -> None:
        manifest = json.loads((PAGE / "package.json").read_text())
        root = json.loads((PAGE / "package-lock.json").read_text())["packages"][""]
        assert root["dependencies"] == manifest["dependencies"]
        assert root["devDependencies"] == manifest["devDependencies"]

    def test_every_package_has_a_digest_and_no_address(self) -> None:
        packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
        locked = {name: one for name, one in packages.items() if name}
        assert len(locked) > 100
        assert [name for name, one in locked.items() if "resolved" in one] == []
        assert [name for name, one in locked.items() if "integrity" not in one] == []

    def test_nothing_of_grafana_that_is_agpl(self) -> None:
        packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
        ours = {name: one["license"] for name, one in packages.items() if "@grafana/" in name}
        assert set(ours.values()) <= {"Apache-2.0", "MIT"}, ours
        assert not any("GPL" in one.get("license", "") for one in packages.values())

    def test_every_import_is_declared(self) -> None:
        manifest = json.loads((PAGE / "package.json").read_text())
        named = re.compile(
            r"^(?:import|export)\b[^;]*?['\"]([^.'\"][^'\"]*)['\"];", re.MULTILINE | re.DOTALL
        )
        used = {
            "/".join(name.split("/")[: 2 if name.startswith("@") else 1])
            for path in (PAGE / "src").rglob("*.ts*")
            for name in named.findall(path.read_text())
        }
        assert {"@grafana/ui", "react-dom", "uplot"} <= used
        assert used <= set(manifest["dependencies"])

    def test_every_panel_type_of_the_boards_is_drawn(self) -> None:
        folder = Path(__file__).parents[3] / "charts" / "tramontane" / "files" / "dashboards"
        text = (PAGE / "src" / "board.tsx").read_text()
        table = text[text.index("const PANELS") : text.index("};", text.index("const PANELS"))]
        drawn = set(re.findall(r"^  '?([\w-]+)'?:", table, re.MULTILINE)) | {"row"}
        for name, board in read_boards(folder).items():
            assert {panel["type"] for panel in board["panels"]} <= drawn, name


class TestBundle:
    def fake(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> Path:
        npm = tmp_path / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        npm.chmod(0o755)
        monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
        monkeypatch.setenv("TRAMONTANE_CACHE", str(tmp_path / "cache"))
        page = tmp_path / "page"
        shutil.copytree(PAGE, page)
        return page

    INSTALLS = (
        'case "$1" in ci) mkdir -p node_modules/@grafana/ui/dist/public/img/icons;;'
        " run) mkdir -p ${5#--outdir=}; cp src/main.tsx ${5#--outdir=}/main.js;; esac"
    )

    def test_once_per_source(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        page = self.fake(monkeypatch, tmp_path, self.INSTALLS)
        first = bundle.build(page)
        assert bundle.build(page) == first
        assert {path.name for path in first.iterdir()} == {".done", "img", "index.html", "main.js"}
        (page / "src" / "main.tsx").write_text("changed")
        second = bundle.build(page)
        assert second != first
        assert (second / "main.js").read_text() == "changed"
        calls = (tmp_path / "calls").read_text().splitlines()
        assert [call.split()[0] for call in calls] == ["ci", "run", "run"]

    def test_other_packages_are_installed_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        page = self.fake(monkeypatch, tmp_path, self.INSTALLS)
        first = bundle.installed(page)
        (page / "package-lock.json").write_text("{}")
        assert bundle.installed(page) != first

    def test_a_failure_shows_what_npm_said_and_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        page = self.fake(monkeypatch, tmp_path, "echo no such version >&2; exit 7")
        for _ in range(2):
            with pytest.raises(LabError, match=r"ci: must end with 0 .*got 7.*\n  no such version"):
                bundle.build(page)

    def test_without_npm(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("TRAMONTANE_CACHE", str(tmp_path))
        with pytest.raises(LabError, match=r"npm: must be on PATH .*install Node.js"):
            bundle.build()


def test_without_chromium(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(LabError, match=r"chromium: .*install it"):
        find()
    named = tmp_path / "other-browser"
    named.touch(mode=0o755)
    monkeypatch.setenv("CHROMIUM", str(named))
    assert find() == str(named)


class TestServer:
    @asynccontextmanager
    async def started(self, tmp_path: Path) -> AsyncIterator[str]:
        async def answer(request: web.Request) -> web.Response:
            seen = {"path": request.path, "query": request.query.get("query")}
            return web.json_response(seen, status=422)

        prometheus = web.Application()
        prometheus.router.add_get("/{path:.*}", answer)
        (tmp_path / "img").mkdir()
        (tmp_path / "index.html").write_text("the page")
        (tmp_path / "main.js").write_text("the code")
        async with serving(prometheus) as behind:
            app = application(tmp_path, {"fleet": {"title": "Fleet"}}, behind + "/", 1.5)
            async with serving(app) as address:
                yield address

    @pytest.mark.parametrize(
        ("path", "status", "body"),
        [
            ("/?board=fleet", 200, "the page"),
            ("/page/main.js", 200, "the code"),
            ("/settings.json", 200, '{"scrape_s": 1.5}'),
            ("/boards/fleet.json", 200, '{"title": "Fleet"}'),
            ("/boards/none.json", 404, "404: Not Found"),
            ("/api/v1/query?query=up%2B1", 422, '{"path": "/api/v1/query", "query": "up+1"}'),
            ("/-/quit", 404, "404: Not Found"),
            ("/page/../index.html", 404, "404: Not Found"),
        ],
        ids=lambda value: str(value)[:20],
    )
    async def test_serves(self, tmp_path: Path, path: str, status: int, body: str) -> None:
        async with (
            self.started(tmp_path) as address,
            aiohttp.ClientSession() as session,
            session.get(address + path) as answer,
        ):
            assert (answer.status, await answer.text()) == (status, body)

    async def test_writes_nothing(self, tmp_path: Path) -> None:
        async with (
            self.started(tmp_path) as address,
            aiohttp.ClientSession() as session,
            session.post(f"{address}/api/v1/admin/tsdb/snapshot") as answer,
        ):
            assert answer.status == 405


@asynccontextmanager
async def scripted(answers: Callable[[str, dict[str, Any]], Any]) -> AsyncIterator[Page]:
    """A browser's socket that answers each command by a function; None: it goes away."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            asked = message.json()
            answer = answers(asked["method"], asked["params"])
            if answer is None:
                await socket.close()
                break
            for event in answer if isinstance(answer, list) else [answer]:
                await socket.send_json(
                    {"id": asked["id"], **event} if "method" not in event else event
                )
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    async with (
        serving(app) as address,
        aiohttp.ClientSession() as session,
        session.ws_connect(address) as socket,
    ):
        yield Page(socket)


class TestBrowser:
    async def test_asks_and_photographs(self, tmp_path: Path) -> None:
        asked: list[str] = []
        report = {
            "height": 900,
            "panels": [
                {"title": "GPUs", "type": "stat", "state": "data", "message": ""},
                {"title": "Spares", "type": "stat", "state": "empty", "message": ""},
            ],
        }

        def answers(method: str, parameters: dict[str, Any]) -> Any:
            asked.append(method)
            if method == "Page.captureScreenshot":
                assert parameters["clip"]["height"] == 900
                return {"result": {"data": base64.b64encode(noise(8, 8)).decode()}}
            if method == "Runtime.evaluate":
                wanted = report if parameters["expression"] == "window.pictures" else True
                return {"result": {"result": {"value": wanted}}}
            return {"result": {}}

        async with scripted(answers) as page:
            scene = Scene(10.0, 20.0, {"job": "llama"})
            shot = await take(page, "http://127.0.0.1:1", "fleet", scene, tmp_path / "new")
        assert shot.path == tmp_path / "new" / "fleet.png"
        assert Image.open(io.BytesIO(shot.path.read_bytes())).size == (8, 8)
        assert shot.lacking == (PanelReport("Spares", "stat", "empty", ""),)
        assert "Page.navigate" in asked

    async def test_a_mistake_in_the_page_is_told_with_its_console(self) -> None:
        said = {
            "method": "Runtime.consoleAPICalled",
            "params": {"type": "error", "args": [{"value": "no board"}]},
        }
        thrown = {"exceptionDetails": {"text": "Uncaught", "exception": {"description": "Oops"}}}
        async with scripted(lambda *_: [said, {"result": thrown}]) as page:
            with pytest.raises(LabError, match=r"window\.pictures: Oops\n  error: no board"):
                await page.ask("window.pictures")

    async def test_a_refusal_and_a_farewell(self) -> None:
        refused = {"error": {"message": "no such thing"}}
        async with scripted(lambda *_: refused) as page:
            with pytest.raises(LabError, match=r"Page\.enable: no such thing"):
                await page.call("Page.enable")
        async with scripted(lambda *_: None) as page:
            with pytest.raises(LabError, match=r"must answer Page\.enable .*went away"):
                await page.call("Page.enable")


class TestShrink:
    def test_few_colours_are_kept_as_they_are(self) -> None:
        out = io.BytesIO()
        Image.new("RGB", (50, 50), (1, 2, 3)).save(out, "PNG")
        small = Image.open(io.BytesIO(shrink(out.getvalue())))
        assert small.convert("RGB").getpixel((9, 9)) == (1, 2, 3)

    def test_too_large_loses_colours_not_pixels(self) -> None:
        png = noise(120, 100)
        small = shrink(png, limit=len(png) // 2)
        assert len(small) <= len(png) // 2
        image = Image.open(io.BytesIO(small))
        assert image.size == (120, 100)
        assert len(image.convert("RGB").getcolors() or ()) <= 256

    def test_says_when_it_cannot_be(self) -> None:
        with pytest.raises(LabError, match=r"at most 100 bytes \(got \d+ with 64 colours"):
            shrink(noise(40, 40), limit=100)


class TestScenes:
    def test_address(self) -> None:
        scene = Scene(1.5, 2.25, {"job": "llama", "pool": ["a", "b&c"]})
        assert scene.address("http://127.0.0.1:9", "fleet") == (
            "http://127.0.0.1:9/?board=fleet&from=1500&to=2250"
            "&var-job=llama&var-pool=a&var-pool=b%26c"
        )

    def test_ready_file(self, tmp_path: Path) -> None:
        said = {"prometheus": "http://p", "scrape_s": 1, "show": {"pool": "p", "job": "llama"}}
        (tmp_path / "ready").write_text(json.dumps(said))
        live = scenes.read(tmp_path / "ready")
        assert (live.prometheus, live.scrape_s, live.show) == ("http://p", 1.0, {"job": "llama"})

    def test_no_boards(self, tmp_path: Path) -> None:
        with pytest.raises(LabError, match=r"must lie in .*got none.*make generate"):
            read_boards(tmp_path)

    def test_lacking_is_not_text(self, tmp_path: Path) -> None:
        states = ("data", "still", "empty", "error")
        panels = tuple(PanelReport(state, "stat", state, "") for state in states)
        shot = Shot("fleet", tmp_path, 1, 1, panels)
        assert [panel.state for panel in shot.lacking] == ["empty", "error"]


def test_command_line() -> None:
    options = parse(["--only", "fleet", "--only", "blade", "--var", "job=llama", "--strict"])
    assert options.only == ["fleet", "blade"]
    assert options.prometheus is None
    assert options.out.parts[-3:] == ("docs", "images", "boards")
