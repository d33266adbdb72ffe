import base64
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors

from uge.data.images import ImageSet
from uge.errors import KeyFileError
from uge.keys import Key, NullSpace, is_sealed, load_key, new_key, save_key
from uge.keys import key as key_module
from uge.keys.key import FORMAT_VERSION, key_from_bytes, key_to_bytes
from uge.keys.signature import fingerprint_of, is_signed
from uge.networks import NetworkSpec, build_network
from uge.training import Recipe, fit

CLASSES = ("cat", "dog", "ship")
MEAN, STD = (0.1, 1 / 3, 0.5), (0.25, 0.2, 0.3)
SPEC = NetworkSpec("convnet", 3, (8, 8), 3, {"width": 8, "depth": 1})


def make_key(spec: NetworkSpec = SPEC, **options: object) -> Key:
    mean, std = (MEAN, STD) if spec.channels == 3 else ((0.5,), (0.2,))
    return new_key(spec, CLASSES, mean, std, Recipe(epochs=3, learning_rate=0.05), **options)


def images(channels: int = 3, size: tuple[int, int] = (8, 8), classes: tuple[str, ...] = CLASSES) -> ImageSet:
    count = len(classes)
    pixels = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=torch.Generator())
    return ImageSet(pixels, torch.arange(count), classes, tuple(map(str, range(count))))


def assert_same(first: Key, second: Key) -> None:
    """Equal bit for bit, down to the order of the tensors that a state_dict needs."""
    for field in ("network", "mean", "std", "recipe", "class_names", "fingerprint", "view"):
        assert getattr(first, field) == getattr(second, field)
    assert set(first.weights) == set(second.weights)
    for name, tensor in first.weights.items():
        other = second.weights[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        assert tensor.reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8)), name


def assert_one_line(error: pytest.ExceptionInfo[KeyFileError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        NetworkSpec("convnet", 1, (16, 16), 3, {"width": 8, "stem": 2, "frozen_stem": True}),
        NetworkSpec("resnet", 3, (8, 12), 3, {"depth": 8, "width": 4}),  # int64 buffers without dimensions
        NetworkSpec("vit", 1, (8, 8), 3, {"width": 16, "depth": 1, "heads": 2}),
        NetworkSpec("mlp", 3, (4, 4), 3, {"width": 8}),
    ],
    ids=lambda spec: spec.name,
)
def test_round_trip_keeps_every_bit(spec, tmp_path):
    key = make_key(spec)
    for path in save_key(key, tmp_path / "mine"):
        assert_same(key, load_key(path))
        x = torch.rand(2, spec.channels, *spec.image_size)
        loaded, original = load_key(path).network_module().eval(), key.network_module().eval()
        assert torch.equal(loaded(x), original(x))


def test_the_two_files(tmp_path):
    protector, recipient = save_key(make_key(), tmp_path / "deep" / "mine")
    assert (protector.name, recipient.name) == ("mine.protector.uge", "mine.recipient.uge")
    for path in (protector, recipient):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path / "deep")) == [protector.name, recipient.name]  # no temporary file stays
    load_key(protector, role="protector")
    with pytest.raises(KeyFileError) as error:
        load_key(recipient, role="protector")
    assert_one_line(error, "recipient", "protector")


def test_only_the_protector_can_sign(tmp_path):
    files = save_key(make_key(), tmp_path / "mine")
    protector, recipient = map(load_key, files)
    public, signature = protector.sign(b"the manifest")
    assert fingerprint_of(public) == protector.fingerprint == recipient.fingerprint
    assert is_signed(public, signature, b"the manifest") and not is_signed(public, signature, b"the manifesto")
    with pytest.raises(KeyFileError) as error:
        recipient.sign(b"the manifest")
    assert_one_line(error, "recipient", "NAME.protector.uge")
    with pytest.raises(KeyFileError) as error:  # a recipient makes no protector's file
        save_key(recipient, tmp_path / "more")
    assert_one_line(error, "no signing key")
    assert not list(tmp_path.glob("more*"))
    for data in (files[1].read_bytes(), repr(protector).encode()):
        for encoded in encodings(protector.signing_key):
            assert encoded not in data
    assert protector.signing_key.hex().encode() in files[0].read_bytes()  # the search finds what is there


def test_a_signing_key_of_another_pair_is_refused():
    with pytest.raises(KeyFileError, match="one pair"):
        replace(make_key(), signing_key=make_key().signing_key)


def encodings(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)]


def test_a_null_space_travels_in_both_files_and_shows_its_layout_alone(tmp_path):
    space = NullSpace.draw(group_size=4, cell=4)
    key = make_key(view=space)
    for path in save_key(key, tmp_path / "mine"):
        loaded = load_key(path)
        assert_same(key, loaded)
        assert loaded.view.secret == space.secret
        assert loaded.public_facts()["view"] == {"kind": "null-space"} | space.layout and "secret" not in space.layout
        assert loaded.public_facts()["fingerprint"] == key.fingerprint
        told = (json.dumps(loaded.public_facts()) + repr(loaded) + loaded.digest()).encode()
        assert not [encoded for encoded in encodings(space.secret) if encoded in told]
    assert make_key().public_facts()["view"] is None


