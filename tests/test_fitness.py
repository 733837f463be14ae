"""The watch on throttling, with a stand-in for NVML where a GPU would be needed."""

import os
import sys
from types import SimpleNamespace

import pytest

from pytest_gpuperf.machine import sentinels
from pytest_gpuperf.machine.guard import Guard
from pytest_gpuperf.machine.nvml import FitnessWatch

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE = 0x08, 0x20, 0x40, 0x80
IDLE, CHOSEN_CLOCKS, SW_POWER_CAP, SYNC_BOOST = 0x01, 0x02, 0x04, 0x10


class Nvml:
    """As much of pynvml as the watch asks for; ``errors`` maps a function to the code it raises."""

    class NVMLError(Exception):
        def __init__(self, value):
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self, reasons=0, use=(0,), **errors):
        self.reasons = reasons
        self.use = list(use)  # the utilisation at each look, in percent; the last one stays
        self.errors = errors
        self.handle = None
        self.users = 0

    def _call(self, function, result=None):
        if function in self.errors:
            raise self.NVMLError(self.errors[function])
        return result

    def nvmlInit(self):
        self._call("nvmlInit")
        self.users += 1

    def nvmlShutdown(self):
        self.users -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.handle = self._call("nvmlDeviceGetHandleByUUID", ("uuid", uuid))
        return self.handle

    def nvmlDeviceGetHandleByPciBusId(self, pci):
        self.handle = self._call("nvmlDeviceGetHandleByPciBusId", ("pci", pci))
        return self.handle

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        assert handle == self.handle
        return self._call("nvmlDeviceGetCurrentClocksEventReasons", self.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        assert handle == self.handle
        return self._call("nvmlDeviceGetCurrentClocksThrottleReasons", self.reasons)

    def nvmlDeviceGetUtilizationRates(self, handle):
        assert handle == self.handle
        gpu = self.use.pop(0) if len(self.use) > 1 else self.use[0]
        return self._call("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=gpu, memory=0))


class OldNvml(Nvml):
    nvmlDeviceGetCurrentClocksEventReasons = property()  # hasattr() finds nothing


def measured(nvml, before=0, after=0):
    watch = FitnessWatch("GPU-1", nvml=nvml)
    assert watch.note == ""
    nvml.reasons = before
    watch.before()
    nvml.reasons = after
    return watch.after()


def test_a_device_nothing_holds_back_is_fit():
    assert measured(Nvml()) == ""


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        (HW_SLOWDOWN, "its hardware slowed it down"),
        (SW_THERMAL, "its driver slowed it down for heat"),
        (HW_THERMAL, "its hardware slowed it down for heat"),
        (HW_THERMAL | HW_SLOWDOWN, "its hardware slowed it down for heat"),
        (HW_POWER_BRAKE | HW_SLOWDOWN, "its power supply made it slow down (power brake)"),
        (SW_POWER_CAP | SW_THERMAL, "its driver slowed it down for heat"),
    ],
)
def test_a_throttled_device_is_unfit_at_either_end(reasons, why):
    for fitness in (measured(Nvml(), before=reasons), measured(Nvml(), after=reasons)):
        assert fitness == f"the device was throttled: {why}"


@pytest.mark.parametrize("reasons", [IDLE, CHOSEN_CLOCKS, SW_POWER_CAP, SYNC_BOOST, 0x100])
def test_a_power_cap_idling_and_chosen_clocks_are_normal(reasons):
    assert measured(Nvml(), before=reasons, after=reasons) == ""


def test_each_measurement_is_judged_by_its_own_ends():
    nvml = Nvml(reasons=HW_THERMAL)
    watch = FitnessWatch("GPU-1", nvml=nvml)
    watch.before()
    assert watch.after()
    nvml.reasons = 0
    watch.before()
    assert watch.after() == ""


@pytest.mark.parametrize("nvml", [OldNvml(), Nvml(nvmlDeviceGetCurrentClocksEventReasons=13)])
def test_an_old_package_or_driver_is_asked_by_the_old_name(nvml):
    assert measured(nvml, after=HW_THERMAL)


@pytest.mark.parametrize(
    ("uuid", "pci", "handle"),
    [
        ("GPU-1", None, ("uuid", "GPU-1")),
        ("1234", None, ("uuid", "GPU-1234")),
        ("MIG-1", None, ("uuid", "MIG-1")),
        ("MIG-1", "0000:1b:00.0", ("pci", "0000:1b:00.0")),
    ],
)
def test_finds_the_device(uuid, pci, handle):
    nvml = Nvml()
    FitnessWatch(uuid, pci, nvml=nvml)
    assert nvml.handle == handle


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        ("nvmlInit", 9, "error 9"),  # no driver
        ("nvmlDeviceGetHandleByUUID", 6, "error 6 of device GPU-1"),  # no such device
        ("nvmlDeviceGetCurrentClocksEventReasons", 4, "error 4"),  # no permission
    ],
)
def test_what_it_cannot_watch_it_says_finds_fit_and_gives_back(function, error, told):
    nvml = Nvml(**{function: error})
    watch = FitnessWatch("GPU-1", nvml=nvml)
    watch.before()
    assert watch.note == f"throttling is not watched: NVML says {told}"
    assert watch.after() == ""
    assert nvml.users == 0


