"""Pack all that a hall without a network needs into one tar, and say how to unpack it.

    tramontane-0.2.0-airgap/
      README.md  SHA256SUMS  load.sh  images.txt  crds.yaml  LICENSE
      images/      OCI archives           sbom/    a bill of materials for each
      chart/       the packaged chart     cli/     wheels, and a script that installs them
      dashboards/  rules/  docs/          what people import by themselves, and read

The files that are not made here lie in `images/`. The same checkout makes the same tar.

    parts    chart, CRDs, rules, dashboards, manual
    cli      wheels of the command line, for every Python that it runs on
    pack     all of it in one tar

    python -m tramontane.lab.bundle
"""
