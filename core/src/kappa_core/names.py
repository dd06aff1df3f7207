"""Names, ARNs and qualifiers: every form in which a caller may write a function, a layer or an event source mapping.

The first step of every operation and of every invocation: text in, frozen references out, and references back into ARNs. The
accepted forms are those of the service model's patterns, read by splitting at colons instead of by those patterns (they backtrack).
Parses of functions are cached, because the invoke path repeats them. What exists is not known here; what cannot be a name, or lies
in another region or account, is refused with AWS's errors.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from kappa_core import limits
from kappa_core.constraints import summary, violation
from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    ResourceNotFoundException,
    ValidationException,
)
from kappa_core.resources import LATEST, AccountId, Key, Region

# -- patterns of the service model, quoted in AWS's answers ---------------------------------------------------------------
_REGION_PATTERN: Final = r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?"
FUNCTION_NAME_PATTERN: Final = (
    rf"(arn:(aws[a-zA-Z-]*)?:lambda:)?{_REGION_PATTERN}(\d{{12}}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
NAMESPACED_FUNCTION_NAME_PATTERN: Final = (
    rf"(arn:(aws[a-zA-Z-]*)?:lambda:)?{_REGION_PATTERN}(\d{{12}}:)?(function:)?([a-zA-Z0-9-_\.]+)"
    r"(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
QUALIFIER_PATTERN: Final = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
LAYER_NAME_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+)"
    r"|[a-zA-Z0-9-_]+"
)
LAYER_VERSION_ARN_PATTERN: Final = (
    r"((arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)"
    r"|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+))"
)

# -- one linear pattern per token -----------------------------------------------------------------------------------------
_PARTITION: Final = re.compile(r"(?:aws[a-zA-Z-]*)?")
_REGION: Final = re.compile(r"(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-[0-9]")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_PLAIN_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+")
_DOTTED_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_ARN_QUALIFIER: Final = re.compile(r"\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+")
_QUALIFIER: Final = re.compile(r"\$LATEST\.PUBLISHED|[a-zA-Z0-9_$-]+")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION: Final = re.compile(r"[0-9]{1,18}")
"""18 digits: what AWS's 64-bit version numbers can hold, and what keeps int() cheap."""

QUALIFIER_LENGTH: Final = 128  # [M]
LAYER_NAME_LENGTH: Final = 140  # [M]
_CACHED_PARSES: Final = 8192


class NameRule(msgspec.Struct, frozen=True):
    """What one family of operations accepts as FunctionName."""

    pattern: str
    """As AWS quotes it."""
    length: int
    """Characters of the whole text."""
    dots: bool
    """Whether the name may contain dots: recorded for reads and invokes, which then find nothing of that name."""


WRITE: Final = NameRule(FUNCTION_NAME_PATTERN, limits.FUNCTION_ARN_LENGTH, dots=False)
DELETE: Final = NameRule(NAMESPACED_FUNCTION_NAME_PATTERN, limits.FUNCTION_ARN_LENGTH, dots=True)
READ: Final = NameRule(NAMESPACED_FUNCTION_NAME_PATTERN, 170, dots=True)
"""Also Invoke."""


