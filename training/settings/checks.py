"""Check one setting."""


def require(holds: bool, name: str, value: object, instead: str) -> None:
    """Refuse a setting unless the condition `holds`.

    Raises:
        ValueError: ``<name> is <value>: use <instead>.``
    """
    if not holds:
        shown = repr(value)
        raise ValueError(f"{name} is {shown if len(shown) <= 200 else f'{shown[:200]}...'}: use {instead}.")
