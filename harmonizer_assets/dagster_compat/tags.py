"""Tags of runs that Dagster reads or writes, under the names that are stored in every home.

Some are documented, none can be imported from a public module.
"""

from __future__ import annotations

from typing import Final

AUTO_RETRY_RUN_ID_TAG: Final = "dagster/auto_retry_run_id"
"""On a run that was retried by the daemon: the id of the retry."""
BACKFILL_ID_TAG: Final = "dagster/backfill"
"""On a run of a backfill: the id of the backfill."""
GRPC_INFO_TAG: Final = ".dagster/grpc_info"
"""On a run that was launched: where the code server that executes it listens, as JSON."""
MAX_RETRIES_TAG: Final = "dagster/max_retries"
"""How often the daemon retries the run; else as dagster.yaml says."""
RETRY_STRATEGY_TAG: Final = "dagster/retry_strategy"
"""Which steps a retry executes, see `RETRY_ALL_STEPS`."""
ROOT_RUN_ID_TAG: Final = "dagster/root_run_id"
"""On a run that retries another: the first of them."""
RUN_FAILURE_REASON_TAG: Final = "dagster/failure_reason"
"""On a run that failed: whether a step failed, or what else."""
WILL_RETRY_TAG: Final = "dagster/will_retry"
"""On a run that failed: `true` or `false`."""

RETRY_ALL_STEPS: Final = "ALL_STEPS"
"""The retry strategy that begins at the first step."""