class FunctionName(msgspec.Struct, frozen=True):
    """A function as a request names it, with the qualifier it gave in either place."""

    account: AccountId
    region: Region
    name: str
    qualifier: str | None = None

    @property
    def key(self) -> Key:
        return Key("Function", self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        """Unqualified."""
        return function_arn(self.account, self.region, self.name)

    @property
    def given_arn(self) -> str:
        """Qualified exactly as the request was."""
        return function_arn(self.account, self.region, self.name, self.qualifier)

    def qualified_arn(self, qualifier: str) -> str:
        return function_arn(self.account, self.region, self.name, qualifier)


class LayerName(msgspec.Struct, frozen=True):
    """A layer, or with ``version`` one of its versions."""

    account: AccountId
    region: Region
    name: str
    version: int | None = None

    @property
    def arn(self) -> str:
        return layer_arn(self.account, self.region, self.name, self.version)

    @property
    def key(self) -> Key:
        """Of the version; with none, the prefix under which versions are listed."""
        return Key("LayerVersion", self.account, self.region, self.name, "" if self.version is None else str(self.version))


def partition(region: str) -> str:
    """The ``aws`` of an ARN in this region."""
    if region.startswith("cn-"):
        return "aws-cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws"


def function_arn(account: str, region: str, name: str, qualifier: str | None = None) -> str:
    arn = f"arn:{partition(region)}:lambda:{region}:{account}:function:{name}"
    return arn if qualifier is None else f"{arn}:{qualifier}"


def layer_arn(account: str, region: str, name: str, version: int | None = None) -> str:
    arn = f"arn:{partition(region)}:lambda:{region}:{account}:layer:{name}"
    return arn if version is None else f"{arn}:{version}"


def event_source_mapping_arn(account: str, region: str, uuid: str) -> str:
    return f"arn:{partition(region)}:lambda:{region}:{account}:event-source-mapping:{uuid}"


def is_version(qualifier: str) -> bool:
    """Whether a qualifier is a version number; an alias never is."""
    return _VERSION.fullmatch(qualifier) is not None


@lru_cache(maxsize=_CACHED_PARSES)
def parse_function(
    text: str, qualifier: str | None = None, *, account: AccountId, region: Region, rule: NameRule = READ
) -> FunctionName:
    """Read a FunctionName member with the Qualifier member beside it, for a caller of ``account`` in ``region``.

    Raises
    ------
    ValidationException
        If the text is no form of function name, or too long.
    ResourceNotFoundException
        If it names another region.
    AccessDeniedException
        If it names another account: no operation here is open to other accounts.
    InvalidParameterValueException
        If it carries a qualifier and ``qualifier`` is another one.
    """
    if len(text) > rule.length:
        raise ValidationException(
            _violation(text, "functionName", f"Member must have length less than or equal to {rule.length}")
        )
    found = split_function(text, dots=rule.dots)
    if found is None:
        raise ValidationException(
            _violation(text, "functionName", f"Member must satisfy regular expression pattern: {rule.pattern}")
        )
    if qualifier is not None:
        check_qualifier(qualifier)
    their_region, their_account, name, their_qualifier = found
    if their_region is not None and their_region != region:
        raise ResourceNotFoundException(f"Functions from '{their_region}' are not reachable in this region ('{region}')")
    if their_account is not None and their_account != account:
        raise AccessDeniedException(None)
    if their_qualifier is not None and qualifier is not None and their_qualifier != qualifier:
        raise InvalidParameterValueException(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return FunctionName(account, region, name, qualifier if qualifier is not None else their_qualifier)


def split_function(text: str, *, dots: bool = True) -> tuple[str | None, str | None, str, str | None] | None:
    """Region, account, name and qualifier as far as the text has them; None where it is no form of function name.

    Every prefix is optional and is taken if what is left can still be a name, as the model's pattern does it.
    """
    tokens = text.split(":")
    if len(tokens) > 8:
        return None
    starts: list[tuple[int, str | None, str | None]] = [(0, None, None)]
    at, region, account = 0, None, None
    if len(tokens) > 3 and tokens[0] == "arn" and tokens[2] == "lambda" and _PARTITION.fullmatch(tokens[1]):
        at = 3
        starts.append((at, None, None))
    if at < len(tokens) - 1 and _REGION.fullmatch(tokens[at]):
        region = tokens[at]
        at += 1
        starts.append((at, region, None))
    if at < len(tokens) - 1 and _ACCOUNT.fullmatch(tokens[at]):
        account = tokens[at]
        at += 1
        starts.append((at, region, account))
    if at < len(tokens) - 1 and tokens[at] == "function":
        starts.append((at + 1, region, account))
    name_form = _DOTTED_NAME if dots else _PLAIN_NAME
    for start, found_region, found_account in reversed(starts):
        name, *rest = tokens[start:]
        if len(rest) > 1:
            return None
        if name_form.fullmatch(name) and (not rest or _ARN_QUALIFIER.fullmatch(rest[0])):
            return found_region, found_account, name, rest[0] if rest else None
    return None


def check_qualifier(qualifier: str) -> None:
    """Raises ValidationException where the text can be neither a version nor an alias."""
    if not qualifier:
        raise ValidationException(_violation(qualifier, "qualifier", "Member must have length greater than or equal to 1"))
    if len(qualifier) > QUALIFIER_LENGTH:
        raise ValidationException(
            _violation(qualifier, "qualifier", f"Member must have length less than or equal to {QUALIFIER_LENGTH}")
        )
    if not _QUALIFIER.fullmatch(qualifier):
        raise ValidationException(
            _violation(qualifier, "qualifier", f"Member must satisfy regular expression pattern: {QUALIFIER_PATTERN}")
        )


def parse_new_function(text: str, *, account: AccountId, region: Region) -> FunctionName:
    """Read the FunctionName of CreateFunction: like any other, but the name itself is bounded, and must not carry a qualifier.

    Raises what :func:`parse_function` does, and InvalidParameterValueException for a name over 64 characters.
    """
    if len(text) <= limits.FUNCTION_ARN_LENGTH:
        found = split_function(text, dots=False)
        if found is not None and len(found[2]) > limits.FUNCTION_NAME_LENGTH:
            constraint = f"Member must have length less than or equal to {limits.FUNCTION_NAME_LENGTH}"
            raise InvalidParameterValueException(_violation(found[2], "functionName", constraint))
    name = parse_function(text, account=account, region=region, rule=WRITE)
    if name.qualifier is not None:
        raise InvalidParameterValueException(UNQUALIFIED_ONLY)
    return name


UNQUALIFIED_ONLY: Final = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)


def require_unqualified(name: FunctionName, *, latest: bool = True) -> FunctionName:
    """The name, if it means the function itself (or, unless ``latest`` forbids it, its $LATEST).

    Raises InvalidParameterValueException.
    """
    if name.qualifier is None or (latest and name.qualifier == LATEST):
        return name
    raise InvalidParameterValueException(UNQUALIFIED_ONLY)


def parse_layer(text: str, *, account: AccountId, region: Region, version: int | None = None) -> LayerName:
    """Read a LayerName member: a plain name or a layer ARN, of any account in this region.

    Raises
    ------
    InvalidParameterValueException
        If ``version`` is below 1.
    ResourceNotFoundException
        If the ARN lies in another region.
    ValidationException
        If the text is neither.
    """
    if version is not None and version < 1:
        raise InvalidParameterValueException("Layer Version Cannot be less than 1")
    tokens = text.split(":")
    if len(tokens) == 1 and _PLAIN_NAME.fullmatch(text) and len(text) <= LAYER_NAME_LENGTH:
        return LayerName(account, region, text, version)
    found = _split_layer(tokens)
    if found is None or found.version is not None:
        constraint = f"Member must satisfy regular expression pattern: {LAYER_NAME_PATTERN}"
        raise ValidationException(_violation(text, "layerName", constraint))
    if found.region != region:
        raise ResourceNotFoundException("The resource you requested does not exist.")
    return LayerName(found.account, found.region, found.name, version)


def parse_layer_version_arn(text: str) -> LayerName | None:
    """Read a layer version ARN of any account and region; None where it is none (AWS's own ``awslayer`` form included)."""
    found = _split_layer(text.split(":"))
    return found if found is not None and found.version is not None else None


def _split_layer(tokens: list[str]) -> LayerName | None:
    if len(tokens) not in {7, 8} or tokens[0] != "arn" or tokens[2] != "lambda" or tokens[5] != "layer":
        return None
    if not (_PARTITION.fullmatch(tokens[1]) and _REGION.fullmatch(tokens[3]) and _ACCOUNT.fullmatch(tokens[4])):
        return None
    if not _PLAIN_NAME.fullmatch(tokens[6]) or len(tokens[6]) > LAYER_NAME_LENGTH:
        return None
    version = None
    if len(tokens) == 8:
        if not _VERSION.fullmatch(tokens[7]):
            return None
        version = int(tokens[7])
    return LayerName(AccountId(tokens[4]), Region(tokens[3]), tokens[6], version)


def parse_event_source_mapping_arn(text: str) -> Key | None:
    """Read an event source mapping ARN; None where it is none."""
    tokens = text.split(":")
    if len(tokens) != 7 or tokens[0] != "arn" or tokens[2] != "lambda" or tokens[5] != "event-source-mapping":
        return None
    if not (_PARTITION.fullmatch(tokens[1]) and _REGION.fullmatch(tokens[3]) and _ACCOUNT.fullmatch(tokens[4])):
        return None
    if not _UUID.fullmatch(tokens[6]):
        return None
    return Key("EventSourceMapping", AccountId(tokens[4]), Region(tokens[3]), tokens[6].lower())


def _violation(value: str, where: str, constraint: str) -> str:
    return summary([violation(value, where, constraint)])