def test_keys_that_differ_in_any_secret_have_different_digests(tmp_path):
    key = make_key()
    others = [replace(key, view=NullSpace.draw()), replace(key, view=NullSpace.draw()), make_key()]
    assert len({each.digest() for each in (key, *others)}) == 4
    assert {load_key(path).digest() for path in save_key(key, tmp_path / "mine")} == {key.digest()}


def test_sealed_files_need_their_passphrase(tmp_path):
    key = make_key(view=NullSpace.draw())
    for path in save_key(key, tmp_path / "mine", passphrase=b"open sesame"):
        assert is_sealed(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"convnet" not in path.read_bytes()
        assert_same(key, load_key(path, passphrase=b"open sesame"))
        with pytest.raises(KeyFileError) as error:
            load_key(path)
        assert_one_line(error, str(path), "is sealed", "--passphrase-file")
        with pytest.raises(KeyFileError) as error:
            load_key(path, passphrase=b"open simsim")
        assert_one_line(error, str(path), "wrong passphrase")
    open_file = save_key(key, tmp_path / "open")[1]
    assert not is_sealed(open_file)
    assert_same(key, load_key(open_file, passphrase=b"not needed"))
    with pytest.raises(KeyFileError, match="passphrase is empty"):
        save_key(key, tmp_path / "empty", passphrase=b"")
    assert not list(tmp_path.glob("empty*"))


def test_a_key_is_never_overwritten(tmp_path):
    paths = save_key(make_key(), tmp_path / "mine")
    before = [path.read_bytes() for path in paths]
    with pytest.raises(KeyFileError) as error:
        save_key(make_key(), tmp_path / "mine")
    assert_one_line(error, "never overwritten")
    assert [path.read_bytes() for path in paths] == before


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KeyFileError) as error:
        save_key(make_key(), tmp_path / "file" / "mine")
    assert_one_line(error, "cannot write")
    assert os.listdir(tmp_path) == ["file"]


def test_the_module_is_fresh_at_each_call():
    key = make_key()
    before = {name: tensor.clone() for name, tensor in key.weights.items()}
    fit(key.network_module(), images(), Recipe(epochs=1, batch_size=3), seed=0)
    again = key.network_module().state_dict()
    for name, tensor in before.items():
        assert torch.equal(key.weights[name], tensor) and torch.equal(again[name], tensor), name


def test_the_secret_does_not_come_from_torch():
    keys = []
    for _ in range(2):
        torch.manual_seed(0)
        keys.append(make_key())
    drawn = [name for name in keys[0].weights if not torch.equal(keys[0].weights[name], keys[1].weights[name])]
    assert any(keys[0].weights[name].ndim == 4 for name in drawn)


def test_a_32_bit_seed_does_not_give_the_weights(monkeypatch):
    """torch's CPU generator has 2**32 seeds; whoever tries them all must not meet a key's weights."""
    seeds = iter((0, 1))
    monkeypatch.setattr("uge.keys.key.secrets.randbits", lambda bits: next(seeds))
    spec = NetworkSpec("convnet", 3, (8, 8), 3)
    key = make_key(spec)
    for name, tensor in build_network(spec, MEAN, STD, seed=0).state_dict().items():
        ours = key.weights[name]
        assert torch.equal(ours.flatten().sort().values, tensor.flatten().sort().values), name  # the same distribution
        if tensor.ndim >= 2 and name != "0.mean" and name != "0.std":
            assert (ours == tensor).float().mean() < 0.05, name


