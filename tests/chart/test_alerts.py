"""Every alert fires where it should, says what it should, and ends; a quiet hall has none.

The rules are those that Helm renders, and promtool evaluates them over hours of made-up series.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.alertcases import CASES, LENGTH, QUIET, Case
from chart.helm import CHART, ROOT, Helm, kinds
from tramontane.lab import binaries
from tramontane.lab.observe import alerts
from tramontane.lab.observe.alertrules import Alert, Severity, rules_file

# A first promtool is built in a fixture, which takes minutes.
pytestmark = pytest.mark.timeout(60, func_only=True)

Raw = dict[str, Any]
BY_NAME = {alert.name: alert for alert in alerts.ALERTS}
RUNBOOKS = ROOT / "docs" / "runbooks"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules as the chart has them, once per set of values, and the tool that knows them."""

    helm: Helm
    promtool: Path
    folder: Path
    rendered: dict[str, Path] = field(default_factory=dict)

    def file(self, **values: Any) -> Path:
        """Return the rules file for these values under `prometheusRule`."""
        key = repr(sorted(values.items()))
        if key not in self.rendered:
            given = {"prometheusRule": {"enabled": True, **values}}
            (rule,) = kinds(self.helm.template(given), "PrometheusRule")
            path = self.folder / f"rules-{len(self.rendered)}.yaml"
            path.write_text(yaml.safe_dump(rule["spec"], sort_keys=False, width=1000))
            self.rendered[key] = path
        return self.rendered[key]

    def check(self, *words: str | Path) -> None:
        """Run `promtool`; fail with all that it says, if it finds something wrong."""
        done = subprocess.run([self.promtool, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr, pytrace=False)

    def test(self, rules: Path, test: Raw) -> None:
        """Fail where something is otherwise than the test says."""
        path = self.folder / "test.yaml"
        whole = {
            "rule_files": [str(rules)],
            "evaluation_interval": "1m",
            # Else in no order, and alerts may see the records of a minute ago.
            "group_eval_order": [
                group["name"] for group in yaml.safe_load(rules.read_text())["groups"]
            ],
            "tests": [test],
        }
        path.write_text(yaml.safe_dump(whole, sort_keys=False, width=1000))
        self.check("test", "rules", path)


@pytest.fixture(scope="session")
def rules(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Rules:
    promtool = binaries.ensure(["promtool"])["promtool"]
    return Rules(helm, promtool, tmp_path_factory.mktemp("rules"))


def series(changed: Mapping[str, str] = {}) -> list[Raw]:
    return [{"series": key, "values": value} for key, value in {**QUIET, **changed}.items()]


def silent(at: int, but: str = "") -> Iterator[Raw]:
    for alert in alerts.ALERTS:
        if alert.name != but:
            yield {"eval_time": f"{at}m", "alertname": alert.full_name, "exp_alerts": []}


def expected(case: Case) -> Raw:
    alert = BY_NAME[case.alert]
    cluster = {"cluster": case.cluster} if case.cluster else {}
    board, _, query = case.board.partition("&")
    link = f"/d/{board}?from=now-6h"
    link += f"&var-cluster={case.cluster}" if case.cluster else ""
    link += f"&{query}" if query else ""
    return {
        "exp_labels": {**case.labels, **cluster, "severity": alert.severity.value},
        "exp_annotations": {
            "summary": alert.summary,
            "description": case.description,
            "runbook_url": f"/runbooks/{alert.name}",
            "dashboard_url": link,
        },
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_it_fires_and_it_resolves_and_no_other_one_does(rules: Rules, case: Case) -> None:
    fires = {
        "eval_time": f"{case.at}m",
        "alertname": BY_NAME[case.alert].full_name,
        "exp_alerts": [expected(case)],
    }
    test = {
        "interval": "1m",
        "input_series": series(case.series),
        "alert_rule_test": [
            *silent(case.not_yet),
            fires,
            *silent(case.at, but=case.alert),
            *silent(case.over),
        ],
    }
    rules.test(rules.file(**case.values), test)


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(BY_NAME)


@pytest.mark.parametrize("label", ["", 'cluster="paris", '], ids=["no cluster", "a cluster"])
def test_a_quiet_hall_fires_nothing(rules: Rules, label: str) -> None:
    quiet = [
        {**one, "series": one["series"].replace('cluster="paris", ', label)} for one in series()
    ]
    times = (0, 5, 60, LENGTH - 10)
    test = {
        "interval": "1m",
        "input_series": quiet,
        "alert_rule_test": [one for at in times for one in silent(at)],
    }
    rules.test(rules.file(powerBudgetWatts=1000), test)


def test_one_blade_in_quarantine_is_no_page(rules: Rules) -> None:
    key = next(key for key in QUIET if key.startswith("tramontane_blades_out"))
    test = {
        "interval": "1m",
        "input_series": series({key: f"2x30 4x{LENGTH}"}),
        "alert_rule_test": [one for at in (31, 35, 39, 45) for one in silent(at)],
    }
    # Even an owner who wants to hear of everything hears of three at once at the earliest.
    rules.test(rules.file(quarantineStormRatio=0.01), test)


def test_an_operator_that_starts_anew_is_no_trouble(rules: Rules) -> None:
    """Its counters begin at nought, its gauges are another process's, and a scrape has neither."""
    ours = re.compile(r"tramontane_(blade|spares|trainingjob|inference|reconcile|quarantine)")
    fresh: dict[str, str] = {}
    for key, values in QUIET.items():
        if ours.match(key):
            fresh[key] = f"{values.split('x')[0]}x60 stale"
            later = key.replace("{", '{instance="b", ')
            fresh[later] = f"_x62 {values.split('x')[0]}x{LENGTH}"
    assert len(fresh) > 40
    test = {
        "interval": "1m",
        "input_series": series(fresh),
        "alert_rule_test": [one for at in (61, 62, 63, 70, 120) for one in silent(at)],
    }
    rules.test(rules.file(), test)


def test_promtool_has_nothing_to_say(rules: Rules) -> None:
    for values in ({}, {"powerBudgetWatts": 2_500_000}):
        rules.check("check", "rules", "--lint=all", rules.file(**values))


def test_without_a_power_budget_there_is_no_alert_on_it(rules: Rules) -> None:
    assert "PowerBudgetExceeded" not in rules.file().read_text()
    assert "> 2.5e+06" in rules.file(powerBudgetWatts=2_500_000).read_text()


def test_the_clusters_own_name_is_in_what_must_not_be_absent(helm: Helm) -> None:
    values = {"prometheusRule": {"enabled": True}, "monitoring": {"cluster": "paris"}}
    (rule,) = kinds(helm.template(values), "PrometheusRule")
    assert 'absent(tramontane_leader{lease="tramontane-operator", cluster="paris"})' in str(rule)


def test_addresses_are_the_owners(rules: Rules) -> None:
    path = rules.file(runbookUrl="https://books.example", dashboardUrl="https://graf.example")
    found = yaml.safe_load(path.read_text())["groups"][-1]["rules"]
    for rule in found:
        name = rule["alert"].removeprefix("Tramontane")
        assert rule["annotations"]["runbook_url"] == f"https://books.example/{name}"
        assert rule["annotations"]["dashboard_url"].startswith("https://graf.example/d/tramontane-")


@pytest.mark.parametrize("alert", [pytest.param(one, id=one.name) for one in alerts.ALERTS])
def test_what_an_alert_must_have(alert: Alert) -> None:
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert f"**{alert.severity}**" in text, "the runbook must name the severity"
    board = CHART / "files" / "dashboards" / f"{alert.board[0].removeprefix('tramontane-')}.json"
    assert board.is_file(), f"board {alert.board[0]} must exist"
    for key in alert.values:
        assert f"`prometheusRule.{key}`" in text, "the runbook must name the values that matter"
    assert not re.search(r"[0-9]|\{\{", alert.summary), "a summary has no values"
    assert "{{ $" in alert.description
    assert alert.severity in Severity


def test_no_runbook_is_of_no_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"index"} == set(BY_NAME)


def test_the_committed_file_is_what_the_list_says() -> None:
    text = rules_file(alerts.RECORDS, alerts.ALERTS)
    assert (CHART / "files" / "rules" / alerts.FILE).read_text() == text
