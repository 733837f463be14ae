"""ResNet-50 under MLPerf's LoadGen on ONNX Runtime."""

import pytest

each_scenario = pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Offline"])


@each_scenario
def test_performance(loadgen, resnet50, precision, scenario):
    result = loadgen(resnet50, scenario, precision=precision, seconds=6)
    assert result.samples_per_second > 0


@pytest.mark.gpuperf(backend="cuda")
def test_offline_of_two_streams(loadgen, resnet50):
    result = loadgen(resnet50, "Offline", precision="fp16", seconds=6, streams=2, qsl="device")
    assert result.samples_per_second > 0


def test_accuracy(loadgen, resnet50, precision):
    result = loadgen(resnet50, mode="accuracy", precision=precision)
    assert result.correct > 0


@pytest.mark.gpuperf(backend="cuda")
def test_server_peak(loadgen, resnet50):
    peak = loadgen.find_peak(resnet50, precision="fp16", max_latency=0.015, seconds=1)
    assert peak.qps > 0
