"""`tramontane lab build` takes the names of programs, and says which there are."""

from click.testing import CliRunner

from tramontane.lab.commands import build


def test_a_program_that_is_none_of_ours_is_refused() -> None:
    done = CliRunner().invoke(build, ["kubectl", "kubectI"])
    assert done.exit_code == 2
    assert "NAME" in done.output
    assert "kubectl, kubelet" in " ".join(done.output.split())
    assert "(got kubectI)" in " ".join(done.output.split())
