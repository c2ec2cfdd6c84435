"""The fake refuses what Oracle refuses: without this, the contract would prove nothing."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import oci
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.clouds.oci.fake import BUCKET, COMPARTMENT, NAMESPACE, TENANCY, StrictOci
from tests.clouds.oci.scene import OciCloud
from tests.clouds.oci.server import USER
from tests.clouds.oci.wire import Drift, Fault, judge

PLACE = {"namespace": NAMESPACE, "bucket": BUCKET}


def test_a_signature_of_another_key_is_not_answered(oci: OciCloud) -> None:
    from oci.core import ComputeClient

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    config = {
        "user": USER, "tenancy": TENANCY, "fingerprint": oci.server.fingerprint, "key_content": pem.decode(),
        "region": "us-ashburn-1",
    }  # fmt: skip
    with pytest.raises(Exception, match="NotAuthenticated"):
        ComputeClient(config, service_endpoint=oci.server.url).list_instances(COMPARTMENT)
    assert requests.get(f"{oci.server.url}/20160918/instances", timeout=20).status_code == 401
    assert oci.faults.calls == []


def test_a_body_that_is_not_the_one_signed_is_not_taken(oci: OciCloud) -> None:
    """The signature is good, and of another body."""
    caught: list[requests.PreparedRequest] = []

    class Keep(requests.Session):
        def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
            caught.append(request)
            return super().send(request, **more)

    from clouds.oci.session import OciSession

    client = OciSession(oci.settings).client("storage")
    client.base_client.session = Keep()
    details = oci_model(object="x")
    client.create_multipart_upload(NAMESPACE, BUCKET, details)
    request = caught[0]
    assert requests.Session().send(request).status_code == 200
    request.body = b'{"object": "y"}'
    assert requests.Session().send(request).status_code == 401


def oci_model(**fields: Any) -> Any:
    return oci.object_storage.models.CreateMultipartUploadDetails(**fields)


def test_what_the_models_do_not_know_is_drift() -> None:
    for wrong in ({"nmae": "x"}, {"displayName": 1}, {"lifecycleState": "SLEEPING"}, {"freeformTags": {"a": 1}}):
        with pytest.raises(Drift):
            judge("oci.core", wrong, "Image", "it")
    source = {"sourceType": "objectStorageTuple", "bucket": "b"}
    for other in ({"launchMode": "FAST"}, {"imageSourceDetails": source}):
        with pytest.raises(Drift):
            judge("oci.core", other, "CreateImageDetails", "it")
    judge("oci.core", {"displayName": "x", "launchOptions": {"firmware": "UEFI_64"}}, "CreateImageDetails", "it")


def test_parts_that_do_not_fit_are_refused() -> None:
    cloud = StrictOci()
    id = cloud.CreateMultipartUpload(PLACE, {}, {"object": "x"})[2]["uploadId"]
    place = {**PLACE, "object": "x", "uploadId": id}
    with pytest.raises(Fault, match="400"):
        cloud.UploadPart({**place, "uploadPartNum": "1"}, {"content-md5": "AAAA"}, b"data")
    with pytest.raises(Fault, match="400"):
        cloud.UploadPart({**place, "uploadPartNum": "10001"}, {}, b"data")
    cloud.UploadPart({**place, "uploadPartNum": "1"}, {}, b"data")
    etag = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    for parts in ([], [{"partNum": 1, "etag": etag}]):
        with pytest.raises(Fault, match="InvalidUploadPart"):
            cloud.CommitMultipartUpload(place, {}, {"partsToCommit": parts})
    with pytest.raises(Fault, match="NoSuchUpload"):
        cloud.UploadPart({**place, "uploadId": "none", "uploadPartNum": "1"}, {}, b"data")


def test_what_is_in_another_compartment_is_not_told() -> None:
    for call in (StrictOci().ListInstances, StrictOci().ListImages, StrictOci().ListShapes):
        with pytest.raises(Fault, match="NotAuthorizedOrNotFound"):
            call({"compartmentId": "another"}, {}, b"")
