"""Clusters: access to an own one, requests that are refused at once, and the private parts of Ray that this needs."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RaySystemError, RayTaskError

from hpo.cluster import connection, machines, pause
from hpo.cluster.connection import SETTINGS, Cluster, connect, survive_lost_workers
from hpo.cluster.faults import PREEMPTED
from hpo.cluster.processes import OWNER, PREFIX, scratch
from hpo.cluster.resources import ResourceError, ResourceRequest, Resources, fitting, gpus_needed
from tests.hpo.driver.test_interruptions import descendants

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)


def listening(pids: set[int]) -> set[str]:
    """Addresses (hexadecimal, as in /proc/net) on which these processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].split(":")[0])
    return addresses


def test_an_own_cluster_listens_on_loopback_alone(ray_cluster: Cluster) -> None:
    addresses = listening(set(descendants(os.getpid())))
    assert addresses, "some process of the cluster must listen"
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}, addresses


def test_an_own_cluster_requires_a_token_that_only_its_user_can_read(ray_cluster: Cluster) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_text()) == 64


@pytest.mark.slow
def test_a_process_without_the_token_is_refused(ray_cluster: Cluster) -> None:
    address = ray.get_runtime_context().gcs_address
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('inside')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode != 0
    assert "inside" not in done.stdout
    assert "InvalidAuthToken" in done.stderr, done.stderr


def test_a_connected_process_keeps_its_cluster(ray_cluster: Cluster) -> None:
    with connect() as again:
        assert again.own
        assert again.cpus == 2
        assert again.nodes == ((2.0, again.gpus),)
    assert ray.is_initialized()


def test_an_absent_cluster_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ResourceError, match=r"address 'auto': no Ray cluster answers there \(no answer\)"), \
            connect("auto"):  # fmt: skip
        pass


def test_a_port_where_nothing_listens_is_told_before_ray_tries_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray is not asked"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ResourceError, match=f"address '{address}': no Ray cluster answers there .*refused"), \
                connect(address):  # fmt: skip
            pass


def test_resources_are_compared_with_the_machines() -> None:
    Resources(2, 2).check(4, 0, "here")
    with pytest.raises(ResourceError, match="need 6 CPUs, but here has 4: at most --workers 2 would fit"):
        Resources(3, 2).check(4, 0, "here")
    with pytest.raises(ResourceError, match="need 8 CPUs, but here has 4: --cpus-per-trial of at most 4 would fit"):
        Resources(1, 8).check(4, 0, "here")
    with pytest.raises(ResourceError, match=r"gpus_per_trial = 0.5 need 2 GPUs, but here has 1"):
        Resources(3, 1, 0.5).check(4, 1, "here")


def test_fewer_workers_run_where_fewer_fit() -> None:
    assert Resources(8, 2, 1.0).within(((8.0, 2.0), (8.0, 1.0))) == Resources(3, 2, 1.0)
    assert Resources(2, 2).within(((8.0, 0.0),)) == Resources(2, 2)
    assert Resources(8, 2).within(()) == Resources(1, 2)


def test_open_values_are_filled_in_from_the_cluster() -> None:
    assert ResourceRequest().choose(cpus=8, gpus=0) == Resources(8, 1, 0.0)
    assert ResourceRequest().choose(cpus=8, gpus=2) == Resources(2, 4, 1.0)
    assert ResourceRequest(None, 2, 0.25).choose(cpus=8, gpus=1) == Resources(4, 2, 0.25)
    assert ResourceRequest(3, 1, 0.0).choose(cpus=8, gpus=2) == Resources(3, 1, 0.0)


def test_a_request_takes_its_open_values_from_the_one_before() -> None:
    before = ResourceRequest(4, 2, 0.5)
    assert ResourceRequest().over(before) == before
    assert ResourceRequest(workers=1, gpus_per_trial=0.0).over(before) == ResourceRequest(1, 2, 0.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 0}, "`workers` must be an integer of at least 1, not 0"),
        ({"cpus_per_trial": True}, "`cpus_per_trial` must be an integer of at least 1, not True"),
        ({"cpus_per_trial": 1.5}, "`cpus_per_trial` must be an integer of at least 1, not 1.5"),
        ({"gpus_per_trial": 1.5}, "`gpus_per_trial` must be 0, a fraction below 1, or a whole number, not 1.5"),
        ({"gpus_per_trial": float("inf")}, "`gpus_per_trial` must be 0, .*, not inf"),
        ({"gpus_per_trial": "half"}, "`gpus_per_trial` must be 0, .*, not 'half'"),
    ],
)
def test_resources_that_no_trial_could_have_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        ResourceRequest(**wrong)


