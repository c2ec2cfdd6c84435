"""Oracle Cloud by Oracle's `oci` (extra `oci`), imported on first use. Modules by idea: `session`, `errors`,
`instances`, `uploads` (multipart, to Object Storage), `images`, `snapshots` and `exports` (the way out, by
`fetched` files), `catalogue`, `adapter`.
"""
