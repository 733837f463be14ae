"""A device that does not let this user count: a skip that says why, or a fault where that was asked for."""

from __future__ import annotations

import pytest

from pytest_gpuperf.backends.cuda import cupti
from pytest_gpuperf.errors import Unavailable

# The emulated backend, which counts no longer.
CONFTEST = """
    from pytest_gpuperf.backends.emulated.program import EmulatedProgram
    from pytest_gpuperf.errors import Unavailable

    def trace(self, *launch):
        raise Unavailable("counters on a GPU: this user may not read the performance counters")

    EmulatedProgram.trace = trace
"""
SUITE = """
    def test_counts(gpu, kernels, counters):
        counters(kernels["k.cu"].k[1, 1], gpu.empty(1))
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    (pytester.mkdir("kernels") / "k.cu").write_text('extern "C" __global__ void k(float *x) { x[0] = 1; }\n')
    return pytester


def test_it_is_a_skip_that_says_why(project: pytest.Pytester):
    result = project.runpytest_subprocess("--gpuperf-backend=emulated", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *this user may not read the performance counters"])


def test_missing_counters_that_are_required_are_a_setup_fault(project: pytest.Pytester):
    flags = ("--gpuperf-backend=emulated", "--gpuperf", "--gpuperf-strict=on")
    result = project.runpytest_subprocess(*flags, "-o", "gpuperf_require=counters")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["*counters on a GPU: this user may not read the performance counters"])


def test_an_unknown_capability_is_refused(project: pytest.Pytester):
    result = project.runpytest_subprocess("-o", "gpuperf_require=telepathy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = "*gpuperf_require: 'telepathy' is not one of counters, energy, peak_memory; one a line"
    result.stderr.fnmatch_lines([said])


def test_a_word_that_is_no_truth_value_is_refused(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = perhaps\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *.ini: gpuperf_judge_host_times: *'perhaps'; say true or false"])


REASONS = {
    "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES": "NVreg_RestrictProfilingToAdminUsers=0",
    "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED": "another profiler listens to CUPTI in this process",
    "CUPTI_ERROR_UNKNOWN": "cuptiSubscribe says CUPTI_ERROR_UNKNOWN",
}


@pytest.mark.parametrize("said", REASONS)
def test_what_cupti_refuses_is_said_with_what_to_do(monkeypatch, said):
    class Library:
        @staticmethod
        def cuptiSubscribe():
            return 1

        @staticmethod
        def cuptiGetResultString(result, text):
            text._obj.value = said.encode()

    monkeypatch.setattr(cupti, "library", Library)
    with pytest.raises(Unavailable, match=rf"^the GPU's profiler \(CUPTI\): .*{REASONS[said]}"):
        cupti.call("cuptiSubscribe")


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cupti, "_libraries", lambda: iter(()))
    cupti.library.cache_clear()
    with pytest.raises(Unavailable, match="pip install nvidia-cuda-cupti"):
        cupti.RangeProfiler(["sm__cycles_active.sum"])


def test_a_library_that_cannot_be_loaded_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "libcupti.so.13"
    broken.write_text("no library")
    monkeypatch.setattr(cupti, "_libraries", lambda: iter([broken]))
    cupti.library.cache_clear()
    with pytest.raises(Unavailable, match=r"libcupti\.so\.13 cannot be loaded"):
        cupti.RangeProfiler(["sm__cycles_active.sum"])
