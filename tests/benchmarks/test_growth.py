"""The benchmark of growth: its arithmetic, the simulated device, and its document from real workers."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.backing import Load
from benchmarks.growth import Step, queue, step_size, summary, table
from benchmarks.simulated_worker import Device, SimulatedRuntime


def step(workers=2, jobs=1000, took_s=10.0, **load):
    """Of devices that do 50 jobs per second each, on two cores."""
    zero = Load(took_s, 0, 0, 0, 0, 0, 0)
    return Step(workers, jobs, took_s, replace(zero, **load), 50.0, cores=2, worker_mb=90.0, database_pool=16)


def test_a_device_takes_a_fixed_time_and_a_time_for_each_product(monkeypatch):
    device = Device.parse("20,4")
    assert device.seconds(32) == pytest.approx(0.148)
    assert device.products_per_s(32) == pytest.approx(32 / 0.148)
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    assert len(SimulatedRuntime(device).forward(["a", "b"])) == 2
    assert slept == [pytest.approx(0.028)]
    assert Device.parse(str(device)) == device


def test_a_step_that_keeps_its_devices_busy_is_limited_by_them():
    one = step(jobs=950, machine_s=4.0, workers_s=3.0)
    assert one.device_share == pytest.approx(0.95)
    assert one.limit == "the devices"


def test_otherwise_the_limit_is_who_uses_the_cores():
    one = step(jobs=500, machine_s=19.0, workers_s=8.0, postgres_s=9.0, redis_s=1.0)
    assert one.shares == pytest.approx({"workers": 0.4, "PostgreSQL": 0.45, "Redis": 0.05, "others": 0.05})
    assert one.limit == "the cores, mostly used by PostgreSQL"
    assert "others" in step(jobs=500, machine_s=19.0, workers_s=1.0).limit


def test_redis_is_full_with_one_core_and_waiting_is_told_from_working():
    assert "one core" in step(jobs=500, machine_s=11.0, redis_s=9.0).limit
    assert step(jobs=500, machine_s=4.0, workers_s=3.0).limit.startswith("waiting")


def test_a_difference_of_loads_is_what_was_done_in_between():
    assert Load(9, 8, 7, 6, 5, 4, 3).since(Load(1, 1, 1, 1, 1, 1, 1)) == Load(8, 7, 6, 5, 4, 3, 2)


def test_a_step_has_what_its_devices_can_do_in_the_time_and_no_more_than_is_allowed():
    assert step_size(1, 100_000, 30, 200.0) == 6000
    assert step_size(64, 100_000, 30, 200.0) == 100_000
    assert step_size(1, 100_000, 0.001, 2.0) == 1


def test_the_summary_names_the_first_step_that_the_devices_do_not_limit():
    busy = {"machine_s": 19.0, "postgres_s": 18.0, "redis_commands": 200.0, "transactions": 100.0}
    document = summary([step(1, 490), step(2, 960), step(4, 1200, **busy), step(8, 1100, **busy)])
    assert document["limited_from_workers"] == 4
    assert document["limited_by"] == "the cores, mostly used by PostgreSQL"
    third = document["steps"][2]
    assert third["per_job"]["postgres_cpu_ms"] == pytest.approx(15.0)
    assert third["per_job"]["redis_commands"] == pytest.approx(0.1667)
    assert third["device_share"] == 0.6
    assert document["headline"][0]["value"] == 120.0
    assert summary([step(1, 490)])["limited_by"] is None


def test_jobs_are_queued_for_all_tenants_alike(engine, settings, make_tenant):
    tenants = [make_tenant(f"tenant {number}") for number in range(3)]
    ids = queue(engine, tenants, "bulk", 31)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT jobs.tenant_id, count(*) FROM jobs JOIN products ON products.job_id = jobs.id "
            "WHERE status = 'queued' AND lane = 'bulk' AND jobs.revision = products.revision GROUP BY 1"
        ).all()
    assert len(set(ids)) == 31
    assert sorted(count for _, count in rows) == [10, 10, 11]


def test_a_list_of_workers_that_is_none_is_refused():
    result = CliRunner().invoke(main, ["growth", "--workers", "1,two"])
    assert result.exit_code == 2 and "two" in result.output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_document_of_real_workers(run_benchmark):
    document = run_benchmark("growth", "--workers", "2", "--seconds", "0.5", "--device-ms", "5,1")
    assert [one["workers"] for one in document["steps"]] == [2]
    for one in document["steps"]:
        assert one["jobs_per_s"] > 0 and 0 < one["device_share"] < 1.1
        # In so short a run Redis may use less than the 10 ms that the kernel counts processor time in.
        assert all(load > 0 for name, load in one["per_job"].items() if name != "redis_cpu_ms")
        assert one["per_job"]["redis_cpu_ms"] >= 0
    assert "2 workers: limited by" in table(document)
