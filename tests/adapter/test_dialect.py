from __future__ import annotations

import json

import pytest

from services.adapter.dialect import for_client, for_comfyui

BODY = '{"image_url": "s3://pictures/cat.png",  "prompt": "\\u7ebf\\u7a3f", "cfg": 1.0, "sampler_name": "%s"}'


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "sa_solver", "EULER_A", "euler_a "])
def test_a_body_in_comfyuis_words_stays_as_it_is(sampler: str) -> None:
    assert for_comfyui(BODY % sampler) == BODY % sampler


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt":  "euler_a"}',
        '{"sampler_name": null, "prompt": "euler_a"}',
        '{"sampler_name":  ["euler_a"]}',
        '{"euler_a": "sampler_name"}',
    ],
)
def test_only_a_samplers_name_is_translated(body: str) -> None:
    assert for_comfyui(body) == body


def test_the_earlier_apis_name_of_a_sampler_is_comfyuis() -> None:
    translated = for_comfyui(BODY % "euler_a")
    assert json.loads(translated) == json.loads(BODY % "euler_ancestral")
    assert '"cfg": 1.0' in translated


def test_a_picture_that_cannot_be_decoded_is_named_where_comfyui_does_not() -> None:
    said = for_client("No output images generated")
    assert said.startswith("No output images generated (")
    assert "cannot be decoded" in said


@pytest.mark.parametrize("reason", ["", "HTTP Error 404: Not Found", "CUDA out of memory"])
def test_other_reasons_stay_as_they_are(reason: str) -> None:
    assert for_client(reason) == reason
