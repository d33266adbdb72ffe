"""The copy: what everybody gets. Written, read, checked, opened."""

from uge.copy.files import check_outside, files_of, write_images
from uge.copy.manifest import MANIFEST, Manifest, read_manifest
from uge.copy.opening import open_copy
from uge.copy.publishing import publish
from uge.copy.reading import AuthorisedDataset, Copy, CopyDataset, authorised_view, load_published, reader_of
from uge.copy.verification import Verification, verify

__all__ = [
    "MANIFEST",
    "AuthorisedDataset",
    "Copy",
    "CopyDataset",
    "Manifest",
    "Verification",
    "authorised_view",
    "check_outside",
    "files_of",
    "load_published",
    "open_copy",
    "publish",
    "read_manifest",
    "reader_of",
    "verify",
    "write_images",
]
