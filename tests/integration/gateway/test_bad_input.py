"""What users and programs get wrong: each request gets AWS's code, status and sentence, and nothing of it stays behind."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from kappa_dev import ROLE, RUNTIME, KappaDev, zip_of
from refusals import (
    ARN,
    EMPTY_ZIP,
    FUNCTIONS,
    GOOD,
    INVOKE,
    NO_ZIP,
    PAYLOAD_BYTES,
    TOO_LARGE,
    client,
    conversation,
    no_trace,
    refused,
    send,
    sentence,
    witness,
)

__all__ = ["client", "no_trace", "witness"]


# -- creating ---------------------------------------------------------------------------------------------------------------


def linked(name: str, target: str, **more: str) -> bytes:
    """An archive with a symbolic link in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, target)
        for other, content in more.items():
            archive.writestr(other, content)
    return buffer.getvalue()


def bomb() -> bytes:
    """300 MB in 300 KB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(3):
            archive.writestr(f"zeros{number}", bytes(100_000_000))
    return buffer.getvalue()


def flipped(archive: bytes, at: int) -> bytes:
    return archive[:at] + bytes([archive[at] ^ 0xFF]) + archive[at + 1 :]


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        pytest.param(lambda: b"no zip at all", NO_ZIP, id="not a zip"),
        pytest.param(lambda: b"", EMPTY_ZIP, id="no bytes"),
        pytest.param(lambda: zip_of({}), EMPTY_ZIP, id="no files"),
        pytest.param(lambda: zip_of({"folder/": ""}), EMPTY_ZIP, id="only a folder"),
        pytest.param(lambda: GOOD[:-10], NO_ZIP, id="truncated"),
        pytest.param(lambda: GOOD[10:], NO_ZIP, id="beginning is missing"),
        pytest.param(lambda: flipped(GOOD, 40), NO_ZIP, id="a byte has flipped"),
        pytest.param(lambda: zip_of({"../outside.py": ""}), NO_ZIP, id="traversal"),
        pytest.param(lambda: zip_of({"a/../../outside.py": ""}), NO_ZIP, id="traversal in the middle"),
        pytest.param(lambda: zip_of({"/etc/passwd": ""}), NO_ZIP, id="absolute path"),
        pytest.param(lambda: linked("link", "../../outside"), NO_ZIP, id="link leads out"),
        pytest.param(lambda: linked("link", "/etc/passwd"), NO_ZIP, id="link to an absolute path"),
        pytest.param(lambda: linked("link", "/tmp", **{"link/app.py": ""}), NO_ZIP, id="file through a link"),
    ],
)
@pytest.mark.parametrize("operation", ["create_function", "update_function_code", "publish_layer_version"])
def test_a_bad_archive_is_refused_in_awss_words(client: Any, operation: str, archive: Callable[[], bytes], expected: str) -> None:
    parameters: dict[str, dict[str, Any]] = {
        "create_function": {**CREATE, "Code": {"ZipFile": archive()}},
        "update_function_code": {"FunctionName": "witness", "ZipFile": archive()},
        "publish_layer_version": {"LayerName": "layer", "Content": {"ZipFile": archive()}},
    }
    assert refused(client, operation, "InvalidParameterValueException", **parameters[operation]) == expected


def test_a_zip_bomb_is_refused(client: Any) -> None:
    message = refused(client, "create_function", "InvalidParameterValueException", **CREATE, Code={"ZipFile": bomb()})
    assert message == "Unzipped size must be smaller than 262144000 bytes"


def test_an_archive_over_fifty_megabytes_is_refused(client: Any) -> None:
    message = refused(client, "create_function", "RequestEntityTooLargeException", **CREATE, Code={"ZipFile": bytes(52428801)})
    assert message == "Zipped size must be smaller than 52428800 bytes"


def test_a_request_over_seventy_megabytes_is_refused_before_it_is_sent(kappa: KappaDev) -> None:
    answer = send(kappa, "POST", FUNCTIONS, headers={"Content-Length": "70167212"})
    expected = "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    assert sentence(answer, "RequestEntityTooLargeException") == expected


CREATE: dict[str, Any] = {"FunctionName": "bad", "Runtime": RUNTIME, "Handler": "app.handler", "Role": ROLE}
CODE = {"ZipFile": GOOD}
BROKEN = "1 validation error detected: Value"
INVALID, VALIDATION = "InvalidParameterValueException", "ValidationException"


@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        pytest.param(
            {"Runtime": "python9.9"}, INVALID, "Value python9.9 at 'runtime' failed to satisfy constraint", id="unknown runtime"
        ),
        pytest.param(
            {"Runtime": "python3.7"},
            INVALID,
            "The runtime parameter of python3.7 is no longer supported for creating or updating",
            id="retired runtime",
        ),
        pytest.param({"Runtime": None}, INVALID, "Runtime and Handler are mandatory parameters", id="missing runtime"),
        pytest.param({"Handler": None}, INVALID, "Runtime and Handler are mandatory parameters", id="missing handler"),
        pytest.param({"Handler": "a b"}, VALIDATION, f"{BROKEN} 'a b' at 'handler'", id="handler with a blank"),
        pytest.param({"Handler": "h" * 129}, VALIDATION, f"{BROKEN} '{'h' * 129}' at 'handler'", id="handler too long"),
        pytest.param(
            {"FunctionName": "n" * 65},
            INVALID,
            f"{BROKEN} '{'n' * 65}' at 'functionName' failed to satisfy constraint: "
            "Member must have length less than or equal to 64",
            id="name too long",
        ),
        pytest.param({"FunctionName": "n" * 141}, VALIDATION, f"{BROKEN} '{'n' * 141}' at 'functionName'", id="even longer"),
        pytest.param(
            {"FunctionName": "no blanks"}, VALIDATION, f"{BROKEN} 'no blanks' at 'functionName'", id="name with a blank"
        ),
        pytest.param({"FunctionName": None}, VALIDATION, f"{BROKEN} null at 'functionName'", id="no name"),
        pytest.param(
            {"FunctionName": f"{ARN.replace('us-east-1', 'eu-west-1')}:bad"},
            "ResourceNotFoundException",
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
            id="ARN of another region",
        ),
        pytest.param(
            {"FunctionName": f"{ARN.replace('0' * 12, '1' * 12)}:bad"}, "AccessDeniedException", "", id="ARN of another account"
        ),
        pytest.param({"FunctionName": "arn:aws:s3:::bad"}, VALIDATION, f"{BROKEN} 'arn:aws:s3:::bad'", id="no Lambda ARN"),
        pytest.param({"Role": "admin"}, VALIDATION, f"{BROKEN} 'admin' at 'role'", id="role that is no ARN"),
        pytest.param({"MemorySize": 127}, VALIDATION, f"{BROKEN} '127' at 'memorySize'", id="too little memory"),
        pytest.param({"Timeout": 901}, VALIDATION, f"{BROKEN} '901' at 'timeout'", id="too long a timeout"),
        pytest.param(
            {"Architectures": ["arm64", "x86_64"]},
            VALIDATION,
            f"{BROKEN} '[arm64, x86_64]' at 'architectures'",
            id="architectures",
        ),
        pytest.param(
            {"Environment": {"Variables": {"AWS_REGION": "here"}}},
            INVALID,
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            "contains reserved keys",
            id="reserved variable",
        ),
        pytest.param(
            {"Environment": {"Variables": {"KEY": "v" * 4096}}},
            INVALID,
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            "exceeded the 4KB limit.",
            id="variables over 4 KB",
        ),
        pytest.param(
            {"Environment": {"Variables": {"KEY": "a\0b"}}},
            INVALID,
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            "contains a null character.",
            id="variable that no process can have",
        ),
        pytest.param({"Layers": [f"{ARN[:-9]}:layer:none:1"]}, INVALID, "Layer version ", id="unknown layer"),
        pytest.param({"Tags": {f"k{n}": "" for n in range(51)}}, INVALID, "Number of tags exceeds", id="too many tags"),
        pytest.param({"Code": {}}, INVALID, "Please provide a source for function code.", id="no code"),
        pytest.param({"Code": {"S3Bucket": "bucket"}}, INVALID, "Please provide both S3Bucket and S3Key.", id="half an object"),
        pytest.param(
            {"Code": {"S3Bucket": "bucket", "S3Key": "key"}},
            INVALID,
            "Error occurred while GetObject. No S3 endpoint is configured: set KAPPA_ENDPOINT_URL_S3",
            id="S3 that is nowhere",
        ),
        pytest.param(
            {"FunctionName": "witness"}, "ResourceConflictException", "Function already exist: witness", id="name taken"
        ),
    ],
)
def test_a_wrong_create_is_refused_in_awss_words(client: Any, change: dict[str, Any], code: str, expected: str) -> None:
    parameters = {name: value for name, value in {**CREATE, "Code": CODE, **change}.items() if value is not None}
    message = refused(client, "create_function", code, **parameters)
    assert message.startswith(expected) if expected else message == "None"


# -- addressing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        pytest.param("get_function", {}, id="GetFunction"),
        pytest.param("get_function_configuration", {}, id="GetFunctionConfiguration"),
        pytest.param("delete_function", {}, id="DeleteFunction"),
        pytest.param("update_function_code", CODE, id="UpdateFunctionCode"),
        pytest.param("update_function_configuration", {"Timeout": 4}, id="UpdateFunctionConfiguration"),
        pytest.param("publish_version", {}, id="PublishVersion"),
        pytest.param("create_alias", {"Name": "live", "FunctionVersion": "1"}, id="CreateAlias"),
        pytest.param("list_versions_by_function", {}, id="ListVersionsByFunction"),
        pytest.param("get_function_concurrency", {}, id="GetFunctionConcurrency"),
    ],
)
def test_an_operation_on_a_function_that_is_not_there_says_so(client: Any, operation: str, parameters: dict[str, Any]) -> None:
    message = refused(client, operation, "ResourceNotFoundException", FunctionName="nobody", **parameters)
    assert message == f"Function not found: {ARN}:nobody"


@pytest.mark.parametrize(
    ("name", "qualifier", "code", "expected"),
    [
        pytest.param("nobody", None, "ResourceNotFoundException", f"Function not found: {ARN}:nobody:$LATEST", id="function"),
        pytest.param("witness", "7", "ResourceNotFoundException", f"Function not found: {ARN}:witness:7", id="version"),
        pytest.param("witness", "live", "ResourceNotFoundException", f"Function not found: {ARN}:witness:live", id="alias"),
        pytest.param(
            "witness:live", None, "ResourceNotFoundException", f"Function not found: {ARN}:witness:live", id="in the name"
        ),
        pytest.param(
            "witness:1",
            "2",
            "InvalidParameterValueException",
            "The derived qualifier from the function name does not match the specified qualifier.",
            id="two qualifiers",
        ),
        pytest.param("witness", "a b", VALIDATION, f"{BROKEN} 'a b' at 'qualifier' failed to satisfy", id="no qualifier"),
        pytest.param(
            "witness", "q" * 129, VALIDATION, f"{BROKEN} '{'q' * 129}' at 'qualifier' failed to", id="too long a qualifier"
        ),
        pytest.param("a/b", None, VALIDATION, f"{BROKEN} 'a/b' at 'functionName' failed to satisfy", id="slash"),
        pytest.param("../functions/witness", None, VALIDATION, f"{BROKEN} '../functions/witness' at", id="path"),
        pytest.param("n" * 171, None, VALIDATION, f"{BROKEN} '{'n' * 171}' at 'functionName'", id="too long a name"),
        pytest.param(
            f"{ARN.replace('us-east-1', 'eu-west-1')}:witness",
            None,
            "ResourceNotFoundException",
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
            id="other region",
        ),
        pytest.param("arn:aws:lambda:us-east-1:12:function:witness", None, VALIDATION, f"{BROKEN} 'arn:aws:", id="account"),
        pytest.param("arn:aws:s3:::witness", None, VALIDATION, f"{BROKEN} 'arn:aws:s3:::witness' at 'functionName'", id="ARN"),
    ],
)
def test_an_invocation_of_what_is_not_there_or_cannot_be_says_so(
    client: Any, name: str, qualifier: str | None, code: str, expected: str
) -> None:
    parameters = {"Qualifier": qualifier} if qualifier else {}
    assert refused(client, "invoke", code, FunctionName=name, **parameters).startswith(expected)


def test_stale_and_wrong_preconditions_change_nothing(client: Any) -> None:
    message = refused(
        client, "update_function_code", "PreconditionFailedException", FunctionName="witness", RevisionId="x", **CODE
    )
    assert message.startswith("The Revision Id provided does not match the latest Revision Id.")
    message = refused(client, "publish_version", INVALID, FunctionName="witness", CodeSha256="x")
    assert message.startswith("CodeSHA256 (x) is different from current CodeSHA256 in $LATEST (")


def test_an_alias_to_a_version_that_is_not_there_is_refused(client: Any) -> None:
    message = refused(
        client, "create_alias", "ResourceNotFoundException", FunctionName="witness", Name="live", FunctionVersion="9"
    )
    assert message == f"Function not found: {ARN}:witness:9"


# -- bodies -----------------------------------------------------------------------------------------------------------------

MALFORMED = [
    pytest.param(b"{not json", id="no JSON"),
    pytest.param(b'{"FunctionName": "bad"', id="not closed"),
    pytest.param(b'{"FunctionName": "bad"} {}', id="two documents"),
    pytest.param(b'{"FunctionName": "\xff\xfe"}', id="not UTF-8"),
    pytest.param('{"FunctionName": "bad"}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"Timeout": NaN}', id="NaN"),
    pytest.param(b"[" * 50_000 + b"]" * 50_000, id="nested too deeply"),
    pytest.param(b"   ", id="only blanks"),
]


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_json_is_refused_by_invoke(kappa: KappaDev, body: bytes) -> None:
    message = sentence(send(kappa, "POST", INVOKE, body), "InvalidRequestContentException")
    assert message.startswith("Could not parse request body into json: Could not parse payload into json: ")


@pytest.mark.parametrize("body", MALFORMED[:-1])
def test_malformed_json_is_refused_by_the_control_plane(kappa: KappaDev, body: bytes) -> None:
    answer = send(kappa, "POST", FUNCTIONS, body)
    if body.startswith(b"["):
        assert answer[:2] == (400, "SerializationException")
    else:
        assert sentence(answer, "SerializationException").startswith("Could not parse request body into json: ")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({"FunctionName": 5}, "NUMBER_VALUE can not be converted to a String", id="number for a string"),
        pytest.param({"Timeout": "3"}, "STRING_VALUE can not be converted to an Integer", id="string for a number"),
        pytest.param({"Timeout": 3.5}, "NUMBER_VALUE can not be converted to an Integer", id="fraction"),
        pytest.param({"Layers": "x"}, None, id="string for a list"),
        pytest.param({"Environment": []}, None, id="list for a structure"),
        pytest.param({"Environment": {"Variables": {"A": 1}}}, "NUMBER_VALUE can not be converted to a String", id="in a map"),
        pytest.param({"Code": {"ZipFile": "@@@@"}}, "Value can not be converted to a Blob: ", id="not Base64"),
        pytest.param({"Code": {"ZipFile": "UEs"}}, "Value can not be converted to a Blob: ", id="Base64 cut off"),
    ],
)
def test_a_member_of_the_wrong_type_is_refused(kappa: KappaDev, members: dict[str, Any], expected: str | None) -> None:
    body = json.dumps({**CREATE, "Code": {"ZipFile": base64.b64encode(GOOD).decode()}, **members}).encode()
    message = sentence(send(kappa, "POST", FUNCTIONS, body), "SerializationException")
    assert message.startswith(expected or "")


def test_a_list_instead_of_a_request_is_refused(kappa: KappaDev) -> None:
    assert send(kappa, "POST", FUNCTIONS, b"[1]")[:2] == (400, "SerializationException")


def test_an_event_of_exactly_six_megabytes_is_taken_and_one_byte_more_is_not(kappa: KappaDev) -> None:
    fits = b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"'
    assert send(kappa, "POST", INVOKE, fits) == (200, "", fits)
    assert sentence(send(kappa, "POST", INVOKE, fits[:-1] + b'x"'), "RequestEntityTooLargeException") == TOO_LARGE


def test_an_announced_body_is_refused_unread(kappa: KappaDev) -> None:
    answer = send(kappa, "POST", INVOKE, headers={"Content-Length": "999999999999"})
    assert sentence(answer, "RequestEntityTooLargeException") == TOO_LARGE


def test_a_chunked_body_is_refused_once_it_is_too_large(kappa: KappaDev) -> None:
    chunk = b"100000\r\n" + b"1" * 0x100000 + b"\r\n"
    head = f"POST {INVOKE} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = conversation(kappa, head, *[chunk] * 7)  # one more than it takes, and no end
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert TOO_LARGE.encode() in answer


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(b"@@@", id="not Base64"),
        pytest.param(base64.b64encode(b"no JSON"), id="not JSON"),
        pytest.param(base64.b64encode(b'["list"]'), id="not an object"),
        pytest.param(base64.b64encode(b'{"a": "\xff"}'), id="not UTF-8"),
        pytest.param(base64.b64encode(b"[" * 2_000), id="nested too deeply"),
        pytest.param(base64.b64encode(b'{"a": "' + b"x" * 4_000 + b'"}'), id="too long"),
        pytest.param(b"\xff\xfe\x80", id="odd bytes"),
    ],
)
def test_a_bad_client_context_is_refused(kappa: KappaDev, context: bytes) -> None:
    answer = send(kappa, "POST", INVOKE, b"{}", {"X-Amz-Client-Context": context})
    assert sentence(answer, "InvalidRequestContentException").startswith("Client context must be ")


def test_unknown_values_in_headers_are_refused_together(kappa: KappaDev) -> None:
    answer = send(kappa, "POST", INVOKE, b"{}", {"X-Amz-Invocation-Type": "Later", "X-Amz-Log-Type": "All"})
    message = sentence(answer, "ValidationException")
    assert message.startswith("2 validation errors detected: Value 'Later' at 'invocationType' failed to satisfy constraint: ")


def test_headers_with_odd_bytes_do_no_harm(kappa: KappaDev) -> None:
    odd = {"X-Amzn-Trace-Id": b"Root=\xff\xfe", "X-Amz-Tenant-Id": b"\x80", "X-Whatever": b"\xc3\x28", "Content-Type": b"\xff"}
    assert send(kappa, "POST", INVOKE, b"1", odd) == (200, "", b"1")
    assert send(kappa, "POST", INVOKE, b"{}", {"X-Amz-Invocation-Type": b"\xff"})[:2] == (400, "ValidationException")
    assert send(kappa, "GET", FUNCTIONS, headers=odd)[0] == 200


def test_thousands_of_query_parameters_do_no_harm(kappa: KappaDev) -> None:
    many = "&".join(f"p{number}=1" for number in range(3_000))
    assert send(kappa, "POST", f"{INVOKE}?{many}", b"1") == (200, "", b"1")
    assert send(kappa, "GET", f"{FUNCTIONS}?{many}")[0] == 200
    answer = send(kappa, "POST", f"{INVOKE}?{many}&Qualifier=live", b"1")
    assert sentence(answer, "ResourceNotFoundException") == f"Function not found: {ARN}:witness:live"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("Marker=made-up", INVALID),
        (f"Marker={'m' * 50_000}", INVALID),
        ("MaxItems=many", "SerializationException"),
        (f"MaxItems={'9' * 5_000}", "SerializationException"),
        ("MaxItems=0", VALIDATION),
    ],
    ids=["unknown marker", "long marker", "no number", "number beyond any", "zero"],
)
def test_a_bad_page_is_refused(kappa: KappaDev, query: str, code: str) -> None:
    assert sentence(send(kappa, "GET", f"{FUNCTIONS}?{query}"), code)


# -- operations -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/2015-03-31/nothing"),
        ("PATCH", FUNCTIONS),
        ("OPTIONS", FUNCTIONS),
        ("GET", "/"),
        ("POST", "/2099-01-01/functions"),
        ("GET", "/_kappa/code/../../../etc/passwd"),
    ],
)
def test_an_unknown_operation_is_named_as_such(kappa: KappaDev, method: str, path: str) -> None:
    message = sentence(send(kappa, method, path), "UnknownOperationException")
    assert message == f"No operation of the Lambda API has the method and path {method} {path}"


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("list_event_source_mappings", {}),
        (
            "create_event_source_mapping",
            {"FunctionName": "witness", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:queue"},
        ),
        ("add_permission", {"FunctionName": "witness", "StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*"}),
        ("create_function_url_config", {"FunctionName": "witness", "AuthType": "NONE"}),
    ],
    ids=["ListEventSourceMappings", "CreateEventSourceMapping", "AddPermission", "CreateFunctionUrlConfig"],
)
def test_what_is_not_implemented_yet_says_so_and_pretends_nothing(
    client: Any, operation: str, parameters: dict[str, Any]
) -> None:
    assert "not implemented" in refused(client, operation, "NotImplementedException", **parameters)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/_kappa/logs/witness?start=soon", 422),
        (f"/_kappa/logs/witness?start={'9' * 30}", 422),
        ("/_kappa/logs/witness?start=-1", 422),
        ("/_kappa/logs/nobody", 200),
        ("/_kappa/code/0000?expires=99999999999&signature=made-up", 403),
        ("/_kappa/code/%00?expires=%ff&signature=%ff", 403),
    ],
)
def test_kappas_own_routes_refuse_what_they_cannot_answer(kappa: KappaDev, path: str, status: int) -> None:
    assert send(kappa, "GET", path)[0] == status
