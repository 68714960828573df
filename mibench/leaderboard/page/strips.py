from typing import Any
def strips(sources) -> list[dict[str, Any]]:
    return []
