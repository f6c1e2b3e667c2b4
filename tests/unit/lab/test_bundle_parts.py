"""What a bundle takes from a checkout: what is committed, and nothing that lies there besides."""

from pathlib import Path

import pytest

from tramontane.lab.bundle import parts
from tramontane.lab.manual.site import CONFIG, ROOT
from tramontane.lab.paths import LabError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of one page."""
    text = (ROOT / CONFIG).read_text()
    begin, end = text.index("nav = ["), text.index("[project.theme]")
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    (root / CONFIG).write_text(f'{text[:begin]}nav = ["index.md"]\n\n{text[end:]}')
    (root / "docs" / "index.md").write_text("# As it is now\n")
    return root


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_an_old_site_in_the_checkout_changes_no_bundle(checkout: Path, tmp_path: Path) -> None:
    parts.manual(tmp_path / "clean", checkout)
    (checkout / "site").mkdir()
    (checkout / "site" / "index.html").write_text("as it was")
    parts.manual(tmp_path / "stale", checkout)
    assert b"As it is now" in files(tmp_path / "stale")["index.html"]
    assert files(tmp_path / "stale") == files(tmp_path / "clean")
    assert files(checkout / "site") == {"index.html": b"as it was"}


def test_a_manual_that_does_not_build_ends_it(checkout: Path, tmp_path: Path) -> None:
    (checkout / "docs" / "index.md").write_text("# One\n\n[two](two.md)\n")
    with pytest.raises(LabError, match=r"(?s)the manual must build; .*page does not exist"):
        parts.manual(tmp_path / "out", checkout)
    assert not (tmp_path / "out").exists()
