"""What a test asks of LoadGen, and models and datasets that do not fit, before anything runs."""

import math
from pathlib import Path

import numpy as np
import pytest
from labelled import Labelled

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import datasets, models
from pytest_gpuperf.mlperf.request import STALL, Request, require_audit

PLAIN = {"scenario": "SingleStream", "mode": "performance", "precision": "fp32"}


def test_what_was_not_given_has_its_default():
    asked = Request.of(**PLAIN)
    assert (asked.profile, asked.seconds, asked.tails, asked.stall) == ("short", None, (), STALL)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"seconds": np.float32(2)}, {"seconds": 2.0}),
        ({"tails": "p99"}, {"tails": ("p99",)}),  # one name by itself
        ({"tails": ["p99.9", "p90", "p90"]}, {"tails": ("p99.9", "p90")}),
        ({"mode": "accuracy", "count": np.int64(5)}, {"count": 5}),
        ({"scenario": "Server", "max_wait": 0}, {"max_wait": 0.0}),
        ({"scenario": "Offline", "max_batchsize": 32}, {"max_batchsize": 32}),
    ],
)
def test_what_is_meant_is_taken(given, taken):
    asked = Request.of(**{**PLAIN, **given})
    assert {name: getattr(asked, name) for name in taken} == taken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(({"seconds": bad}, "seconds=") for bad in (0, -1, math.nan, math.inf, "5", True, 1e9, [1])),
        *(({"stall": bad}, "stall=") for bad in (0, "x")),
        *(({"keep_trace": bad}, "keep_trace=.*; give True or False") for bad in ("no", 0)),
        *(({"mode": "accuracy", "count": bad}, "count=") for bad in (0, -5, 2.5, "all", False, math.nan)),
        ({"count": 5}, 'count= is for mode="accuracy", and this one is "performance"'),
        ({"mode": "accuracy", "seconds": 5}, 'seconds= is for mode="performance"'),
        ({"mode": "accuracy", "tails": "p99"}, 'tails= is for mode="performance"'),
        ({"tails": ("p99.5",)}, 'no tail "p99.5"; the percentiles are p50, p80, p90, p95, p99, p99.9'),
        ({"tails": (99,)}, "no tail 99"),
        ({"tails": 99}, "tails=99; give names"),
        ({"scenario": "singlestream"}, 'no scenario "singlestream"; did you mean "SingleStream"?'),
        ({"scenario": ["Offline"]}, r"no scenario \['Offline'\]"),
        ({"mode": "acc"}, 'no mode "acc"; use performance or accuracy'),
        *(({"scenario": "Server", "qps": bad}, "qps=") for bad in (0, -1, "many", math.inf)),
        ({"scenario": "Server", "max_wait": -1}, "max_wait=-1; give a number of seconds above 0"),
        ({"scenario": "Server", "max_wait": 1e300}, "max_wait=1e[+]300; .* of seconds above 0 and up to"),
        ({"scenario": "Server", "max_latency": 1e300}, "max_latency=1e[+]300; give a number of seconds"),
        ({"scenario": "Server", "qps": 1e9}, "qps=.*; give a number above 0 and up to 10,000,000"),
        ({"scenario": "Offline", "streams": 10**6}, "streams=1000000; give a whole number of 1 to 1,024"),
        ({"scenario": "Offline", "max_batchsize": 1e300}, "max_batchsize=.*of 1 to 1,048,576"),
        ({"mode": "accuracy", "count": 1e300}, "count=1e[+]300; give a whole number of at least 1"),
        ({"scenario": "Server", "max_batchsize": 0}, "max_batchsize=0"),
        ({"threads": 0}, "threads=0"),
        ({"streams": 0, "scenario": "Offline"}, "streams=0"),
        ({"devices": "two", "scenario": "Server"}, "devices='two'"),
        ({"streams": 2}, "streams= is for Server and Offline, not for SingleStream"),
        ({"qsl": "Device"}, 'there is no qsl "Device"; did you mean "device"?'),
        ({"performance_sample_count": "all"}, "performance_sample_count='all'"),
        ({"mode": "accuracy", "performance_sample_count": 5}, 'performance_sample_count= is for mode="perf'),
        ({"scenario": "MultiStream", "samples_per_query": 1.5}, "samples_per_query=1.5"),
        ({"qps": 5}, "qps= is for Server, not for SingleStream"),
        ({"max_batchsize": 5}, "max_batchsize= is for Server and Offline, not for SingleStream"),
        ({"scenario": "Offline", "keep_trace": True}, "keep_trace= is for SingleStream, Multi.* and Ser"),
        ({"mode": "accuracy", "keep_trace": True}, 'keep_trace= is for mode="performance"'),
        ({"scenario": "Server", "mode": "accuracy", "qps": 5}, 'qps= is for mode="performance"'),
        ({"samples_per_query": 4}, "samples_per_query= is for MultiStream"),
        ({"profile": "full"}, 'no profile "full"; use short or valid'),
        ({"precision": "int4"}, 'no precision "int4"; use fp32, fp16 or int8'),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(given, said):
    with pytest.raises(GpuperfError, match=f"^loadgen: .*{said}") as error:
        Request.of(**{**PLAIN, **given})
    assert "\n" not in str(error.value)


