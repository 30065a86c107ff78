"""A server that others wrote, `transformers serve`, answers the captioner's own request. Its network was taught one answer."""

import json
import socket
import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("openai")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from chat_server import reply, serving  # noqa: E402
from tiny_qwen import TAUGHT, build, teach  # noqa: E402

from model_zoo import cards  # noqa: E402
from model_zoo.caption import schema  # noqa: E402

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 56, 56, 3), np.uint8)


def decoded(url):
    """(3, h, w) uint8, of a data URL."""
    return torch.from_numpy(np.asarray(transformers.image_utils.load_image(url)).copy()).permute(2, 0, 1)


@contextmanager
def transformers_serve(folder):
    """The address of a server with the network of a folder, for as long as the block lasts."""
    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(force_model=str(folder), host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    try:
        until = time.monotonic() + 120
        while not server.server.started:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill_server()


@pytest.mark.slow
def test_the_answer_of_a_real_server_is_a_caption(tmp_path, monkeypatch):
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.utils import Modality

    monkeypatch.setattr(schema, "request", lambda: "What is this?")  # quick to learn
    # torchvision's decoder of JPEG is missing beside a torch for the CPU
    monkeypatch.setattr("transformers.image_processing_backends.load_image_as_tensor", decoded)
    network, processor = build("qwen2.5", tmp_path)
    with serving(lambda body, number: reply(TAUGHT)) as chat:
        cards.load(chat.card(frames=2))(FRAMES, 10.0, [])
    messages = ChatCompletionHandler.get_processor_inputs_from_messages(chat.bodies[0]["messages"], Modality.VLM)
    settings = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    teach(network, processor, processor.apply_chat_template(messages, **settings))
    network.eval().save_pretrained(tmp_path)

    with transformers_serve(tmp_path) as url:
        said = cards.load(f"openai:{url}#{tmp_path}&frames=2&attempts=3")(FRAMES, 10.0, [])

    assert {name: said[name] for name in json.loads(TAUGHT)} == json.loads(TAUGHT)