def test_a_lost_device_is_unfit():
    nvml = Nvml()
    watch = FitnessWatch("GPU-1", nvml=nvml)
    watch.before()
    nvml.errors["nvmlDeviceGetCurrentClocksEventReasons"] = 15
    assert watch.after() == "the device was lost: NVML says it is no longer there"


def test_gives_nvml_back():
    nvml = Nvml()
    watch = FitnessWatch("GPU-1", nvml=nvml)
    assert nvml.users == 1
    watch.close()
    watch.close()
    assert nvml.users == 0


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = FitnessWatch("GPU-1")
    assert watch.note == "throttling is not watched: install nvidia-ml-py (in pytest-gpuperf[cuda])"
    watch.before()
    assert watch.after() == ""


def test_asks_the_real_package():
    """Wherever this runs, the real NVML refuses: there is no driver, or no device of this name."""
    pytest.importorskip("pynvml")
    watch = FitnessWatch("GPU-00000000-0000-0000-0000-000000000000")
    assert watch.note.startswith("throttling is not watched: NVML says ")
    assert watch.after() == ""


def test_what_happened_in_the_middle_counts():
    nvml = Nvml()
    watch = FitnessWatch("GPU-1", nvml=nvml)
    watch.before()
    nvml.reasons = HW_THERMAL
    watch.during()
    nvml.reasons = 0
    assert watch.after() == "the device was throttled: its hardware slowed it down for heat"


# --------------------------------------------------------------------------- in others' use


@pytest.mark.parametrize(
    ("use", "pauses"), [([0], 0), ([5], 0), ([100, 60, 0], 2), ([90, 90, 90, 90, 90, 0], 5)]
)
def test_a_device_that_is_idle_or_becomes_so_is_ours(use, pauses):
    slept = []
    assert FitnessWatch("GPU-1", nvml=Nvml(use=use)).busy(slept.append) == ""
    assert len(slept) == pauses


def test_a_device_that_works_while_we_do_not_is_in_others_use():
    slept = []
    reason = FitnessWatch("GPU-1", nvml=Nvml(use=[37])).busy(slept.append)
    assert reason == "another process is using the GPU (37 % busy while this session was idle)"
    assert 1.0 < sum(slept) < 2.0  # longer than NVML looks back, and not for ever


def test_a_mig_instance_has_no_utilisation_and_that_is_said():
    watch = FitnessWatch("MIG-1", "0000:1b:00.0", nvml=Nvml(nvmlDeviceGetUtilizationRates=3))
    assert watch.busy() == ""
    assert watch.note == "whether others use the device is not watched: NVML says error 3"
    watch.before()
    assert watch.after() == ""


# --------------------------------------------------------------------------- around tests


@pytest.fixture
def guarded(monkeypatch, tmp_path):
    """A guard of a CUDA device, a measurement under it, the NVML it asks, and what it noted."""
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(sentinels, "take", lambda gpu: {"compute_s": 1.0})
    monkeypatch.setattr("pytest_gpuperf.machine.nvml._BETWEEN_LOOKS", 0.0)
    nvml, notes = Nvml(), []
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    guard = Guard(1.0, on_wait=notes.append, note=notes.append)
    guard.wanted = True
    gpu = SimpleNamespace(uuid="MIG-1", device=SimpleNamespace(judges_times=True, pci="0000:1b:00.0"))

    def measure(during=0, after=0):
        with guard.measuring(gpu):
            nvml.reasons = during
            guard.sample()
            nvml.reasons = after
        nvml.reasons = 0
        return guard.unfit

    return SimpleNamespace(guard=guard, measure=measure, nvml=nvml, notes=notes)


def test_the_watch_looks_at_the_whole_gpu(guarded):
    assert guarded.measure() == ""
    assert guarded.nvml.handle == ("pci", "0000:1b:00.0")


def test_each_test_is_unfit_for_itself(guarded):
    assert guarded.measure(during=HW_THERMAL)
    assert guarded.measure() == ""
    assert guarded.measure(after=HW_POWER_BRAKE)


def test_in_others_use_is_unfit_until_they_are_gone(guarded):
    guarded.nvml.use = [80]
    assert guarded.measure() == "another process is using the GPU (80 % busy while this session was idle)"
    assert guarded.guard.sentinels == {}, "sentinels beside a neighbour would say that the machine moved"
    guarded.nvml.use = [0]
    assert guarded.measure() == ""
    assert guarded.guard.sentinels == {"compute_s": 1.0}
    guarded.nvml.use = [80]  # our own tests' work from now on
    assert guarded.measure() == ""


def test_lack_of_permission_is_one_line_for_many_tests(guarded):
    guarded.nvml.errors["nvmlDeviceGetCurrentClocksEventReasons"] = 4
    for _ in range(3):
        assert guarded.measure() == ""
    assert set(guarded.notes) - {""} == {"throttling is not watched: NVML says error 4"}


def test_the_end_of_the_session_gives_nvml_back(guarded):
    guarded.measure()
    assert guarded.nvml.users == 1
    guarded.guard.close()
    guarded.guard.close()
    assert guarded.nvml.users == 0


def test_the_host_has_a_lock_and_no_watch(guarded, tmp_path):
    with guarded.guard.measuring(None):
        assert (tmp_path / "locks" / f"cpu.{os.getuid()}.holder").read_text()
    assert guarded.nvml.handle is None
