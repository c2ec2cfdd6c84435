"""Oracle Cloud by Oracle's `oci` (extra `oci`), imported on first use. Modules by idea: `session`, `errors`,
`instances`, `uploads` (multipart, to Object Storage), `images`, `catalogue`, `adapter`.
"""
