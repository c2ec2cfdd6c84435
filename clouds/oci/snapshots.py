"""What comes out of Oracle Cloud: images of instances, and what they are exported to.

Oracle has no way to read a volume from outside. A snapshot is therefore an image of the stopped instance, made of its
boot volume; to be read it is exported into Object Storage as QCOW2, beside the imported disks. Each step is seen by its
effect: the image by its tag, the export by its work request and by the object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

from clouds.errors import Busy, Conflict, NotFound, NotOffered, OperationFailed
from clouds.oci.session import OciSession
from clouds.oci.uploads import OciUploads
from clouds.tokens import TAG, name
from clouds.tokens import token as derived
from models.clouds import Snapshot

PREFIX = "novacron"
IMAGE = "ocid1.image."
OWNER = "novacron-instance"
GIB_IN_MIB = 1024
EXPORT = "ExportImage"
_GOING_ON = ("ACCEPTED", "IN_PROGRESS", "CANCELING")
_STATES: dict[str, Literal["pending", "ready"]] = {
    "PROVISIONING": "pending",
    "AVAILABLE": "ready",
    "EXPORTING": "ready",
}


def is_snapshot(disk: str) -> bool:
    """Else it is an imported disk."""
    return disk.startswith(IMAGE)


class OciSnapshots:
    def __init__(self, session: OciSession, uploads: OciUploads) -> None:
        self._oci = session
        self._uploads = uploads

    def create(self, volume: str, token: str) -> Snapshot:
        """Raises Conflict while the instance is not stopped: Oracle would stop it."""
        made = name(PREFIX, token)
        what = f"make an image of {volume}"
        for told in self._images(what, made):
            if (told.freeform_tags or {}).get(TAG) == token:
                return self.get(told.id)
        instance = self._owner(volume)
        state = self._oci.call(what, "compute", "get_instance", instance).data.lifecycle_state
        if state != "STOPPED":
            raise Conflict(
                f"cannot {what}: instance {instance} is {state}, and Oracle stops it for that", "Stop it first."
            )
        request = self._oci.model(
            "compute",
            "CreateImageDetails",
            compartment_id=self._oci.settings.compartment,
            display_name=made,
            instance_id=instance,
            freeform_tags={TAG: token, OWNER: instance},
        )
        return _snapshot(self._oci.call(what, "compute", "create_image", request, opc_retry_token=token).data)

    def get(self, image: str) -> Snapshot:
        """Ready when the instance is free again, too: until then it is neither stopped nor can it be started."""
        found = _snapshot(self._image(image))
        owner = found.tags.get(OWNER, "")
        if found.state == "ready" and owner and self._is_being_read(owner):
            return found.model_copy(update={"state": "pending"})
        return found

    def _is_being_read(self, instance: str) -> bool:
        with contextlib.suppress(NotFound):
            told = self._oci.call(f"find instance {instance}", "compute", "get_instance", instance).data
            return bool(told.lifecycle_state == "CREATING_IMAGE")
        return False

    def volume_size(self, volume: str) -> int:
        """Of a boot volume. Whole GiB."""
        told = self._oci.call(f"find {volume}", "volumes", "get_boot_volume", volume).data
        return max(1, -(-int(told.size_in_mbs) // GIB_IN_MIB)) << 30

    def delete(self, image: str) -> None:
        """With what was exported of it."""
        self._uploads.remove(image)
        with contextlib.suppress(NotFound):
            self._image(image)
            self._oci.call(f"delete image {image}", "compute", "delete_image", image)

    def export(self, image: str, beat: Callable[[], None]) -> None:
        """Its object is there when this returns."""
        what = f"export {image}"
        if self._uploads.size(image) is not None:
            return
        self._oci.wait(what, lambda: _snapshot(self._image(image)).state != "pending", beat)
        request = self._running_export(what, image) or self._begin(what, image)
        self._oci.wait(what, lambda: self._request(what, request).status not in _GOING_ON, beat)
        ended = self._request(what, request)
        if ended.status != "SUCCEEDED" or self._uploads.size(image) is None:
            raise OperationFailed(
                f"cannot {what}: Oracle's work request {request} is {ended.status}: {self._reason(what, request)}",
                "Images of the Marketplace are not exported. See the work request, and try again.",
            )

    def _begin(self, what: str, image: str) -> str:
        """The work request. Asked of the image as it was seen: twice is once, and a later attempt begins its own."""
        seen = self._oci.call(what, "compute", "get_image", image)
        settings, etag = self._oci.settings, seen.headers["etag"]
        details = self._oci.model(
            "compute",
            "ExportImageViaObjectStorageTupleDetails",
            namespace_name=settings.namespace,
            bucket_name=settings.bucket,
            object_name=self._uploads.object(image),
            export_format="QCOW2",
        )
        once = {"if_match": etag, "opc_retry_token": derived(image, f"export/{etag}")}
        try:
            answer = self._oci.call(what, "compute", "export_image", image, details, **once)
        except Busy:  # it is not as it was seen: an answer was lost
            running = self._running_export(what, image)
            if not running:
                raise
            return running
        return str(answer.headers["opc-work-request-id"])

    def _running_export(self, what: str, image: str) -> str:
        """Begun by an attempt that is no more; empty when there is none."""
        page: dict[str, str] = {}
        while True:
            answer = self._oci.call(
                what, "requests", "list_work_requests", self._oci.settings.compartment, resource_id=image, **page
            )
            for told in answer.data:
                if told.operation_type == EXPORT and told.status in _GOING_ON:
                    return str(told.id)
            if not answer.next_page:
                return ""
            page = {"page": answer.next_page}

    def _request(self, what: str, request: str) -> Any:
        return self._oci.call(what, "requests", "get_work_request", request).data

    def _reason(self, what: str, request: str) -> str:
        told = self._oci.call(what, "requests", "list_work_request_errors", request).data
        return "; ".join(f"{each.code}: {each.message}" for each in told)[:1000] or "no reason is told"

    def _owner(self, volume: str) -> str:
        """The instance that boots from it. Raises NotFound, NotOffered."""
        what = f"find who boots from {volume}"
        where = self._oci.call(what, "volumes", "get_boot_volume", volume).data.availability_domain
        attached = self._oci.call(
            what,
            "compute",
            "list_boot_volume_attachments",
            where,
            self._oci.settings.compartment,
            boot_volume_id=volume,
        ).data
        for told in attached:
            if told.lifecycle_state == "ATTACHED":
                return str(told.instance_id)
        raise NotOffered(f"no instance boots from {volume}", "Oracle makes images of instances only: attach it.")

    def _image(self, image: str) -> Any:
        told = self._oci.call(f"find image {image}", "compute", "get_image", image).data
        if told.lifecycle_state == "DELETED":
            raise NotFound(f"image {image} is deleted", "Check the id.")
        return told

    def _images(self, what: str, display_name: str) -> list[Any]:
        compartment = self._oci.settings.compartment
        found = self._oci.call(what, "compute", "list_images", compartment, display_name=display_name).data
        return [image for image in found if image.lifecycle_state != "DELETED"]


def _snapshot(told: Any) -> Snapshot:
    """Its size is a boot volume's, whole GiB; Oracle tells none before the image is made."""
    gib = max(1, -(-int(told.size_in_mbs or 0) // GIB_IN_MIB))
    return Snapshot(
        id=told.id,
        state=_STATES.get(told.lifecycle_state, "failed"),
        size=gib << 30,
        tags=dict(told.freeform_tags or {}),
    )
