"""Real clients of OpenAI's API, as they are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from device_runtime.serve.app import Access
from tests.endpoints import TABLE, endpoint
from tests.fakes import FakeTarget, served

openai = pytest.importorskip("openai")
KEY = "a-key-of-the-tests"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "abc"}], "seed": 3}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with (
        served(FakeTarget(TABLE)) as url,
        endpoint(url, access=Access(key=KEY), most=1) as (where, _),
    ):
        yield where + "/v1"


def test_openais_own(address):
    with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(**CHAT, max_tokens=30)
        text = whole.choices[0].message.content
        assert len(text) == 30 and whole.choices[0].finish_reason == "length"
        assert whole.usage.completion_tokens == 30
        assert whole.usage.prompt_tokens_details.cached_tokens >= 0
        parts = list(
            client.chat.completions.create(
                **CHAT, max_tokens=30, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == text
        assert parts[-1].usage.completion_tokens == 30
        done = client.completions.create(model="fake", prompt="abc", max_tokens=5)
        assert len(done.choices[0].text) == 5
        told = client.chat.completions.create(
            **CHAT, max_tokens=30, logprobs=True, top_logprobs=3
        ).choices[0]
        assert "".join(each.token for each in told.logprobs.content) == text
        assert all(len(each.top_logprobs) == 3 for each in told.logprobs.content)
        assert bytes(b for each in told.logprobs.content for b in each.bytes).decode() == text
        done = client.completions.create(model="fake", prompt="abc", max_tokens=5, logprobs=2)
        assert done.choices[0].logprobs.tokens == list(done.choices[0].text)
        stopped = client.chat.completions.create(**CHAT, max_tokens=30, stop=[text[4:6]])
        assert stopped.choices[0].message.content == text[: text.find(text[4:6])]
        assert stopped.choices[0].finish_reason == "stop"


def test_its_errors(address):
    with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**CHAT, response_format={"type": "json_object"})
        assert caught.value.param == "response_format"
        with pytest.raises(openai.NotFoundError, match="gpt-4"):
            client.chat.completions.create(**CHAT | {"model": "gpt-4"})
        assert client.chat.completions.create(**CHAT, tools=[], max_tokens=3)
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**CHAT, top_p=0)
        assert caught.value.param == "top_p"
    stranger = openai.OpenAI(base_url=address, api_key="another", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_many_at_once_and_some_that_leave(address):
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0) as client:

            async def whole(seed: int) -> str:
                answer = await client.chat.completions.create(
                    **CHAT | {"seed": seed}, max_tokens=20
                )
                return answer.choices[0].message.content

            async def left() -> str:
                stream = await client.chat.completions.create(
                    **CHAT, max_tokens=30_000, stream=True
                )
                count = 0
                async for _ in stream:
                    count += 1
                    if count == 5:
                        break
                await stream.close()
                return "left"

            async def cancelled() -> str:
                task = asyncio.create_task(
                    client.chat.completions.create(**CHAT, max_tokens=30_000)
                )
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                return "left"

            work = [whole(seed) for seed in range(4)]
            return list(await asyncio.gather(left(), *work, cancelled(), left()))

    found = asyncio.run(main())
    assert found[0] == found[-1] == "left"
    assert [len(text) for text in found[1:5]] == [20] * 4 and len(set(found[1:5])) == 4


def test_curl(address):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    command = ["curl", "-sN", address + "/chat/completions", "-H", f"Authorization: Bearer {KEY}"]
    command += ["-d", json.dumps(CHAT | {"max_tokens": 8})]  # as it is sent: of another type
    said = json.loads(subprocess.run(command, capture_output=True, timeout=60).stdout)
    text = said["choices"][0]["message"]["content"]
    command[-1] = json.dumps(CHAT | {"max_tokens": 8, "stream": True})
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    events = [line.removeprefix("data: ") for line in lines.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    parts = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(part.get("content", "") for part in parts) == text


def test_the_llm_tool(address, tmp_path):
    """Simon Willison's command, where it is installed."""
    probe = [sys.executable, "-m", "llm", "--version"]
    if subprocess.run(probe, capture_output=True, timeout=60).returncode:
        pytest.skip("llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: fake\n  api_base: {address}\n  api_key_name: here\n"
    )
    command = [sys.executable, "-m", "llm", "-m", "here", "--key", KEY, "abc", "--no-log"]
    command += ["-o", "max_tokens", "12", "-o", "seed", "3"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120,
        env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 12
