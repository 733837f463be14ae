"""--gpuperf-trace: what a test asks of CUDA, as a table, on the page and as a file for Perfetto."""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from types import SimpleNamespace

import pytest
from fakecupti import Cupti

from pytest_gpuperf.backends import tracing
from pytest_gpuperf.backends.cuda import activity
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.instruments import ranges
from pytest_gpuperf.report import perfetto
from pytest_gpuperf.report.trace import abbreviated, shown, table
from pytest_gpuperf.traces import MOST, Calls, Event, trace_of

US = 1000
EVENTS = [
    Event("kernel", "transpose", 900 * US, 960 * US, 7, 3),
    Event("call", "cuMemAlloc", 10 * US, 260 * US, 41),
    Event("call", "cuMemAlloc", 300 * US, 310 * US, 41),
    Event("call", "cuMemAlloc", 320 * US, 340 * US, 41),
    Event("call", "cuDeviceGet", 2 * US, 3 * US, 41),
    Event("call", "cuLaunchKernel", 400 * US, 480 * US, 41, 3),
    Event("copy", "copy DtoH", 970 * US, 990 * US, 7, 4),
]


def test_the_first_call_stands_apart_from_the_others():
    trace = trace_of(EVENTS, 0, 1000 * US, 5)
    found = {calls.name: calls for calls in trace.calls}
    assert found["cuMemAlloc"] == Calls(
        "cuMemAlloc", 3, pytest.approx(280e-6), pytest.approx(250e-6), pytest.approx(15e-6), False
    )
    assert found["transpose"] == Calls("transpose", 1, pytest.approx(60e-6), pytest.approx(60e-6), None, True)
    assert [calls.name for calls in shown(trace.calls)] == [
        *("cuMemAlloc", "cuLaunchKernel", "1 other function", "transpose", "copy DtoH")
    ]


def test_what_is_too_much_for_the_file_is_in_the_table():
    trace = trace_of([Event("call", "cuMemFree", at, at + 1) for at in range(MOST + 3)], 0, MOST, 5)
    assert (len(trace.events), trace.left_out, trace.calls[0].count) == (MOST, 3, MOST + 3)


def test_the_table_has_80_columns_and_three_lines_a_name():
    name = "void at::native::elementwise_kernel<128, 2, " + "at::native::lambda, " * 8 + "int>(int)"
    trace = trace_of([*EVENTS, Event("kernel", name, 991 * US, 992 * US)], 0, 1000 * US, 5)
    lines = list(table({"suites/test_k.py::test_k": trace}))
    assert all(len(line) <= 80 for line in lines)
    assert "cuMemAlloc                             3    280.0 µs    250.0 µs      15.00 µs" in lines[2]
    assert name.replace(" ", "") in "".join("".join(lines).split())


def test_two_kernels_that_would_look_alike_keep_their_names():
    names = [f"fold<{'at::f, ' * 60}{last}>" for last in ("float", "double")]
    kernels = [Event("kernel", name, at * US, (at + 1) * US) for at, name in enumerate(names)]
    alike, alone = (
        "".join("".join(table({"t": trace_of(some, 0, 9 * US, 5)})).split())
        for some in (kernels, kernels[:1])
    )
    assert all(name.replace(" ", "") in alike for name in names)
    assert "fold<...>" in alone


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fold<f<4>, g<5>>", "fold<f<4>, g<5>>"),
        (f"fold<{'at::f<' * 40}4{'>' * 40}, 5>", f"fold<{'at::f<' * 29}at::f<...>{'>' * 29}, 5>"),
        (f"fold<{'4, ' * 80}f<5>>(g<6>)", "fold<...>(g<...>)"),
        ("x" * 300, "x" * 225 + "..."),
    ],
)
def test_a_long_kernels_name_leaves_its_innermost_arguments_out(name, shown):
    assert abbreviated(name, 228) == shown


