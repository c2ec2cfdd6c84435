"""Disk images between places: `content` (what the guest sees, as blocks with one hash for all formats), `images`
(opening, converting and judging image files by qemu-img), `nbd` (a small client of qemu-nbd, for all that is not raw).
"""
