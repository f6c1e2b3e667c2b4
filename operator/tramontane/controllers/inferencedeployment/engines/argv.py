"""Render the command line and the environment of an engine, for one seat of a replica.

A template per kind of engine, one argument per line; what differs between versions asks
`knows("--flag")`. Engine custom needs none: its command is that of the pod's template. The result
is a list that goes to the kernel as it is: no shell reads it, so that nothing needs quotes, and
nothing in a name can become a command. A value with a line break is refused, because it would
become two arguments.
"""

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from tramontane.api.errors import InvalidValue
from tramontane.api.inferencedeployment import EngineName
from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData
from tramontane.controllers.inferencedeployment.engines.launch import MASTER, Launch, cannot

# All weights are local: whoever asks a hub anyway fails at once and not after its time-outs.
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# Kubernetes replaces it: the pod's own address, where TRAMONTANE_POD_IP stands before it in `env`.
_POD_IP: Final = "$(TRAMONTANE_POD_IP)"


def argv(engine: EngineData, launch: Launch, seat: int) -> tuple[str, ...]:
    """Return the arguments, the program first, of the engine on a seat.

    Raises:
        InvalidValue: where the engine `cannot` do it, or a value has a line break.
    """
    if why_not := cannot(engine, launch):
        raise InvalidValue(why_not)
    if not 0 <= seat < launch.seats:
        raise InvalidValue(f"seat must be from 0 to {launch.seats - 1}", seat)
    if engine.name is EngineName.CUSTOM:
        return launch.command + launch.extra_args
    text = _template(engine.kind).render(
        launch=launch,
        layout=launch.layout,
        seat=seat,
        master=MASTER,
        knows=engine.knows,
    )
    return (*(line for line in text.splitlines() if line), *map(_one_line, launch.extra_args))


def environment(engine: EngineData, launch: Launch, seat: int) -> dict[str, str]:
    """Return the engine's own variables; they may refer to those of the agent, which come first."""
    own: dict[str, str] = {}
    match engine.kind:
        case "vllm":
            own = {"VLLM_HOST_IP": _POD_IP, "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
            if launch.adapters and seat == 0:
                own["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        case "sglang":
            own = {"SGLANG_HOST_IP": _POD_IP}
        case "custom":
            own = {"TRAMONTANE_MODEL": launch.path, "TRAMONTANE_SERVED_NAME": launch.served_name}
    if engine.ready_variable and launch.ready_s is not None:
        own[engine.ready_variable] = str(launch.ready_s)
    return {name: _one_line(value) for name, value in (_OFFLINE | own).items()}


@cache
def _template(kind: str) -> Template:
    # No escaping: this is no HTML, and an argument must arrive as it is.
    return Environment(
        loader=PackageLoader(__package__, "render"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - see above
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_one_line,
    ).get_template(f"{kind}.j2")


def _one_line(value: Any) -> str:
    """Return a value as one argument; jinja calls it for everything that a template inserts."""
    text = str(value)
    if text.splitlines() not in ([], [text]) or "\0" in text:
        raise InvalidValue("an argument must be one line", text, "leave the line break out")
    return text
