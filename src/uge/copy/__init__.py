"""The copy: what everybody gets. Written, read, checked, opened."""

from uge.copy.files import check_target, files_of, new_folder, write_images
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, Manifest, PublishedImage, read_image, read_manifest
from uge.copy.opening import open_copy
from uge.copy.publishing import publish
from uge.copy.reading import AuthorisedDataset, Copy, CopyDataset, authorised_view, load_copy
from uge.copy.verification import Verification, verify

__all__ = [
    "CARD",
    "MANIFEST",
    "SIGNATURE",
    "SUMS",
    "AuthorisedDataset",
    "Copy",
    "CopyDataset",
    "Manifest",
    "PublishedImage",
    "Verification",
    "authorised_view",
    "check_target",
    "files_of",
    "load_copy",
    "new_folder",
    "open_copy",
    "publish",
    "read_image",
    "read_manifest",
    "verify",
    "write_images",
]
