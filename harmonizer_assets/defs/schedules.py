"""Schedules, off by default but for the one that keeps a home from growing."""

from typing import Final

from dagster import DefaultScheduleStatus, ScheduleDefinition

from harmonizer_assets.defs.jobs import check_job, harmonize_job, prune_job

nightly_catch_up = ScheduleDefinition(
    name="nightly_catch_up",
    job=harmonize_job,
    cron_schedule="0 3 * * *",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Every night: bring up to date what settings, models or failed runs have left.",
)

weekly_check = ScheduleDefinition(
    name="weekly_check",
    job=check_job,
    cron_schedule="0 5 * * 0",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Every Sunday: run all asset checks.",
)

nightly_prune = ScheduleDefinition(
    name="nightly_prune",
    job=prune_job,
    cron_schedule="30 4 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Every night: remove old runs, reports and batches, as the retention settings say.",
)

SCHEDULES: Final = [nightly_catch_up, weekly_check, nightly_prune]
