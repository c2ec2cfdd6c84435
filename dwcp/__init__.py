"""DWCP: one resumable, verified session that carries a migration's UNIX-socket connections between two hosts.

`python -m dwcp CONFIG.json` is one end. Sans-IO parts (frames, hello, window, chooser, reassembly) decide; lanes, local
sockets and the control socket are the rim. docs/dwcp-protocol.md is the wire format, byte by byte.
"""
