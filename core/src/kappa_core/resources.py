"""The resources of Kappa as typed structs: what the stores keep, the API answers from and the operator reconciles.

Field names are AWS's member names in snake_case; they are encoded in camelCase, as in the custom resources (design §8). A
resource is metadata (identity and optimistic concurrency, written by the store alone), a desired part and a status. Rules and
drivers treat resources as immutable values: change one with :func:`msgspec.structs.replace` and hand it back to the store.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NewType

import msgspec

AccountId = NewType("AccountId", str)
"""Twelve digits."""
Region = NewType("Region", str)
"""Such as ``eu-central-1``."""
Sha256 = NewType("Sha256", str)
"""Lower-case hex; AWS's CodeSha256 is the same digest in base64."""

Kind = Literal["Function", "FunctionVersion", "Alias", "LayerVersion", "EventSourceMapping", "EventInvokeConfig"]
State = Literal["Pending", "Active", "Inactive", "Failed"]
UpdateStatus = Literal["Successful", "Failed", "InProgress"]
ProvisionedStatus = Literal["IN_PROGRESS", "READY", "FAILED"]

LATEST = "$LATEST"


class Key(msgspec.Struct, frozen=True, order=True):
    """Where a resource lives. Keys of one kind sort by account, region, name and then ``sub``."""

    kind: Kind
    account: AccountId
    region: Region
    name: str
    """Function name, layer name or event source mapping UUID."""
    sub: str = ""
    """Version number or alias name below ``name``; empty for kinds without one."""


class Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Written by the store alone; a new resource is handed to it with the defaults."""

    uid: str = ""
    """Never reused, not even when the resource is deleted and created again under its name."""
    resource_version: str = ""
    """Opaque; an update that names an older one fails with :class:`kappa_core.ports.store.Conflict`."""
    generation: int = 0
    """Rises with every write that changes something, so that of two states of one resource the newer is known. On a laptop by one
    with every accepted write; on Kubernetes it is the resourceVersion."""
    edition: str = ""
    """Changes with what the resource's owners write and not with what others note on it (conditions); what revision ids derive from.
    Empty: the generation is as good."""
    created_ms: int = 0
    """Epoch milliseconds."""
    updated_ms: int = 0
    """Epoch milliseconds."""


class Code(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A zip archive that the BlobStore holds."""

    sha256: Sha256
    size: int
    """Bytes of the archive."""
    unzipped_size: int
    """Bytes of its files."""
    source: str = "upload"
    """``upload``, or the ``s3://bucket/key`` it was read from; for people."""
    source_kms_key_arn: str | None = None
    """Shown as given; archives are kept as they came."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    target_arn: str


class Logging(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    log_format: Literal["Text", "JSON"] = "Text"
    application_log_level: str | None = None
    system_log_level: str | None = None
    log_group: str
    """Defaults to ``/aws/lambda/<function>``."""


class VpcConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    ipv6_allowed_for_dual_stack: bool = False


class FileSystem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    arn: str
    local_mount_path: str


class ValueSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the value of an environment variable stands, in a cluster: an entry of an object beside the function's."""

    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str
    optional: bool = False
    """Without the object, or the entry, the variable is not set; otherwise nothing can run."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a published version freezes: code and every setting that AWS counts as a change of the function."""

    runtime: str | None
    """Such as ``python3.12``; None only for package type Image."""
    handler: str | None
    role: str
    description: str = ""
    timeout: int
    """Seconds."""
    memory_size: int
    """MB."""
    ephemeral_storage_mb: int
    environment: dict[str, str] | None = None
    """None: never set. Empty: set and cleared; AWS still shows the block."""
    environment_from: dict[str, ValueSource] | msgspec.UnsetType = msgspec.UNSET
    """More variables, whose values Kappa never sees. UNSET is no part of the JSON, so that the digest of a function without any is what
    it was before there were such variables."""
    layers: tuple[str, ...] = ()
    """Layer version ARNs in merge order."""
    code: Code
    package_type: Literal["Zip", "Image"] = "Zip"
    architectures: tuple[str, ...] = ("x86_64",)
    dead_letter: DeadLetter | None = None
    tracing_mode: Literal["Active", "PassThrough"] = "PassThrough"
    vpc_config: VpcConfig | None = None
    file_systems: tuple[FileSystem, ...] = ()
    kms_key_arn: str | None = None
    logging: Logging
    snap_start: Literal["None", "PublishedVersions"] = "None"
    image_config: dict[str, object] | None = None

    @property
    def value_sources(self) -> dict[str, ValueSource]:
        """``environment_from``, also where there is none."""
        return {} if isinstance(self.environment_from, msgspec.UnsetType) else self.environment_from

    def digest(self) -> str:
        """16 hex digits that change exactly when any member changes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    state: State = "Pending"
    state_reason: str | None = "The function is being created."
    state_reason_code: str | None = "Creating"
    last_update_status: UpdateStatus | None = None
    last_update_status_reason: str | None = None
    last_update_status_reason_code: str | None = None
    serving: Configuration | None = None
    """What invocations of $LATEST run on: the last configuration that settled. Lags ``Function.configuration`` while an update
    is in progress and after one that failed."""


class ProvisionedState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the gateway that holds the scaler has last noted about the provisioned environments of a version or alias."""

    requested: int
    """The request that this is about; another one than the current is not settled."""
    function_version: str
    """Whose environments these are."""
    ready: int = 0
    """Initialised (AWS's Available)."""
    allocated: int = 0
    """Ready or being started."""
    status: ProvisionedStatus = "IN_PROGRESS"
    reason: str | None = None
    revision: str = ""
    """Names the environments; see VersionSpec.revision. Empty while there can be none."""
    since_ms: int = 0
    """Epoch milliseconds at which this number was asked for, or first seen where it does not say so itself."""


