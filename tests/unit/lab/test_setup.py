"""What a lab is made of: its description, its keys, KWOK's rules, the command line."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tramontane.api.nodepool import NodePool
from tramontane.cli.main import main
from tramontane.lab import paths
from tramontane.lab.cluster import Setup, pool_of
from tramontane.lab.demo_tranche import tranche_pool
from tramontane.lab.description import Description
from tramontane.lab.faults import KINDS
from tramontane.lab.fleet import Layout
from tramontane.lab.keys import make_keys, write_kubeconfig
from tramontane.lab.kwokconfig import PodTiming, kwok_config
from tramontane.lab.paths import LabError


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = Description(Layout(blades=136, rack=8), real_agents=("gpu-0017",), token="t")
    one.save(tmp_path)
    assert Description.load(tmp_path) == one
    assert (tmp_path / "lab.json").stat().st_mode & 0o077 == 0, "it holds a token"


def test_without_a_lab_there_is_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`tramontane lab up` starts one"):
        Description.load(tmp_path)


def test_keys_verify_each_other_and_are_private(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys", {"admin": ("system:masters",), "nobody": ()})
    ssl.create_default_context(cafile=keys.ca)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(keys.cert, keys.key)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())
    admin = keys.users["admin"]
    assert keys.tokens.read_text().splitlines()[0] == f'{admin.token},admin,admin,"system:masters"'

    path = write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", keys.ca, admin)
    config = json.loads(path.read_text())
    assert config["users"][0]["user"]["token"] == admin.token
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"


def test_kwoks_rules_carry_the_timing() -> None:
    documents = list(yaml.safe_load_all(kwok_config(PodTiming((50, 90), (200, 400)))))
    stages = {document["metadata"]["name"]: document["spec"] for document in documents}
    assert set(stages) == {
        "node-ready",
        "node-heartbeat",
        "pod-running",
        "job-pod-done",
        "pod-gone",
    }
    assert stages["pod-running"]["delay"] == {
        "durationMilliseconds": 50,
        "jitterDurationMilliseconds": 90,
    }
    assert stages["pod-gone"]["delay"]["jitterDurationMilliseconds"] == 400
    assert stages["pod-gone"]["next"] == {"delete": True}


def test_the_plain_pool_is_a_valid_one() -> None:
    pool = NodePool.model_validate(pool_of(Layout(blades=3)))
    assert pool.metadata.name == "paris-a"


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        pytest.param({"TRAMONTANE_CACHE": "/c/t", "XDG_CACHE_HOME": "/x"}, "/c/t", id="chosen"),
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/tramontane", id="xdg"),
        pytest.param({"HOME": "/home/me"}, "/home/me/.cache/tramontane", id="home"),
    ],
)
def test_the_cache_is_the_users(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cache: str
) -> None:
    for name in ("TRAMONTANE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert paths.cache_dir() == Path(cache)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["status"], "`tramontane lab up` starts one", id="status"),
        pytest.param(["inject", "gpu-0001", "hang"], "must have been started", id="inject"),
        pytest.param(["clear", "gpu-0001"], "must have been started", id="clear"),
        pytest.param(["kubeconfig"], "must have been started", id="kubeconfig"),
        pytest.param(
            ["up", "--blades", "2", "--real-agents", "gpu-0009"],
            "must be among gpu-0001 to gpu-0002",
            id="up",
        ),
    ],
)
def test_commands_say_what_is_missing(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["lab", *arguments, "--dir", str(tmp_path)])
    assert done.exit_code != 0
    assert says in " ".join(done.output.split())


def test_down_without_a_lab_is_no_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["lab", "down", "--dir", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "nothing was running\n")


def test_the_help_of_inject_lists_every_fault() -> None:
    done = CliRunner().invoke(main, ["lab", "inject", "--help"])
    assert done.exit_code == 0
    listed = done.output.partition("Faults:")[2].splitlines()
    names = [line.split()[0] for line in listed if line[2:3].strip()]
    assert names == list(KINDS)


@pytest.mark.parametrize("scenario", ["thousand", "tranche", "serve"])
def test_the_demo_offers_its_scenarios(scenario: str) -> None:
    done = CliRunner().invoke(main, ["lab", "demo", "--help"])
    assert scenario in done.output.partition("--scenario")[2]


def test_the_tranches_pool_is_a_valid_one() -> None:
    pool = NodePool.model_validate(tranche_pool(Layout(blades=64)))
    asked = pool.spec.qualification
    assert asked is not None
    assert asked.collective is not None
    assert (asked.collective.group_size, asked.collective.min_bandwidth) == (8, 300)
    assert pool.spec.remediation.reboot is not None


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tramontane.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'kubernetes', 'pydantic', 'rich', 'numpy', 'yaml', 'asyncio'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert "lab" in done.stdout


def test_the_operator_has_an_address_where_pods_can_reach_it() -> None:
    given = {"A": "b"}
    on_nodes = Setup(Layout(blades=0), real_nodes=2, environment=given)
    assert on_nodes.component_environment("operator") == {
        "A": "b",
        "POD_IP": "10.88.0.1",
        "TRAMONTANE_ACTIVATOR_PORT": "0",
    }
    assert on_nodes.component_environment("scheduler") == given
    assert Setup(Layout(blades=8)).component_environment("operator") == {}
