"""Name the boards, and make the ways between them.

Every link takes the data source, the cluster and the time range along, so that whoever follows one
sees the same moment of the same cluster.
"""

from typing import Final

from tramontane.lab.observe.boards.sdk import model

FLEET: Final = "tramontane-fleet"
TRAINING: Final = "tramontane-training"
QUEUE: Final = "tramontane-queue"
BLADE: Final = "tramontane-blade"
INFERENCE: Final = "tramontane-inference"
POWER: Final = "tramontane-power"
OPERATOR: Final = "tramontane-operator"
TITLES: Final = {
    FLEET: "Tramontane / Fleet",
    TRAINING: "Tramontane / Training",
    QUEUE: "Tramontane / Queue",
    BLADE: "Tramontane / Blade",
    INFERENCE: "Tramontane / Inference",
    POWER: "Tramontane / Power",
    OPERATOR: "Tramontane / Operator",
}
TAG: Final = "tramontane"
_ALONG: Final = "${datasource:queryparam}&${cluster:queryparam}"


def board(uid: str) -> model.DashboardLink:
    """Return the link at the top of a board to another one; the variables go along."""
    link = model.DashboardLink(
        title=TITLES[uid].rpartition(" ")[2],
        type_val=model.DashboardLinkType.LINK,
        icon="dashboard",
        url=f"/d/{uid}",
        include_vars=True,
        keep_time=True,
    )
    return _shown(link)


def everything() -> model.DashboardLink:
    """Return the menu of all our boards."""
    link = model.DashboardLink(
        title="All boards",
        type_val=model.DashboardLinkType.DASHBOARDS,
        icon="external link",
        tags=[TAG],
        as_dropdown=True,
        include_vars=True,
        keep_time=True,
    )
    return _shown(link)


def _shown(link: model.DashboardLink) -> model.DashboardLink:
    # The SDK puts every link into the menu of controls, where nobody looks for the way back.
    link.placement = None  # type: ignore[assignment]  # to_json() leaves it out when it is None
    return link


def inline(uid: str) -> str:
    """Return the address for a link in guide text."""
    return f"/d/{uid}?{_ALONG}&${{__url_time_range}}"


def drill(uid: str, title: str, **variables: str) -> model.DashboardLink:
    """Return a link on data: each variable of the other board with the field that has its value.

    `drill(BLADE, "Open the blade", blade="blade")` reads the label `blade` of the series.
    """
    return _drill(uid, title, "__field.labels", variables)


def cell(uid: str, title: str, **variables: str) -> model.DashboardLink:
    """Return the same link for a cell of a table, where labels are columns."""
    return _drill(uid, title, "__data.fields", variables)


def _drill(uid: str, title: str, where: str, variables: dict[str, str]) -> model.DashboardLink:
    chosen = "".join(f"&var-{name}=${{{where}.{field}}}" for name, field in variables.items())
    return model.DashboardLink(title=title, url=f"{inline(uid)}{chosen}")
