"""What the fixture ``loadgen`` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number
from pytest_gpuperf.files import LOCAL_FOLDER, local_folder, own_folder
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Kind, Measurement
from pytest_gpuperf.questions import question, timed
from pytest_gpuperf.session import GpuperfSession, recorder_of

if TYPE_CHECKING:
    from pytest_gpuperf.mlperf.audit import AuditResult
    from pytest_gpuperf.mlperf.models import Model, Precision
    from pytest_gpuperf.mlperf.opening import AnySession
    from pytest_gpuperf.mlperf.peak import PeakResult
    from pytest_gpuperf.mlperf.request import Request
    from pytest_gpuperf.mlperf.result import AccuracyResult, PerformanceResult
    from pytest_gpuperf.mlperf.scores import ScoreResult
    from pytest_gpuperf.mlperf.sut import Sut

    AnyResult = PerformanceResult | AccuracyResult | ScoreResult

QUICK_SECONDS = 1.0  # of a phase that is not judged, without --gpuperf
PEAK_SECONDS = 2.0  # of a phase in the search for Server's peak, unless said otherwise
QUICK_RESOLUTION = 1.0  # of a search that is not judged
DEVICE_TIME = "gpu_compute_time"  # as NVIDIA's trtexec calls it
CPU_IMAGES = 200  # of the embedded model's held-out images; about ten seconds on two cores


_NO_OPTIONS = ("self", "model", "resolution")


def _require_qps(asked: Request) -> None:
    if asked.scenario == "Server" and asked.qps is None and asked.mode == "performance":
        raise GpuperfError(
            "loadgen: Server needs qps=, the queries a second; loadgen.find_peak finds the highest"
        )


class LoadGen:
    """The object behind the ``loadgen`` fixture, one per test."""

    def __init__(self, session: GpuperfSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item
        self._phases = self._outputs = 0
        self._logs: Path | None = None
        self._held = ExitStack()

    def close(self) -> None:
        """Let another process write its logs in this one's place."""
        self._held.close()

    def __call__(
        self,
        model: Model | Sut,
        scenario: str | None = None,
        *,
        mode: str = "performance",
        precision: Precision = "fp32",
        profile: str | None = None,
        seconds: float | None = None,
        tails: str | Sequence[str] | None = None,
        count: int | None = None,
        stall: float | None = None,
        keep_trace: bool = False,
        qps: float | None = None,
        max_latency: float | None = None,
        max_wait: float | None = None,
        max_batchsize: int | None = None,
        samples_per_query: int | None = None,
        performance_sample_count: int | None = None,
        threads: int | None = None,
        mlperf_conf: str | Path | None = None,
        user_conf: str | Path | None = None,
        audit_conf: str | Path | None = None,
        output: str | Path | None = None,
        dataset_list: str | Path | None = None,
        streams: int | None = None,
        devices: int | None = None,
        qsl: str | None = None,
        backend: str | None = None,
    ) -> AnyResult:
        given = {name: value for name, value in locals().items() if name not in _NO_OPTIONS}
        __tracebackhide__ = True
        if dataset_list is not None:
            from pytest_gpuperf.mlperf.models import with_list

            model = with_list(model, dataset_list)
        asked = self._request(model, **given)
        _require_qps(asked)
        from pytest_gpuperf.mlperf import reference

        folder, phase = reference.folder_of(self._session.config.rootpath, output), self._item.nodeid
        if folder:
            self._outputs += 1
            phase += f" ({self._outputs})" if self._outputs > 1 else ""
            reference.require_own(folder, phase)
        session = self._open(model, asked)
        result = self._accuracy(session, asked) if mode == "accuracy" else self._performance(session, asked)
        if folder:
            reference.write(folder, result, {"model": model.name, **given}, phase)
        return result

    def find_peak(
        self,
        model: Model | Sut,
        *,
        max_latency: float = 0.015,
        seconds: float | None = None,
        resolution: float = 0.02,
        precision: Precision = "fp32",
        stall: float | None = None,
        max_wait: float | None = None,
        max_batchsize: int | None = None,
        streams: int | None = None,
        devices: int | None = None,
        qsl: str | None = None,
        backend: str | None = None,
    ) -> PeakResult:
        """Find the highest rate at which 99 of 100 of Server's queries are answered within ``max_latency``.

        In phases of ``seconds`` (2), until it is known to ``resolution``.
        """
        given = {name: value for name, value in locals().items() if name not in _NO_OPTIONS}
        from pytest_gpuperf.mlperf import peak

        __tracebackhide__ = True
        asked = self._request(model, scenario="Server", mode="performance", **given)
        if not 0.005 <= (number(resolution) or 0) <= 10:  # a finer one takes more phases than there are
            raise GpuperfError(f"loadgen: resolution={resolution!r}; give a number of 0.005 to 10")
        session, active = self._open(model, asked), self._session.options.active
        usual, traffic = asked.seconds or PEAK_SECONDS, asked.traffic()
        quick = min(usual, max(QUICK_SECONDS / 5, traffic.max_latency))
        with self._session.phase():
            result = peak.find_peak(
                session,
                traffic,
                seconds=usual if active else quick,
                resolution=resolution if active else QUICK_RESOLUTION,
                log_dir=self._log_dir(f"peak-{session.precision}"),
                stall=asked.stall,
                keep_trace=False,
            )
        self._keep(result.best, result.measurements(self._judged()))
        return result

    def audit(
        self, test: str, model: Model | Sut, scenario: str | None = None, **options: Any
    ) -> AuditResult:
        """Run MLPerf's compliance audit TEST01 or TEST04, which fails the test if it is not passed.

        TEST01: answers that LoadGen samples in a performance phase are those of the accuracy phase, at the
        same rate. TEST04: the same image again and again is no faster than others. ``options`` are a
        performance phase's: ``precision``, ``seconds``, ``qps``, ...
        """
        from pytest_gpuperf.mlperf.audit import Audit
        from pytest_gpuperf.mlperf.request import require_audit

        __tracebackhide__ = True
        require_audit(test, options)
        given = {"precision": "fp32", **options, "scenario": scenario, "mode": "performance"}
        asked, active = self._request(model, **given), self._session.options.active
        _require_qps(asked)
        audit = Audit(
            self._open(model, asked),
            asked.traffic(),
            lambda phase: self._log_dir(f"{test}-{phase}"),
            asked.performance_sample_count,
            self._session.judges_host_time(),
            profile=asked.profile if active else "short",
            seconds=asked.seconds if active else QUICK_SECONDS,
            stall=asked.stall,
        )
        with self._session.phase():
            result = audit.test01() if test == "TEST01" else audit.test04()
        result.check()
        return result

    def _request(self, model: Any, **given: Any) -> Request:
        from pytest_gpuperf.mlperf.models import require_usable
        from pytest_gpuperf.mlperf.request import Request

        __tracebackhide__ = True
        if given["scenario"] is None:  # the quickest that the model can have
            given["scenario"] = "SingleStream" if getattr(model, "state", None) else "Offline"
        name = str(getattr(model, "name", ""))
        asked = Request.of((name, name.partition("-")[0]), **given)  # resnet50-digits is a resnet50
        require_usable(model, asked.count, asked.traffic())
        return asked

    def _judged(self) -> Kind:
        return "noisy" if self._session.judges_host_time() else "shown"

    def _performance(self, session: AnySession, asked: Request) -> PerformanceResult:
        from pytest_gpuperf.mlperf import loadgen

        __tracebackhide__ = True
        active = self._session.options.active
        log_dir = self._log_dir(f"{asked.scenario}-{session.precision}")
        with self._session.phase():
            result = loadgen.performance(
                session,
                asked.traffic(),
                log_dir=log_dir,
                profile=asked.profile if active else "short",
                seconds=asked.seconds if active else QUICK_SECONDS,
                stall=asked.stall,
                keep_trace=asked.keep_trace,
                loaded=asked.performance_sample_count,
                configured=asked.configured,
            )
        if asked.max_batchsize:  # Server has it in any case
            result = replace(result, contract={**result.contract, "max_batchsize": asked.max_batchsize})
        taken = result.measurements(self._judged(), asked.tails)
        self._keep(result, [*taken, *self._on_device(session)])
        return result

    def _open(self, model: Model | Sut, asked: Request) -> AnySession:
        from pytest_gpuperf.mlperf.opening import open_for

        return open_for(self._session, model, asked)

    def _on_device(self, session: Any) -> list[Measurement]:
        """Measure the device time of a batch: the model's part of a query's time, without the host's."""
        if not session.on_device or not self._session.options.active or not hasattr(session, "replay"):
            return []
        from pytest_gpuperf.mlperf.datasets import dataset_of

        size, model = session.batch_sizes[-1], session.model
        dataset = dataset_of(model, None)
        asked: dict[str, Any] = {"model": model.name, "recipe": model.recipe, "dataset": dataset.name}
        asked |= {"precision": session.precision, "images": size, "input_copy": False}
        asked |= getattr(session, "contract", {})
        enqueue = session.replay()
        reached = question(self._session, self._item, DEVICE_TIME, enqueue, more=asked)
        return [timed(self._session, self._item, enqueue, (), reached, warm=True)]

    def _accuracy(self, session: AnySession, asked: Request) -> AccuracyResult | ScoreResult:
        from pytest_gpuperf.mlperf import loadgen, models

        __tracebackhide__ = True
        count = asked.count
        if count is None and not session.on_device and session.model.name == models.DIGITS:
            count = CPU_IMAGES
        log_dir = self._log_dir(f"accuracy-{session.precision}")
        with self._session.phase():
            result = loadgen.accuracy(
                session, scenario=asked.traffic(), log_dir=log_dir, count=count, stall=asked.stall
            )
        result.check()
        self._keep(result, result.measurements())
        return result

    def _keep(self, result: AnyResult, measurements: Sequence[Measurement]) -> None:
        """With ``--gpuperf``, record the measurements for the verdict, and with them the result's notes.

        The notes are on the first one: only what is recorded gets out of this test's own process.
        """
        if not self._session.options.active:
            return
        options, notes = test_options(self._item), list(result.notes)
        for measurement in measurements:
            contract = options.versioned(measurement.contract)
            details = {**measurement.details, "notes": notes} if notes else measurement.details
            notes = []
            recorder_of(self._item).add(
                replace(measurement, contract=contract, details=details),
                hint="a phase of the same mode belongs into a test of its own",
            )

    def _log_dir(self, phase: str) -> Path:
        """Make the folder of this phase's logs in .gpuperf, in place of the last run's.

        Another session that runs the same test at the same time, on another GPU say, has a folder of its own.
        """
        from pytest_gpuperf.mlperf import logs

        self._phases += 1
        root = self._session.config.rootpath
        test = root / LOCAL_FOLDER / "loadgen" / logs.folder_name(self._item.nodeid)
        folder = test
        try:
            local_folder(root)
            self._logs = self._logs or self._held.enter_context(own_folder(test))
            folder = self._logs / f"{self._phases}-{phase}"
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise GpuperfError(f"LoadGen's logs cannot be kept in {folder}: {error.strerror}") from None
        return folder
