from typing import Any
def findings(sources) -> list[dict[str, Any]]:
    return []
