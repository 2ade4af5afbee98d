"""``galilean.yaml``: one file, one schema, the same in the chart's values (SC-22, design §9).

Everything has a good default: an empty file is a working product on one machine. Unknown keys are errors,
so that a typing mistake is told at the start and not found months later. Messages name the line.
Secrets never stand here: they are files under ``<state>/secrets`` or environment variables named here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from galilean.amounts import parse_bytes, parse_millicores
from galilean.licences import networks_in
from galilean.settings_applications import NAME as APPLICATION_NAME
from galilean.settings_applications import Application
from galilean.settings_applications import ApplicationField as ApplicationField
from galilean.settings_builds import Builds as Builds
from galilean.settings_distribution import Distribution as Distribution
from galilean.settings_docker import Docker
from galilean.settings_doors import PortsSection, Ssh
from galilean.settings_environments import DesktopApplication as DesktopApplication
from galilean.settings_environments import Display as Display
from galilean.settings_environments import EnvironmentSettings as EnvironmentSettings
from galilean.settings_environments import LicenceServer as LicenceServer
from galilean.settings_environments import Vnc as Vnc
from galilean.settings_environments import Workbench as Workbench
from galilean.settings_images import Images as Images
from galilean.settings_machines import Machines
from galilean.settings_object_stores import ObjectStores
from galilean.settings_places import ENTRY, Addresses, Bytes, GPUModel, Kubernetes, Pool, Section, Volume
from galilean.settings_places import Disks as Disks
from galilean.settings_places import Network as Network
from galilean.settings_places import Toleration as Toleration
from galilean.settings_registry import Registry as Registry
from galilean.settings_use import Use

RELEASE_POLICIES = (
    "auto", "auto-when-done", "manual", "2h", "4h", "8h", "16h", "24h", "2d", "3d", "4d", "5d", "6d", "7d",
)  # fmt: skip

Millicores = Annotated[int, BeforeValidator(parse_millicores, json_schema_input_type=float)]


#: Variables that name what `make up BACKEND=docker` has built: the image of nodes, and that of desktops.
BUILT_IMAGES = ("GALILEAN_DOCKER_IMAGE", "GALILEAN_DOCKER_DESKTOP_IMAGE")


class Site(Section):
    """What the centre is called, and where its days begin."""

    name: str = "Galilean"
    timezone: str = Field(
        default="UTC", description="Zone of the site's days in reports. Fix it before there is data."
    )
    language: Literal["en", "zh_CN"] = Field(
        default="en", description="Used where the browser asks for neither."
    )
    help_url: str = Field(default="", description="Address of the centre's own help; empty hides the link.")
    starters: bool = Field(
        default=True, description="Whether a new site begins with six small public projects to fork."
    )

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"no such time zone: {value!r} (write it like Asia/Shanghai)")
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


class Web(Section):
    """Where browsers reach the product."""

    host: str = Field(default="127.0.0.1", description="Address the proxy listens on.")
    port: int = Field(default=8000, ge=0, le=65535)
    base_url: str = "/"
    public_url: str = Field(
        default="",
        description="https://hub.example.edu/: the address in browsers, where something stands before the "
        "proxy (an ingress, a TLS end). Empty = host and port, or subdomain_host.",
    )
    subdomain_host: str = Field(
        default="",
        description="https://hub.example.edu: each person's nodes get an origin of their own. Needs a wildcard "
        "name and certificate. Recommended wherever more than one person works.",
    )

    @field_validator("base_url")
    @classmethod
    def _slashes(cls, value: str) -> str:
        return "/" + value.strip("/") + "/" if value.strip("/") else "/"

    @model_validator(mode="after")
    def _one_place(self) -> Web:
        if self.public_url:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"public_url is {self.public_url!r}: write it like https://hub.example.edu/")
            if parts.path.strip("/") != self.base_url.strip("/"):
                raise ValueError(f"public_url must end with base_url, which is {self.base_url!r}")
        return self

    @property
    def https(self) -> bool:
        """Whether browsers reach the product by TLS."""
        return (self.public_url or self.subdomain_host).startswith("https://")


class DatabaseSettings(Section):
    """Two databases, always two: ours and the hub's. Empty = SQLite files in the state directory.

    An address with a password does not belong into the file: GALILEAN_DATABASE_URL and
    GALILEAN_HUB_DATABASE_URL win over it.
    """

    url: str = ""
    hub_url: str = ""


class Limits(Section):
    """What one person of a role may hold (TI-45: small and safe until an administrator says more)."""

    clusters: int = Field(default=1, ge=0, description="Clusters held at once.")
    nodes: int = Field(default=2, ge=0, description="Nodes per cluster.")
    cpu: Millicores = Field(default=2, description="CPUs (hardware threads) per node.")
    memory: Bytes = Field(default=parse_bytes("8G"), description="Memory per node.")
    gpu: int = Field(default=0, ge=0, description="GPU cards per node.")
    storage: Bytes = Field(default=parse_bytes("20G"), description="Storage per node.")
    total_cpu: Millicores = Field(default=4, description="CPUs held at once over all clusters.")
    total_memory: Bytes = Field(
        default=parse_bytes("16G"), description="Memory held at once over all clusters."
    )
    total_gpu: int = Field(default=0, ge=0, description="GPU cards held at once over all clusters.")
    upload: Bytes = Field(default=parse_bytes("1G"), description="Largest file of one upload.")
    manual_release: bool = Field(default=False, description="May keep a cluster until pressing Release.")


class Role(Section):
    """A role: its name in pages, and its limits."""

    title: str = ""
    limits: Limits = Limits()


def _environments() -> dict[str, EnvironmentSettings]:
    return {
        "jupyter": EnvironmentSettings(
            title="JupyterLab 4.6",
            description="Python 3 with JupyterLab, a terminal and the parts that tie nodes together.",
        )
    }


def _desktop(image: str) -> EnvironmentSettings:
    return EnvironmentSettings(
        title="Desktop",
        description="The same with a desktop in the browser: windows, a file manager, a terminal.",
        image=image,
        interfaces=("jupyter", "desktop"),
    )


def _roles() -> dict[str, Role]:
    wide = {"clusters": 4, "nodes": 4, "cpu": 8, "memory": "32G", "total_cpu": 24, "total_memory": "96G"}
    return {
        "student": Role(title="Student"),
        "researcher": Role(
            title="Researcher", limits=Limits.model_validate({**wide, "manual_release": True})
        ),
        "teacher": Role(title="Teacher", limits=Limits.model_validate({**wide, "manual_release": True})),
        "admin": Role(
            title="Administrator",
            limits=Limits.model_validate(
                {
                    **wide,
                    "clusters": 16,
                    "nodes": 16,
                    "total_cpu": 256,
                    "total_memory": "1T",
                    "manual_release": True,
                }
            ),
        ),
    }


class Size(Section):
    """A size of node that the Run panel offers."""

    title: str
    cpu: Millicores
    memory: Bytes


class Defaults(Section):
    """What the Run panel starts with (CG-4)."""

    nodes: int = Field(default=1, ge=1)
    cpu: Millicores = Field(default=2)
    memory: Bytes = Field(default=parse_bytes("8G"))
    gpu: int = Field(default=0, ge=0)
    storage: Bytes = Field(
        default=0,
        description="Local storage per node for who asks for none: `~/scratch` and whatever else is written into a node. "
        "0 = no limit. With backend kubernetes; containers and processes are not limited.",
    )
    release: str = "auto"
    environment: str = "jupyter"


class Release(Section):
    """When a cluster goes back by itself (CG-30, CG-31)."""

    offered: tuple[str, ...] = RELEASE_POLICIES
    grace_seconds: int = Field(default=300, ge=30, description="Automatic: how long after the page was left.")

    @field_validator("offered")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in RELEASE_POLICIES:
                raise ValueError(f"no such release policy: {name!r} (known: {', '.join(RELEASE_POLICIES)})")
        if not value:
            raise ValueError("at least one release policy must be offered")
        return value


class Process(Section):
    """The embedded backend: nodes are processes of this machine, without isolation between people."""

    cpu_overcommit: float = Field(
        default=4.0, gt=0, description="CPUs that may be held, as a multiple of the machine's."
    )
    memory_overcommit: float = Field(
        default=4.0, gt=0, description="The same for memory, which is recorded here and not enforced."
    )
    zygote: bool = Field(
        default=True, description="Fork nodes from a preloaded process: half a second instead of eight."
    )
    scratch: str = Field(
        default="",
        description="Directory on a fast disk for `~/scratch` of nodes, for nobody else's files: what is in it goes with "
        "its cluster. Empty = in the state directory.",
    )

    index_url: str = Field(
        default="",
        description="Package index of nodes and of saved Python environments, such as "
        "`https://mirror.example.edu/simple`; empty = as the machine's own `pip` and `uv` are configured. Everybody's "
        "nodes can read it, so it takes no name and password.",
    )
    find_links: str = Field(
        default="",
        description="A folder of wheels, or a page with links to some, besides the index.",
    )

    @field_validator("scratch")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.strip("/") == "" or ".." in value.split("/")):
            raise ValueError(f"is {value!r}: write the whole path of a directory, without “..”")
        return value

    @field_validator("index_url", "find_links")
    @classmethod
    def _without_login(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise ValueError("an address with a name and password would be told to everybody")
        return value


class Signup(Section):
    """Who may make an account (AP-1). A new account can do nothing until it has a role (AP-2)."""

    open: bool = True
    admins: tuple[str, ...] = Field(
        default=("admin",), description="Accounts with the admin role from the start."
    )


class Mail(Section):
    """The server through which the product sends mail. Empty host = no mail."""

    host: str = ""
    port: int = 25
    sender: str = "galilean@localhost"
    starttls: bool = Field(
        default=False,
        description="Whether mail goes by TLS, to a server whose certificate is valid for `host`.",
    )
    ca_file: str = Field(
        default="", description="Who signs that certificate, as PEM; empty = whom the machine trusts."
    )
    username: str = ""
    password_file: str = ""
    admins: tuple[str, ...] = Field(default=(), description="Who is told that an account waits for a role.")


class Settings(Section):
    """The whole of ``galilean.yaml``."""

    site: Site = Site()
    web: Web = Web()
    database: DatabaseSettings = DatabaseSettings()
    addresses: Addresses = Addresses()
    backend: Literal["process", "docker", "kubernetes"] = Field(
        default="process", description="What nodes are: processes of this machine, its containers, or pods."
    )
    roles: dict[str, Role] = Field(default_factory=_roles)
    sizes: dict[str, Size] = Field(
        default_factory=lambda: {
            "small": Size.model_validate({"title": "Small", "cpu": 2, "memory": "8G"}),
            "medium": Size.model_validate({"title": "Medium", "cpu": 4, "memory": "16G"}),
            "large": Size.model_validate({"title": "Large", "cpu": 8, "memory": "32G"}),
        }
    )
    environments: dict[str, EnvironmentSettings] = Field(
        default_factory=_environments,
        min_length=1,
    )
    allow_sudo: bool = Field(
        default=False,
        description="Whether an environment may give sudo in its nodes: people are then root in their containers, and "
        "what they leave in volumes can be root's. Mount volumes with `nosuid`, or let the daemon map users.",
    )
    allow_containers: bool = Field(
        default=False,
        description="Whether an environment may let people start containers inside of their nodes. They get no right on the "
        "machine, and more of its kernel can be asked: user name spaces and mounts. Keep kernels up to date.",
    )
    workbench: Workbench = Workbench()
    images: Images = Images()
    object_stores: ObjectStores = ObjectStores()
    defaults: Defaults = Defaults()
    release: Release = Release()
    disks: Disks = Disks()
    volumes: dict[str, Volume] = Field(default_factory=lambda: {"default": Volume()}, min_length=1)
    pools: dict[str, Pool] = Field(default_factory=lambda: {"default": Pool()})
    gpu_models: dict[str, GPUModel] = {}
    machines: Machines = Machines()
    process: Process = Process()
    docker: Docker = Docker()
    kubernetes: Kubernetes = Kubernetes()
    signup: Signup = Signup()
    mail: Mail = Mail()
    use: Use = Use()
    ssh: Ssh = Ssh()
    ports: PortsSection = PortsSection()
    applications: dict[Annotated[str, Field(pattern=APPLICATION_NAME)], Application] = Field(
        default={},
        description="Programs that nodes offer; one file for each in the folder `applications` beside this file says the same.",
    )
    gang_timeout_seconds: int = Field(
        default=120, ge=5, description="All nodes are placed within this, or none stays."
    )
    start_timeout_seconds: int = Field(default=120, ge=10)
    sweep_seconds: int = Field(default=300, ge=10, description="How often orphans are looked for.")
    jupyterhub: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Any traitlet of the hub: {Class: {trait: value}}."
    )
    state: Path = Field(
        default=Path("state"), description="Everything that must be kept. GALILEAN_STATE wins."
    )

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.defaults.environment not in self.environments:
            raise ValueError(
                f"defaults.environment is {self.defaults.environment!r}, which is not one of the environments: "
                + ", ".join(self.environments)
            )
        if self.defaults.release not in self.release.offered:
            raise ValueError(f"defaults.release is {self.defaults.release!r}, which is not offered")
        if "admin" not in self.roles:
            raise ValueError("roles must contain admin")
        if self.database.url and self.database.url == self.database.hub_url:
            raise ValueError("database.url and database.hub_url must be two databases")
        if self.ports.share and not self.web.subdomain_host:
            raise ValueError(
                "ports.share needs web.subdomain_host: with one origin a shared page could act as you"
            )
        for problem in (
            *self._environment_problems(),
            *self._workbench_problems(),
            *self._pool_problems(),
            *self._docker_problems(),
            *self._kubernetes_problems(),
        ):
            raise ValueError(problem)
        return self

    def problems_of(self, environment: EnvironmentSettings) -> Iterator[str]:
        """What this installation does not give to an environment, in words."""
        ours = networks_in(self.not_licences)
        yield from environment.problems(
            self.backend, allow_sudo=self.allow_sudo, allow_containers=self.allow_containers, ours=ours
        )
        if environment.containers and self.backend == "kubernetes" and not self.kubernetes.containers_seccomp:
            yield "containers: name the profile that lets them be started (kubernetes.containers_seccomp)"

    @property
    def not_licences(self) -> tuple[str, ...]:
        """Networks, addresses and names of the platform itself, to which no run gets a way as to a licence server."""
        urls = (self.addresses.hub, self.addresses.portal, self.addresses.proxy_api)
        own = [self.docker.network_pool] if self.backend == "docker" else []
        if self.backend == "kubernetes":
            urls = (*urls, self.kubernetes.hub_connect_url, self.kubernetes.portal_connect_url)
            own = list(self.kubernetes.network.not_licences)
        hosts = [urlsplit(url).hostname or "" for url in urls]
        return tuple(dict.fromkeys((*own, *(host for host in hosts if host))))

    def _environment_problems(self) -> Iterator[str]:
        for name, environment in self.environments.items():
            for problem in self.problems_of(environment):
                yield f"environments.{name}.{problem}"

    def _workbench_problems(self) -> Iterator[str]:
        if self.workbench.root and self.backend == "process":
            yield "workbench.root: with backend process nobody becomes root"

    def _pool_problems(self) -> Iterator[str]:
        if "default" not in self.pools:
            yield "pools must contain default"
        for kind, names in (("pools", self.pools), ("gpu_models", self.gpu_models)):
            for name in names:
                if not ENTRY.fullmatch(name):
                    yield f"{kind}.{name}: a name has lower-case letters, digits and hyphens, at most 40"
        for name, pool in self.pools.items():
            for role in pool.open_to:
                if role not in self.roles:
                    yield f"pools.{name}.open_to: there is no role {role!r}"

    def _docker_problems(self) -> Iterator[str]:
        if self.backend != "docker":
            return
        for name, volume in self.volumes.items():
            if volume.kind == "claim":
                yield f"volumes.{name}: with backend docker a volume is a directory of this machine"
        for name, environment in self.environments.items():
            if not environment.image and not self.docker.image:
                yield (
                    f"environments.{name} has no image, and docker.image names none "
                    "(`make up BACKEND=docker` builds one)"
                )

    def _kubernetes_problems(self) -> Iterator[str]:
        if self.backend != "kubernetes":
            return
        for name, volume in self.volumes.items():
            if volume.kind != "claim":
                yield f"volumes.{name}: with backend kubernetes a volume must be of kind claim"
        for name, environment in self.environments.items():
            if not environment.image and not self.kubernetes.image:
                yield f"environments.{name} has no image, and kubernetes.image names none"

    @property
    def database_url(self) -> str:
        """URL of our own database."""
        return self.database.url or f"sqlite:///{self.state / 'galilean.sqlite'}"

    @property
    def hub_database_url(self) -> str:
        """URL of the hub's database, never the same as ours."""
        url = self.database.hub_url or f"sqlite:///{self.state / 'hub.sqlite'}"
        for plain in ("postgresql://", "postgres://"):  # the driver that is installed, as for ours
            url = url.replace(plain, "postgresql+psycopg://", 1) if url.startswith(plain) else url
        return url

    @property
    def limits_storage(self) -> bool:
        """Whether a node's local storage is kept to what was asked for."""
        return self.backend == "kubernetes"

    @property
    def disks_offered(self) -> bool:
        """Whether people may have disks."""
        return self.disks.offered and (self.backend != "kubernetes" or bool(self.kubernetes.disk_class))

    @property
    def disks_directory(self) -> Path:
        """Where each disk is a directory."""
        return Path(self.disks.directory) if self.disks.directory else self.state / "disks"

    def volume_path(self, volume_id: str) -> Path:
        """The directory at which this machine (or pod) has a volume."""
        path = self.volumes[volume_id].path
        return Path(path) if path else self.state / "volumes" / volume_id


