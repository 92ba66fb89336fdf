"""The wall clock, which is set back and ahead now and then: it orders nothing that we write."""

from __future__ import annotations

import datetime as dt


def utc_now() -> dt.datetime:
    """Return the present time, in UTC."""
    return dt.datetime.now(dt.UTC)


def is_due(last: dt.datetime | None, every: dt.timedelta, now: dt.datetime | None = None) -> bool:
    """Return whether what is done now and then is to be done again.

    Args:
        last: when it was done; None for never. A time to come is that of a clock that was wrong:
            waiting for it could take years.
        every: how long to wait between.
        now: the time of day, if it was taken already.
    """
    return last is None or not dt.timedelta(0) <= (now or utc_now()) - last < every
