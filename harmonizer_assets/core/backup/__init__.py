"""Backup and restore of a home: a consistent copy while things run, and back."""

from harmonizer_assets.core.backup.backup import BackupReport, back_up
from harmonizer_assets.core.backup.restore import RestoreReport, restore

__all__ = ["BackupReport", "RestoreReport", "back_up", "restore"]
