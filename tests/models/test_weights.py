"""Weights: records, sources, formats, conversion, download, and what is said of a misfit."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from alexnet.errors import FailedError, UsageError
from alexnet.models import (
    Weights,
    create_model,
    from_torchvision,
    get_weights,
    list_weights,
    load_into,
    load_state,
    model_entry,
    to_torchvision,
)
from alexnet.models.download import cache_folder, download
from alexnet.spec import InputSpec

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


LENET = "lenet5_dense"


@pytest.fixture
def lenet() -> nn.Module:
    torch.manual_seed(0)
    return build(LENET, num_classes=4).eval()


@pytest.fixture(scope="module")
def torchvision_alexnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.alexnet(num_classes=11).eval()


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- records


@pytest.mark.parametrize("weights", list_weights(), ids=lambda w: f"{w.model}/{w.name}")
def test_records_are_complete(weights):
    for field in ("name", "model", "path_or_url", "sha256", "source", "licence", "attribution"):
        assert getattr(weights, field), field
    assert model_entry(weights.model)
    assert get_weights(f"{weights.model}/{weights.name}") is weights
    described = json.loads(json.dumps(weights.to_dict()))
    assert InputSpec.from_dict(described["spec"]) == weights.spec
    if weights.covers == "all":
        assert len(weights.classes) == len(described["classes"]) > 1


@pytest.mark.parametrize(
    "weights",
    [w for w in list_weights() if "://" not in w.path_or_url],
    ids=lambda w: f"{w.model}/{w.name}",
)
def test_bundled_files_are_whole_and_fit(weights):
    path = weights.fetch()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256
    network = build(weights.model, weights=weights)
    for key, value in load_state(weights, weights.model).items():
        assert torch.equal(network.state_dict()[key], value.to(torch.float32))


def test_imagenet_features():
    state = load_state("imagenet1k-features", "alexnet_owt")
    assert sum(value.numel() for value in state.values()) == 2_469_696
    filters = state["conv1.weight"].float()
    # Learned filters are smooth: neighbors in a row are alike, as no random kernel's are.
    left, right = filters[..., :-1].flatten(), filters[..., 1:].flatten()
    assert torch.corrcoef(torch.stack((left, right)))[0, 1] > 0.5
    network = build("alexnet_owt", "imagenet1k-features", num_classes=3, hidden=8)
    assert torch.equal(network.conv5.bias, state["conv5.bias"].float())
    assert network.num_classes == 3
    assert network.pretrained_cfg["tag"] == "imagenet1k-features"


def test_imagenet_classes_are_read_when_asked_for():
    classes = get_weights("imagenet1k").classes or ()
    assert len(classes) == 1000
    assert (classes[0], classes[999]) == ("tench", "toilet tissue")
    assert get_weights("imagenet1k-features").classes is None


def test_record_agrees_with_torchvision():
    theirs = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
    ours = get_weights("imagenet1k")
    assert ours.path_or_url == theirs.url
    (figures,) = ours.metrics.values()
    published = theirs.meta["_metrics"]["ImageNet-1K"]
    assert figures["top1"] * 100 == pytest.approx(published["acc@1"])
    assert figures["top5"] * 100 == pytest.approx(published["acc@5"])


@pytest.mark.parametrize(
    ("name", "model", "text"),
    [
        ("imagenet1k-feature", None, "did you mean 'imagenet1k-features'"),
        ("imagenet1k", "lenet5", "belong to alexnet_owt, not to lenet5"),
        ("lenet5/imagenet1k", None, "unknown weights"),
    ],
)
def test_wrong_names(name, model, text):
    with pytest.raises(UsageError, match=text) as caught:
        get_weights(name, model)
    one_line(caught)


# ---- files


def written(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_local_files(lenet, tmp_path, suffix):
    path = written(lenet.state_dict(), tmp_path / f"weights{suffix}")
    for given in (path, str(path)):
        network = build(LENET, weights=given).eval()
        assert network.num_classes == 4
        x = torch.randn(1, 1, 32, 32)
        assert torch.equal(network(x), lenet(x))


def test_a_run_folder_is_weights_too(lenet, tmp_path):
    lenet.save_pretrained(tmp_path)
    assert load_state(tmp_path, LENET).keys() == lenet.state_dict().keys()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes(lenet, tmp_path, wrapper, prefix):
    state = {prefix + key: value for key, value in lenet.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "best_prec1": torch.tensor(0.5)}, tmp_path / "w.pth")
    loaded = load_state(tmp_path / "w.pth", LENET)
    assert loaded.keys() == lenet.state_dict().keys()


def test_pickles_are_not_run(tmp_path):
    torch.save({"conv1.weight": np.zeros(3, dtype=object)}, tmp_path / "w.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("w.pth", "module.pth"):
        with pytest.raises(UsageError, match=r"holds more than tensors.*state_dict\(\)") as caught:
            load_state(tmp_path / name, LENET)
        one_line(caught)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b"not a file of torch"),
        ("w.safetensors", b"nor of safetensors"),
        ("empty.pth", b""),
        ("empty.safetensors", b""),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name) as caught:
        load_state(tmp_path / name, LENET)
    one_line(caught)


def test_truncated_files(lenet, tmp_path):
    for suffix in (".pth", ".safetensors"):
        path = written(lenet.state_dict(), tmp_path / f"w{suffix}")
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(UsageError, match=r"is damaged") as caught:
            load_state(path, LENET)
        one_line(caught)


def test_not_a_state_dict(tmp_path):
    for content in ([torch.zeros(2)], {}, {"epoch": 3}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UsageError, match=r"state"):
            load_state(tmp_path / "w.pth", LENET)


@pytest.mark.parametrize("path", ["nowhere.pth", "./nowhere", "/nowhere/x.safetensors"])
def test_missing_files(path):
    for given in (path, Path(path)):
        with pytest.raises(UsageError, match=r"no file .*nowhere.*check the path"):
            load_state(given, LENET)


# ---- torchvision's layout


@pytest.mark.parametrize("arrange", ["plain", "parallel", "parallel features"])
def test_torchvision_state_gives_the_same_logits(torchvision_alexnet, tmp_path, arrange):
    state = torchvision_alexnet.state_dict()
    if arrange == "parallel":
        state = {f"module.{key}": value for key, value in state.items()}
    if arrange == "parallel features":  # PyTorch's ImageNet example, Places365
        state = {key.replace("features.", "features.module."): v for key, v in state.items()}
    torch.save({"state_dict": state}, tmp_path / "alexnet.pth")
    ours = build("alexnet_owt", weights=tmp_path / "alexnet.pth").eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), torchvision_alexnet(x), rtol=0, atol=1e-5)


def test_conversion_and_back(torchvision_alexnet):
    state = torchvision_alexnet.state_dict()
    ours = from_torchvision(state)
    assert list(ours)[:2] == ["conv1.weight", "conv1.bias"]
    back = to_torchvision(ours)
    assert back.keys() == state.keys()
    assert all(back[key] is value for key, value in state.items())
    fresh = torchvision.models.alexnet(num_classes=11)
    fresh.load_state_dict(back)
    with pytest.raises(UsageError, match=r"alexnet_owt has no 'norm1.weight'"):
        to_torchvision({"norm1.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"has no 'features.1.weight'"):
        from_torchvision({"features.1.weight": torch.zeros(1)})


def test_our_weights_in_torchvision_s_network(tmp_path):
    ours = build("alexnet_owt", num_classes=11).eval()
    path = written(ours.state_dict(), tmp_path / "w.safetensors")
    theirs = build("torchvision:alexnet", weights=path).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-5)


# ---- weights that do not fit


def test_wrong_number_of_classes(lenet, tmp_path):
    path = written(lenet.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"4 classes and num_classes=9: leave num_classes out"):
        build(LENET, weights=path, num_classes=9)
    headless = build(LENET, weights=path, num_classes=0).eval()
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        headless(x), lenet.forward_head(lenet.forward_features(x), pre_logits=True)
    )


def test_other_shapes_name_the_argument(lenet, tmp_path):
    path = written(lenet.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"c1.weight is 6x1x5x5.*use in_chans=1"):
        build(LENET, weights=path, in_chans=3)
    with pytest.raises(UsageError, match=r"c5.weight .*use the image_size they were made for"):
        build(LENET, weights=path, image_size=48)


def test_another_architecture(lenet, tmp_path):
    path = written(lenet.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"do not fit lenet1989 .*another architecture") as caught:
        build("lenet1989", weights=path)
    one_line(caught)
    with pytest.raises(UsageError, match=r"belong to alexnet_owt"):
        build("lenet5", weights=get_weights("imagenet1k"))


def test_missing_keys_leave_the_network_as_it_was(lenet):
    state = dict(lenet.state_dict())
    del state["f6.bias"], state["c3.weight"]
    network = build(LENET, num_classes=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UsageError, match=r"missing c3.weight, f6.bias\)"):
        load_into(network, state)
    load_into(network, {}, covers="features")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_batch_counters_may_be_missing():
    network = build("alexnet_bn", image_size=67, hidden=4, num_classes=2)
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    load_into(network, state)


# ---- downloads


class Server(http.server.ThreadingHTTPServer):
    """A server of a folder that counts its requests."""

    requests = 0


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests += 1
        if self.path.endswith("cut.pth"):  # says 1,000 bytes, sends 10, hangs up
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"0123456789")
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def record(url: str, sha256: str) -> Weights:
    return Weights(
        name="tiny",
        model=LENET,
        path_or_url=url,
        sha256=sha256,
        source="this test",
        licence="none",
        attribution="nobody",
        spec=model_entry(LENET).spec,
        class_names=("a", "b", "c", "d"),
    )


def test_download_once(lenet, tmp_path, server, cache):
    path = written(lenet.state_dict(), tmp_path / "served" / "tiny.pth")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = record(f"http://127.0.0.1:{server.server_port}/tiny.pth", checksum[:8])
    for _ in range(2):
        network = build(LENET, weights=weights)
        assert torch.equal(network.c5.weight, lenet.c5.weight)
    assert server.requests == 1
    assert [p.name for p in cache.iterdir()] == ["tiny.pth"]
    assert (cache / "tiny.pth").read_bytes() == path.read_bytes()


def test_damaged_download_is_not_kept(tmp_path, server, cache):
    (tmp_path / "served" / "tiny.pth").write_bytes(b"something else")
    url = f"http://127.0.0.1:{server.server_port}/tiny.pth"
    with pytest.raises(FailedError, match=r"is damaged .*try again, or put the file at") as caught:
        download(url, "0" * 8)
    one_line(caught)
    assert list(cache.iterdir()) == []
    (cache / "tiny.pth").write_bytes(b"put here by hand")
    with pytest.raises(UsageError, match=r"is damaged .*remove it"):
        download(url, "0" * 8)


@pytest.mark.parametrize("name", ["cut.pth", "missing.pth"])
def test_failed_download_says_where_to_put_the_file(server, cache, name):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    with pytest.raises(
        FailedError, match=r"cannot download .*get it elsewhere and put it"
    ) as caught:
        download(url, "")
    assert str(cache / name) in one_line(caught)
    assert list(cache.iterdir()) == []


def test_no_server_at_all(cache):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(FailedError, match=r"cannot download .*refused"):
        download(f"http://127.0.0.1:{port}/tiny.pth", "")


def test_cache_folder_is_torch_s_unless_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("ALEXNET_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hub" / "checkpoints"


def test_file_put_by_hand_is_used(lenet, cache):
    cache.mkdir()
    written(lenet.state_dict(), cache / "tiny.pth")
    weights = record("http://127.0.0.1:9/tiny.pth", "")
    assert load_state(weights, LENET).keys() == lenet.state_dict().keys()


def test_features_script_reads_arrays_and_nothing_else(tmp_path):
    import importlib.util
    import io
    import pickle

    script = Path(__file__).parents[2] / "scripts/make_imagenet_features.py"
    spec = importlib.util.spec_from_file_location("make_imagenet_features", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}
    read = module.ArrayUnpickler(io.BytesIO(pickle.dumps(content, protocol=3))).load()
    assert np.array_equal(read["kernel"], content["kernel"])
    with pytest.raises(pickle.UnpicklingError, match=r"not an array"):
        module.ArrayUnpickler(io.BytesIO(pickle.dumps(Path("x")))).load()
