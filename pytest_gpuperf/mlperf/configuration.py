"""MLPerf's configuration files: ``model.Scenario.key = value`` on each line, "*" for any model or scenario.

LoadGen itself passes over a line that it does not know, without a word. Here that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.files import reason
from pytest_gpuperf.mlperf.settings import SCENARIOS

MS, PERCENT = 1_000_000, 0.01
# What LoadGen 6.0 reads (loadgen/test_settings_internal.cc): its setting, and by what it multiplies.
EVERY: Mapping[str, tuple[str, float]] = {
    **{
        key: (key, 1)
        for key in (
            "min_query_count",
            "max_query_count",
            "qsl_rng_seed",
            "sample_index_rng_seed",
            "schedule_rng_seed",
            "accuracy_log_rng_seed",
            "accuracy_log_sampling_target",
            "performance_issue_unique",
            "performance_issue_same",
            "performance_issue_same_index",
            "performance_sample_count_override",
            "sample_concatenate_permutation",
            "print_timestamps",
        )
    },
    "min_duration": ("min_duration_ms", 1),
    "max_duration": ("max_duration_ms", 1),
    "accuracy_log_probability": ("accuracy_log_probability", PERCENT),
}
OF_SCENARIO: Mapping[str, Mapping[str, tuple[str, float]]] = {
    "SingleStream": {
        "target_latency": ("single_stream_expected_latency_ns", MS),
        "target_latency_percentile": ("single_stream_target_latency_percentile", PERCENT),
    },
    "MultiStream": {
        "target_latency": ("multi_stream_expected_latency_ns", MS),
        "target_latency_percentile": ("multi_stream_target_latency_percentile", PERCENT),
        "samples_per_query": ("multi_stream_samples_per_query", 1),
    },
    "Server": {
        "target_latency": ("server_target_latency_ns", MS),
        "target_latency_percentile": ("server_target_latency_percentile", PERCENT),
        "target_qps": ("server_target_qps", 1),
        "coalesce_queries": ("server_coalesce_queries", 1),
    },
    "Offline": {"target_qps": ("offline_expected_qps", 1)},
}
# In MLPerf's own file for other models, or without a meaning for the fixture, which chooses the mode itself.
PASSED_OVER = (
    "mode",
    "max_async_queries",
    "accuracy_sample_count_override",
    "use_token_latencies",
    "infer_token_latencies",
    "token_latency_scaling_factor",
    "ttft_latency",
    "tpot_latency",
    "test05",
    "test05_qsl_rng_seed",
    "test05_sample_index_rng_seed",
    "test05_schedule_rng_seed",
)
# Other keys than these three are whole numbers, in 64 bits. LoadGen reads an exponent in REALS and PERCENTS.
REALS = ("target_latency", "target_qps", "token_latency_scaling_factor")
TIMES = ("target_latency", "min_duration", "max_duration")
LONGEST = 2**63 // MS  # LoadGen holds nanoseconds: of more it makes 0, and then queries without an end
PERCENTS = ("target_latency_percentile", "accuracy_log_probability")
_WHOLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)")  # 010 would be 8
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
KEYS = sorted({*EVERY, *PASSED_OVER, *(key for keys in OF_SCENARIO.values() for key in keys)})


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a file says: a number for each (model, scenario, key), the last line for one being the one."""

    path: Path
    values: Mapping[tuple[str, str, str], int | float]

    def of(self, models: Sequence[str], scenario: str) -> dict[str, int | float]:
        """Return what the files say of a scenario of a model, under any of its names.

        As in LoadGen the model's own line of the scenario comes first, then any model's of the scenario, and
        then those of any scenario. Other models are passed over, but not a mistyped name of this one.
        """
        known = {_plain(name): name for name in models}
        for model in sorted({model for model, _, _ in self.values} - {"*", *models}):
            if name := known.get(_plain(model)):
                raise GpuperfError(f'{self.path}: there is no model "{model}": did you mean "{name}"?')
        found: dict[str, int | float] = {}
        for name, where in (("*", "*"), (None, "*"), ("*", scenario), (None, scenario)):
            for (model, line, key), value in self.values.items():
                if line == where and (model == name if name else model in models):
                    found[key] = value
        return found


