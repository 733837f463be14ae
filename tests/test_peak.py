"""What a GPU can compute in a second, and times that would need more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_gpuperf.backends.cuda.peak import peak_flops, peak_fp32
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments import device_time


def test_more_operations_than_the_hardware_does():
    device = SimpleNamespace(judges_times=True, l2_bytes=0, peak_bandwidth=0.0, peak_flops=2.141e15)
    device_time.check_possible(device, "matmul", 1e-3, None, 2.1e12)
    with pytest.raises(
        KernelError, match=r"matmul is faster than the hardware: 2,200 TFLOP/s .* 2,141 at most"
    ):
        device_time.check_possible(device, "matmul", 1e-3, None, 2.2e12)


# What NVIDIA states for a product, in tera-operations a second, from its SMs and boost clock.
@pytest.mark.parametrize(
    ("capability", "units", "hertz", "stated"),
    [
        ((7, 0), 80, 1.53e9, 125),
        ((7, 5), 40, 1.59e9, 260),
        ((8, 0), 108, 1.41e9, 1248),
        ((8, 6), 82, 1.695e9, 568),
        ((8, 9), 128, 2.52e9, 1321),
        ((9, 0), 132, 1.83e9, 1979),
        ((10, 0), 148, 1.85e9, 9000),
        ((12, 0), 170, 2.407e9, 1676),
    ],
)
def test_the_peak_of_an_architecture_is_its_products(capability, units, hertz, stated):
    assert peak_flops(capability, units, hertz) == pytest.approx(stated * 1e12, rel=0.01)


def test_an_unknown_architecture_has_no_peak():
    assert peak_flops((3, 5), 15, 1e9) == peak_flops(None, 15, 1e9) == 0
    assert peak_fp32((3, 5), 15, 1e9) == peak_fp32(None, 15, 1e9) == 0


def test_the_fp32_peak_is_the_datasheets():
    # NVIDIA H100 Tensor Core GPU Architecture: 66.9 TFLOPS, 132 SMs, 1.98 GHz; A100: 19.5, 108 SMs, 1.41 GHz
    assert peak_fp32((9, 0), 132, 1.98e9) == pytest.approx(66.9e12, rel=0.01)
    assert peak_fp32((8, 0), 108, 1.41e9) == pytest.approx(19.5e12, rel=0.01)
