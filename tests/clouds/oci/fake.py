"""Compute, Object Storage and limits of Oracle Cloud, as strict as Oracle documents them. Every byte is kept.

What an image holds is read out of the QCOW2 object by the real qemu-img. Things change when they were looked at `slow`
times.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clouds.disks.content import blocks
from clouds.disks.images import convert, open_image
from tests.clouds.oci.wire import Fault

COMPARTMENT, TENANCY = "ocid1.compartment.oc1..test", "ocid1.tenancy.oc1..test"
SUBNET, DOMAIN, REGION = "ocid1.subnet.oc1.iad.test", "Uocm:US-ASHBURN-AD-1", "us-ashburn-1"
NAMESPACE, BUCKET = "testns", "transfer"
BORN = "2026-01-01T00:00:00.000Z"
X86, ARM = "2.55 GHz AMD EPYC", "3.0 GHz Ampere Altra"
SHAPES: tuple[dict[str, Any], ...] = (
    *({"shape": f"VM.Standard2.{n}", "ocpus": float(n), "memoryInGBs": 15.0 * n, "processorDescription": X86,
       "isFlexible": False} for n in (1, 2, 4, 8)),
    {"shape": "BM.Standard2.52", "ocpus": 52.0, "memoryInGBs": 768.0, "processorDescription": X86, "isFlexible": False},
    *({"shape": shape, "ocpus": 1.0, "memoryInGBs": 16.0, "processorDescription": processor, "isFlexible": True,
       "ocpuOptions": {"min": 1.0, "max": 64.0}, "memoryOptions": {"minInGBs": 1.0, "maxInGBs": 1024.0,
       "defaultPerOcpuInGBs": 16.0}}
      for shape, processor in (("VM.Standard.E5.Flex", X86), ("VM.Standard.A1.Flex", ARM))),
)  # fmt: skip
Answer = tuple[int, dict[str, str], Any]
Blocks = dict[int, bytes]


@dataclass
class Upload:
    object: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Stored:
    data: bytes
    metadata: dict[str, str]
    whole: bool = True
    """It came in one piece: its MD5 is told."""

    @cached_property
    def headers(self) -> dict[str, str]:
        told = {**self.metadata, "etag": _md5(self.data)}
        return {**told, "content-md5": told["etag"]} if self.whole else told


class StrictOci:
    """Operations by Oracle's name, each with the path's and the query's parameters, headers and the body."""

    def __init__(self, slow: int = 2) -> None:
        self.slow = slow
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, Blocks] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self._exports: dict[str, list[Any]] = {}
        self.put_bytes = 0
        self.fail_next: set[str] = set()
        self._changes: dict[str, list[Any]] = {}
        self._tokens: dict[tuple[str, str], tuple[Any, str]] = {}
        self._numbers = itertools.count(1)

    # Object Storage.

    def HeadObject(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        kept = self._object(p)
        return 200, kept.headers, kept.data

    def GetObject(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        kept = self._object(p)
        told = {**kept.headers, "Content-Type": "application/octet-stream"}
        if "range" not in h:
            return 200, told, kept.data
        first, last = map(int, h["range"].removeprefix("bytes=").split("-"))
        if first >= len(kept.data):
            raise Fault(416, "InvalidRange", "The range is behind the object's end.")
        part = kept.data[first : last + 1]
        return 206, {**told, "content-range": f"bytes {first}-{first + len(part) - 1}/{len(kept.data)}"}, part

    def PutObject(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._bucket(p)
        if h.get("if-none-match") == "*" and p["object"] in self.objects:
            raise Fault(412, "IfNoneMatchFailed", "The object exists.")
        self.objects[p["object"]] = Stored(body, {})
        return 200, {"etag": _md5(body)}, b""

    def DeleteObject(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._object(p)
        del self.objects[p["object"]]
        return 204, {}, b""

    def CreateMultipartUpload(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._bucket(p)
        if not all(key.startswith("opc-meta-") for key in body.get("metadata", {})):
            raise Fault(400, "InvalidParameter", "Metadata has names that begin with opc-meta-.")
        id = f"upload-{next(self._numbers)}"
        self.uploads[id] = Upload(body["object"], body.get("metadata", {}))
        told = {"namespace": NAMESPACE, "bucket": BUCKET, "object": body["object"], "uploadId": id, "timeCreated": BORN}
        return 200, {}, told

    def ListMultipartUploads(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._bucket(p)
        told = [
            {"namespace": NAMESPACE, "bucket": BUCKET, "object": upload.object, "uploadId": id, "timeCreated": BORN}
            for id, upload in self.uploads.items()
        ]
        return self._page(p, told)

    def UploadPart(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        upload, number = self._upload(p), int(p["uploadPartNum"])
        if not 1 <= number <= 10000:
            raise Fault(400, "InvalidParameter", "A part's number is 1 to 10000.")
        if h.get("content-md5", _md5(body)) != _md5(body):
            raise Fault(400, "UnmatchedContentMD5", "The Content-MD5 you specified did not match what was received.")
        upload.parts[number] = body
        self.put_bytes += len(body)
        return 200, {"etag": _md5(body), "opc-content-md5": _md5(body)}, b""

    def ListMultipartUploadParts(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        upload = self._upload(p)
        told = [
            {"etag": _md5(data), "md5": _md5(data), "size": len(data), "partNumber": number}
            for number, data in sorted(upload.parts.items())
        ]
        return self._page(p, told, most=5)

    def CommitMultipartUpload(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        upload = self._upload(p)
        asked = {part["partNum"]: part["etag"] for part in body["partsToCommit"]}
        if not asked or asked != {number: _md5(data) for number, data in upload.parts.items()}:
            raise Fault(400, "InvalidUploadPart", "The parts are not those that were sent.")
        data = b"".join(data for _, data in sorted(upload.parts.items()))
        self.objects[upload.object] = Stored(data, upload.metadata, whole=False)
        del self.uploads[p["uploadId"]]
        return 200, {"etag": _md5(data)}, b""

    def AbortMultipartUpload(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._upload(p)
        del self.uploads[p["uploadId"]]
        return 204, {}, b""

    # Images.

    def CreateImage(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        def make() -> dict[str, Any]:
            self._compartment(body)
            if "instanceId" in body:
                return self._image_of_instance(body)
            source = body["imageSourceDetails"]
            kept = self.objects.get(source["objectName"])
            if kept is None or (source["namespaceName"], source["bucketName"]) != (NAMESPACE, BUCKET):
                raise Fault(404, "NotAuthorizedOrNotFound", "The object was not found.")
            custom = body.get("launchMode") == "CUSTOM"
            if custom != ("launchOptions" in body):
                raise Fault(400, "InvalidParameter", "launchOptions are for the launchMode CUSTOM.")
            image = {
                "id": self._id("image"), "compartmentId": COMPARTMENT, "displayName": body["displayName"],
                "freeformTags": body.get("freeformTags", {}), "lifecycleState": "IMPORTING", "launchMode":
                body["launchMode"], "operatingSystem": "Custom", "operatingSystemVersion": "1", "timeCreated": BORN,
                "createImageAllowed": True, "launchOptions": body.get("launchOptions", {"firmware": "BIOS"}),
            }  # fmt: skip
            self.images[image["id"]] = image
            good = "CreateImage" not in self.fail_next and bool(unpack(kept.data))
            self.fail_next.discard("CreateImage")
            self.volumes[image["id"]] = unpack(kept.data)
            self._later(image, "AVAILABLE" if good else "DISABLED")
            return image

        return self._once("CreateImage", h, body, make)

    def _image_of_instance(self, body: Any) -> dict[str, Any]:
        instance = self._look(self.instances, body["instanceId"])
        if instance["lifecycleState"] != "STOPPED":  # Oracle would stop it: nobody of ours is to ask for that
            raise Fault(409, "IncorrectState", f"The instance is {instance['lifecycleState']}.")
        image = {
            "id": self._id("image"), "compartmentId": COMPARTMENT, "displayName": body["displayName"],
            "freeformTags": body.get("freeformTags", {}), "lifecycleState": "PROVISIONING", "operatingSystem": "Custom",
            "operatingSystemVersion": "1", "timeCreated": BORN, "createImageAllowed": True, "sizeInMBs": 47694,
        }  # fmt: skip
        self.images[image["id"]] = image
        self.volumes[image["id"]] = dict(self.volumes[f"{instance['id']}.boot"])
        instance["lifecycleState"] = "CREATING_IMAGE"
        self._later(instance, "STOPPED")
        self._later(image, "AVAILABLE")
        return image

    def ExportImage(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        image = self._look(self.images, p["id"])
        if h.get("if-match", _etag(image)) != _etag(image):
            raise Fault(412, "NoEtagMatch", "The image is not the one that was seen.")
        if image["lifecycleState"] != "AVAILABLE" or body["exportFormat"] != "QCOW2":
            raise Fault(409, "IncorrectState", f"The image is {image['lifecycleState']}.")
        if (body["namespaceName"], body["bucketName"]) != (NAMESPACE, BUCKET):
            raise Fault(404, "BucketNotFound", "The bucket was not found.")
        image["lifecycleState"] = "EXPORTING"
        id = self._id("coreservicesworkrequest")
        self.requests[id] = {
            "operationType": "ExportImage", "status": "IN_PROGRESS", "id": id, "compartmentId": COMPARTMENT,
            "resources": [{"actionType": "RELATED", "entityType": "image", "identifier": image["id"]}],
            "percentComplete": 0.0, "timeAccepted": BORN,
        }  # fmt: skip
        good = "ExportImage" not in self.fail_next
        self.fail_next.discard("ExportImage")
        self._exports[id] = [self.slow, image, body["objectName"], good]
        return 200, {"opc-work-request-id": id}, image

    def GetWorkRequest(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        request = self.requests[p["id"]]
        going = self._exports.get(p["id"])
        if going:
            going[0] -= 1
        if going and going[0] <= 0:
            _, image, name, good = self._exports.pop(p["id"])
            request["status"] = "SUCCEEDED" if good else "FAILED"
            image["lifecycleState"] = "AVAILABLE"
            if good:
                self.objects[name] = Stored(pack(self.volumes[image["id"]]), {})
        return 200, {}, request

    def ListWorkRequests(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._compartment(p)
        found = [each for each in self.requests.values() if each["resources"][0]["identifier"] == p["resourceId"]]
        fields = ("operationType", "status", "id", "compartmentId", "percentComplete", "timeAccepted")
        return self._page(p, [{key: each[key] for key in fields} for each in found])

    def ListWorkRequestErrors(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        told = {"code": "InvalidBucket", "message": "The bucket may not be written to.", "timestamp": BORN}
        return self._page(p, [told])

    def GetImage(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        found = self._look(self.images, p["id"])
        return 200, {"etag": _etag(found)}, found

    def ListImages(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._compartment(p)
        found = [i for i in self.images.values() if p.get("displayName", i["displayName"]) == i["displayName"]]
        return self._page(p, found)

    def DeleteImage(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._look(self.images, p["id"])["lifecycleState"] = "DELETED"
        return 204, {}, b""

    # Instances.

    def LaunchInstance(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        def make() -> dict[str, Any]:
            self._compartment(body)
            image = self.images.get(body["sourceDetails"]["imageId"])
            if image is None or image["lifecycleState"] != "AVAILABLE":
                raise Fault(404, "NotAuthorizedOrNotFound", "The image was not found.")
            shape = next((shape for shape in SHAPES if shape["shape"] == body["shape"]), None)
            if shape is None or shape["isFlexible"] != ("shapeConfig" in body):
                raise Fault(400, "InvalidParameter", f"shape {body['shape']} is not there, or needs its own config.")
            if body["createVnicDetails"]["subnetId"] != SUBNET or body["availabilityDomain"] != DOMAIN:
                raise Fault(404, "NotAuthorizedOrNotFound", "The subnet or domain was not found.")
            instance = {
                "id": self._id("instance"), "compartmentId": COMPARTMENT, "displayName": body["displayName"],
                "shape": body["shape"], "imageId": image["id"], "lifecycleState": "PROVISIONING", "region": "iad",
                "availabilityDomain": DOMAIN, "freeformTags": body.get("freeformTags", {}), "timeCreated": BORN,
                "shapeConfig": {k: v for k, v in body.get("shapeConfig", {}).items() if k in ("ocpus", "memoryInGBs")},
            }  # fmt: skip
            self.instances[instance["id"]] = instance
            self.volumes[f"{instance['id']}.boot"] = dict(self.volumes[image["id"]])
            self._later(instance, "RUNNING")
            return instance

        return self._once("LaunchInstance", h, body, make)

    def GetInstance(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        return 200, {}, self._look(self.instances, p["id"])

    def ListInstances(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._compartment(p)
        found = [i for i in self.instances.values() if p.get("displayName", i["displayName"]) == i["displayName"]]
        return self._page(p, found)

    def UpdateInstance(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        instance = self._look(self.instances, p["id"])
        instance.update(body)
        return 200, {}, instance

    def InstanceAction(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        instance = self._look(self.instances, p["id"])
        allowed, now, later = {
            "START": ("STOPPED", "STARTING", "RUNNING"),
            "SOFTSTOP": ("RUNNING", "STOPPING", "STOPPED"),
            "RESET": ("RUNNING", "RUNNING", "RUNNING"),
        }[p["action"]]
        if instance["lifecycleState"] != allowed:
            raise Fault(409, "IncorrectState", f"The instance is {instance['lifecycleState']}.")
        instance["lifecycleState"] = now
        self._later(instance, later)
        return 200, {}, instance

    def TerminateInstance(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        instance = self._look(self.instances, p["id"])
        if instance["lifecycleState"] in ("TERMINATING", "TERMINATED"):
            raise Fault(409, "IncorrectState", "The instance is terminated.")
        instance["lifecycleState"] = "TERMINATING"
        self._later(instance, "TERMINATED")
        return 204, {}, b""

    def ListVnicAttachments(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        return self._page(p, [{**self._attached(p), "vnicId": f"{p['instanceId']}.vnic", "subnetId": SUBNET}])

    def ListBootVolumeAttachments(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        if "bootVolumeId" in p:
            p = {**p, "instanceId": p["bootVolumeId"].removesuffix(".boot")}
        return self._page(p, [{**self._attached(p), "bootVolumeId": f"{p['instanceId']}.boot"}])

    def GetBootVolume(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        if p["id"] not in self.volumes:
            raise Fault(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")
        told = {"id": p["id"], "availabilityDomain": DOMAIN, "compartmentId": COMPARTMENT, "lifecycleState":
                "AVAILABLE", "sizeInMBs": 47694, "timeCreated": BORN}  # fmt: skip
        return 200, {}, told

    def ListVolumeAttachments(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._attached(p)
        return self._page(p, [])

    def GetVnic(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        told = {"id": p["id"], "availabilityDomain": DOMAIN, "compartmentId": COMPARTMENT,
                "lifecycleState": "AVAILABLE", "subnetId": SUBNET, "privateIp": "10.0.0.7",
                "timeCreated": BORN}  # fmt: skip
        return 200, {}, told

    # Shapes and limits.

    def ListShapes(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        self._compartment(p)
        return self._page(p, list(SHAPES))

    def GetResourceAvailability(self, p: dict[str, str], h: dict[str, str], body: Any) -> Answer:
        if p["compartmentId"] != TENANCY or not p["limit"].endswith("-core-count") or "availabilityDomain" not in p:
            raise Fault(404, "NotAuthorizedOrNotFound", "There is no such limit.")
        return 200, {}, {"used": 2, "available": 98}

    # For all.

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        self.volumes[volume][index] = data.ljust(512 << 10, b"\0")

    def _once(self, name: str, h: dict[str, str], body: Any, make: Callable[[], dict[str, Any]]) -> Answer:
        key = (name, h.get("opc-retry-token", ""))
        if key[1] and key in self._tokens:
            asked, id = self._tokens[key]
            if asked != body:
                raise Fault(409, "InvalidatedRetryToken", "The retry token was used with other parameters.")
            return 200, {}, {**self.images, **self.instances}[id]
        made = make()
        self._tokens[key] = (body, made["id"])
        return 200, {"opc-work-request-id": self._id("coreservicesworkrequest")}, made

    def _later(self, thing: dict[str, Any], state: str) -> None:
        self._changes[thing["id"]] = [self.slow, state]

    def _look(self, things: dict[str, dict[str, Any]], id: str) -> dict[str, Any]:
        if id not in things:
            raise Fault(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")
        change = self._changes.get(id)
        if change:
            change[0] -= 1
            if change[0] <= 0:
                things[id]["lifecycleState"] = change[1]
                del self._changes[id]
        return things[id]

    def _attached(self, p: dict[str, str]) -> dict[str, Any]:
        self._compartment(p)
        if p["instanceId"] not in self.instances:
            raise Fault(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")
        return {"id": f"{p['instanceId']}.attachment", "availabilityDomain": DOMAIN, "compartmentId": COMPARTMENT,
                "instanceId": p["instanceId"], "lifecycleState": "ATTACHED", "timeCreated": BORN}  # fmt: skip

    def _page(self, p: dict[str, str], found: list[dict[str, Any]], most: int = 1000) -> Answer:
        limit, start = min(int(p.get("limit", most)), most), int(p.get("page", 0))
        more = {"opc-next-page": str(start + limit)} if start + limit < len(found) else {}
        return 200, more, found[start : start + limit]

    def _compartment(self, told: dict[str, Any]) -> None:
        if told.get("compartmentId") != COMPARTMENT:
            raise Fault(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")

    def _bucket(self, p: dict[str, str]) -> None:
        if (p["namespace"], p["bucket"]) != (NAMESPACE, BUCKET):
            raise Fault(404, "BucketNotFound", "The bucket was not found.")

    def _object(self, p: dict[str, str]) -> Stored:
        self._bucket(p)
        if p["object"] not in self.objects:
            raise Fault(404, "ObjectNotFound", f"The object '{p['object']}' was not found.")
        return self.objects[p["object"]]

    def _upload(self, p: dict[str, str]) -> Upload:
        self._bucket(p)
        upload = self.uploads.get(p["uploadId"])
        if upload is None or upload.object != p["object"]:
            raise Fault(404, "NoSuchUpload", "The upload was not found.")
        return upload

    def _id(self, kind: str) -> str:
        return f"ocid1.{kind}.oc1.iad.{next(self._numbers):08d}"


def unpack(image: bytes) -> Blocks:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.qcow2"
        path.write_bytes(image)
        with open_image(path, "qcow2") as disk:
            return {block.index: block.data for block in blocks(disk)}


def pack(volume: Blocks) -> bytes:
    """A QCOW2 as qemu-img writes it."""
    with tempfile.TemporaryDirectory() as folder:
        raw, made = Path(folder) / "disk.raw", Path(folder) / "disk.qcow2"
        with raw.open("wb") as file:
            for index, data in volume.items():
                file.seek(index * len(data))
                file.write(data)
            file.truncate(47 << 30)
        convert(raw, "raw", made, "qcow2")
        return made.read_bytes()


def _etag(image: dict[str, Any]) -> str:
    return f"{image['id'][-8:]}-{image['lifecycleState']}"


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


OCID = re.compile(r"ocid1\.[a-z]+\.oc1\.[a-z]*\.[a-z0-9]+")
