"""--gpuperf-sanitize: what compute-sanitizer says of a test's launches fails it, in the emulator's words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pytest_gpuperf.backends.cuda.driver import device_count
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.modes import sanitize
from pytest_gpuperf.processes import sanitizer
from pytest_gpuperf.processes.sanitizer import Sanitizer, find, findings, reader

# As compute-sanitizer 2025.3.1 of CUDA 13.0 writes it.
MISALIGNED = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at misaligned+0x70 in /p/bugs.cu:32
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x7f3574800001 is misaligned
=========     and is inside the nearest allocation at 0x7f3574800000 of size 1,024 bytes
=========\x20
========= Invalid __global__ write of size 4 bytes
=========     at misaligned+0x70 in /p/bugs.cu:32
=========     by thread (1,0,0) in block (0,0,0)
=========     Access to 0x7f3574800005 is misaligned
=========     and is inside the nearest allocation at 0x7f3574800000 of size 1,024 bytes
=========\x20
========= Error: process didn't terminate successfully
========= Target application returned an error
========= ERROR SUMMARY: 64 errors
========= ERROR SUMMARY: 62 errors were not printed. Use --print-limit option to adjust it
"""
OUT_OF_BOUNDS = """\
========= Invalid __global__ write of size 4 bytes
=========     at void store<float>(T1 *, int)+0x80 in /p/bugs.cu:39
=========     by thread (33,0,0) in block (0,0,0)
=========     Access to 0x7efb7c800404 is out of bounds
=========     and is 5 bytes after the nearest allocation at 0x7efb7c800000 of size 1,024 bytes
=========         Device Frame: void templated<float>(T1 *, int)+0x20 in /p/bugs.cu:40
=========\x20
"""
BEFORE = """\
========= Invalid __global__ read of size 4 bytes
=========     at before+0x80 in /p/bugs.cu:2
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x7fbcb07fffe0 is out of bounds
=========     and is 32 bytes before the nearest allocation at 0x7fbcb0800000 of size 1,024 bytes
=========\x20
"""
ATOMIC = """\
========= Invalid __global__ atomic of size 4 bytes
=========     at atomicAdd(float *, float)+0xa0 in /usr/local/cuda/include/sm_20_atomic_functions.hpp:84
=========     by thread (32,0,0) in block (0,0,0)
=========     Access to 0x7fbcb0800400 is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7fbcb0800000 of size 1,024 bytes
=========         Device Frame: atomic_past+0x40 in /p/bugs.cu:4
=========\x20
"""
NULL = """\
========= Invalid __global__ write of size 4 bytes
=========     at past+0x80 in /p/bugs.cu:1
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x0 is out of bounds
=========     and is 140,448,391,757,824 bytes before the allocation at 0x7fbcb0800000 of size 1,024 bytes
=========\x20
"""
SHARED = """\
========= Invalid __shared__ write of size 4 bytes
=========     at shared_past+0xd0 in /p/bugs.cu:7
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x500 is out of bounds
=========\x20
"""
RACE = """\
========= Error: Race reported between Write access at race_shared+0x1e0 in /p/bugs.cu:17
=========     and Read access at race_shared+0x1f0 in /p/bugs.cu:18 [256 hazards]
=========\x20
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
UNINITIALISED = """\
========= Uninitialized __global__ memory read of size 4 bytes
=========     at uninit_global+0xc0 in /p/bugs.cu:22
=========     by thread (0,0,0) in block (0,0,0)
=========     Address 0x7f86c4800000
=========\x20
"""
DIVERGENT = """\
========= Barrier error detected. Divergent thread(s) in warp.
=========     at in_warp+0x90 in /p/bugs.cu:24
=========     by thread (1,0,0) in block (0,0,0)
=========\x20
"""
MASK = """\
========= Barrier error detected. Invalid arguments.
=========     at __syncwarp(unsigned int)+0x80 in /usr/local/cuda/include/sm_30_intrinsics.hpp:110
=========     by thread (0,0,0) in block (0,0,0)
=========         Device Frame: wrong_mask+0x70 in /p/bugs.cu:38
=========\x20
"""
TEMPLATE = """\
========= Invalid __global__ read of size 8 bytes
=========     at void blur::row<float, (int)4>(T1 *, int)+0x80 in /p/bugs.cu:3
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x7f86c4800ffc is out of bounds
=========     and is inside the nearest allocation at 0x7f86c4800000 of size 4,096 bytes
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: cuLaunchKernel [0x2774ec] in libcuda.so.1
=========\x20
"""
UNNAMED = """\
========= Invalid __global__ write of size 4 bytes
=========     at (anonymous namespace)::step(float *, void (*)(int)) const+0x80 in /p/bugs.cu:5
=========     by thread (0,0,0) in block (0,0,0)
=========     Access at 0x7f89bfa00000 is out of bounds
=========     and is 140229602181120 bytes after the nearest allocation at 0x7fbcb08000 of size 1020 bytes
=========\x20
"""
RACES = """\
========= Warning: Race reported between Read access at both(int *)+0x90 in /p/bugs.cu:9
=========     and Write access at both(int *)+0x100 in /p/bugs.cu:14 [508 hazards]
=========     and Write access at both(int *)+0x120 in /p/bugs.cu:14 [4 hazards]
=========     and Write access at both(int *)+0x150 in /p/more.cuh:18 [4 hazards]
=========\x20
========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)
"""
UNKNOWN = """\
========= Malformed frobnication
=========     at frob+0x10
=========     by thread (0,0,0) in block (1,0,0)
=========     The frob was bent
"""


FIRST = "block (0, 0, 0), thread (0, 0, 0)"
SAID = {
    MISALIGNED: f"32: kernel misaligned, {FIRST}: writes 4 bytes at address 0x7f3574800001, "
    "which is no multiple of 4 (and 1 more like it)",
    OUT_OF_BOUNDS: "39: kernel templated<float>, block (0, 0, 0), thread (33, 0, 0): "
    "writes 4 bytes past the end of an array: at byte 1028 of 1024",
    BEFORE: f"2: kernel before, {FIRST}: reads 4 bytes before the start of an array: at byte -32 of 1024",
    ATOMIC: "4: kernel atomic_past, block (0, 0, 0), thread (32, 0, 0): "
    "updates 4 bytes past the end of an array: at byte 1024 of 1024",
    NULL: f"1: kernel past, {FIRST}: writes 4 bytes at address 0x0 (a null pointer)",
    SHARED: f"7: kernel shared_past, {FIRST}: "
    "writes 4 bytes out of the bounds of shared memory: at address 0x500",
    RACE: "17: kernel race_shared: "
    "writes shared memory that another thread reads in line 18: no barrier between (race)",
    UNINITIALISED: f"22: kernel uninit_global, {FIRST}: reads 4 bytes of memory that nothing has written",
    DIVERGENT: "24: kernel in_warp, block (0, 0, 0), thread (1, 0, 0): "
    "waits at a barrier that other threads of the warp do not reach",
    TEMPLATE: f"3: kernel blur::row<float, (int)4>, {FIRST}: "
    "reads 8 bytes across the end of an array: at byte 4092 of 4096",
    UNNAMED: f"5: kernel (anonymous namespace)::step, {FIRST}: "
    "writes 4 bytes at address 0x7f89bfa00000, which is in no array of this device",
    RACES: "9: kernel both: reads shared memory that another thread writes in line 14 and "
    "writes at /p/more.cuh:18: no barrier between (race)",
    MASK: f"38: kernel wrong_mask, {FIRST}: Barrier error detected. Invalid arguments.",
}


@pytest.mark.parametrize("text", SAID, ids=lambda text: re.search(r"at (\w+)", text)[1])
def test_findings_have_the_emulators_words(text):
    assert findings(text) == [f"/p/bugs.cu:{SAID[text]}"]


def test_what_is_not_known_keeps_the_tools_own_words():
    place = "kernel frob, block (1, 0, 0), thread (0, 0, 0)"
    assert findings(UNKNOWN) == [f"{place}: Malformed frobnication; The frob was bent"]


def test_what_the_tool_says_of_itself_is_not_a_kernels():
    said = "Internal Sanitizer Error: The Sanitizer is disabled"
    assert findings(f"========= {said}\n=========\n") == [f"compute-sanitizer says: {said}"]


def test_what_is_no_kernels_is_no_finding():
    end = MISALIGNED[MISALIGNED.index("========= Error: process") :]
    assert findings(end + "what a test printed\n") == []
    assert findings("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n") == []
    crash = "========= Error: process didn't terminate successfully\n"
    assert findings(crash + "=========     The application may have hit an error\n") == []
    assert len(findings(OUT_OF_BOUNDS + RACE + UNINITIALISED)) == 3


def test_a_log_is_read_from_where_it_was_left(tmp_path):
    log = tmp_path / "log"
    read = reader(log)
    assert read() == []
    log.write_text(RACE + UNINITIALISED[:9])  # a line of which the rest is not written yet
    assert len(read()) == 1
    with log.open("a") as file:
        file.write(UNINITIALISED[9:])
    assert [each.partition(" kernel ")[2][:6] for each in read()] == ["uninit"]
    assert read() == []


def test_a_process_is_told_to_compile_with_lines(monkeypatch):
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-O1")
    watched = Sanitizer(Path("/c/compute-sanitizer"), "memcheck", Path("/t/log"))
    assert watched.environment()["NVCC_APPEND_FLAGS"] == "-O1 -lineinfo"
    assert watched.command[:3] == ["/c/compute-sanitizer", "--tool=memcheck", "--log-file=/t/log"]
    assert "--padding=1024" in watched.command  # arrays that touch would hide an overrun
    assert "--padding=1024" not in Sanitizer(watched.path, "racecheck", watched.log).command


def test_a_process_that_the_tool_did_not_watch_is_told(tmp_path):
    watched = Sanitizer(Path("/c/compute-sanitizer"), "memcheck", tmp_path / "log")
    assert watched.troubles() == "it has written nothing"
    watched.log.write_text("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n")
    assert watched.troubles() == ""
    said = "No attachable process found. Compute Sanitizer timed-out."
    watched.log.write_text(f"========= COMPUTE-SANITIZER\n========= Error: {said}\n")
    assert watched.troubles() == said


# --------------------------------------------------------------------------- a run

STAND_IN = f"""\
#!{sys.executable}
import os, subprocess, sys
at = next(i for i, word in enumerate(sys.argv[1:], 1) if not word.startswith("-"))
flags = dict(word.split("=", 1) for word in sys.argv[1:at] if "=" in word)
with open(flags["--log-file"], "w") as log:
    log.write("========= COMPUTE-SANITIZER\\n")
