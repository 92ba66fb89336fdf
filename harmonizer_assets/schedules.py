"""Schedules, all off until somebody turns them on."""

from dagster import DefaultScheduleStatus, ScheduleDefinition

from harmonizer_assets.jobs import check_job, harmonize_job

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
