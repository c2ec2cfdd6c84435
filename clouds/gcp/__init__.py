"""Google Cloud by google-cloud-compute and google-cloud-storage (extra `gcp`), imported on first use. Modules by idea:
`session`, `errors`, `names`, `instances`, `uploads` (resumable, to Cloud Storage), `images`, `catalogue`, `adapter`.
"""