class ProvisionedConcurrency(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Environments that are kept initialised for a version, directly or through an alias."""

    requested: int
    """0: there are to be none, as if nothing were configured."""
    modified_ms: int = 0
    """Epoch milliseconds at which somebody asked for this number."""
    state: ProvisionedState | None = None
    """None: nobody has looked at it yet."""


class Publication(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The newest version published from $LATEST. Written before the version itself, so that whoever comes next can finish what a
    crash interrupted and a number is never given to two contents."""

    version: int
    digest: str
    """Of the configuration that was published; publishing it again makes no new version."""
    description: str | None = None
    """Of the version, where the request gave one."""
    complete: bool = False
    """The version has been stored (and may have been deleted since)."""


class Function(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="Function"):
    """A function and its $LATEST."""

    account: AccountId
    region: Region
    name: str
    configuration: Configuration
    """Desired; see ``status.serving``."""
    modified_ms: int
    """Epoch milliseconds of the last code or configuration change (LastModified); tags and concurrency do not count."""
    tags: dict[str, str] = {}
    reserved_concurrency: int | None = None
    recursive_loop: Literal["Terminate", "Allow"] = "Terminate"
    publication: Publication | None = None
    status: FunctionStatus = FunctionStatus()
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("Function", self.account, self.region, self.name)


class FunctionVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="FunctionVersion"):
    """A published, immutable version. Only its status, its provisioned concurrency and its metadata ever change."""

    account: AccountId
    region: Region
    name: str
    """Of the function."""
    version: int
    configuration: Configuration
    function_uid: str
    """Guards against a version that outlives its function being taken for one of the next function of that name."""
    modified_ms: int
    provisioned: ProvisionedConcurrency | None = None
    status: FunctionStatus = FunctionStatus()
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("FunctionVersion", self.account, self.region, self.name, str(self.version))


class Alias(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="Alias"):
    account: AccountId
    region: Region
    name: str
    """Of the function."""
    alias: str
    function_version: str
    """Number, or ``$LATEST``."""
    description: str = ""
    additional_version_weights: dict[str, float] = {}
    """At most one entry: version → share of the invocations, 0.0–1.0."""
    provisioned: ProvisionedConcurrency | None = None
    """Of the environments of ``function_version``, whichever that is."""
    function_uid: str
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("Alias", self.account, self.region, self.name, self.alias)


class LayerVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="LayerVersion"):
    """A published layer version. A deleted one stays as ``deleted`` while functions refer to it: they keep working."""

    account: AccountId
    region: Region
    name: str
    version: int
    code: Code
    description: str = ""
    license_info: str | None = None
    compatible_runtimes: tuple[str, ...] = ()
    compatible_architectures: tuple[str, ...] = ()
    policy: dict[str, dict[str, object]] = {}
    """Statement id → statement."""
    deleted: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("LayerVersion", self.account, self.region, self.name, str(self.version))


class EventSourceMapping(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="EventSourceMapping"):
    """Stored and shown; pollers are a later capability."""

    account: AccountId
    region: Region
    name: str
    """UUID."""
    function_arn: str
    settings: dict[str, object]
    """The rest of the AWS members, as given."""
    state: str = "Creating"
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("EventSourceMapping", self.account, self.region, self.name)


class EventInvokeConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="EventInvokeConfig"):
    """How asynchronous invocations of one qualifier of a function are retried, and who is told how they ended."""

    account: AccountId
    region: Region
    name: str
    """Of the function."""
    qualifier: str
    """``$LATEST``, a version number or an alias."""
    function_uid: str
    maximum_retry_attempts: int | None = None
    maximum_event_age_seconds: int | None = None
    on_success: str = ""
    """Destination ARN; empty for none."""
    on_failure: str = ""
    modified_ms: int
    meta: Meta = Meta()

    @property
    def key(self) -> Key:
        return Key("EventInvokeConfig", self.account, self.region, self.name, self.qualifier)


Resource = Function | FunctionVersion | Alias | LayerVersion | EventSourceMapping | EventInvokeConfig

RESOURCE_TYPES: dict[Kind, type[Resource]] = {
    "Function": Function,
    "FunctionVersion": FunctionVersion,
    "Alias": Alias,
    "LayerVersion": LayerVersion,
    "EventSourceMapping": EventSourceMapping,
    "EventInvokeConfig": EventInvokeConfig,
}
