"""The CRDs in the chart: those of the repository, kept, and small enough for what stores them."""

import base64
import gzip
import json

import yaml

from chart.helm import CHART, ROOT, Helm, kinds
from chart.value_sets import VALUE_SETS

# A Secret holds 1 MiB; Helm puts a release into one, with the chart's files and what they rendered.
MOST_OF_A_SECRET_B = 1024 * 1024


def test_crds_are_those_of_the_repository(helm: Helm) -> None:
    copies = sorted((CHART / "files" / "crds").glob("*.yaml"))
    sources = sorted((ROOT / "crds").glob("*.yaml"))
    assert [path.name for path in copies] == [path.name for path in sources]
    assert len(sources) == 5
    for copy, source in zip(copies, sources, strict=True):
        assert copy.read_bytes() == source.read_bytes(), f"{copy.name}: run `make generate`"

    rendered = kinds(helm.template(), "CustomResourceDefinition")
    assert len(rendered) == 5
    for crd in rendered:
        source = ROOT / "crds" / f"tramontane.dev_{crd['spec']['names']['plural']}.yaml"
        wanted = yaml.safe_load(source.read_text())
        assert crd["spec"] == wanted["spec"]
        assert crd["metadata"]["name"] == wanted["metadata"]["name"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_fit_into_the_annotation_of_a_client_side_apply() -> None:
    """`kubectl apply -f crds/` keeps the whole object in an annotation of at most 256 KiB."""
    for path in (ROOT / "crds").glob("*.yaml"):
        assert len(json.dumps(yaml.safe_load(path.read_text()))) < 200_000, path.name


def test_crds_without_keep_have_no_policy(helm: Helm) -> None:
    for crd in kinds(helm.template({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_a_release_with_everything_on_fits_into_its_secret(helm: Helm) -> None:
    """The same by Helm's own hand is in tests/plane; here it shows before a cluster is there."""
    files = {
        str(path.relative_to(CHART)): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(CHART.rglob("*"))
        if path.is_file()
    }
    rendered = helm.run("template", "t", str(CHART), values=VALUE_SETS["observed"]).stdout
    release = json.dumps({"chart": files, "manifest": rendered}).encode()
    size = len(base64.b64encode(gzip.compress(release)))
    assert 50_000 < size < MOST_OF_A_SECRET_B * 0.7, size
