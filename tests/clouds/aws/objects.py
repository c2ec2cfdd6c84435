"""S3 as far as an index needs it: objects that are kept whole, lists in pages. Requests, and answers with a body, are
judged by botocore's own model of S3; a body whose checksum does not fit is refused, as S3 does.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model
from werkzeug.wrappers import Request, Response

from tests.clouds.aws.wire import AwsFault, Call, Drift, judge

BUCKET = "novacron-index"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


class StrictS3:
    def __init__(self, page: int = 1000) -> None:
        self.page = page
        self.objects: dict[str, bytes] = {}
        self.aged: dict[str, timedelta] = {}
        """How much older than they are these objects say they are."""
        self._written: dict[str, datetime] = {}

    def read(self, request: Request) -> Call:
        """Raises Drift for what S3's model does not know, or this adapter should not do."""
        bucket, _, key = request.path.removeprefix("/").partition("/")
        name = {"PUT": "PutObject", "GET": "GetObject", "DELETE": "DeleteObject"}[request.method]
        params: dict[str, Any] = {"Bucket": bucket, "Key": unquote(key)}
        if not key:
            if request.method != "GET" or request.args.get("list-type") != "2":
                raise Drift(f"{request.method} {request.full_path} of S3")
            name, params = "ListObjectsV2", {"Bucket": bucket, "Prefix": request.args.get("prefix", "")}
            params |= (
                {"ContinuationToken": request.args["continuation-token"]}
                if "continuation-token" in request.args
                else {}
            )
        if name == "PutObject":
            params |= {"Body": request.get_data(), "ChecksumSHA256": request.headers.get("x-amz-checksum-sha256", "")}
        operation = get_service_model("s3").operation_model(name)
        judge(params, operation.input_shape, f"request of {name}")
        return Call("s3", operation, params)

    def answer(self, call: Call) -> Response:
        if call.params["Bucket"] != BUCKET:
            raise AwsFault("NoSuchBucket", "The specified bucket does not exist", 404)
        response: Response = getattr(self, f"_{call.name}")(call.params)
        return response

    def fault(self, fault: AwsFault) -> Response:
        body = f"{_XML}<Error><Code>{fault.code}</Code><Message>{escape(fault.message)}</Message></Error>"
        return Response(body, fault.status, content_type="application/xml")

    def _PutObject(self, p: dict[str, Any]) -> Response:
        if p["ChecksumSHA256"] != base64.b64encode(hashlib.sha256(p["Body"]).digest()).decode():
            raise AwsFault("BadDigest", "The checksum you specified did not match what we received.")
        self.objects[p["Key"]], self._written[p["Key"]] = p["Body"], datetime.now(UTC)
        return Response(b"", 200, {"ETag": f'"{hashlib.md5(p["Body"]).hexdigest()}"'})

    def _GetObject(self, p: dict[str, Any]) -> Response:
        if p["Key"] not in self.objects:
            raise AwsFault("NoSuchKey", "The specified key does not exist.", 404)
        return Response(self.objects[p["Key"]], 200, content_type="binary/octet-stream")

    def _DeleteObject(self, p: dict[str, Any]) -> Response:
        self.objects.pop(p["Key"], None)
        return Response(b"", 204)

    def _ListObjectsV2(self, p: dict[str, Any]) -> Response:
        names = sorted(name for name in self.objects if name.startswith(p["Prefix"]))
        start = p.get("ContinuationToken", "")
        names = [name for name in names if name > start]
        rows = []
        for name in names[: self.page]:
            when = self._written[name] - self.aged.get(name, timedelta())
            rows.append({"Key": name, "Size": len(self.objects[name]), "LastModified": when})
        told: dict[str, Any] = {"Name": p["Bucket"], "Prefix": p["Prefix"], "KeyCount": len(rows), "Contents": rows}
        told["IsTruncated"] = len(names) > len(rows)
        if told["IsTruncated"]:
            told["NextContinuationToken"] = rows[-1]["Key"]
        judge(told, get_service_model("s3").operation_model("ListObjectsV2").output_shape, "answer of ListObjectsV2")
        body = "".join(f"<{key}>{_text(value)}</{key}>" for key, value in told.items() if key != "Contents")
        body += "".join(
            f"<Contents>{''.join(f'<{key}>{_text(value)}</{key}>' for key, value in row.items())}</Contents>"
            for row in rows
        )
        return Response(f"{_XML}<ListBucketResult>{body}</ListBucketResult>", 200, content_type="application/xml")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return escape(str(value).lower() if isinstance(value, bool) else str(value))