def read(path: Any) -> Configuration:
    """Read a configuration file; raises GpuperfError naming the line with what LoadGen would not read."""
    if not isinstance(path, str | Path):
        raise GpuperfError(f"loadgen: {short(path)} is no configuration file; give its path")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else reason(error)
        raise GpuperfError(f"loadgen: the configuration {path} cannot be read: {why}") from None
    values = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            name, value = _entry(text, f"{path}, line {number}")
            values[name] = value
    return Configuration(Path(path), values)


def _entry(text: str, where: str) -> tuple[tuple[str, str, str], int | float]:
    words = text.split()
    parts = words[0].split(".") if words else []
    if len(words) != 3 or words[1] != "=" or len(parts) < 3:
        raise GpuperfError(f'{where}: "{text}" must be "model.Scenario.key = value", with the spaces')
    model, scenario, key = ".".join(parts[:-2]), parts[-2], parts[-1]
    if "*" in model and model != "*":
        raise GpuperfError(f'{where}: "{model}" is no model; give one name, or * for any')
    if scenario != "*" and scenario not in SCENARIOS:
        raise GpuperfError(
            f'{where}: there is no scenario "{scenario}"{_near(scenario, SCENARIOS)}; '
            f"use {', '.join(SCENARIOS)} or *"
        )
    if key not in KEYS:
        raise GpuperfError(f'{where}: there is no key "{key}"{_near(key, KEYS)}')
    known = {*EVERY, *PASSED_OVER, *OF_SCENARIO.get(scenario, ())}
    if scenario != "*" and key not in known:
        raise GpuperfError(f'{where}: "{key}" has no meaning in {scenario}')
    return (model, scenario, key), _number(key, words[2], where)


def _number(key: str, text: str, where: str) -> int | float:
    """Return the value of a key; raises GpuperfError for one that LoadGen's setting cannot hold."""
    value: int | float
    fraction = _FRACTION.fullmatch(text)
    try:
        value = float(text) if fraction else int(text if _WHOLE.fullmatch(text) else "", 0)
    except ValueError:  # also more digits than int() takes
        raise GpuperfError(f'{where}: "{text}" is no number') from None
    if fraction and fraction[2] and key not in (*REALS, *PERCENTS):
        fits, wanted = False, "it without an exponent, which LoadGen does not read"
    elif key in PERCENTS:
        fits, wanted = 0 < value < 100, "a number of percent, above 0 and below 100"
    elif key in TIMES:
        fits, wanted = 0 <= value < LONGEST, f"a number of ms of at least 0 and below {LONGEST:,}"
    elif key in REALS:
        fits, wanted = 0 <= value < 2**63, "a number of at least 0"
    else:
        fits, wanted = value == int(value) and 0 <= value < 2**64, "a whole number of at least 0, in 64 bits"
        value = int(value) if fits else value
    if not fits:
        raise GpuperfError(f"{where}: {key} = {text}; give {wanted}")
    return value


def _plain(model: str) -> str:
    return "".join(filter(str.isalnum, model.lower()))


def _near(given: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(given, list(known), 1) or [k for k in known if k.lower() == given.lower()]
    return f': did you mean "{near[0]}"?' if near else ""


def apply(settings: Any, values: Mapping[str, int | float], scenario: str) -> None:
    """Set LoadGen's settings to what ``Configuration.of`` returned."""
    for key, value in values.items():
        entry = EVERY.get(key) or OF_SCENARIO[scenario].get(key)
        if entry is None:
            continue
        name, factor = entry
        now = getattr(settings, name)
        setattr(settings, name, type(now)(value if factor == 1 else value * factor))
