"""Size the spares of a pool from its failure rate: pure.

With a rate of r failures per 1,000 blade-days a blade fails within the repair time T with

    p = 1 - exp(-r / 1000 · T)                                      T in days

and while the failed ones are repaired, `k` spares are enough with the wanted confidence, if

    P[Binomial(n, p) > k] <= 1 - confidence                         smallest such k

Source: ByteRobust (SOSP'25) sizes its standbys so; reference/health.md, section 4. Failures of a
shared cause (a rack's power) are not independent, and no number of spares covers them.
"""

import math

# Source: Meta, RSC-1, 11 months: 6.50 failures per 1,000 node-days.
DEFAULT_RATE = 6.5
_DAY_S = 86_400.0
# Terms that are smaller than the wanted probability by this factor are left out.
_NEGLIGIBLE = 1e-17


def rate(failed: int, blade_days: float) -> float:
    """Return failures per 1,000 blade-days to reckon with.

    Where nothing was measured it is the default; what is measured outweighs that once more than
    one failure was to be expected. A quiet first week in a small pool is no proof of no failures.
    """
    return 1000.0 * (failed + 1) / (blade_days + 1000.0 / DEFAULT_RATE)


def failure_probability(rate_: float, repair_time_s: float) -> float:
    """Return the probability that a blade fails within the repair time."""
    return -math.expm1(-rate_ / 1000.0 * repair_time_s / _DAY_S)


def target(blades: int, rate_: float, confidence: float, repair_time_s: float) -> int:
    """Return how many blades to keep free."""
    return quantile(blades, failure_probability(rate_, repair_time_s), 1.0 - confidence)


def quantile(n: int, p: float, beyond: float) -> int:
    """Return the smallest k with P[Binomial(n, p) > k] <= `beyond`. O(sqrt(n)).

    The tail is summed from its thin end, term by term from the mode's, so that nothing cancels
    and nothing underflows, however small `beyond` is.
    """
    if n <= 0 or p <= 0 or beyond >= 1:
        return 0
    if p >= 1 or beyond <= 0:
        return n
    mode = min(n, int((n + 1) * p))
    at_mode = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(mode + 1)
        - math.lgamma(n - mode + 1)
        + mode * math.log(p)
        + (n - mode) * math.log1p(-p)
    )
    # 1. From the mode up, until what is left cannot matter.
    odds, terms, k = p / (1 - p), [at_mode], mode
    while k < n and terms[-1] > beyond * _NEGLIGIBLE:
        terms.append(terms[-1] * (n - k) / (k + 1) * odds)
        k += 1
    # 2. And down again, adding up P[X >= k].
    tail = 0.0
    while terms:
        tail += terms.pop()
        if tail > beyond:
            return k
        k -= 1
    # 3. The wanted point lies below the mode.
    term = at_mode
    while k >= 0:
        term *= (k + 1) / (n - k) / odds
        tail += term
        if tail > beyond:
            return k
        k -= 1
    return 0
