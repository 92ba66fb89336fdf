"""Run as a process of its own: entries of the inbox whose modes forbid to read or to move them.

As root modes forbid nothing, so the process becomes `nobody` once all is imported and made.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline

NOBODY = 65_534
MODES = {
    "folder": 0o000,
    "only to be entered": 0o300,
    "only to be listed": 0o400,
    "only to be read": 0o500,
}
LABEL = (
    "image_id,receipt_id,line_id,word_id,label,validation_status,merchant_name\n"
    "{},1,1,1,DATE,VALID,Alpha Mart\n"
)


def put(inbox: Path, name: str) -> Path:
    folder = inbox / name
    folder.mkdir()
    (folder / "labels.csv").write_text(LABEL.format(name))
    return folder


def main(folder: Path) -> None:
    """Ingest twice, and print what was ingested, what was refused, and what lies where."""
    pipeline = Pipeline(Home(folder / "home").ensure())
    inbox = pipeline.home.inbox
    put(inbox, "first")
    pipeline.ingest()
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        put(inbox, "of somebody else").chmod(0o700)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    (put(inbox, "file") / "labels.csv").chmod(0)
    for name, mode in MODES.items():
        put(inbox, name).chmod(mode)
    (inbox / "loose.csv").touch()
    os.utime(inbox / "loose.csv", (0, 0))
    (inbox / "loose.csv").chmod(0)
    put(inbox, "good")
    found = []
    for _ in range(2):
        report = pipeline.ingest()
        found.append(
            {
                "ingested": sorted(batch.source for batch in report.batches),
                "failed": dict(report.failed),
                "waiting": [path.name for path in inbox.iterdir() if path.name[0] != "."],
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
