"""What cannot be done, in the shape in which OpenAI's clients expect to be told."""

from __future__ import annotations

from typing import Any

from draftlink.host.plain import printable


class ApiError(Exception):
    """A request that is answered with an error; ``param`` names what of it is to blame."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(text)
        self.status, self.param, self.code = status, param, code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": printable(str(self)),
                "type": kinds.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }


def unsupported(param: str, text: str) -> ApiError:
    """What is asked for and is not to be had."""
    return ApiError(400, f"{param}: {text}", param=param, code="unsupported_parameter")


def wrong(param: str, text: str) -> ApiError:
    """A value that cannot be."""
    return ApiError(400, f"{param}: {text}", param=param, code="invalid_value")
