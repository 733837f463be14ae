"""The counters' nouns: ratios as Nsight Compute defines them, and which of them are worth storing."""

import copy

import pytest

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.instruments.counters import Counters, GlobalTraffic, NoSuchFigure, SharedTraffic, count


class Program:
    """A program whose trace is known: (requests, units, ideal) of the four kinds of access."""

    def __init__(self, *rows):
        self.rows = rows
        self.asked = None

    def trace(self, *asked):
        self.asked = asked
        return self.rows

    def figures(self, name):
        return {}


UNPADDED = Program((2048, 8192, 8192), (2048, 8192, 8192), (2048, 65536, 2048), (2048, 2048, 2048))
NAIVE = Program((2048, 8192, 8192), (2048, 65536, 8192), (0, 0, 0), (0, 0, 0))


def counted(program):
    return count(program, "k", Geometry.of((8, 8, 1), (32, 8, 1), 64), ["src"])


def test_the_launch_is_handed_on():
    counted(NAIVE)
    assert NAIVE.asked == ("k", Geometry((8, 8, 1), (32, 8, 1), 64), ["src"])


def test_global_traffic_is_counted_in_sectors():
    found = counted(NAIVE)
    assert found.global_load == GlobalTraffic(2048, 8192)
    assert (found.global_load.sectors_per_request, found.global_store.sectors_per_request) == (4, 32)


def test_bank_conflicts_are_the_wavefronts_beyond_the_ideal():
    found = counted(UNPADDED)
    assert found.shared_load == SharedTraffic(2048, 65536, 63488)
    assert found.shared_load.wavefronts_per_request == 32
    assert found.shared_load.bank_conflicts_per_request == 31
    assert found.shared_store.bank_conflicts == 0


def test_without_requests_counts_are_zero_and_ratios_none():
    found = counted(NAIVE)
    assert found.shared_load.bank_conflicts == 0
    assert found.shared_load.wavefronts_per_request is found.shared_load.bank_conflicts_per_request is None
    assert GlobalTraffic(0, 0).sectors_per_request is None


def test_ratios_are_those_of_the_accesses_that_a_kernel_makes():
    assert counted(NAIVE).ratios() == {
        "global_load.sectors_per_request": 4,
        "global_store.sectors_per_request": 32,
    }
    assert counted(UNPADDED).ratios() == {
        "global_load.sectors_per_request": 4,
        "global_store.sectors_per_request": 4,
        "shared_load.wavefronts_per_request": 32,
        "shared_load.bank_conflicts_per_request": 31,
        "shared_store.wavefronts_per_request": 1,
        "shared_store.bank_conflicts_per_request": 0,
    }


def test_counters_say_that_they_are_modelled_and_do_not_change():
    found = counted(NAIVE)
    assert isinstance(found, Counters)
    assert found.modelled
    with pytest.raises(AttributeError):
        found.modelled = False


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda found: found.global_loads,
            r"Counters of counters\(...\) has no global_loads; did you mean global_load\?",
        ),
        (
            lambda found: found.global_load.sectors_per_requests,
            r"no sectors_per_requests; did you mean sectors_per_request\?",
        ),
        (lambda found: found.shared_load.bankconflicts, r"SharedTraffic .* did you mean bank_conflicts\?"),
        (lambda found: found.global_store.zzz, "no zzz; there are requests, sectors, sectors_per_request"),
    ],
)
def test_a_name_that_is_nearly_right_is_told(wrong, said):
    none = GlobalTraffic(0, 0), GlobalTraffic(0, 0), SharedTraffic(0, 0, 0), SharedTraffic(0, 0, 0)
    with pytest.raises(NoSuchFigure, match=said):
        wrong(Counters(*none))
    assert copy.deepcopy(Counters(*none)) == Counters(*none)
    assert not hasattr(Counters(*none), "zzz")