@pytest.mark.parametrize(("workers", "each", "devices"), [(4, 0.0, 0), (4, 0.25, 1), (3, 0.4, 2), (2, 2.0, 4)])
def test_fractions_never_span_two_devices(workers: int, each: float, devices: int) -> None:
    assert gpus_needed(workers, each) == devices


def test_every_setting_has_its_reason() -> None:
    assert all(len(reason) > 10 for _, reason in SETTINGS.values())
    assert all(os.environ[name] for name in SETTINGS)


def test_a_dead_process_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as mine:
        dead = tmp_path / f"{PREFIX}dead"
        dead.mkdir()
        owner = (mine / OWNER).read_text()
        (dead / OWNER).write_text(json.dumps(json.loads(owner) | {"pid": 999_999_999}))
        elsewhere = tmp_path / f"{PREFIX}elsewhere"
        elsewhere.mkdir()
        in_a_container = json.loads(owner) | {"pid": 999_999_999, "namespace": "pid:[1]"}
        (elsewhere / OWNER).write_text(json.dumps(in_a_container))
        foreign = tmp_path / f"{PREFIX}foreign"
        foreign.mkdir()
        with scratch() as second:
            assert mine.is_dir()
            assert second.is_dir()
        assert not dead.exists()
        assert elsewhere.is_dir(), "nothing is known of a process in another namespace"
        assert foreign.is_dir()
    assert not mine.exists()


def test_the_pause_flag_reaches_a_worker_once_raised(ray_cluster: Cluster) -> None:
    @ray.remote(num_cpus=0)
    def poll() -> bool:
        return pause.Poll("some/sweep/1", "4-0", "node7 GPU 3")()

    board = pause.Board("some/sweep/1")
    assert (board.sign_of_life("4-0"), board.place_of("4-0")) == (None, "")
    assert ray.get(poll.remote()) is False
    sign = board.sign_of_life("4-0")
    assert sign is not None
    assert board.place_of("4-0") == "node7 GPU 3"
    assert ray.get(poll.remote()) is False
    assert board.sign_of_life("4-0") != sign
    board.raise_flag()
    assert ray.get(poll.remote()) is True
    board.clear()
    assert board.sign_of_life("4-0") is None
    assert ray.get(poll.remote()) is False


def test_the_flag_asks_the_trials_of_some_nodes_or_all(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "INTERVAL", 0.0)
    own = ray.get_runtime_context().get_node_id()
    board, polls = pause.Board("some/sweep/4"), [pause.Poll("some/sweep/4", f"{number}-0") for number in range(2)]
    board.raise_flag({"another"})
    assert not polls[0]()
    assert (board.node_of("0-0"), board.node_of("1-0")) == (own, "")
    board.raise_flag({"another", own})
    assert (polls[0](), polls[0].leaves) == (True, True)
    board.raise_flag()
    board.raise_flag({"another"})
    assert (polls[1](), polls[1].leaves) == (True, False), "all stay asked"
    board.clear()


def test_a_closed_place_is_closed_until_another_list_says_otherwise(ray_cluster: Cluster) -> None:
    board = pause.Board("some/sweep/2")
    assert not pause.is_closed("some/sweep/2", "node7 GPU 3")
    board.close_places({"node7 GPU 3", "node8"})
    closed = [pause.is_closed("some/sweep/2", place) for place in ("node7 GPU 3", "node7", "node8")]
    assert closed == [True, False, True]
    board.close_places(())
    assert not pause.is_closed("some/sweep/2", "node8")
    board.clear()