def test_a_scenario_gets_what_was_asked_of_it():
    server = Request.of(**{**PLAIN, "scenario": "Server", "qps": 50, "max_wait": 0.002}).traffic()
    assert (server.name, server.qps, server.max_latency, server.max_wait) == ("Server", 50, 0.015, 0.002)
    assert Request.of(**{**PLAIN, "scenario": "MultiStream"}).traffic().samples_per_query == 8
    asked = {**PLAIN, "scenario": "MultiStream", "samples_per_query": 3}
    assert Request.of(**asked).traffic().samples_per_query == 3


class Ten(Labelled):
    name = "ten"

    def images(self, indices):
        return np.zeros((len(indices), 1))


def variant(**changes):
    return type("Variant", (Ten,), changes)


def test_a_dataset_that_fits():
    assert len(datasets.open_dataset("m", Ten, 4)) == 4
    assert (
        len(datasets.open_dataset("m", variant(labels=[1, 2], __init__=lambda self, count: None), None)) == 2
    )


@pytest.mark.parametrize(
    ("make", "count", "said"),
    [
        (Ten(), None, r"dataset=<.*Ten object.*; give what makes one of a count"),
        (Ten, 11, "count=11, and the dataset ten has 10 images"),
        (lambda count: Ten(), 5, "was made of count=5 and has 10 images"),
        (lambda: Ten(), None, "does not fit: TypeError"),
        (variant(images=None), None, r"must have a text as its name, and images\(indices\)"),
        (variant(name=3), None, "must have a text as its name"),
        (variant(name="a\nb"), None, "must have a text as its name"),
        (lambda count: [1, 2], None, "does not fit: AttributeError"),
        (variant(__len__=lambda self: 11), None, r"has 11 images and 10 labels, array\("),
        (variant(labels=np.eye(10), __init__=lambda s, c: None), None, r"10 labels, array\(\[\[1"),
        (variant(labels=[[1], [1, 2]] * 5, __init__=lambda s, c: None), None, "a whole number for each"),
        (variant(labels=set(range(10)), __init__=lambda s, c: None), None, "in the images' order"),
        (variant(labels={n: n for n in range(10)}, __init__=lambda s, c: None), None, "in the images' order"),
        (variant(labels=np.ones(10), __init__=lambda s, c: None), None, "a whole number for each"),
    ],
)
def test_a_dataset_that_does_not_fit_is_one_sentence(make, count, said):
    with pytest.raises(GpuperfError, match=f"^m: .*{said}"):
        datasets.open_dataset("m", make, count)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "a.onnx"}, "^a.onnx does not exist"),  # a text is a path
        ({"path": None}, "^m: path=None; give a Path"),
        ({"path": Path("nowhere.onnx")}, "^nowhere.onnx does not exist; m must be an ONNX file"),
        ({"path": Path(__file__).parent}, "is no file; m must be"),
        ({"dataset": Ten()}, "^m: dataset="),
    ],
)
def test_a_model_that_cannot_be_used_is_one_sentence(change, said):
    values = {"name": "m", "path": Path(__file__), "recipe": "", "dataset": Ten, **change}
    with pytest.raises(GpuperfError, match=said):
        models.require_usable(models.Model(**values))


def test_something_else_is_no_model():
    with pytest.raises(GpuperfError, match="loadgen: 'resnet50' is no model; give a Model"):
        models.require_usable("resnet50")


@pytest.mark.parametrize(
    ("test", "options", "said"),
    [
        ("TEST05", {}, 'no audit "TEST05"; use TEST01 or TEST04'),
        ("test01", {}, 'no audit "test01"; did you mean "TEST01"?'),
        (
            "TEST01",
            {"seconds": 1, "tails": "p99", "count": 3},
            "an audit has no tails, count=; it has",
        ),
    ],
)
def test_an_audit_and_its_options(test, options, said):
    require_audit("TEST04", {"qps": 3})
    with pytest.raises(GpuperfError) as error:
        require_audit(test, options)
    assert said in str(error.value)