sys.exit(subprocess.run(sys.argv[at:], close_fds=False).returncode)
"""
CONFTEST = """
    import os
    import pytest
    import pytest_gpuperf.session
    pytest_gpuperf.session.expects_device = lambda choice: True

    @pytest.fixture
    def tool_says(request):
        def say(tool, text):
            log = os.environ.get("PYTEST_GPUPERF_SANITIZER_LOG")
            assert log, "not under compute-sanitizer"
            if request.config.option.gpuperf_sanitize == (tool,):
                with open(log, "a") as file:
                    file.write(text)
        return say
"""
SUITE = f"""
    import os
    import numpy as np
    import pytest
    RACE, UNINITIALISED = {RACE!r}, {UNINITIALISED!r}

    def test_clean(gpu, tool_says):
        tool_says("memcheck", "")
        assert "-lineinfo" in os.environ["NVCC_APPEND_FLAGS"]
    def test_race(gpu, gpuperf, tool_says):
        gpuperf(lambda: tool_says("racecheck", RACE))
    def test_both(gpu, tool_says):
        tool_says("memcheck", UNINITIALISED)
        tool_says("racecheck", RACE)
        pytest.skip("for another reason")
    def test_counted(gpu, counters, tool_says):
        counters(lambda: tool_says("memcheck", UNINITIALISED))
    def test_counted_clean(gpu, counters):
        counters(lambda: None)
        assert False, "not reached"
    def test_dies(gpu):
        os._exit(7)
    def test_host(): assert "PYTEST_GPUPERF_SANITIZER_LOG" not in os.environ
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch, kernel_cache, backend) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    program = pytester.mkdir("bin") / "compute-sanitizer"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return pytester


