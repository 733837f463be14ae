"""MLPerf's configuration files: what they say, what is mistyped, and that LoadGen gets it."""

import re
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from mlperf_child import shown

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import configuration
from pytest_gpuperf.mlperf.request import Request
from pytest_gpuperf.mlperf.settings import Profile, Scenario, require_room

PLAIN = {"mode": "performance", "precision": "fp32"}


def written(tmp_path, text, name="user.conf"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_nearer_line_wins_as_in_loadgen(tmp_path):
    lines = """
        # a comment
        resnet50.*.min_query_count = 3   # of the model, in any scenario
        *.Offline.min_query_count = 2
        *.*.min_query_count = 1
        resnet50.Offline.qsl_rng_seed = 0x10
        bert.Offline.qsl_rng_seed = 5
        *.Server.target_latency_percentile = 99.5
    """
    found = configuration.read(written(tmp_path, lines))
    assert found.of(["resnet50-digits", "resnet50"], "Offline") == {"min_query_count": 2, "qsl_rng_seed": 16}
    assert found.of(["resnet50"], "SingleStream") == {"min_query_count": 3}
    assert found.of(["other"], "Server") == {"min_query_count": 1, "target_latency_percentile": 99.5}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*.Offline.min_query_cuont = 5", 'no key "min_query_cuont": did you mean "min_query_count"'),
        ("*.offline.min_duration = 5", 'no scenario "offline": did you mean "Offline"'),
        ("*.Offline.target_latency = 5", '"target_latency" has no meaning in Offline'),
        ("*.Offline.min_duration=5", 'must be "model.Scenario.key = value", with the spaces'),
        ("min_duration = 5", 'must be "model.Scenario.key = value"'),
        ("*.Offline.min_duration = ten", '"ten" is no number'),
        ("*.*.*.min_duration = 5", '"\\*\\.\\*" is no model; give one name, or \\* for any'),
        ("*.*.min_query_count = nan", '"nan" is no number'),
        ("*.*.min_query_count = 1_000", '"1_000" is no number'),  # LoadGen would read 1
        ("*.*.min_query_count = 1e3", "give it without an exponent"),  # it would read 1
        ("*.*.min_duration = 1E3", "min_duration = 1E3; give it without an exponent, which LoadGen does not"),
        ("*.*.min_query_count = 0b10", '"0b10" is no number'),  # it would read nothing of the file
        ("*.*.min_query_count = 0o10", '"0o10" is no number'),
        ("*.*.target_latency = \N{FULLWIDTH DIGIT FIVE}.5", "is no number"),
        ("*.*.min_query_count = \N{ARABIC-INDIC DIGIT FIVE}", "is no number"),
        ("*.*.min_query_count = 1.5", "min_query_count = 1.5; give a whole number of at least 0"),
        ("*.*.qsl_rng_seed = -1", "qsl_rng_seed = -1; give a whole number of at least 0, in 64 bits"),
        ("*.*.qsl_rng_seed = 18446744073709551616", "give a whole number of at least 0, in 64 bits"),
        (
            "*.*.target_latency = 1e15",
            "target_latency = 1e15; give a number of ms .* below 9,223,372,036,854",
        ),
        ("*.*.max_duration = 9223372036854775807", "a number of ms of at least 0 and below"),
        ("*.*.min_duration = -1", "a number of ms of at least 0 and below"),
        ("*.Offline.target_qps = -2.5", "target_qps = -2.5; give a number of at least 0"),
        ("*.Server.target_latency_percentile = 200", "percentile = 200; give a number of percent, above 0"),
    ],
)
def test_a_line_that_loadgen_would_pass_over_is_named(tmp_path, line, said):
    path = written(tmp_path, f"*.*.min_duration = 5\n\n{line}\n")
    with pytest.raises(GpuperfError, match=f"user.conf, line 3: .*{said}") as error:
        Request.of((), scenario="Offline", user_conf=path, **PLAIN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.conf", "nowhere.conf cannot be read: No such"),
        ("null\0", "cannot be read: embedded null byte"),
        (3, "3 is no"),
    ],
)
def test_a_file_that_is_none(given, said):
    with pytest.raises(GpuperfError, match=said):
        Request.of((), scenario="Offline", mlperf_conf=given, **PLAIN)


@pytest.mark.parametrize(
    ("scenario", "line", "count"),
    [
        ("SingleStream", "min_query_count = 100000000", "1e+08"),
        ("MultiStream", "target_latency = 0.000001", "2e+09"),
        ("SingleStream", "target_latency = 0", "inf"),
        ("Server", "min_query_count = 100000000", "1e+08"),
        ("Offline", "target_qps = 1000000000000", "1.1e+12"),
        ("Offline", "min_query_count = 18446744073709551615", "1.84e+19"),
    ],
)
def test_no_file_makes_loadgen_fill_the_memory(tmp_path, scenario, line, count):
    """It would end the process by a signal, or the machine's other ones."""
    asked, short = replace(Scenario.of(scenario), qps=100.0), Profile.of("short")
    made = SimpleNamespace(
        min_duration_ms=1000,
        min_query_count=11,
        offline_expected_qps=100.0,
        single_stream_expected_latency_ns=10**6,
        multi_stream_expected_latency_ns=10**6,
        server_target_qps=100.0,
    )
    require_room(made, asked, short, {"min_query_count": 11})
    said = configuration.read(written(tmp_path, f"*.*.{line}")).of((), scenario)
    configuration.apply(made, said, scenario)
    with pytest.raises(
        GpuperfError, match=f"by the configuration \\(.*\\) they would be {re.escape(count)}, .* 1 GiB"
    ):
        require_room(made, asked, short, said)


