"""Sealed keys: a secret that opens letters, for whatever network the recipient names."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
import torch

from uge.data.images import ImageSet
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import RECIPIENT_NETWORK, SealedKey, load_key, save_key
from uge.keys.key import FORMAT_VERSION
from uge.keys.signature import fingerprint_of, is_signed
from uge.training import Recipe, fit, recommended_recipe

from ..copy.copies import sealed_by
from ..refusals import refused


@pytest.fixture
def few(two_classes: tuple[ImageSet, ImageSet]) -> ImageSet:
    return two_classes[0].subset(torch.arange(60))


def encodings(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)]


def test_both_files_open_copies_and_one_of_them_signs(tmp_path, few):
    key = SealedKey.draw()
    files = save_key(key, tmp_path / "mine")
    protector, recipient = map(load_key, files)
    copies = sealed_by(key, few.images)
    for each in (protector, recipient):
        assert each.digest() == key.digest()
        assert torch.equal(each.opened(copies), few.images & 0xFE) and each.opens
    public, signature = protector.sign(b"the manifest")
    assert fingerprint_of(public) == protector.fingerprint == recipient.fingerprint
    assert is_signed(public, signature, b"the manifest") and not is_signed(public, signature, b"the manifesto")
    with pytest.raises(KeyFileError, match=r"recipient.*NAME\.protector\.uge"):
        recipient.sign(b"the manifest")
    assert load_key(files[0]).signing_key == key.signing_key and recipient.signing_key is None
    with pytest.raises(KeyFileError, match="no signing key"):  # a recipient makes no protector's file
        save_key(recipient, tmp_path / "more")
    assert not list(tmp_path.glob("more*"))
    for data in (files[1].read_bytes(), repr(protector).encode()):
        assert not [encoded for encoded in encodings(key.signing_key) if encoded in data]
    assert key.signing_key.hex().encode() in files[0].read_bytes()  # the search finds what is there


def test_the_secret_shows_nowhere_but_in_the_files(tmp_path):
    key = SealedKey.draw()
    told = (json.dumps(key.public_facts()) + repr(key) + key.digest()).encode()
    assert not [encoded for encoded in encodings(key.secret) if encoded in told]
    assert key.secret.hex().encode() in save_key(key, tmp_path / "mine")[1].read_bytes()
    assert key.public_facts() == {"kind": "sealed", "fingerprint": key.fingerprint, "format_version": FORMAT_VERSION}


def test_two_keys_share_nothing_and_have_different_digests():
    first, second = SealedKey.draw(), SealedKey.draw()
    assert first.secret != second.secret and first.signing_key != second.signing_key
    other_secret = replace(first, secret=second.secret)
    assert len({key.digest() for key in (first, second, other_secret)}) == 3


def test_what_does_not_open_is_counted_and_the_first_is_named(few):
    key = SealedKey.draw()
    copies = sealed_by(key, few.images)
    copies[[7, 12]] ^= 1
    with refused(PublishError, "2 of 60 images do not open with this key, the first is number 7;"):
        key.opened(copies)
    with pytest.raises(PublishError, match=r"60 of 60 .* number 0;"):
        SealedKey.draw().opened(copies)
    with pytest.raises(PublishError, match="60 of 60"):
        key.opened(few.images)


@pytest.mark.parametrize("network", ["resnet:depth=8,width=8", "vgg:width=8", "mlp:width=32"])
def test_the_recipient_trains_bit_for_bit_what_originals_would_train(network, few):
    """From the view of copies, and from 2 floor(x / 2) of the originals: the same weights to the last bit."""
    key = SealedKey.draw()
    trained = []
    for images in (key.opened(sealed_by(key, few.images)), key.seen(few.images)):
        seen = few.with_images(images)
        module = key.module(seen, network, seed=3)
        fit(module, seen, replace(key.recipe(network, 2), batch_size=20), seed=4)
        trained.append(module.state_dict())
    for name, tensor in trained[0].items():
        assert torch.equal(tensor, trained[1][name]), name


def test_the_network_is_the_one_that_the_recipient_names(few):
    key = SealedKey.draw()
    spec = key.spec(few, "vgg:width=8")
    assert (spec.name, spec.channels, spec.image_size, spec.classes) == ("vgg", 3, (32, 32), 2)
    assert spec.options == {"width": 8}
    assert key.spec(few, RECIPIENT_NETWORK).label == "vgg(depth=8,width=16)"
    assert key.recipe("vit", 7) == recommended_recipe("vit", 7) != Recipe(7)
    key.check_fits(few)
    with pytest.raises(ConfigError, match="did you mean 'resnet'"):
        key.spec(few, "resnt")
    first, again, other = (key.module(few, "mlp", seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert not all(map(torch.equal, first.state_dict().values(), other.state_dict().values()))


def test_a_secret_has_32_bytes():
    with pytest.raises(KeyFileError, match="32 bytes, got 5"):
        replace(SealedKey.draw(), secret=b"short")


DATA = SealedKey.draw().to_bytes("protector")


@pytest.mark.parametrize("length", [1, 20, 100, len(DATA) - 2])
def test_a_file_that_is_cut_short_says_so(length, tmp_path):
    path = tmp_path / "cut.recipient.uge"
    path.write_bytes(DATA[:length])
    with refused(KeyFileError, r"cut\.recipient\.uge.* damaged"):
        load_key(path)