def test_findings_fail_their_tests_and_the_others_go_on(project):
    tools = "--gpuperf-sanitize=memcheck,racecheck"
    result = project.runpytest_subprocess("-rs", "-p", "no:cacheprovider", tools)
    result.assert_outcomes(passed=2, failed=4, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    race = "/p/bugs.cu:17: kernel race_shared: writes shared memory * line 18: * (race) [[]racecheck[]]"
    read = "/p/bugs.cu:22: kernel uninit_global, * that nothing has written [[]memcheck[]]"
    result.stdout.fnmatch_lines(["*_ test_race _*", race])
    result.stdout.fnmatch_lines(["*_ test_both _*", read, "*compute-sanitizer racecheck*", race])
    result.stdout.fnmatch_lines(["*_ test_counted _*", read])
    result.stdout.fnmatch_lines(
        ["*_ test_dies _*", "The process of this test under memcheck ended with exit code 7*"]
    )
    result.stdout.fnmatch_lines(["memcheck, racecheck checked 6 tests on the GPU;*"])
    result.stdout.fnmatch_lines(["SKIPPED *checked up to here: nothing is counted under compute-sanitizer*"])


def test_what_was_not_watched_fails(project):
    """Of one that writes no log, and of one that does not start: that is tried once."""
    program = project.path / "bin" / "compute-sanitizer"
    program.write_text(STAND_IN.replace('log.write("', 'log.write("" and "'))
    project.makepyfile(test_it="def test_clean(gpu): pass\ndef test_host(): pass\ndef test_more(gpu): pass")
    run = "-p", "no:cacheprovider", "--gpuperf-sanitize=synccheck", "test_it.py"
    result = project.runpytest_subprocess(*run)
    result.assert_outcomes(passed=1, failed=2)
    said = "compute-sanitizer's synccheck did not watch the process of this test: it has written nothing. *"
    result.stdout.fnmatch_lines(["*_ test_clean _*", said, "*_ test_more _*", said])
    program.write_text("#!/bin/sh\necho begun >> begun\necho no such tool\nexit 3\n")
    result = project.runpytest_subprocess(*run)
    result.assert_outcomes(passed=1, failed=2)
    said = "The process of this test under synccheck ended with exit code 3 *: it has written nothing)*"
    result.stdout.fnmatch_lines(["*_ test_clean _*", said, "no such tool", "*_ test_more _*", said])
    assert (project.path / "begun").read_text() == "begun\n"


def test_a_gpu_without_compute_sanitizer_is_a_usage_error(pytester: pytest.Pytester, monkeypatch):
    def missing():
        raise Unavailable("compute-sanitizer is not on PATH")

    monkeypatch.setattr("pytest_gpuperf.session.expects_device", lambda choice: True)
    monkeypatch.setattr(sanitize, "find", missing)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--gpuperf-sanitize")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gpuperf-sanitize: compute-sanitizer is not on PATH"])


