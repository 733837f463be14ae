"""The ways a run can go: each fetches the evidence that the rules ask for, and acts on what they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_gpuperf.modes.mode import Mode
    from pytest_gpuperf.session import GpuperfSession


def mode_of(session: GpuperfSession) -> Mode:
    """Return the mode that a session's options ask for."""
    options = session.options
    if options.trace is not None:
        from pytest_gpuperf.modes.trace import Tracing

        return Tracing(session)
    if options.sanitize is not None:
        from pytest_gpuperf.modes.sanitize import Sanitized, Sanitizing

        return Sanitizing(session) if options.child is None else Sanitized(session)
    if options.child is None and options.plan is not None:
        from pytest_gpuperf.modes.plan import Planning

        return Planning(session)
    if options.child is not None or not options.active:
        from pytest_gpuperf.modes.mode import Mode

        return Mode(session)
    if options.update:
        from pytest_gpuperf.modes.record import Recording

        return Recording(session)
    if options.calibrate is not None:
        from pytest_gpuperf.modes.calibrate import Calibrating

        return Calibrating(session)
    if options.against:
        from pytest_gpuperf.modes.against import Against

        return Against(session)
    if session.budget:
        from pytest_gpuperf.modes.budget import Budgeted

        return Budgeted(session, session.budget)
    from pytest_gpuperf.modes.judge import Judging

    return Judging(session)
