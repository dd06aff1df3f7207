"""Every error that a caller of the Lambda API can see, each with the code, status and body spelling that AWS uses.

    LambdaError
    ├── ValidationException                      400   framework-level: no Type in the body
    ├── SerializationException                   400   framework-level: the body is not JSON, or a member has another JSON type
    ├── InvalidParameterValueException           400
    ├── InvalidRequestContentException           400
    ├── CodeStorageExceededException             400
    ├── PolicyLengthExceededException            400
    ├── RecursiveInvocationException             400
    ├── ResourceInUseException                   400
    ├── AccessDeniedException                    403
    ├── MissingAuthenticationTokenException      403
    ├── IncompleteSignatureException             403
    ├── InvalidSignatureException                403
    ├── UnrecognizedClientException              403
    ├── ExpiredTokenException                    403
    ├── ResourceNotFoundException                404
    ├── CodeSigningConfigNotFoundException       404
    ├── ProvisionedConcurrencyConfigNotFoundException 404
    ├── UnknownOperationException                404
    ├── ResourceConflictException                409
    ├── PreconditionFailedException              412
    ├── RequestEntityTooLargeException           413   no Type in the body
    ├── UnsupportedMediaTypeException            415
    ├── TooManyRequestsException                 429   retryable, carries Reason and Retry-After
    ├── ServiceException                         500   retryable
    ├── NotImplementedOperation                  501   Kappa's own: a routed operation without an implementation yet
    ├── ResourceNotReadyException                502   retryable
    ├── InvalidRuntimeException                  502
    ├── EnvironmentLostException                 502   retryable: the node or gateway that ran the function is gone
    └── ServiceUnavailableException              503   retryable: no capacity within the bounded wait

Spelling of the message key (``message`` or ``Message``) and the presence of ``Type`` follow the botocore model and recorded
answers (semantics of the Lambda API, "Error contract"). SDKs choose the exception class by ``x-amzn-ErrorType``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

MessageKey = Literal["message", "Message"]


class LambdaError(Exception):
    """Base of all errors that become an answer of the Lambda API."""

    code: ClassVar[str] = "ServiceException"
    """Value of ``x-amzn-ErrorType``; by default the class name."""
    status: ClassVar[int] = 500
    """HTTP status."""
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without a change."""
    message_key: ClassVar[MessageKey] = "message"
    """AWS spells the body's key in two ways; clients of other languages read it literally."""
    typed: ClassVar[bool] = True
    """Whether the body carries ``Type``: ``User`` below 500, ``Service`` from 500 on."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = cls.__name__

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "")
        self.message = message
        """Text for the caller; None is sent as JSON null, as AWS does in a few places."""

    def body(self) -> dict[str, str | None]:
        """The JSON body, keys in AWS's order."""
        body: dict[str, str | None] = {}
        if self.typed:
            body["Type"] = "User" if self.status < 500 else "Service"
        body[self.message_key] = self.message
        return body

    def headers(self) -> dict[str, str]:
        """Response headers beyond ``x-amzn-ErrorType``."""
        return {}


class ValidationException(LambdaError):
    """The request breaks a constraint of the service model; the text is built by :mod:`kappa_gateway.api.validate`."""

    status = 400
    typed = False


class SerializationException(LambdaError):
    """The request cannot be read as the operation's input: malformed JSON, a member of another JSON type, broken base64."""

    status = 400
    typed = False


class InvalidParameterValueException(LambdaError):
    """A parameter is well-formed but not acceptable."""

    status = 400


class UntypedInvalidParameterValueException(InvalidParameterValueException):
    """The same error where AWS was recorded to leave ``Type`` out (concurrency and alias routing)."""

    code = "InvalidParameterValueException"
    typed = False


class InvalidRequestContentException(LambdaError):
    """The request body could not be parsed as JSON."""

    status = 400


class CodeStorageExceededException(LambdaError):
    """Total code size of the account and region is exhausted."""

    status = 400


class PolicyLengthExceededException(LambdaError):
    """The resource policy would exceed 20,480 bytes."""

    status = 400


class RecursiveInvocationException(LambdaError):
    """Lambda detected that the function invokes itself in a loop."""

    status = 400
    message_key = "Message"


class ResourceInUseException(LambdaError):
    """The resource is busy with another operation."""

    status = 400
    message_key = "Message"


class AccessDeniedException(LambdaError):
    """The caller is known but may not do this."""

    status = 403
    message_key = "Message"
    typed = False


class MissingAuthenticationTokenException(LambdaError):
    """Keys are required and the request carries no Authorization."""

    status = 403
    typed = False


class IncompleteSignatureException(LambdaError):
    """The Authorization header lacks a part."""

    status = 403
    typed = False


class InvalidSignatureException(LambdaError):
    """The signature does not match, is out of date or out of scope."""

    status = 403
    typed = False


class UnrecognizedClientException(LambdaError):
    """Unknown access key id."""

    status = 403
    typed = False


class ExpiredTokenException(LambdaError):
    """The session token has expired."""

    status = 403
    typed = False


class ResourceNotFoundException(LambdaError):
    """The function, version, alias, layer or configuration does not exist."""

    status = 404
    message_key = "Message"


class CodeSigningConfigNotFoundException(LambdaError):
    """The code signing configuration does not exist."""

    status = 404
    message_key = "Message"


class ProvisionedConcurrencyConfigNotFoundException(LambdaError):
    """No provisioned concurrency is configured for this qualifier."""

    status = 404


class UnknownOperationException(LambdaError):
    """No operation of the service model has this method and path."""

    status = 404
    typed = False


class ResourceConflictException(LambdaError):
    """The resource exists already, is in a state that forbids this, or is owned by another writer."""

    status = 409


class UntypedResourceConflictException(ResourceConflictException):
    """The same error where AWS was recorded to leave ``Type`` out."""

    code = "ResourceConflictException"
    typed = False


class PreconditionFailedException(LambdaError):
    """The RevisionId given is not the latest."""

    status = 412


class RequestEntityTooLargeException(LambdaError):
    """Request or archive over its size limit. Unmodelled at AWS; the body key depends on the operation."""

    status = 413
    typed = False
    message_key = "Message"


class UnsupportedMediaTypeException(LambdaError):
    """The content type of the Invoke body is not JSON."""

    status = 415


class TooManyRequestsException(LambdaError):
    """Throttled. ``reason`` is one of the ThrottleReason enum of the service model."""

    status = 429
    retryable = True

    def __init__(self, reason: str, *, message: str = "Rate Exceeded.", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds, sent as Retry-After where set."""

    def body(self) -> dict[str, str | None]:
        return {"Reason": self.reason, "Type": "User", "message": self.message}

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class ServiceException(LambdaError):
    """The platform failed; the request may be sent again."""

    status = 500
    retryable = True
    message_key = "Message"


class NotImplementedOperation(LambdaError):
    """A routed operation that this version of Kappa does not implement; ``kappa api coverage`` lists them."""

    code = "NotImplementedException"
    status = 501
    message_key = "Message"


class ResourceNotReadyException(LambdaError):
    """The function cannot be invoked yet."""

    status = 502
    retryable = True


class InvalidRuntimeException(LambdaError):
    """The runtime of the function does not exist here."""

    status = 502
    message_key = "Message"


class EnvironmentLostException(LambdaError):
    """What ran the function is gone. Never dispatched again: it may have had effects."""

    code = "ServiceException"
    status = 502
    retryable = True
    message_key = "Message"


class ServiceUnavailableException(LambdaError):
    """No environment became available within the bounded wait; the message names the cause."""

    status = 503
    retryable = True
    message_key = "Message"