def test_a_store_that_gives_no_answer_ends_no_trial(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ray.exceptions.RpcError("GCS is restarting")

    poll = pause.Poll("some/sweep/3", "4-0")
    monkeypatch.setattr(pause, "INTERVAL", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(pause, "_get", away)
        assert poll() is False
    pause.Board("some/sweep/3").raise_flag()
    assert poll() is True
    pause.Board("some/sweep/3").clear()


def test_contract_a_kill_by_the_memory_monitor_is_a_dead_worker_to_tune() -> None:
    import ray.air.execution._internal.actor_manager as manager
    from ray.exceptions import OutOfMemoryError, RayActorError

    survive_lost_workers()
    patched = manager.RayActorManager._actor_task_failed
    assert list(inspect.signature(patched).parameters) == ["self", "tracked_actor_task", "exception"]
    original = inspect.getclosurevars(patched).nonlocals["original"]
    assert list(inspect.signature(original).parameters) == ["self", "tracked_actor_task", "exception"]

    seen: list[BaseException] = []

    closure = dict(zip(patched.__code__.co_freevars, patched.__closure__ or (), strict=True))
    cell = closure["original"]
    unpatched = cell.cell_contents
    cell.cell_contents = lambda self, task, exception: seen.append(exception)
    try:
        patched(None, tracked_actor_task=None, exception=OutOfMemoryError("low on memory"))
        patched(None, tracked_actor_task=None, exception=ValueError("another"))
        patched(None, tracked_actor_task=None, exception=RayActorError(error_msg="died", preempted=True))
        patched(None, tracked_actor_task=None, exception=RayActorError(error_msg="died"))
    finally:
        cell.cell_contents = unpatched
    assert isinstance(seen[0], RayActorError)
    assert isinstance(seen[1], ValueError)
    assert [PREEMPTED in str(exception) for exception in seen] == [False, False, True, False]


def test_workers_share_the_memory_but_each_has_what_ray_needs() -> None:
    cluster = Cluster(own=True, cpus=32, gpus=0, memory_limit=2**34)
    assert [cluster.memory_per_worker(workers) for workers in (1, 4, 8, 32)] == [2**34, 2**32, 2**31, 2**31]
    assert Cluster(own=False, cpus=32, gpus=0, memory_limit=None).memory_per_worker(32) is None


BEFORE_THE_FIRST_REPORT = {
    "kill by the memory monitor": lambda: OutOfMemoryError("low on memory"),
    "no memory for Ray's messages": lambda: RayTaskError("Worker.reset", "MemoryError", RaySystemError("no buffer")),
}


@pytest.mark.parametrize("case", BEFORE_THE_FIRST_REPORT)
def test_contract_a_worker_that_is_lost_before_the_first_report(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune asks for the first result of such a trial when it reports the trial's error."""
    import ray.tune.experiment.trial as tune_trial

    def get(reference: object) -> None:
        raise BEFORE_THE_FIRST_REPORT[case]()

    survive_lost_workers()
    trial = object.__new__(tune_trial.Trial)
    trial.trial_id, trial._default_result_or_future = "7-0", ray.ObjectRef.from_random()
    trial.run_metadata = tune_trial._TrainingRunMetadata()
    trial.temporary_state = tune_trial._TemporaryTrialState()
    monkeypatch.setattr(tune_trial.ray, "get", get)
    assert trial.last_result == {"trial_id": "7-0"}


def test_contract_other_private_parts_of_ray(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray._private.worker as ray_worker
    from ray._private import ray_constants
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.tune.execution.tune_controller import TuneController, _get_max_pending_trials

    assert ray.__version__.startswith("2.60.")
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert "print_to_stdstream(" in inspect.getsource(ray_worker.listen_error_messages)
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "5")
    assert _get_max_pending_trials(object()) == 5
    for part in ("_trial_to_actor: Dict[Trial, TrackedActor]", "_pending_trials: Set[", "_pending_trials_list: List[",
                 "_resetting_trials", "_staged_trials"):  # fmt: skip
        assert f"self.{part}" in inspect.getsource(TuneController.__init__)
    assert "TrialRunnerWrapper(" in inspect.getsource(TuneController._wrapped)
    assert list(inspect.signature(TuneController._maybe_reuse_cached_actor).parameters) == ["self", "trial"]
    for call in (TuneController.stop_trial, TuneController._unstage_trial_with_resources):
        assert list(inspect.signature(call).parameters) == ["self", "trial"]
    assert "self._live_actors_to_ray_actors_resources: Dict" in inspect.getsource(RayActorManager.__init__)


def test_contract_what_ray_knows_of_machines(ray_cluster: Cluster) -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.core.generated.autoscaler_pb2 import ClusterConfig
    from ray.util import placement_group_table

    assert isinstance(RayActorManager.num_live_actors, property)
    room = machines.look()
    assert room.nodes == machines.living_nodes() == ((2.0, 2.0),)
    assert len(room.free) == 1
    assert machines.absent_nodes() == ()
    with machines.demand(Resources(1, 3, 1.0)):  # more than there is
        asked = [group for group in placement_group_table().values() if group["state"] == "PENDING"]
        assert [group["bundles"][0] for group in asked] == [{"CPU": 3.0, "GPU": 1.0}]
    assert not [group for group in placement_group_table().values() if group["state"] == "PENDING"]

    config = ClusterConfig()
    config.node_group_configs.add().resources.update({"CPU": 16, "GPU": 2})
    raylet: Any = importlib.import_module("ray._raylet")
    names = raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(), raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    client = importlib.import_module("ray._private.worker").global_worker.gcs_client
    client.internal_kv_put(names[0], config.SerializeToString(), True, names[1])
    try:
        assert machines.absent_nodes() == ((16.0, 2.0),)
    finally:
        client.internal_kv_del(names[0], False, names[1])


def test_contract_rays_processes_are_in_their_own_process_groups(ray_cluster: Cluster) -> None:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(os.getpid())}
    groups = {os.getpgid(pid) for pid, command in commands.items() if b"ray" in command}
    assert groups, "the cluster's processes"
    assert os.getpgrp() not in groups


@pytest.mark.parametrize(
    ("request_", "nodes", "chosen"),
    [
        (ResourceRequest(), ((64.0, 8.0), (4.0, 0.0)), Resources(8, 8, 1.0)),
        (ResourceRequest(gpus_per_trial=0.5), ((64.0, 8.0),), Resources(16, 4, 0.5)),
        (ResourceRequest(gpus_per_trial=2.0), ((64.0, 8.0), (30.0, 4.0)), Resources(6, 15, 2.0)),
        (ResourceRequest(), ((4.0, 8.0),), Resources(4, 1, 1.0)),
        (ResourceRequest(gpus_per_trial=0.0), ((64.0, 8.0),), Resources(64, 1, 0.0)),
        (ResourceRequest(cpus_per_trial=2), ((64.0, 8.0),), Resources(8, 2, 1.0)),
    ],
)
def test_a_trial_gets_its_gpu_s_share_of_the_node_s_cores(
    request_: ResourceRequest, nodes: tuple[tuple[float, float], ...], chosen: Resources
) -> None:
    cpus, gpus = map(sum, zip(*nodes, strict=True))
    assert request_.choose(cpus, gpus, nodes) == chosen


def test_a_trial_never_spans_two_nodes() -> None:
    four = ((4.0, 0.0),) * 4
    assert fitting(four, 3, 0.0) == 4
    assert fitting(((8.0, 1.0), (8.0, 0.0)), 1, 0.5) == 2
    assert fitting(((8.0, 3.0), (1.0, 2.0)), 2, 2.0) == 1
    assert fitting(((8.0, 0.5),), 1, 0.5) == 1, "another job has half of the GPU"
    assert fitting(((8.0, 2.75),), 1, 0.25) == 8, "as many as CPUs"
    assert fitting(((16.0, 1.4),), 1, 0.4) == 3
    assert fitting(((8.0, 0.4),), 1, 0.5) == 0
    assert fitting(((8.0, 1 - 3 * 0.3),), 1, 0.1) == 1, "0.09999999999999998 is rounding"
    assert ResourceRequest(cpus_per_trial=3).choose(cpus=16, gpus=0, nodes=four) == Resources(4, 3, 0.0)
    cluster = Cluster(own=False, cpus=16, gpus=0, memory_limit=None, nodes=four)
    cluster.check(Resources(4, 4))
    with pytest.raises(ResourceError, match=r"the 4 of the cluster \(with 4 CPUs and 0 GPUs\) hold 0: less for each"):
        cluster.check(Resources(1, 8))
    with pytest.raises(ResourceError, match="hold 4: at most --workers 4 would fit"):
        cluster.check(Resources(5, 3))


def test_a_cluster_on_the_loopback_alone_is_refused_before_ray_waits_for_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import ray_constants, services

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda address: "127.0.0.2")
    monkeypatch.setattr(importlib.import_module("ray._private.worker"), "_global_node", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        message = r"^address '127.*: the cluster listens .* by 127.0.0.2, where .* RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 "
        with pytest.raises(ResourceError, match=message):
            connection._join(address)
        monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        connection._check_loopback(address)
