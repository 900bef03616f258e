from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest

from services.orchestrator.authentication import parse_api_keys
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_BODY,
    CAMERA_ANGLE_PATH,
    World,
    a_record,
    api_keys,
    assert_problem,
)

KEYS = api_keys(alice="key-of-alice", bob="key-of-bob")
DIGEST = sha256(b"key").hexdigest()


@pytest.mark.parametrize(
    ("headers", "client_id"),
    [
        ({"Authorization": "Bearer key-of-alice"}, "alice"),
        ({"Authorization": "bearer   key-of-bob "}, "bob"),
        ({"X-API-Key": "key-of-bob"}, "bob"),
        ({"x-api-key": "key-of-alice", "Authorization": "Basic YTpi"}, "alice"),
    ],
)
async def test_a_client_is_known_by_its_key(headers: dict[str, str], client_id: str) -> None:
    async with World(keys=KEYS) as world:
        response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
        assert response.status_code == 202
        assert world.tasks.submitted[0]["client_id"] == client_id


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "key-of-alice"},
        {"Authorization": "Basic " + b64encode(b"alice:key-of-alice").decode()},
        {"X-API-Key": ""},
        {"X-API-Key": " "},
        {"Cookie": "X-API-Key=key-of-alice"},
    ],
)
async def test_without_a_key_nothing_is_told_and_nothing_is_done(headers: dict[str, str]) -> None:
    async with World(keys=KEYS) as world:
        job_id = world.tasks.add(a_record(client_id="alice"))
        for response in (
            await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers),
            await world.client.post(CAMERA_ANGLE_PATH, content=b"not json", headers=headers),
            await world.client.get(f"/api/v1/jobs/{job_id}", headers=headers),
            await world.client.get(f"{CAMERA_ANGLE_PATH}/{job_id}?api_key=key-of-alice", headers=headers),
            await world.client.get("/api/v1/jobs/x", headers=headers),
        ):
            assert_problem(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert world.tasks.submitted == []
        assert world.tasks.reads == []


@pytest.mark.parametrize(
    "key", ["key-of-alice2", "KEY-OF-ALICE", "alice", sha256(b"key-of-alice").hexdigest(), "\u00e9"]
)
async def test_a_wrong_key_is_refused(key: str) -> None:
    async with World(keys=KEYS) as world:
        for header in ({b"X-API-Key": key.encode()}, {b"Authorization": b"Bearer " + key.encode()}):
            response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=header)
            assert_problem(response, 401)
            assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
            assert key not in response.text
        assert world.tasks.submitted == []


async def test_keys_may_hold_any_bytes() -> None:
    async with World(keys=api_keys(alice="schl\u00fcssel")) as world:
        headers = {b"X-API-Key": "schl\u00fcssel".encode()}
        assert (await world.client.get("/api/v1/jobs/x", headers=headers)).status_code == 404


async def test_a_client_may_have_two_keys_while_one_replaces_the_other() -> None:
    async with World(keys=f"{api_keys(alice='old')},{api_keys(alice='new')}") as world:
        job_id = world.tasks.add(a_record(client_id="alice"))
        for key in ("old", "new"):
            response = await world.client.get(f"/api/v1/jobs/{job_id}", headers={"X-API-Key": key})
            assert response.status_code == 200


async def test_a_client_sees_its_own_jobs_only() -> None:
    async with World(keys=KEYS) as world:
        job_id = world.tasks.add(a_record(client_id="alice"))
        for path in (f"/api/v1/jobs/{job_id}", f"{CAMERA_ANGLE_PATH}/{job_id}"):
            assert (await world.client.get(path, headers={"X-API-Key": "key-of-alice"})).status_code == 200
            response = await world.client.get(path, headers={"X-API-Key": "key-of-bob"})
            assert assert_problem(response, 404)["detail"] == "Job not found"


async def test_an_idempotency_key_belongs_to_one_client() -> None:
    async with World(keys=KEYS) as world:
        job_ids = set()
        for key in ("key-of-alice", "key-of-bob"):
            headers = {"X-API-Key": key, "Idempotency-Key": "same"}
            response = await world.client.post(CAMERA_ANGLE_PATH, json=CAMERA_ANGLE_BODY, headers=headers)
            job_ids.add(response.json()["job_id"])
        assert len(job_ids) == 2


async def test_probes_and_service_information_need_no_key() -> None:
    async with World(keys=KEYS) as world:
        for path in ("/", "/health", "/ready"):
            assert (await world.client.get(path)).status_code == 200


def test_keys_are_read_from_the_setting() -> None:
    keys = parse_api_keys(f" web:{DIGEST} ,\n batch-1:{sha256(b'2').hexdigest().upper()}")
    assert [key.client_id for key in keys] == ["web", "batch-1"]
    assert keys[0].digest == sha256(b"key").digest()
    assert parse_api_keys(" ") == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("web", "entry 1 is not name:sha256 with 64 hexadecimal digits"),
        (f"web:{DIGEST},other:secret", "entry 2 is not name:sha256 with 64 hexadecimal digits"),
        (f"web:{DIGEST}0", "entry 1 is not name:sha256 with 64 hexadecimal digits"),
        (f":{DIGEST}", "entry 1 has no name"),
        (f"we b:{DIGEST}", "entry 1 has no name"),
        (f"web:{DIGEST},", "entry 2 has no name"),
        (f"web:{DIGEST},other:{DIGEST}", "the same key is listed twice"),
    ],
)
def test_a_wrong_setting_is_named_without_its_content(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_api_keys(text)
    assert "secret" not in str(caught.value)
    assert DIGEST not in str(caught.value)
