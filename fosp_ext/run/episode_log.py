"""The log line of a safe agent's training episode: policies that acted, warnings, their recall."""

from __future__ import annotations

import numpy as np

from dreamer.functional import violates
from dreamer.training import episode_log
from dreamer.training.collector import CollectedEpisode
from dreamer.training.episode_log import EpisodeRecord, Line, bits
from fosp_ext.run.warnings import count_warnings

DECIMALS = 3  # of p; warnings are counted after rounding, so the file has the values counted
MEANS = ("online_share", "violation_probability_mean", "violation_probability_max")
SHARES = {  # metric -> (part, whole); a share of zero events is left out
    "warning_share": ("warnings", "length"),
    "warning_recall": ("warned", "onsets"),
    "false_warning_share": ("false_warnings", "judged_warnings"),
}


def describe(
    played: CollectedEpisode,
    env: int,
    updates: int,
    agent_steps: int,
    warning: float,
    violation: float,
) -> EpisodeRecord:
    """As `dreamer.training.episode_log.describe`, with the estimates of the policy at each step.

    `warning` is the violation probability p above which a step is a warning, `violation` the cost
    from which on it violates.
    """
    plain = episode_log.describe(played, env, updates, agent_steps, violation)
    line = plain.line | _choices(played) | _warnings(played, warning, violation)
    metrics = {name: float(line[name]) for name in MEANS if name in line}
    for name, (part, whole) in SHARES.items():
        if part in line and line[whole] > 0:
            metrics[name] = line[part] / line[whole]
    tagged = {f"episode/{name}": value for name, value in metrics.items()}
    return EpisodeRecord(line, plain.metrics | tagged)


def _choices(played: CollectedEpisode) -> Line:
    """At which steps the learning policy's action was taken, where there is a policy set."""
    if "online" not in played.estimates:
        return {}
    online = played.estimates["online"] > 0.5  # it is 0.0 or 1.0, (T,)
    return {"online_share": float(online.mean()), "online": bits(online)}


def _warnings(played: CollectedEpisode, warning: float, violation: float) -> Line:
    """The estimated violation probability, and what its warnings were worth."""
    if "violation_probability" not in played.estimates:
        return {}
    estimate = played.estimates["violation_probability"].astype(np.float64)
    probability = np.round(estimate, DECIMALS)  # (T,)
    violations = violates(played.episode.cost, violation)
    warnings = count_warnings(probability, violations, warning)
    return {
        "violation_probability_mean": float(probability.mean()),
        "violation_probability_max": float(probability.max()),
        "warnings": warnings.raised,
        "judged_warnings": warnings.judged,
        "false_warnings": warnings.false,
        "warned": warnings.warned,
        "violation_probability": probability.tolist(),
    }
