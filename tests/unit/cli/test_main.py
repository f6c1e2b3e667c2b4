"""The command as a whole: quick to start, the same everywhere, and helpful when it is misspelt."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tramontane.cli import options
from tramontane.cli.main import COMPLETE_VAR, PLUGIN, main
from unit.cli.desk import Desk

# What `tramontane --help` may import of ours: the command, its options, the errors.
LIGHT = {
    "tramontane",
    "tramontane.api",
    "tramontane.api.errors",
    "tramontane.api.names",
    "tramontane.cli",
    "tramontane.cli.main",
    "tramontane.cli.options",
}
# Verbs that ask no cluster, or are somebody else's.
OFFLINE = {"completion", "plan", "replay", "lab", "weights", "simulate fleet"}
CHANGING = {"quarantine", "release", "breaker close", "blade hold", "blade release"}
# What -o names is a file; and what says no more than a path, or that it is done.
TO_A_FILE = {"snapshot", "support"}
WITHOUT_FORMATS = {
    "completion", "lab build", "lab up", "lab demo", "lab down", "lab kubeconfig", "lab inject",
    "lab clear", "lab power", "lab link",
}  # fmt: skip


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that runs something, by what is typed."""
    ctx = click.Context(group, info_name="tramontane")
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None, name
        said = " ".join((*path, name))
        if not isinstance(found, click.Group) or found.invoke_without_command:
            yield said, found
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))


ALL = dict(commands())
ASKING = [one for one in ALL if not any(f"{one} ".startswith(f"{off} ") for off in OFFLINE)]


def imported(code: str, **env: str) -> set[str]:
    """Return the modules that are there when the command has run.

    `-X importtime` would not do: it does not see what `importlib.import_module` imports.
    """
    run = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(['LOADED', *sys.modules])))\n"
        f"sys.argv[0] = 'tramontane'\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", run],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split()[1:])


CALL = "from tramontane.cli.main import main\nmain({})"
COMPLETING = {COMPLETE_VAR: "bash_complete", "COMP_WORDS": "tramontane f", "COMP_CWORD": "1"}


@pytest.mark.parametrize(
    ("code", "env"),
    [
        pytest.param(CALL.format("['--help']"), {}, id="help"),
        pytest.param(CALL.format(""), COMPLETING, id="completion of a verb"),
    ],
)
def test_help_and_completion_import_click_and_next_to_nothing_of_ours(
    code: str, env: dict[str, str]
) -> None:
    modules = imported(code, **env)
    assert "click" in modules
    assert {one for one in modules if one.partition(".")[0] == "tramontane"} <= LIGHT
    ours = {"click", "tramontane"}
    # What the interpreter and an editable installation import by themselves is none of ours.
    before = {one.partition(".")[0] for one in imported("")}
    foreign = (
        {one.partition(".")[0] for one in modules} - before - ours - set(sys.stdlib_module_names)
    )
    assert foreign == set()
    assert not {"asyncio", "importlib.metadata", "json", "yaml"} & modules


@pytest.mark.parametrize("name", sorted(one for one in ALL if not one.startswith("lab")))
def test_help_of_every_command_is_light_and_says_something(name: str) -> None:
    done = CliRunner().invoke(main, [*name.split(), "--help"])
    assert done.exit_code == 0, done.output
    first = (ALL[name].help or "").splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) <= 100
    for param in ALL[name].params:
        if isinstance(param, click.Option) and not param.hidden and name != "simulate fleet":
            assert param.help, f"{name} {param.name}"


@pytest.mark.parametrize("name", ["blade", "pool", "breaker", "weights", "simulate"])
def test_the_list_of_a_group_cuts_no_sentence_off(name: str) -> None:
    said = CliRunner().invoke(main, [name, "--help"], terminal_width=80).output
    listed = said.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_no_module_of_a_command_imports_anything_heavy() -> None:
    names = sorted({one.split()[0] for one in ALL} - {"lab", "doctor", "support"})
    code = (
        "import click\nfrom tramontane.cli.main import main\n"
        f"for name in {names}:\n    main.get_command(click.Context(main), name)\n"
    )
    heavy = {"aiohttp", "asyncio", "kubernetes", "pydantic", "rich", "numpy", "yaml", "kopf"}
    assert not heavy & {one.partition(".")[0] for one in imported(code)}


@pytest.mark.parametrize("name", ASKING)
def test_every_command_that_asks_a_cluster_takes_the_same_options(name: str) -> None:
    taken = {word for param in ALL[name].params for word in param.opts}
    assert {"--kubeconfig", "--context", "--no-color"} <= taken


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_every_change_asks_or_takes_yes(name: str) -> None:
    taken = {word for param in ALL[name].params for word in param.opts}
    assert {"--yes", "--dry-run", "--by", "--reason"} <= taken