def test_perfetto_has_tests_threads_streams_and_arrows():
    written = perfetto.render({"test_k": trace_of(EVENTS, 0, 1000 * US, 5)})
    assert written.startswith(perfetto.BEGINNING)
    document = json.loads(written)
    events = document["traceEvents"]
    slices = {event["name"]: event for event in events if event["ph"] == "X"}
    assert (slices["test_k"]["ts"], slices["test_k"]["dur"], slices["test_k"]["pid"]) == (0, 1000, 5)
    assert (slices["cuLaunchKernel"]["pid"], slices["cuLaunchKernel"]["tid"]) == (5, 41)
    device = slices["transpose"]["pid"]
    assert (device != 5, slices["transpose"]["tid"], slices["transpose"]["ts"]) == (True, 8, 900)
    tail, head = (next(event for event in events if event["ph"] == kind) for kind in "sf")
    assert tail["id"] == head["id"] == 1  # Perfetto reads text as a hexadecimal number
    assert all(event["tid"] > 0 for event in events if "tid" in event)  # and 0 as the kernel's thread
    assert [event["ph"] for event in events].count("s") == 1  # the copy's call was not recorded
    assert ((tail["pid"], tail["ts"]), (head["pid"], head["ts"], head["bp"])) == (
        (5, 400),
        (device, 900, "e"),
    )
    named = {event["args"].get("name") for event in events if event["ph"] == "M"}
    assert {"tests", "thread 41", "stream 7", "process 5", "device 0 of process 5"} <= named


# --------------------------------------------------------------------------- what CUPTI writes


class Recorded(Cupti):
    """It delivers at the first flush, and knows the names of calls and the time."""

    def __init__(self, records):
        super().__init__(records)
        self.enabled = set()

    def cuptiActivityEnable(self, kind):
        self.enabled.add(kind)
        return 0

    def cuptiActivityDisable(self, kind):
        self.enabled.discard(kind)
        return 0

    def cuptiActivityFlushAll(self, _):
        if self.enabled and self.records:
            self.deliver()
            self.records = []
        return 0

    def cuptiGetCallbackName(self, domain, number, name):
        names = {(1, 243): b"cuMemAlloc_v2", (2, 211): b"cudaLaunchKernel_ptsz_v7000"}
        name._obj.value = names.get((domain, number.value))
        return 0

    def cuptiGetTimestamp(self, time):
        time._obj.value = 77
        return 0


def test_calls_are_read_where_cupti_writes_them():
    """CUpti_ActivityAPI of CUDA 13.0, and the correlation of copies and memsets of all versions."""
    offsets = {name: getattr(activity.Call, name).offset for name, _ in activity.Call._fields_}
    assert list(offsets.values()) == [0, 4, 8, 16, 24, 28, 32, 36]
    assert ctypes.sizeof(activity.Call) == 40
    assert activity.Copy.correlation.offset == 44


def test_calls_and_work_are_recorded_until_paused(monkeypatch):
    call = activity.Call(kind=4, function=243, start=5, end=9, thread=41, correlation=3)
    launch = activity.Call(kind=5, function=211, start=10, end=12, thread=41, correlation=4)
    here = threading.get_ident() & 0xFFFFFFFF  # as CUPTI names threads
    unknown = activity.Call(kind=5, function=9999, start=10, end=12, thread=here)
    kernel = activity.Kernel(
        kind=10, name=b"_Z5scalePfi", start=20, end=30, stream=7, device=1, correlation=4
    )
    copy = activity.Copy(
        kind=1, what=(ctypes.c_uint8 * 4)(2, 3, 1, 0), start=31, end=33, stream=7, correlation=5
    )
    unfinished = activity.Kernel(kind=10, name=b"late", start=40)
    cupti = Recorded([call, launch, unknown, kernel, copy, unfinished])
    monkeypatch.setattr(activity.cupti, "library", lambda: cupti)
    activity._function.cache_clear()
    tracer = activity.CuptiTracer()
    tracer.start()
    assert cupti.enabled == {1, 2, 4, 5, 10}
    assert tracer.take() == [
        Event("call", "cuMemAlloc", 5, 9, 41, 3),
        Event("call", "cudaLaunchKernel", 10, 12, 41, 4),
        Event("call", "function 9999", 10, 12, threading.get_native_id()),
        Event("kernel", "scale", 20, 30, 7, 4, 1),
        Event("copy", "copy DtoH", 31, 33, 7, 5),
    ]
    waited = []
    with tracer.paused(lambda: waited.append(set(cupti.enabled))):
        assert cupti.enabled == set()
    assert waited == [{1, 2, 10}, set()]  # the work that was launched is recorded to its end, our wait is not
    assert (cupti.enabled, tracer.take(), tracer.now()) == ({1, 2, 4, 5, 10}, [], 77)
    activity._function.cache_clear()


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        (b"plain", "plain"),
        (b"_Z5scalePfi", "scale"),
        (b"_ZN2at6native4foldIfLi4EEEvPT_i", "at::native::fold<float, 4>"),
        (b"_ZN12_GLOBAL__N_17softmaxIfEEvPT_i", "(anonymous namespace)::softmax<float>"),
    ],
)
def test_a_kernel_has_its_name_without_its_parameters(symbol, name):
    kernel = activity.Kernel(kind=10, name=symbol, start=20, end=30)
    assert activity.event(ctypes.addressof(kernel)).name == name