@pytest.mark.parametrize("model", ["resnet-50", "ResNet50"])
def test_a_mistyped_name_of_the_model_is_named(tmp_path, model):
    path = written(tmp_path, f"bert.Offline.min_query_count = 1\n{model}.Offline.min_query_count = 2\n")
    said = f'user.conf: there is no model "{model}": did you mean "resnet50"'
    with pytest.raises(GpuperfError, match=said):
        Request.of(("resnet50-digits", "resnet50"), scenario="Offline", user_conf=path, **PLAIN)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*.*.min_duration = 0", "min_duration = 0, so seconds=0.0; give a number of seconds above 0"),
        ("*.Server.target_qps = 0", "target_qps = 0, so qps=0; give a number above 0"),
        ("*.*.performance_sample_count_override = 0", "override = 0, so performance_sample_count=0; give"),
    ],
)
def test_what_cannot_be_meant_is_said_of_the_file(tmp_path, line, said):
    with pytest.raises(GpuperfError, match=f"user.conf: .*{said}"):
        Request.of((), scenario="Server", user_conf=written(tmp_path, line), **PLAIN)


def test_an_editors_mark_at_the_beginning_is_no_part_of_a_line(tmp_path):
    lines = "\ufeff*.*.qsl_rng_seed = 18446744073709551615\r\n*.*.min_query_count = 0x64\r\n"
    path = written(tmp_path, lines)
    found = configuration.read(path).of(["m"], "Offline")
    assert found == {"qsl_rng_seed": 18446744073709551615, "min_query_count": 100}


def test_what_an_argument_can_say_becomes_one_and_it_wins(tmp_path):
    path = written(
        tmp_path,
        "*.Server.target_qps = 50\n*.Server.target_latency = 20\n*.*.min_duration = 2500\n*.*.mode = 2\n"
        "*.*.performance_sample_count_override = 7\n*.*.schedule_rng_seed = 9\n",
    )
    over = written(tmp_path, "*.Server.target_qps = 60\n", "mlperf.conf")
    given = {"scenario": "Server", "mlperf_conf": over, "user_conf": path, **PLAIN}
    asked = Request.of(("m",), **given)
    assert (asked.qps, asked.max_latency, asked.seconds) == (50, 0.02, 2.5)
    assert asked.performance_sample_count == 7
    assert asked.configured == {"schedule_rng_seed": 9}
    assert Request.of(("m",), **given, qps=5).qps == 5
    with pytest.raises(GpuperfError, match='user_conf= is for mode="performance"'):
        Request.of(("m",), **{**given, "mode": "accuracy", "mlperf_conf": None})


def test_settings_are_set_in_loadgens_units():
    made = SimpleNamespace(
        server_target_latency_percentile=0.99,
        performance_issue_same=False,
        single_stream_expected_latency_ns=1,
    )
    configuration.apply(made, {"target_latency_percentile": 95, "performance_issue_same": 1}, "Server")
    configuration.apply(made, {"target_latency": 2}, "SingleStream")
    assert made.server_target_latency_percentile == pytest.approx(0.95)
    assert made.performance_issue_same is True
    assert made.single_stream_expected_latency_ns == 2_000_000


@pytest.mark.skipif(find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed")
def test_loadgen_gets_it(tmp_path):
    found = shown(
        """
        import mlperf_loadgen as lg
        from pytest_gpuperf.mlperf import configuration, logs
        made = lg.TestSettings()
        known = [*configuration.EVERY.values()]
        known += [one for keys in configuration.OF_SCENARIO.values() for one in keys.values()]
        missing = [name for name, _ in known if not hasattr(made, name)]
        audit = {"accuracy_log_rng_seed": 720381539243781796, "accuracy_log_sampling_target": 4096,
                 "qsl_rng_seed": 12}
        r = loadgen.performance(Echo(), "SingleStream", log_dir=Path("p"), seconds=0.2, configured=audit)
        detail = logs.read_detail(Path("p")).values
        answers = json.loads(Path("p", logs.ACCURACY).read_text())
        show(missing=missing, seed=detail["effective_qsl_rng_seed"], logged=len(answers),
             contract=r.contract["configuration"], seed_qsl=r.contract["seed_qsl"])
        """,
        tmp_path,
    )
    assert found["missing"] == []
    assert (found["seed"], found["seed_qsl"]) == (12, 12)
    assert found["logged"] > 10  # TEST01's: answers of a performance phase
    assert "accuracy_log_sampling_target=4096" in found["contract"]