def test_formats_are_the_same_everywhere() -> None:
    formats = {
        name: tuple(param.type.choices) if isinstance(param.type, click.Choice) else None
        for name, command in ALL.items()
        for param in command.params
        if {"-o", "--output"} <= set(param.opts)
    }
    assert ALL.keys() - formats.keys() == WITHOUT_FORMATS
    wanted = {name: None if name in TO_A_FILE else options.FORMATS for name in formats}
    assert formats == wanted


VERBS = (
    "fleet top blade pool why timeline explain simulate plan snapshot replay quarantine release "
    "breaker completion lab version weights"
)


@pytest.mark.parametrize("verb", VERBS.split())
def test_the_list_of_verbs(verb: str) -> None:
    said = CliRunner().invoke(main, ["-h"]).output
    assert any(line.split()[:1] == [verb] for line in said.splitlines())


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("flete", 'did you mean "fleet"?'), ("explane", "explain"), ("xyzzy", "`--help` lists all")],
)
def test_a_verb_that_is_none(typed: str, hint: str) -> None:
    done = CliRunner().invoke(main, [typed])
    assert done.exit_code == 2
    assert hint in " ".join(done.output.split())


def test_as_a_plugin_it_calls_itself_what_was_typed() -> None:
    done = CliRunner().invoke(main, ["why"], prog_name=PLUGIN)
    assert "Usage: kubectl tramontane why" in done.output


@pytest.mark.parametrize("by", ["option", "option of the group", "environment"])
def test_colours_are_left_out_where_they_are_not_wanted(desk: Desk, by: str) -> None:
    desk.pool()

    def say(*arguments: str, **env: str) -> str:
        desk.env |= env
        return CliRunner(env=desk.env).invoke(main, arguments, color=True).output

    assert "\x1b[" in say("fleet")
    plain = {
        "option": lambda: say("fleet", "--no-color"),
        "option of the group": lambda: say("--no-color", "fleet"),
        "environment": lambda: say("fleet", NO_COLOR="1"),
    }[by]()
    assert "paris-a" in plain
    assert "\x1b[" not in plain


def test_another_context_is_another_cluster(desk: Desk) -> None:
    desk.blade("gpu-0001")
    config = json.loads(desk.kubeconfig.read_text())
    config["clusters"].append({"name": "d", "cluster": {"server": "http://127.0.0.1:9"}})
    config["contexts"].append({"name": "d", "context": {"cluster": "d", "user": "c"}})
    desk.kubeconfig.write_text(json.dumps(config))
    assert "gpu-0001" in desk.says("blade", "list", "--context", "c")
    assert "127.0.0.1:9" in desk.refuses("blade", "list", "--context", "d")
    assert "nowhere" in desk.refuses("blade", "list", "--context", "nowhere")


def test_a_cluster_without_our_kinds_says_what_to_install(desk: Desk) -> None:
    from support.scripted import status  # noqa: PLC0415 - only here

    desk.server.answers.append(lambda _request: status(404, "NotFound"))
    said = desk.refuses("fleet")
    assert "must have the kind NodePool" in said
    assert "install Tramontane's chart" in said


def test_versions(desk: Desk) -> None:
    desk.blade("gpu-0001", report={"agent": {"version": "0.1.0"}})
    labels = {
        "app.kubernetes.io/part-of": "tramontane",
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/version": "0.1.0",
    }
    place = "/apis/apps/v1/namespaces/tramontane-system/deployments"
    desk.server.put(place, "tramontane-operator", metadata={"labels": labels})
    desk.server.put(place, "other", metadata={"labels": {}})
    desk.server.objects["/version"] = {"gitVersion": "v1.35.4", "metadata": {}}
    desk.server.objects["/apis/tramontane.dev"] = {
        "versions": [{"groupVersion": "tramontane.dev/v1alpha1"}]
    }
    whole = json.loads(desk.says("version", "-o", "json"))
    assert whole["cluster"] == {
        "kubernetes": "v1.35.4",
        "api": ["tramontane.dev/v1alpha1"],
        "components": {"operator": "0.1.0"},
        "agents": {"0.1.0": 1},
    }
    assert "0.1.0 on 1 blades" in desk.says("version")
    asked = len(desk.server.requests)
    assert json.loads(desk.says("version", "--client", "-o", "json")).keys() == {"client"}
    assert len(desk.server.requests) == asked


def test_a_version_without_a_cluster_is_no_error(desk: Desk) -> None:
    desk.kubeconfig.write_text(
        desk.kubeconfig.read_text().replace(desk.server.url, "http://127.0.0.1:9")
    )
    done = desk.run("version")
    assert done.exit_code == 0
    assert "tramontane:" in done.stdout
    assert "the cluster does not say" in done.stderr


def test_an_installation_without_the_lab_says_so(
    monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    for name in [one for one in sys.modules if one.startswith("tramontane.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tramontane.lab", None)
    assert "must have the lab" in desk.refuses("lab", "status")