def test_it_is_looked_for_where_toolkits_have_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(sanitizer, "_TOOLKIT", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="install the CUDA toolkit, or of it the package cuda-sanitizer"):
        find()
    program = tmp_path / "compute-sanitizer" / "compute-sanitizer"
    program.parent.mkdir()
    program.touch(0o755)
    assert find() == program


def test_on_the_emulator_it_starts_nothing(pytester: pytest.Pytester, kernel_cache, backend):
    pytester.makepyfile("""
        import os
        def test_k(gpu): assert "PYTEST_GPUPERF_SANITIZER_LOG" not in os.environ
    """)
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "--gpuperf-backend=emulated", "--gpuperf-sanitize"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["Emulated: --gpuperf-sanitize starts nothing: *", "  accesses, barriers*"])
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--gpuperf-sanitize", "--collect-only")
    result.stdout.no_fnmatch_line("*gpuperf: compute-sanitizer*")


BUGS = """
extern "C" __global__ void overrun(float* x, int n) {
    x[threadIdx.x + n] = 1.0f;
}
extern "C" __global__ void race(float* x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void twice(const float* x, float* y) { y[threadIdx.x] = 2.0f * x[threadIdx.x]; }
namespace blur {
template <class T, int N> __global__ void row(T* x) { x[threadIdx.x + N] = T(1); }
}
"""
ON_A_GPU = """
    import numpy as np
    def test_overrun(gpu, kernels):
        x, y = gpu.to_device(np.ones(256, np.float32)), gpu.to_device(np.ones(256, np.float32))
        kernels["bugs.cu"].overrun[1, 64](x, 224)
    def test_template(gpu, kernels):
        x = gpu.to_device(np.ones(256, np.float32))
        kernels["bugs.cu"]["blur::row<float, 224>"][1, 64](x)
    def test_race(gpu, kernels):
        kernels["bugs.cu"].race[1, 64](gpu.to_device(np.ones(64, np.float32)))
    def test_unwritten(gpu, kernels):
        kernels["bugs.cu"].twice[1, 64](gpu.empty(64), gpu.empty(64))
    def test_clean(gpu, kernels):
        kernels["bugs.cu"].twice[1, 64](gpu.to_device(np.ones(64, np.float32)), gpu.empty(64))
"""


@pytest.mark.gpu
def test_planted_bugs_are_found_on_a_gpu(pytester: pytest.Pytester):
    assert device_count()
    try:
        find()
    except Unavailable as missing:
        pytest.skip(str(missing))
    pytester.makepyfile(ON_A_GPU)
    (pytester.mkdir("kernels") / "bugs.cu").write_text(BUGS)
    tools = "--gpuperf-sanitize=memcheck,racecheck,initcheck"
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", tools)
    result.assert_outcomes(failed=4, passed=1)
    result.stdout.fnmatch_lines([
        "kernels/bugs.cu:3: kernel overrun, * writes 4 bytes past the end of an array: at byte 1024 of 1024*",
        "kernels/bugs.cu:12: kernel blur::row<float, (int)224>, block (0, 0, 0), thread (32, 0, 0): writes *",
        "kernels/bugs.cu:7: kernel race: writes shared memory * reads in line 8: no barrier between (race)*",
        "kernels/bugs.cu:10: kernel twice, * reads 4 bytes of memory that nothing has written*",
    ])  # fmt: skip
