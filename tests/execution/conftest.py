from tests.fixtures_organisms import shipped

__all__ = ["shipped"]
