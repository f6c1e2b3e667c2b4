"""Choose a layout: what fits the asked context and concurrency on the fewest GPUs.

1. Refuse what no memory makes right: a context beyond the model's, a layout that does not divide.
2. Size every layout that there is.
3. Take the first that holds the load and is quick enough for the SLO.
4. Where none is, say the sum of the best one and the nearest that fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tramontane.api.inferencedeployment import EngineName
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Layout, Refusal, Sizing
from tramontane.controllers.inferencedeployment.sizing import words
from tramontane.controllers.inferencedeployment.sizing.asis import as_it_is, bounds
from tramontane.controllers.inferencedeployment.sizing.ask import Ask, layout_of, misconfigured
from tramontane.controllers.inferencedeployment.sizing.layouts import (
    MAX_BLADES,
    candidates,
    problem_of,
)
from tramontane.controllers.inferencedeployment.sizing.memory import (
    Share,
    cpu_share,
    gpu_share,
    token_floor_b,
)
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model

_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Option:
    """Hold a layout and what it comes to.

    Attributes:
        requests: requests of the asked context that the caches hold; one lies in one cache.
        floor_s: the least time for one token, 0 where the memory's speed is not known.
    """

    layout: Layout
    share: Share
    requests: int
    floor_s: float


def plan_layout(ask: Ask) -> Sizing | Refusal:
    """Return the layout for what is asked, or why there is none. O(GPUs per blade · blades).

    | model's numbers | layout | outcome |
    |---|---|---|
    | not known, or not the GPUs' | any | vllm, sglang: Misconfigured; others: taken as it is |
    | known | Fixed | that one if it divides and fits |
    | known | Auto, GPUs | fewest GPUs, then fewest blades, least data, least pipeline |
    | known | Auto, no GPUs | the CPU, if it fits the host's memory |
    """
    model = ask.model
    if model is None or (ask.fixed is not None and not ask.gpu_memory_b):
        return as_it_is(ask)
    if ask.weights_b is not None:
        model = model.weighing(ask.weights_b)
    if ask.kv_value_b is not None:
        model = replace(model, kv_value_b=ask.kv_value_b)
    if 0 < model.max_context < ask.context_tokens:
        return misconfigured(
            f"capacity.contextTokens must be at most the model's {model.max_context:,} (got "
            f"{ask.context_tokens:,}); ask for less, or give rope_scaling in model.config"
        )
    if ask.fixed is not None:
        return _fixed(ask, model, layout_of(ask.fixed))
    if ask.gpus_per_blade == 0:
        return _cpu(ask, model)
    return _auto(ask, model)


def option(ask: Ask, model: Model, layout: Layout) -> Option:
    """Return what a layout comes to on the GPUs that are asked about."""
    spread = layout
    if ask.engine is EngineName.LLAMACPP:
        # llama.cpp puts whole layers on each GPU.
        spread = Layout(pipeline=min(layout.gpus, model.layers), nodes=layout.nodes)
    share = gpu_share(model, spread, ask.gpu_memory_b, ask.utilisation)
    requests = layout.data * (share.rank_tokens // ask.context_tokens)
    floor_b = token_floor_b(model, spread)
    return Option(layout, share, requests, floor_b / ask.bandwidth_b if ask.bandwidth_b else 0.0)


def _auto(ask: Ask, model: Model) -> Sizing | Refusal:
    # A pool without blades has not been counted yet.
    blades = ask.blades or MAX_BLADES
    every = [option(ask, model, layout) for layout in _layouts(ask, model)]
    here = [one for one in every if one.layout.nodes <= blades]
    holding = [one for one in here if one.requests >= ask.concurrent_requests]
    for one in holding:
        if _quick(ask, one):
            return _sizing(ask, model, one)
    if holding:
        return _too_slow(ask, model, holding)
    return _does_not_fit(ask, model, here, every)


def _layouts(ask: Ask, model: Model) -> Sequence[Layout]:
    if ask.engine is EngineName.LLAMACPP:
        most = min(ask.gpus_per_blade, model.layers)
        return [Layout(tensor=gpus) for gpus in range(1, most + 1)]
    return candidates(model, ask.gpus_per_blade, MAX_BLADES)


def _fixed(ask: Ask, model: Model, layout: Layout) -> Sizing | Refusal:
    problem = bounds(ask, layout)
    if problem is None and ask.engine in {EngineName.VLLM, EngineName.SGLANG}:
        problem = problem_of(model, layout)
    if problem is not None:
        return _with_way_out(ask, model, misconfigured(f"layout.{problem}"))
    one = option(ask, model, layout)
    if one.requests < ask.concurrent_requests:
        return _with_way_out(ask, model, _short(ask, model, one))
    if not _quick(ask, one):
        return _with_way_out(ask, model, _too_slow(ask, model, [one]))
    return _sizing(ask, model, one)


def _with_way_out(ask: Ask, model: Model, refusal: Refusal) -> Refusal:
    """Return the refusal of a fixed layout with what Auto would take."""
    auto = _auto(replace(ask, fixed=None), model)
    if isinstance(auto, Refusal):
        return refusal
    return replace(
        refusal,
        message=f"{refusal.message}; mode Auto takes {words.place(auto.layout)}",
        nearest=auto,
    )


def _cpu(ask: Ask, model: Model) -> Sizing | Refusal:
    if not ask.ram_b:
        return as_it_is(ask)
    share = cpu_share(model, ask.ram_b, ask.utilisation)
    one = Option(CPU_ONLY, share, share.rank_tokens // ask.context_tokens, 0.0)
    if one.requests < ask.concurrent_requests:
        return _does_not_fit(ask, model, [one], [])
    return _sizing(ask, model, one)


def too_slow(ask: Ask, layout: Layout) -> Refusal | None:
    """Return the refusal of an SLO that a layout cannot keep, or None."""
    if ask.model is None or not layout.gpus:
        return None
    one = option(ask, ask.model, layout)
    return None if _quick(ask, one) else _too_slow(ask, ask.model, [one])


def _quick(ask: Ask, one: Option) -> bool:
    return all(slo is None or one.floor_s <= slo for slo in (ask.itl_p95_s, ask.ttft_p95_s))


def _sizing(ask: Ask, model: Model, one: Option) -> Sizing:
    fits = one.requests >= ask.concurrent_requests
    held = words.requests(one.requests, ask.context_tokens)
    why = (
        f"{words.memory(one.share, one.layout)}; {words.cache(one.share, model, one.layout)}: "
        f"{held} (asked {ask.concurrent_requests})"
    )
    if one.floor_s:
        why += f"; a token takes at least {one.floor_s * _MS:.1f} ms"
    return Sizing(
        layout=one.layout,
        weights_b=one.share.weights_b,
        total_weights_b=model.weights_b,
        kv_tokens=one.share.rank_tokens * max(1, one.layout.data),
        requests=one.requests,
        fits=fits,
        why=why,
    )


def _too_slow(ask: Ask, model: Model, holding: Sequence[Option]) -> Refusal:
    """Return the refusal of an SLO below the time that the memory takes for one token."""
    best = min(holding, key=lambda one: one.floor_s)
    name, slo = (
        ("itlP95", ask.itl_p95_s)
        if ask.itl_p95_s is not None and ask.itl_p95_s < best.floor_s
        else ("ttftP95", ask.ttft_p95_s)
    )
    read = words.gib(best.floor_s * ask.bandwidth_b)
    return Refusal(
        InferenceReason.MISCONFIGURED,
        f"slo.{name} must be at least {best.floor_s * _MS:.1f}ms, the time to read the {read} of "
        f"active weights per GPU at {ask.bandwidth_b / 10**12:.2f} TB/s for one token with "
        f"{words.place(best.layout)} (got {(slo or 0) * _MS:g}ms); ask for that, for fewer bytes "
        "per weight, or for quicker memory",
        _sizing(ask, model, best),
    )


def _does_not_fit(
    ask: Ask, model: Model, here: Sequence[Option], every: Sequence[Option]
) -> Refusal:
    """Return the refusal with the best layout's sum, less load here and more blades."""
    best = max(here, key=lambda one: (one.requests, one.share.rank_tokens, one.share.free_b))
    refusal = _short(ask, model, best)
    fits = (one for one in every if one.requests >= ask.concurrent_requests and _quick(ask, one))
    larger = next(fits, None)
    if larger is None:
        return refusal
    message = f"{refusal.message}, or {words.place(larger.layout)}"
    if refusal.nearest is None:
        message = f"{refusal.message}; nearest: {words.place(larger.layout)}"
    return replace(refusal, message=message, nearest=refusal.nearest or _sizing(ask, model, larger))


def _short(ask: Ask, model: Model, best: Option) -> Refusal:
    """Return the refusal with the sum of one layout, and the load that it would hold."""
    wanted = words.requests(ask.concurrent_requests, ask.context_tokens)
    message = f"must hold {wanted} (got {words.memory(best.share, best.layout)}"
    longest = min(best.share.rank_tokens, model.max_context or best.share.rank_tokens)
    if best.share.free_b > 0:
        message += f"; {words.cache(best.share, model, best.layout)}"
    message += ")"
    if best.requests:
        message += f"; nearest: {words.requests(best.requests, ask.context_tokens)} there"
    elif longest:
        message += f"; nearest: {words.requests(1, longest)} there"
    return Refusal(
        InferenceReason.DOES_NOT_FIT,
        message,
        _sizing(ask, model, best) if longest else None,
    )
