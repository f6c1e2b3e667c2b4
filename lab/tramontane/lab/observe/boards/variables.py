"""Make the variables of the boards: where the data are, and what of them is looked at.

All is `.*`, which a label that is absent matches as well: a Prometheus that knows only one
cluster need not have the label `cluster` at all.
"""

from typing import Final

from tramontane.lab.observe.boards.queries import scoped
from tramontane.lab.observe.boards.sdk import common, model

DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
EVERYTHING: Final = ".*"


def datasource() -> model.VariableModel:
    """Return the choice of the Prometheus."""
    return model.VariableModel(
        type_val=model.VariableType.DATASOURCE,
        name="datasource",
        label="Data source",
        query="prometheus",
        refresh=model.VariableRefresh.ON_DASHBOARD_LOAD,
    )


def _labels(name: str, label: str, series: str, *, single: bool = False) -> model.VariableModel:
    query = f"label_values({scoped(series)}, {name})"
    variable = model.VariableModel(
        type_val=model.VariableType.QUERY,
        name=name,
        label=label,
        datasource=DATASOURCE,
        definition=query,
        query={"query": query, "refId": "StandardVariableQuery"},
        refresh=model.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=model.VariableSort.NATURAL_ASC,
    )
    if not single:
        variable.multi = variable.include_all = True
        variable.all_value = EVERYTHING
        variable.current = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable


def cluster() -> model.VariableModel:
    """Return the choice of clusters."""
    return _labels("cluster", "Cluster", "tramontane_build_info")


def pool() -> model.VariableModel:
    """Return the choice of pools."""
    return _labels("pool", "Pool", "tramontane_gpus{@all}")


def namespace(series: str) -> model.VariableModel:
    """Return the choice of namespaces in which there is something to show."""
    return _labels("namespace", "Namespace", f"{series}{{@all}}")


def job() -> model.VariableModel:
    """Return the choice of training jobs."""
    series = 'tramontane_trainingjob_phase{@all, namespace=~"$namespace"}'
    return _labels("job", "Job", series)


def deployment() -> model.VariableModel:
    """Return the choice of inference deployments."""
    series = 'tramontane_inference_phase{@all, namespace=~"$namespace"}'
    return _labels("deployment", "Deployment", series)


def blade() -> model.VariableModel:
    """Return the choice of one blade."""
    return _labels("blade", "Blade", "tramontane_blade_state{@all}", single=True)
