"""vmlinux.py BZIMAGE OUT: take the ELF kernel out of a bzImage: QEMU boots it without unpacking it first."""

import lzma
import struct
import sys
import zlib
from pathlib import Path


def extract(image: bytes) -> bytes:
    """The payload of the boot protocol's header (Documentation/x86/boot.rst), unpacked."""
    setup = (image[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup * 512 + offset :][:length]
    if payload.startswith(b"\xfd7zXZ\0"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        kernel = zlib.decompressobj(31).decompress(payload)
    else:
        raise SystemExit(f"the kernel is packed in a way that starts {payload[:6].hex()}: neither xz nor gzip")
    if not kernel.startswith(b"\x7fELF"):
        raise SystemExit("what the kernel unpacks to is no ELF file")
    return kernel


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(extract(Path(sys.argv[1]).read_bytes()))