class SettingsError(Exception):
    """What is wrong in the file: one line for each thing, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_settings(path: Path | None = None, *, environ: dict[str, str] | None = None) -> Settings:
    """Settings from a file, with what the environment says on top.

    Parameters
    ----------
    path
        ``galilean.yaml``; ``None`` = the one named by ``GALILEAN_CONFIG``, else ``./galilean.yaml`` when
        there is one, else defaults.
    environ
        ``GALILEAN_CONFIG``, ``GALILEAN_STATE``, ``PORT``, ``BACKEND``, what is in ``BUILT_IMAGES``,
        ``GALILEAN_DATABASE_URL`` and ``GALILEAN_HUB_DATABASE_URL`` are read from here.

    Raises
    ------
    SettingsError
        With one message for each problem, each naming file and line.
    """
    env = dict(os.environ) if environ is None else environ
    if path is None:
        named = env.get("GALILEAN_CONFIG", "")
        path = Path(named) if named else Path("galilean.yaml")
        if not named and not path.exists():
            return with_applications(_from(None, {}, env, ""), None)
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}: is not UTF-8 text: {error}"]) from error
    return with_applications(parse_settings(source, name=str(path), environ=env), path.parent)


def with_applications(settings: Settings, folder: Path | None) -> Settings:
    """Settings with the applications of files: the product's own, then those beside ``galilean.yaml``.

    Raises
    ------
    SettingsError
        With what is wrong in which file, line by line.
    """
    found: dict[str, Application] = {}
    problems: list[str] = []
    for place in (Path(__file__).parent / "applications", folder / "applications" if folder else None):
        for path in sorted(place.glob("*.yaml")) if place is not None and place.is_dir() else ():
            if not re.fullmatch(APPLICATION_NAME, path.stem):
                problems.append(
                    f"{path}: the name of the file has lower-case letters, digits and hyphens, at most 36"
                )
                continue
            if folder is not None and path.parent.parent == folder and path.stem in settings.applications:
                problems.append(f"{path}: applications.{path.stem} stands in galilean.yaml already")
                continue
            try:
                found[path.stem] = _application(path)
            except SettingsError as error:
                problems += error.problems
    found |= settings.applications
    for name, application in found.items():
        for environment in application.environments:
            if environment not in settings.environments:
                problems.append(f"applications.{name}.environments: there is no environment {environment!r}")
    if problems:
        raise SettingsError(problems)
    return settings.model_copy(update={"applications": found})


def _application(path: Path) -> Application:
    try:
        source = path.read_text(encoding="utf-8")
        node, data = yaml.compose(source, Loader=yaml.SafeLoader), yaml.safe_load(source)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: cannot be read: {error}"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SettingsError([f"{where}: not YAML: {getattr(error, 'problem', None) or error}"]) from error
    problems = list(repeated_keys(node, str(path)))
    if problems:
        raise SettingsError(problems)
    try:
        return Application.model_validate(data if isinstance(data, dict) else {})
    except ValidationError as error:
        raise SettingsError([_problem(node, str(path), item) for item in error.errors()]) from error


def parse_settings(
    source: str, *, name: str = "galilean.yaml", environ: dict[str, str] | None = None
) -> Settings:
    """Settings from the text of a file; see :func:`load_settings`."""
    try:
        node = yaml.compose(source, Loader=yaml.SafeLoader)
        data = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise SettingsError([f"{where}: not YAML: {getattr(error, 'problem', None) or error}"]) from error
    problems = list(repeated_keys(node, name))
    if problems:
        raise SettingsError(problems)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SettingsError([f"{name}:1: the file must be a set of sections, such as “site:” and “roles:”"])
    return _from(node, data, environ or {}, name)


def _from(node: Any, data: dict[str, Any], env: dict[str, str], name: str) -> Settings:
    data = dict(data)
    if env.get("GALILEAN_STATE"):
        data["state"] = env["GALILEAN_STATE"]
    if env.get("BACKEND"):
        data["backend"] = env["BACKEND"]
    if env.get("PORT"):
        data["web"] = {**(data.get("web") or {}), "port": env["PORT"]}
    if env.get(BUILT_IMAGES[0]):  # what `make up` has built; the file's own word wins
        data["docker"] = {"image": env[BUILT_IMAGES[0]], **(data.get("docker") or {})}
    if env.get(BUILT_IMAGES[1]) and data.get("environments") is None and data.get("backend") == "docker":
        data["environments"] = _environments() | {"desktop": _desktop(env[BUILT_IMAGES[1]])}
    for variable, key in (("GALILEAN_DATABASE_URL", "url"), ("GALILEAN_HUB_DATABASE_URL", "hub_url")):
        if env.get(variable):
            data["database"] = {**(data.get("database") or {}), key: env[variable]}
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise SettingsError([_problem(node, name, item) for item in error.errors()]) from error
    return settings.model_copy(update={"state": settings.state.expanduser().absolute()})


def _problem(node: Any, name: str, item: Any) -> str:
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "no such setting"
    return place_of(node, name, [str(part) for part in item["loc"]]) + message


def place_of(node: Any, name: str, path: list[str]) -> str:
    """``galilean.yaml:5: roles.student: ``, the beginning of a message about the value at ``path``."""
    line = _line(node, path)
    where = f"{name}:{line}" if line else (name or "environment")
    return f"{where}: {'.'.join(path) or 'settings'}: "


def _line(node: Any, path: list[str]) -> int | None:
    """The line of the value at ``path``, or of the nearest thing above it that the file says."""
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def repeated_keys(node: Any, name: str) -> Any:
    """Keys that stand twice: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                yield f"{name}:{line}: {key.value}: stands already on line {seen[key.value]}"
            seen[key.value] = line
            yield from repeated_keys(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from repeated_keys(value, name)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors and for the chart's ``values.schema.json``."""
    return Settings.model_json_schema(mode="validation")
