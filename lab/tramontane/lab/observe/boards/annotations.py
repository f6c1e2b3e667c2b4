"""Mark on every graph what people ask for first: what happened just then?

Quarantines are drawn at the moment the operator wrote down, from the gauge that has it; a restart
is a counter that grew; an upgrade is a version that was not there five minutes ago, while the
component was.
"""

from tramontane.lab.observe.boards.queries import scoped
from tramontane.lab.observe.boards.sdk import model, prometheus
from tramontane.lab.observe.boards.variables import DATASOURCE


def quarantines(scope: str = "all") -> model.AnnotationQuery:
    """Return the blades that were quarantined, each at its moment."""
    expr = f"""
        1000 * tramontane_blade_state_since_timestamp_seconds{{@{scope}}}
          * on (cluster, pool, blade) group_left (reason)
            tramontane_blade_state{{@{scope}, state="Quarantined"}}
    """
    mark = _mark("Quarantines", "red", expr, "Quarantined: {{blade}}", "{{pool}}: {{reason}}")
    mark.use_value_for_time = True
    return mark


def restarts(scope: str = "all") -> model.AnnotationQuery:
    """Return the restarts of training jobs."""
    expr = f"""
        sum by (namespace, job, cause) (
          increase(tramontane_trainingjob_restarts_total{{@{scope}}}[2m])
        ) > 0
    """
    return _restarts(expr)


def _restarts(expr: str) -> model.AnnotationQuery:
    return _mark("Job restarts", "orange", expr, "Restart: {{namespace}}/{{job}}", "{{cause}}")


def restarts_here() -> model.AnnotationQuery:
    """Return the restarts of the training jobs that are on the chosen blade."""
    expr = """
        sum by (cluster, namespace, job, cause) (
          increase(tramontane_trainingjob_restarts_total{@all}[2m])
        ) > 0 and on (cluster, namespace, job)
          label_replace(
            tramontane_allocation_info{@blade, kind="TrainingJob"}, "job", "$1", "name", "(.+)")
    """
    return _restarts(expr)


def upgrades() -> model.AnnotationQuery:
    """Return the moments at which another version of a component came up."""
    now = "count by (cluster, component, version) (tramontane_build_info{@all})"
    before = "count by (cluster, component, version) (tramontane_build_info{@all} offset 5m)"
    was = "count by (cluster, component) (tramontane_build_info{@all} offset 5m)"
    expr = f"({now} unless {before}) and on (cluster, component) {was}"
    return _mark("Upgrades", "blue", expr, "Upgrade: {{component}}", "{{version}}")


def _mark(name: str, colour: str, expr: str, title: str, text: str) -> model.AnnotationQuery:
    promql = " ".join(scoped(expr).split())
    mark = model.AnnotationQuery(
        name=name,
        datasource=DATASOURCE,
        enable=True,
        icon_color=colour,
        expr=promql,
        step="60s",
        title_format=title,
        text_format=text,
        target=prometheus.Dataquery(expr=promql, interval="60s", ref_id="Anno"),
    )
    mark.placement = None  # type: ignore[assignment]  # else its switch hides in a menu
    return mark
