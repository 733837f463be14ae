"""Say what has to be measured, without a GPU: run the tests with one that compiles and never launches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_gpuperf.backends import judges_times
from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.backends.planned import NeedsResult
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.files import check_output
from pytest_gpuperf.marker import fixtures_of, takes_numbers, test_options
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.modes.missing import Absence, not_measured, scope_of
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.report.command import location, measuring
from pytest_gpuperf.results import EXIT_TO_MEASURE
from pytest_gpuperf.rules.identical import Found, Word
from pytest_gpuperf.rules.planning import plan
from pytest_gpuperf.session import GpuperfSession, recorder_of
from pytest_gpuperf.storage.project import Project
from pytest_gpuperf.text import counted, inert, printable

_BY_THE_HOST = {
    "benchmark": "the host's times are no matter of machine code",
    "loadgen": "a model is not compiled here",
}
_AGAIN = "record a run there, with --gpuperf --gpuperf-update=append"


class Target(NamedTuple):
    """The GPU of a pool, as its baselines tell."""

    name: str
    capability: tuple[int, int]
    place: dict[str, object]


class Planning(Mode):
    """A run that measures nothing and says of each test whether a GPU has to."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._found: dict[str, tuple[pytest.Item, Found]] = {}
        self._missing: list[str] = []
        self._without = 0
        assert self._options.plan is not None
        self._file = session.config.invocation_params.dir / self._options.plan

    def check(self, asked: Sequence[Path]) -> None:
        """Check that the plan can be written; raises GpuperfError."""
        check_output(f"--gpuperf-plan={self._options.plan}", "plan", self._file, b"::")
        if not self._options.pool:
            raise GpuperfError("--gpuperf-plan is for a pool of GPUs: name it with --gpuperf-pool")

    def prepare(self, items: list[pytest.Item]) -> None:
        """Do nothing but learn where the tests are: a quarantine excuses nothing here."""
        self._project.learn(items)

    def select(self, items: list[pytest.Item]) -> None:
        """Take the pool's GPU for this session's, and leave out the tests that measure nothing."""
        taking = [item for item in items if takes_numbers(item) or self._stored(item)]
        self._without = len(items) - len(taking)
        items[:] = taking
        if taking:
            from pytest_gpuperf.backends.planned.device import planned_for

            paths = {item.path for item in taking}
            kind = planned_for(self._options.backend)
            device: Backend = kind(*target_of(self._project, self._options.pool, paths))
            self._session.stand_in = device

    def _stored(self, item: pytest.Item) -> dict[str, Baseline]:
        with suppress(GpuperfError):  # of a file that cannot be read: told when the test is reached
            return dict(self._project.stored(item.nodeid, {"backend": "cuda"}))
        return {}

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Leave every test to pytest: nothing here can crash."""
        return None

    def begin(self, item: pytest.Item) -> None:
        """Skip a test whose numbers no compiler knows."""
        for fixture in sorted(fixtures_of(item) & _BY_THE_HOST.keys()):
            pytest.skip(_BY_THE_HOST[fixture])

    def review(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Say what the plan has found, once a test has been called, or where its fixtures fail."""
        error = call.excinfo.value if call.excinfo else None
        if report.when != "call" and error is None:
            return
        if report.when == "teardown":
            needs = isinstance(error, NeedsResult)  # of a device that has nothing to clear up
            found = self._found[item.nodeid][1] if needs else Found("cannot say", _why(error))
        else:
            found = self._judge(item, error)
        self._found[item.nodeid] = item, found
        vars(report).pop("wasxfail", None)
        if found.word in _LEFT:
            report.outcome, report.longrepr = "passed", None
        else:
            path, line, _ = item.location
            why = f"Skipped: {found.word}: {found.reason}"
            report.outcome, report.longrepr = "skipped", (path, (line or 0) + 1, why)

    def _judge(self, item: pytest.Item, error: BaseException | None) -> Found:
        if test_options(item).expected:
            return Found("cannot say", "its marker expects it to regress")
        stopped = _why(error)
        broke = error is not None and not isinstance(error, NeedsResult)
        recorder = recorder_of(item)
        reached = (*recorder.unchanged.values(), *recorder.measurements.values())
        try:
            stored = self._project.stored(item.nodeid, {"backend": "cuda"})
        except GpuperfError as unreadable:
            return Found("cannot say", str(unreadable))
        device = self._session.stand_in
        return plan(stored, reached, device.compiler_version if device else "", stopped, broke)

    # --------------------------------------------------------------------------- the end of the run

    @property
    def _measured(self) -> list[str]:
        """Return where the tests are that have to be measured."""
        return [location(item) for item, found in self._found.values() if found.word not in _LEFT]

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Write the plan, and find stored tests that are gone."""
        if not complete or len(self._found) < len(items):
            self._results.finding("wrong", "the run was cut off: there is no plan")
            return
        scope = replace(scope_of(self._session), pools=frozenset({self._options.pool}))
        gone = (Absence.GONE, Absence.NOT_COLLECTED)
        entries = not_measured(self._project, self._results, scope)
        self._missing = sorted({str(entry.key) for entry in entries if entry.absence in gone})
        for test in self._missing if self._options.strict else ():
            self._results.finding("wrong", f"{test}: in the baseline, but no such test is here")
        try:
            self._file.write_text("".join(f"{test}\n" for test in self._measured))
            if output := os.environ.get("GITHUB_OUTPUT"):
                with open(output, "a", encoding="utf-8") as file:
                    file.write(f"measure={len(self._measured)}\n")
        except OSError as error:
            self._results.finding("wrong", f"{error.filename}: cannot be written ({error.strerror})")

    def status(self, status: int) -> int:
        """Return the run's exit code: what pytest and we say of failures, else whether anything is left."""
        if status == pytest.ExitCode.NO_TESTS_COLLECTED and self._without:
            status = pytest.ExitCode.OK
        return EXIT_TO_MEASURE if status == pytest.ExitCode.OK and self._measured else int(status)

    def tell(self, reporter: pytest.TerminalReporter) -> None:
        """Print the plan."""
        device = self._session.stand_in
        title = f"gpuperf: plan for {self._options.pool}"
        if device and device.compute_capability:
            compiler = device.compiler_version or "no compiler"
            title += f" (sm_{''.join(map(str, device.compute_capability))}, {compiler})"
        reporter.write_sep("=", inert(title))
        for line in self._lines():
            reporter.write_line(inert(line))

    def _lines(self) -> Iterator[str]:
        for _, (item, found) in sorted(self._found.items(), key=lambda each: _ORDER.index(each[1][1].word)):
            if found.word == "nothing":
                continue
            yield f"{_WORDS[found.word]:<11} {location(item)}"
            if found.reason:
                yield f"{'':<11}   {printable(found.reason)}"
        yield from (
            f"{'missing':<11} {test}: in the baseline, but no such test is here" for test in self._missing
        )
        yield from self._results.findings
        counts = Counter(found.word for _, found in self._found.values())
        yield (
            ", ".join(f"{counts[word]} {_WORDS[word]}" for word in _ORDER[:-1] if counts[word])
            or "no test measures"
        )
        if without := self._without + counts["nothing"]:
            yield f"{counted(without, 'test')} without a figure: run where kernels run, without --gpuperf"
        if measured := self._measured:
            file = os.path.relpath(self._file, self._session.config.invocation_params.dir)
            command = measuring(self._session.config, f"@{file}")
            yield f"{counted(len(measured), 'test')} to be measured:\n  {command}"


