"""Where code can run in a sandbox."""

from __future__ import annotations

import pytest

from alignmend.errors import SandboxError
from alignmend.evaluation.utility.sandbox import check_sandbox


def _problem() -> str | None:
    try:
        check_sandbox()
    except SandboxError as error:
        return str(error)
    return None


needs_sandbox = pytest.mark.skipif(_problem() is not None, reason=str(_problem()))
