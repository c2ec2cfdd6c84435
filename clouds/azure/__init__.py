"""Azure by its own SDK (extra `azure`), imported on first use. Modules by idea: `session`, `ids`, `errors`, `instances`
(and `network`, the interface that an instance needs), `access` (leave to a disk's bytes), `pages` (the bytes), `blocks`
(transfers), `images` (the compute gallery), `catalogue`, `adapter`.
"""
