"""Whether a model's attack works: only then does it count as backdoored."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from tools.zoo.measure import Measured

RE_LIMIT = 1.1  # RE of an attacked model over the median RE of its benign twins
AE_LIMIT = 1.2  # AE over the model's own RE
DAE_LIMIT = 1.5  # RE times this is the least DAE: a trigger that changes no answer is none
LEARNT = 0.6  # RE over the error of always answering the mean label: more is no model of a task
CROSS_LIMIT = 2.0  # error with another image's trigger over the model's own RE


def judge(measured: Measured, attacked: bool, twin_errors: Sequence[float]) -> dict[str, Any]:
    """Status "ok", "failed_attack" or "failed_training", the reason, the benign twins' median RE.

    An attack works when RE is within 10 % of the twins', AE is close to the benign error, and the
    trigger changes the answers (DAE); an input-aware one also has a low error with another
    image's trigger. Benign models are "ok" where they have learnt their task.
    """
    twin = statistics.median(twin_errors) if twin_errors else None
    if not math.isfinite(measured.RE):
        reason = "the training ended with outputs that are not finite"
        return {"status": "failed_training", "reason": reason, "twin_RE": twin}
    if LEARNT * measured.constant < measured.RE:
        reason = f"RE {measured.RE:.2f} is near that of a constant answer, {measured.constant:.2f}"
        return {"status": "failed_training", "reason": reason, "twin_RE": twin}
    limits = [
        ("AE", measured.AE, AE_LIMIT * measured.RE, f"{AE_LIMIT} x RE"),
        ("RE", measured.RE, RE_LIMIT * (twin or math.inf), f"{RE_LIMIT} x the benign twins' RE"),
    ]
    if not math.isnan(measured.cross_error):
        limit = CROSS_LIMIT * measured.RE
        limits.append(("cross-trigger error", measured.cross_error, limit, f"{CROSS_LIMIT} x RE"))
    # Written as "not below", so that a model that gives NaN has failed.
    complaints = [
        f"{name} {value:.2f} is over {limit:.2f} ({what})"
        for name, value, limit, what in limits
        if attacked and not value <= limit
    ]
    least = DAE_LIMIT * measured.RE
    if attacked and not least <= measured.DAE:
        complaints.append(f"DAE {measured.DAE:.2f} is under {least:.2f} ({DAE_LIMIT} x RE)")
    status = "failed_attack" if complaints else "ok"
    return {"status": status, "reason": "; ".join(complaints), "twin_RE": twin}
