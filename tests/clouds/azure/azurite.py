"""Microsoft's own emulator of Azure's blobs, as a process of the test's own: `scripts/setup.sh azurite` installs it.

It says nothing about disks: what it is asked for is the pages behind a signed address, which a disk's address leads to.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

PROGRAM = Path(os.environ.get("NOVACRON_LAB_DIR", "/var/lib/novacron/lab")) / "azurite/node_modules/.bin/azurite-blob"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The same for everybody, by Azurite's documentation."""
STARTS_WITHIN = 60.0


class Azurite:
    def __init__(self) -> None:
        # It tells its maker what it is used for unless it is told not to.
        self._process = subprocess.Popen(
            [str(PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry",
             "--skipApiVersionCheck"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            self.url = self._started()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def page_blob(self, size: int, access: str = "rw", good_for: float = 3600) -> str:
        """A signed address of a fresh one. `good_for`: seconds, negative for one that has expired."""
        from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

        name = uuid.uuid4().hex
        with BlobServiceClient(f"{self.url}/{ACCOUNT}", credential=KEY) as service:
            container = service.create_container(name)
            container.get_blob_client("disk").create_page_blob(size)
        now = datetime.now(UTC)
        signed = generate_blob_sas(
            ACCOUNT, name, "disk", account_key=KEY, permission=BlobSasPermissions(read=True, write="w" in access),
            start=now - timedelta(hours=2), expiry=now + timedelta(seconds=good_for),
        )  # fmt: skip
        return f"{self.url}/{ACCOUNT}/{name}/disk?{signed}"

    def _started(self) -> str:
        said, until = b"", time.monotonic() + STARTS_WITHIN
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            while time.monotonic() < until:
                if ready.select(1):
                    piece = os.read(self._process.stdout.fileno(), 4096)
                    said += piece
                    if found := re.search(rb"successfully listens on (http://\S+)", said):
                        return found[1].decode()
                    if not piece:
                        break
        raise AssertionError(f"Azurite did not start: {said.decode(errors='replace')}")
