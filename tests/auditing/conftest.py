from __future__ import annotations

from tests.fixtures_organisms import shipped

__all__ = ["shipped"]
