"""A worker to be killed: uploads `disk.raw` of a folder with its `settings.json`, and keeps `cursor.json` in it.

Prints a line for every cursor kept. Run as `python -m tests.clouds.uploader FOLDER`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from clouds.adapters import connect
from clouds.disks.content import RawFile
from models.clouds import CloudSettings, Cursor
from tests.clouds.scene import order

SETTINGS: TypeAdapter[CloudSettings] = TypeAdapter(CloudSettings)


def main(folder: Path) -> None:
    def keep(cursor: Cursor) -> None:
        fresh = folder / "cursor.new"
        fresh.write_text(cursor.model_dump_json())
        fresh.replace(folder / "cursor.json")
        print("kept", flush=True)
        time.sleep(0.02)  # so that it can be met in its middle, however fast the cloud is

    adapter = connect(SETTINGS.validate_json((folder / "settings.json").read_text()))
    assert adapter.image_import is not None
    with RawFile(folder / "disk.raw") as source:
        adapter.image_import.import_disk(order(), source, keep)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
