"""PyTorch as a system under test: the same digits from the same weights."""

import sys

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import models, torch_module
from pytest_gpuperf.mlperf.datasets import Digits


def test_without_pytorch_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Unavailable, match=r"resnet50-digits-torch needs PyTorch .*: pip install torch"):
        torch_module.digits_sut()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_the_cpu_does_not_have_is_one_sentence(precision):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    with pytest.raises(GpuperfError, match=f'precision="{precision}" on cpu; give "fp32"'):
        torch_module.torch_sut("t", torch.nn.Identity(), Digits, precision=precision, device="cpu")


def answered(sut, count):
    digits = sut.dataset(count)
    parts = [sut.run(digits.images(range(start, min(start + 8, count)))) for start in range(0, count, 8)]
    return np.concatenate(parts), models.digits_head().predictions[:count]


def test_the_digits_are_classified_as_the_onnx_file_does():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    found, stored = answered(torch_module.digits_sut(device="cpu"), 20)
    assert found.tolist() == stored.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_digits_are_classified_so_on_a_gpu_as_a_cuda_graph(precision):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch was built for the CPU")
    found, stored = answered(torch_module.digits_sut(precision=precision), 797)
    margins = models.digits_head().margins
    assert np.flatnonzero((found != stored) & (margins >= 0.05)).tolist() == []
