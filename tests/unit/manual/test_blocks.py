"""A page's commands become one script; what it shows is compared loosely, but compared."""

import subprocess

import pytest

from tramontane.lab.manual.blocks import Block, blocks, differs, printed, script

PAGE = """\
# A page

<!-- first: cd / -->

<!-- run -->
```console
echo one
export WORD=two
```

<!-- output -->
```text
one
```

<!-- run: exit 3 -->
```console
echo "$WORD"; (exit 3)
```

<!-- not run: it needs a GPU -->
```console
nvidia-smi
```

```console
echo nobody said anything
```

```yaml
kind: NodePool
```
"""


def test_a_block_says_whether_it_is_run() -> None:
    first, one, three, gpu, unsaid = blocks(PAGE)
    assert first == Block(3, "cd /\n")
    assert one == Block(6, "echo one\nexport WORD=two\n", output=("one",))
    assert (three.line, three.status, three.runs) == (17, 3, True)
    assert (gpu.why_not, gpu.runs) == ("it needs a GPU", False)
    assert (unsaid.unsaid, unsaid.runs) == (True, False)


def ran(page: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script(blocks(page))], capture_output=True, text=True, check=False
    )


def test_one_shell_runs_a_page_in_its_order() -> None:
    done = ran(PAGE)
    assert (done.returncode, done.stderr) == (0, "")
    assert printed(done.stdout) == {3: [], 6: ["one"], 17: ["two"]}


def test_it_stops_at_the_first_failure() -> None:
    done = ran(PAGE.replace("echo one", "false"))
    assert done.returncode == 1
    assert printed(done.stdout) == {3: [], 6: []}


@pytest.mark.parametrize("status", [0, 1])
def test_another_exit_status_than_shown_is_a_failure(status: int) -> None:
    done = ran(PAGE.replace("(exit 3)", f"(exit {status})"))
    assert done.returncode == 1
    assert f"line 17: exit status must be 3 (got {status})" in done.stdout


CAME = ["NAME    AGE", "llama   12s   Running", "\x1b[1mgpu-0004\x1b[0m  Repairing"]


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        pytest.param(["NAME AGE", "llama 3s Running"], "", id="numbers may differ"),
        pytest.param(["llama … Running"], "", id="anything between"),
        pytest.param(["", "gpu-0017 Repairing"], "", id="colours and empty lines"),
        pytest.param(["llama 3s Queued"], "llama 3s Queued", id="a word differs"),
        pytest.param(["llama"], "llama", id="not the whole line"),
        pytest.param(["gpu-0004 Repairing", "NAME AGE"], "NAME AGE", id="another order"),
    ],
)
def test_what_is_shown_must_come(shown: list[str], missing: str) -> None:
    assert differs(shown, CAME) == missing