def test_public_facts_hold_no_weight_and_no_statistic():
    key = make_key()
    text = json.dumps(key.public_facts())
    assert "convnet" in text and "ship" in text
    assert str(MEAN[1]) not in text and str(STD[0]) not in text
    assert len(text) < 1000


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_truncated(fraction, tmp_path):
    path = save_key(make_key(), tmp_path / "mine")[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(KeyFileError) as error:
        load_key(path)
    assert_one_line(error, str(path))


DATA = key_to_bytes(make_key(), "recipient")
HEADER = 8 + int.from_bytes(DATA[:8], "little")


@settings(max_examples=200, deadline=None)
@given(st.integers(HEADER, len(DATA) - 1), st.integers(1, 255))
def test_an_edited_byte_of_a_tensor_is_found(place, change):
    edited = bytearray(DATA)
    edited[place] ^= change
    with pytest.raises(KeyFileError) as error:
        key_from_bytes(bytes(edited), "the.key")
    assert_one_line(error, "the.key", "damaged")


@settings(max_examples=400, deadline=None)
@given(st.integers(0, HEADER - 1), st.integers(1, 255))
def test_an_edited_byte_of_the_header_is_found_or_changes_nothing(place, change):
    edited = bytearray(DATA)
    edited[place] ^= change
    try:
        key = key_from_bytes(bytes(edited), "the.key")
    except KeyFileError as error:
        assert "\n" not in str(error)
    else:  # white space between two entries of the header, say
        assert_same(key, key_from_bytes(DATA, "the.key"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_other_bytes_are_no_key(data):
    with pytest.raises(KeyFileError) as error:
        key_from_bytes(data, "the.key")
    assert_one_line(error, "the.key is no key")


def test_another_format_version(tmp_path):
    edited = DATA.replace(b'format_version\\": %d' % FORMAT_VERSION, b'format_version\\": 7')
    assert edited != DATA
    with pytest.raises(KeyFileError) as error:
        key_from_bytes(edited, "the.key")
    assert_one_line(error, "format version 7", f"reads {FORMAT_VERSION}")


def test_not_a_key_and_not_there(tmp_path):
    (tmp_path / "notes.txt").write_text("no key at all, but long enough to look at")
    safetensors.save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    for name in ("notes.txt", "model.safetensors"):
        with pytest.raises(KeyFileError) as error:
            load_key(tmp_path / name)
        assert_one_line(error, name, "no key")
    for name in ("missing.uge", "."):
        with pytest.raises(KeyFileError) as error:
            load_key(tmp_path / name)
        assert_one_line(error, "cannot read")


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    safetensors.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


def test_weights_that_the_protector_supplies(tmp_path):
    weights = dict(build_network(SPEC, MEAN, STD, seed=5).state_dict())
    key = make_key(weights_file=write_weights(tmp_path / "w", weights))
    assert all(torch.equal(key.weights[name], tensor) for name, tensor in weights.items())
    body = {name: tensor for name, tensor in weights.items() if name.startswith("1.")}
    again = make_key(weights_file=write_weights(tmp_path / "body", body))
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("1.classify.bias"), ["lacks 1", "1.classify.bias"]),
        (lambda w: w.clear() or w.update(x=torch.zeros(1)), ["lacks", "1.features.0.weight"]),
        (lambda w: w.update({"1.classify.bias": torch.zeros(4)}), ["1.classify.bias", "[4]", "[3]"]),
        (lambda w: w.update({"1.more": torch.zeros(4)}), ["1.more"]),
        (lambda w: w.update({"0.mean": torch.zeros(1, 3, 1, 1)}), ["0.mean", "normalis"]),
        (lambda w: w.update({"1.classify.bias": torch.tensor([0.0, torch.nan, 0.0])}), ["1.classify.bias", "finite"]),
    ],
    ids=["missing", "another network", "shape", "unknown", "normalisation", "nan"],
)
def test_weights_that_do_not_fit(change, words, tmp_path):
    weights = dict(build_network(SPEC, MEAN, STD, seed=5).state_dict())
    change(weights)
    with pytest.raises(KeyFileError) as error:
        make_key(weights_file=write_weights(tmp_path / "w", weights))
    assert_one_line(error, str(tmp_path / "w"), *words)


def test_weights_that_cannot_be_read(tmp_path):
    (tmp_path / "text").write_text("not a safetensors file")
    for name in ("text", "missing"):
        with pytest.raises(KeyFileError) as error:
            make_key(weights_file=tmp_path / name)
        assert_one_line(error, str(tmp_path / name))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (images(classes=("cat", "dog")), ["3 classes", "has 2"]),
        (images(classes=("dog", "cat", "ship")), ["'cat'", "'dog'"]),
        (images(channels=1), ["3 channels", "has 1"]),
        (images(size=(8, 9)), ["8x8", "8x9"]),
    ],
    ids=["number of classes", "order of classes", "channels", "size"],
)
def test_a_key_for_other_images_is_refused(data, words):
    key = make_key()
    key.check_fits(images())
    with pytest.raises(KeyFileError) as error:
        key.check_fits(data)
    assert_one_line(error, *words)


def test_a_key_must_agree_with_itself():
    key = make_key()
    with pytest.raises(KeyFileError, match="3 outputs for 2"):
        replace(key, class_names=("cat", "dog"))
    with pytest.raises(KeyFileError, match="3 channel means"):
        replace(key, mean=(0.5,))
    with pytest.raises(KeyFileError, match="shape"):
        replace(key, network=replace(SPEC, options={"width": 16, "depth": 1})).network_module()


def test_a_pair_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write = key_module.write_atomically

    def interrupt(path, content, mode):
        if path.name.endswith(".recipient.uge"):
            raise KeyboardInterrupt
        write(path, content, mode=mode)

    monkeypatch.setattr(key_module, "write_atomically", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_key(make_key(), tmp_path / "half")
    assert not [*tmp_path.iterdir()]


def test_classes_of_one_name_are_refused():
    with pytest.raises(KeyFileError, match="two classes of the key are called 'cat'"):
        new_key(SPEC, ("cat", "dog", "cat"), MEAN, STD, Recipe())
