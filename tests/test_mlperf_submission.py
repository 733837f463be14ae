"""The ``valid`` profile beside MLPerf's submission checker, and what that objects to."""

from importlib.util import find_spec

import pytest
from mlperf_child import shown

from pytest_gpuperf.mlperf.submission import SEEDS, objections

GOOD = {
    **SEEDS["v6.1"],
    "effective_scenario": "MultiStream",
    "result_validity": "VALID",
    "early_stopping_met": True,
    "effective_performance_sample_count": 1024,
    "effective_min_duration_ms": 600_000,
    "effective_samples_per_query": 8,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"result_validity": "INVALID"}, "LoadGen calls it INVALID"),
        ({"early_stopping_met": False, "early_stopping_result": "few"}, "early stopping was not met: few"),
        ({"effective_performance_sample_count": 64}, "sample_count is 64, and 1,024 is the least"),
        ({"effective_min_duration_ms": 3000}, "min_duration_ms is 3000, and 600,000 is the least"),
        ({"effective_qsl_rng_seed": 0}, "seeds are those of no round"),
        ({"effective_scenario": "Offline"}, "samples_per_query is 8, and 24,576 is the least"),
        ({"effective_scenario": "Server", "effective_target_latency_ns": 2e7}, "is more than 15,000,000"),
        ({"effective_scenario": "Server", "effective_target_latency_ns": 15_000_000}, None),
    ],
)
def test_each_rule_that_a_log_breaks_is_said(change, said):
    found = objections({**GOOD, **change})
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
    assert len(objections({**GOOD, **change}, errors=2)) == len(found) + 1


@pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)
def test_the_checker_objects_only_to_a_shortened_valid_phase(tmp_path):
    found = shown(
        """
        from dataclasses import replace
        from pytest_gpuperf.mlperf import read_logs
        class Many(Numbers):
            def __init__(self, count=None):
                super().__init__(count, np.arange(1024) % 10)
        class Quick(Echo):
            batch_sizes = (1, 256)
            model = replace(Echo.model, dataset=Many)
            def run(self, batch):
                time.sleep(0.005 if len(batch) > 8 else 0.0003)
                return batch[:, 0].astype(np.int64)
        from pytest_gpuperf.mlperf.settings import Scenario
        server = replace(Scenario.of("Server"), qps=1000.0)
        logged = {}
        for scenario in ("SingleStream", "MultiStream", server, "Offline"):
            name = getattr(scenario, "name", scenario)
            quick = Quick()
            if name == "MultiStream":
                quick.batch_sizes = (1, 8)
            given = {"log_dir": Path(name), "profile": "valid", "seconds": 0.6}
            for _ in range(5):  # a busy host is late for Server's 15 ms now and then
                if error_of(loadgen.performance, quick, scenario, **given) is None:
                    break
            logged[name] = read_logs(name).objections
        show(**logged)
        """,
        tmp_path,
    )
    length = ["effective_min_duration_ms is 600, and 600,000 is the least"]
    assert found == dict.fromkeys(("SingleStream", "MultiStream", "Server", "Offline"), length)
