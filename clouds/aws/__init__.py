"""AWS by boto3 (extra `aws`), imported on first use. Modules by idea: `session`, `errors`, `instances`, `blocks`
(EBS direct: how snapshots are written and read), `images`, `catalogue`, `adapter`.
"""
