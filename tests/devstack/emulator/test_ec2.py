from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.devstack.emulated import PENDING_S, POWER_CUT_S, Emulated


def test_a_start_is_seen_as_pending_before_it_is_running(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    before = datetime.now(UTC) - timedelta(seconds=1)  # LaunchTime has whole seconds
    started = emulated.ec2.start_instances(InstanceIds=[instance_id])["StartingInstances"][0]
    assert started["PreviousState"] == {"Code": 80, "Name": "stopped"}
    assert started["CurrentState"] == {"Code": 0, "Name": "pending"}
    assert emulated.state(instance_id) == "pending"

    emulated.wait_for(instance_id, "running")

    described = emulated.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert described["State"] == {"Code": 16, "Name": "running"}
    assert before <= described["LaunchTime"] <= datetime.now(UTC)


def test_each_start_renews_the_launch_time(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    first = _launch_time(emulated, instance_id)
    emulated.ec2.stop_instances(InstanceIds=[instance_id])
    emulated.wait_for(instance_id, "stopped")  # the power cut comes after more than a second
    emulated.ec2.start_instances(InstanceIds=[instance_id])
    assert _launch_time(emulated, instance_id) > first


def test_a_stop_lasts_until_the_machine_has_halted(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    stopped = emulated.ec2.stop_instances(InstanceIds=[instance_id])["StoppingInstances"][0]
    assert stopped["PreviousState"] == {"Code": 16, "Name": "running"}
    assert stopped["CurrentState"] == {"Code": 64, "Name": "stopping"}
    assert emulated.state(instance_id) == "stopping"

    emulated.ask("POST", f"/devstack/instances/{instance_id}/halt")

    assert emulated.state(instance_id) == "stopped"


def test_a_stop_that_lasts_too_long_ends_in_a_power_cut(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    emulated.ec2.stop_instances(InstanceIds=[instance_id])
    view = emulated.wait_for(instance_id, "stopped")
    stopping = view["intervals"][-2]
    assert stopping["state"] == "stopping"
    assert stopping["until_s"] - stopping["since_s"] == pytest.approx(POWER_CUT_S)


def test_a_stop_says_since_when_and_force_ends_it(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    before = datetime.now(UTC) - timedelta(seconds=1)
    emulated.ec2.stop_instances(InstanceIds=[instance_id])
    described = emulated.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    reason = described["StateTransitionReason"].replace("GMT", "+0000")
    assert before <= datetime.strptime(reason, "User initiated (%Y-%m-%d %H:%M:%S %z)") <= datetime.now(UTC)

    emulated.ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    assert emulated.state(instance_id) == "stopped"
    emulated.ec2.start_instances(InstanceIds=[instance_id])
    described = emulated.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert not described["StateTransitionReason"]


def test_a_running_instance_does_not_halt_by_itself(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    emulated.ask("POST", f"/devstack/instances/{instance_id}/halt")
    assert emulated.state(instance_id) == "running"


def test_a_start_while_stopping_is_an_incorrect_instance_state(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    emulated.ec2.stop_instances(InstanceIds=[instance_id])
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        emulated.ec2.start_instances(InstanceIds=[instance_id])
    assert emulated.state(instance_id) == "stopping"


def test_a_stop_while_pending_is_an_incorrect_instance_state(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    emulated.ec2.start_instances(InstanceIds=[instance_id])
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        emulated.ec2.stop_instances(InstanceIds=[instance_id])
    emulated.wait_for(instance_id, "running")


def test_start_and_stop_repeated_change_nothing(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    again = emulated.ec2.start_instances(InstanceIds=[instance_id])["StartingInstances"][0]
    assert (again["PreviousState"]["Name"], again["CurrentState"]["Name"]) == ("running", "running")
    emulated.ec2.stop_instances(InstanceIds=[instance_id])
    again_stopped = emulated.ec2.stop_instances(InstanceIds=[instance_id])["StoppingInstances"][0]
    assert (again_stopped["PreviousState"]["Name"], again_stopped["CurrentState"]["Name"]) == ("stopping", "stopping")


def test_a_dry_run_switches_nothing(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    with pytest.raises(ClientError, match="DryRunOperation"):
        emulated.ec2.start_instances(InstanceIds=[instance_id], DryRun=True)
    assert emulated.state(instance_id) == "stopped"


def test_an_unknown_instance_is_refused(emulated: Emulated) -> None:
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        emulated.ec2.start_instances(InstanceIds=["i-00000000000000000"])
    assert emulated.ask("GET", "/devstack/instances/i-00000000000000000")["status"] == 404


def test_capacity_is_refused_as_often_as_ordered_and_then_granted(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    emulated.order(service="ec2", action="StartInstances", mode="error", code="InsufficientInstanceCapacity", times=2)
    for _ in range(2):
        with pytest.raises(ClientError, match="InsufficientInstanceCapacity") as refusal:
            emulated.ec2.start_instances(InstanceIds=[instance_id])
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert emulated.state(instance_id) == "stopped"
    emulated.ec2.start_instances(InstanceIds=[instance_id])
    assert emulated.state(instance_id) == "pending"


def test_the_history_tells_how_long_each_state_lasted(emulated: Emulated) -> None:
    instance_id = _running(emulated)
    view = emulated.wait_for(instance_id, "running")
    assert [interval["state"] for interval in view["intervals"]] == ["stopped", "pending", "running"]
    pending = view["intervals"][1]
    assert pending["until_s"] - pending["since_s"] == pytest.approx(PENDING_S)
    assert view["intervals"][2]["until_s"] is None


def test_waiting_for_a_change_ends_with_the_time_given(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    view = emulated.ask("GET", f"/devstack/instances/{instance_id}")
    later = emulated.ask("GET", f"/devstack/instances/{instance_id}?after={view['version']}&wait_s=0.1")
    assert later == view


def test_a_terminated_instance_can_not_be_started(emulated: Emulated) -> None:
    instance_id = emulated.new_stopped_instance()
    emulated.ec2.terminate_instances(InstanceIds=[instance_id])
    assert emulated.state(instance_id) == "terminated"
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        emulated.ec2.start_instances(InstanceIds=[instance_id])


def test_a_new_instance_is_pending_first(emulated: Emulated) -> None:
    reservation = emulated.ec2.run_instances(ImageId="ami-1234abcd", MinCount=1, MaxCount=1)
    instance_id = reservation["Instances"][0]["InstanceId"]
    assert emulated.wait_for(instance_id, "running")["intervals"][0]["state"] == "pending"


def _running(emulated: Emulated) -> str:
    instance_id = emulated.new_stopped_instance()
    emulated.ec2.start_instances(InstanceIds=[instance_id])
    emulated.wait_for(instance_id, "running")
    return instance_id


def _launch_time(emulated: Emulated, instance_id: str) -> datetime:
    described = emulated.ec2.describe_instances(InstanceIds=[instance_id])
    return described["Reservations"][0]["Instances"][0]["LaunchTime"]