# --------------------------------------------------------------------------- a run

KERNEL = """
extern "C" __global__ void add_one(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += 1;
}
"""
SUITE = """
    import numpy as np
    import pytest
    def test_adds(gpu, kernels, gpuperf):
        x = gpu.to_device(np.zeros(64, np.float32))
        gpuperf(kernels["add.cu"].add_one[1, 64], x, 64)
        assert x.get().tolist() == [1] * 64
    def test_other(gpu, kernels, counters):
        x = gpu.to_device(np.zeros(64, np.float32))
        kernels["add.cu"].add_one[1, 64](x, 64)
        counters(kernels["add.cu"].add_one[1, 64], x, 64)
    @pytest.mark.gpuperf(isolated=True)
    def test_apart(gpu, kernels):
        kernels["add.cu"].add_one[1, 64](gpu.to_device(np.zeros(64, np.float32)), 64)
    def test_graph(gpu, kernels, gpuperf, monkeypatch):
        capture, x = gpu.device.capture, gpu.to_device(np.zeros(64, np.float32))
        def captured(work):
            work()  # as CUDA does before
            return capture(work)
        monkeypatch.setattr(gpu.device, "capture", captured)
        gpuperf(kernels["add.cu"].add_one[1, 64], x, 64, mode="graph")
        assert x.get().tolist() == [1] * 64
    def test_nothing(): pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, kernel_cache) -> pytest.Pytester:
    pytester.makepyfile(SUITE)
    (pytester.mkdir("kernels") / "add.cu").write_text(KERNEL)
    return pytester


EMULATED = ("--gpuperf-backend=emulated", "-p", "no:cacheprovider")


def test_a_run_is_traced_in_each_worker_and_written_once(project, backend):
    reports = ("--gpuperf-html=p.html", "--gpuperf-json=r.json")
    workers = ("-p", "xdist", "-n2")
    result = project.runpytest_subprocess(*EMULATED, *workers, "--gpuperf", "--gpuperf-trace", *reports)
    result.assert_outcomes(passed=5)
    lines = [line for line in result.stdout.lines if "add_one" in line]
    assert all(len(line) <= 80 for line in lines)
    # The first and ten others, and x is as after one; what was counted is not there.
    assert sorted(line.split()[1] for line in lines) == ["1", "1", "11", "12"]
    result.stdout.fnmatch_lines(["  nothing", "Emulated: launches in this host's times*"])
    result.stdout.fnmatch_lines(["gpuperf-trace.json: open it in Perfetto*"])
    events = json.loads((project.path / "gpuperf-trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert names.count("add_one") == 25
    ends = ("test_adds", "test_other", "test_apart", "test_graph", "test_nothing")
    assert sum(name.endswith(ends) for name in names) == 5
    processes = {event["pid"] for event in events if event.get("cat") == "test"}
    assert len(processes) == 3  # two workers, and the process of the test that runs apart
    tests = json.loads((project.path / "r.json").read_text())["tests"]
    (call,) = next(test["calls"] for test in tests if test["name"] == "test_adds")
    assert (call["name"], call["where"], call["count"]) == ("add_one", "device", 11)
    page = (project.path / "p.html").read_text()
    assert "<h2>CUDA calls and the device's work</h2>" in page
    assert ">add_one <" in page


def test_a_gpu_without_cupti_is_a_usage_error(pytester: pytest.Pytester, monkeypatch):
    def missing():
        raise Unavailable("counters and traces on a GPU need CUPTI: pip install nvidia-cuda-cupti")

    monkeypatch.setattr(tracing, "expects_device", lambda choice: True)
    monkeypatch.setattr("pytest_gpuperf.backends.cuda.cupti.library", missing)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--gpuperf-trace")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--gpuperf-trace: *traces on a GPU need CUPTI: pip install nvidia-cuda-cupti"]
    )


def test_a_gpu_that_is_not_there_is_a_usage_error(pytester: pytest.Pytester, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("pytest_gpuperf.backends.cuda.cupti.library", lambda: None)
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "--gpuperf-trace", "--gpuperf-backend=cuda"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gpuperf-trace: There is no CUDA device here: *"])


def test_a_test_has_its_name_where_a_profiler_listens(monkeypatch):
    seen = []
    nvtx = SimpleNamespace(push_range=seen.append, pop_range=lambda: seen.append("end"))
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    monkeypatch.delenv("NVTX_INJECTION64_PATH", raising=False)
    assert ranges.begin("test_a") == ""
    ranges.end()
    assert seen == []
    monkeypatch.setenv("NVTX_INJECTION64_PATH", "libToolsInjection64.so")
    assert ranges.begin("test_b") == ""
    ranges.end()
    assert seen == ["test_b", "end"]
    monkeypatch.setitem(sys.modules, "nvtx", None)
    assert "pip install nvtx" in ranges.begin("test_c")
    ranges.end()
    assert seen == ["test_b", "end"]


def test_what_a_profiler_lacks_is_told_with_any_flag_or_none(pytester: pytest.Pytester, monkeypatch):
    monkeypatch.setenv("NVTX_INJECTION64_PATH", "libToolsInjection64.so")
    monkeypatch.setitem(sys.modules, "nvtx", None)
    pytester.makepyfile("def test_k(gpuperf): pass")
    for flags in ((), ("--gpuperf",), ("--gpuperf-trace",)):
        result = pytester.runpytest_inprocess(*EMULATED, *flags)
        found = [line for line in result.stdout.lines if line.startswith("A profiler listens")]
        assert len(found) == 1


@pytest.mark.gpu
def test_a_gpus_calls_and_work_belong_together(project):
    flags = ("-p", "no:cacheprovider", "--gpuperf-backend=cuda", "--gpuperf-trace")
    result = project.runpytest_subprocess(*flags, "-k", "graph")
    result.assert_outcomes(passed=1)
    found = {line.split()[0]: line.split()[1:] for line in result.stdout.lines if line.startswith("  ")}
    assert (found["cuGraphLaunch"][0], found["cuLaunchKernel"][0]) == ("11", "3")  # two calls, one captured
    result = project.runpytest_subprocess(*flags, "-k", "not graph")
    result.assert_outcomes(passed=4)
    lines = [line.split() for line in result.stdout.lines]
    at = next(number for number, line in enumerate(lines) if line and line[0].endswith("::test_adds"))
    end = next(number for number in range(at + 1, len(lines)) if "::test_" in lines[number][0])
    of_test = {line[0]: line[1] for line in lines[at + 1 : end]}
    assert (of_test["cuLaunchKernel"], of_test["add_one"]) == ("11", "11")
    assert {"cuMemAlloc", "cuMemcpyHtoD", "cuMemcpyDtoH", "cuMemFree"} <= of_test.keys()
    events = json.loads((project.path / "gpuperf-trace.json").read_text())["traceEvents"]
    kernels = {event["ts"]: event for event in events if event["name"] == "add_one" and event["ph"] == "X"}
    heads = {event["ts"]: event["id"] for event in events if event["ph"] == "f"}
    tails = {event["id"]: event["ts"] for event in events if event["ph"] == "s"}
    assert len(kernels) == 13
    assert all(tails[heads[at]] < at for at in kernels)