_ORDER: tuple[Word, ...] = ("changed", "new", "cannot say", "identical", "nothing")
_LEFT = ("identical", "nothing")  # no GPU has to measure these
_WORDS = {word: word for word in _ORDER} | {"new": "no baseline"}


def _why(error: BaseException | None) -> str:
    """Say in a line why a test went no further."""
    if error is None:
        return ""
    if isinstance(error, NeedsResult):
        return f"it needs {error}"
    said = str(error).strip().splitlines()
    if isinstance(error, pytest.skip.Exception):
        return said[0] if said else "it is skipped"
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def target_of(project: Project, pool: str, suites: set[Path]) -> Target:
    """Return the GPU of a pool, from the baselines of some suites; raises GpuperfError."""
    stores = {project.store(path).folder: project.store(path) for path in suites}
    found = [each for store in stores.values() for _, _, each in store.all_of(pool)]
    if not found:
        there = ", ".join(sorted({name for store in stores.values() for name in store.pools()})) or "none"
        where = ", ".join(map(str, stores))
        raise GpuperfError(
            f"--gpuperf-pool={pool}: there are no baselines of it in {where}; pools there: {there}"
        )
    on_gpu = [each for each in found if judges_times(each.place)]
    if not on_gpu:
        raise GpuperfError(
            f"--gpuperf-pool={pool}: its baselines are no GPU's, and --gpuperf-plan is for GPUs"
        )
    environments = [run.environment for each in on_gpu for run in each.runs]
    known = {str(c) for each in environments if (c := each.get("compute_capability"))}
    if len(known) != 1:
        what = (
            f"of GPUs of several: {', '.join(sorted(known))}"
            if known
            else "of a version that did not store it"
        )
        raise GpuperfError(
            f"--gpuperf-pool={slug(pool)}: its baselines do not say one compute capability ({what}); {_AGAIN}"
        )
    major, minor = known.pop().split(".")
    name = next((str(n) for each in environments if (n := each.get("device_name"))), pool)
    return Target(name, (int(major), int(minor)), dict(on_gpu[0].place))
